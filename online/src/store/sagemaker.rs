//! The SageMaker Feature Store runtime. Puts go in batches where the service and the role allow
//! `BatchWriteRecord`, else one by one; deletes always go one by one. The SDK never retries: the
//! outbox does.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sagemakerfeaturestoreruntime::Client;
use aws_sdk_sagemakerfeaturestoreruntime::error::ProvideErrorMetadata;
use aws_sdk_sagemakerfeaturestoreruntime::types::{
    BatchGetRecordIdentifier, BatchWriteRecordEntry, BatchWriteRecordError, DeletionMode,
    ExpirationTimeResponse, FeatureValue, TtlDuration, TtlDurationUnit,
};
use featureflight_catalog::{Error, Instant, Kind, Result};
use futures::future::join_all;

use super::{BatchLimit, OnlineStore, Outcome, StoredRecord, Trouble, trouble};
use crate::group::{Layout, Ttl, TtlUnit};
use crate::record::{Operation, Record};

/// Entries of one `BatchWriteRecord`.
const BATCH: usize = 25;
/// Identifiers of one `BatchGetRecord`.
const GET_BATCH: usize = 100;
const GET_ATTEMPTS: u32 = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The runtime of one account and region.
#[derive(Debug)]
pub struct SageMakerStore {
    client: Client,
    /// False once the service or the role turned out not to have `BatchWriteRecord`.
    batches: AtomicBool,
    calls: usize,
}

impl SageMakerStore {
    /// `timeout` bounds every call, `calls` those in flight.
    pub fn new(config: &SdkConfig, timeout: Duration, calls: usize) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .operation_timeout(timeout)
            .build();
        let config = aws_sdk_sagemakerfeaturestoreruntime::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        Self {
            client: Client::from_conf(config),
            batches: AtomicBool::new(true),
            calls,
        }
    }

    async fn put_all(&self, puts: &[&Record]) -> Vec<Outcome> {
        if puts.len() > 1 && self.batches.load(Ordering::Relaxed) {
            return self.put_batch(puts).await;
        }
        self.put_each(puts).await
    }

    async fn put_each(&self, puts: &[&Record]) -> Vec<Outcome> {
        join_all(puts.iter().map(|record| self.put(record))).await
    }

    async fn put(&self, record: &Record) -> Outcome {
        let sent = self
            .client
            .put_record()
            .feature_group_name(record.group())
            .set_record(Some(values(record)))
            .set_ttl_duration(record.block.ttl.map(ttl))
            .send()
            .await;
        match sent {
            Ok(_) => Outcome::Done,
            Err(failure) => trouble::of_call(&failure),
        }
    }

    async fn put_batch(&self, puts: &[&Record]) -> Vec<Outcome> {
        let sent = self
            .client
            .batch_write_record()
            .set_entries(Some(puts.iter().map(|record| entry(record)).collect()))
            .send()
            .await;
        let failure = match sent {
            Ok(answer) => {
                return batch_outcomes(puts, answer.errors(), answer.unprocessed_entries());
            }
            Err(failure) => failure,
        };
        let status = failure
            .raw_response()
            .map(|response| response.status().as_u16());
        let unknown = matches!(status, Some(404 | 405 | 501))
            || failure
                .code()
                .is_some_and(|code| code.starts_with("UnknownOperation"));
        match trouble::of_call(&failure) {
            // One bad entry may fail the call, and a role may have the old actions alone.
            outcome @ (Outcome::Refused(_) | Outcome::Retry(Trouble::Denied, _)) => {
                let outcomes = self.put_each(puts).await;
                let denied = matches!(outcome, Outcome::Retry(Trouble::Denied, _));
                let worked = outcomes.contains(&Outcome::Done);
                if worked && (denied || unknown) && self.batches.swap(false, Ordering::Relaxed) {
                    let reason = format!("{outcome:?}");
                    tracing::warn!(reason, "BatchWriteRecord cannot be used, PutRecord is");
                }
                outcomes
            }
            outcome => vec![outcome; puts.len()],
        }
    }

    async fn delete(&self, record: &Record) -> Outcome {
        let mode = match record.operation() {
            Operation::HardDelete => DeletionMode::HardDelete,
            Operation::SoftDelete | Operation::Put => DeletionMode::SoftDelete,
        };
        let hard = mode == DeletionMode::HardDelete;
        let sent = self
            .client
            .delete_record()
            .feature_group_name(record.group())
            .record_identifier_value_as_string(record.identifier())
            .event_time(record.event_time_text())
            .deletion_mode(mode)
            .send()
            .await;
        match sent {
            Ok(_) => Outcome::Done,
            Err(failure) => match trouble::of_call(&failure) {
                // A hard delete that is not newer is a ValidationError like any other; its text
                // alone tells it apart.
                Outcome::Refused(reason) if hard && is_stale(&reason) => Outcome::Stale(reason),
                outcome => outcome,
            },
        }
    }
}

fn is_stale(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    let names_time = reason.contains("eventtime") || reason.contains("event time");
    names_time
        && ["later", "newer", "greater", "older", "earlier"]
            .iter()
            .any(|word| reason.contains(word))
}

fn values(record: &Record) -> Vec<FeatureValue> {
    let value = |(name, text): (&str, String)| {
        FeatureValue::builder()
            .feature_name(name)
            .value_as_string(text)
            .build()
    };
    record.values().map(value).collect()
}

fn entry(record: &Record) -> BatchWriteRecordEntry {
    BatchWriteRecordEntry::builder()
        .feature_group_name(record.group())
        .set_record(Some(values(record)))
        .set_ttl_duration(record.block.ttl.map(ttl))
        .build()
}

fn ttl(ttl: Ttl) -> TtlDuration {
    let unit = match ttl.unit {
        TtlUnit::Seconds => TtlDurationUnit::Seconds,
        TtlUnit::Minutes => TtlDurationUnit::Minutes,
        TtlUnit::Hours => TtlDurationUnit::Hours,
        TtlUnit::Days => TtlDurationUnit::Days,
        TtlUnit::Weeks => TtlDurationUnit::Weeks,
    };
    let value = i32::try_from(ttl.value).unwrap_or(i32::MAX);
    TtlDuration::builder().unit(unit).value(value).build()
}

/// An answer names what failed by repeating the entry: by its identifier here, which differs
/// between the records of a call. What cannot be matched leaves every record in doubt.
fn batch_outcomes(
    puts: &[&Record],
    errors: &[BatchWriteRecordError],
    unprocessed: &[BatchWriteRecordEntry],
) -> Vec<Outcome> {
    let places: HashMap<String, usize> = puts
        .iter()
        .enumerate()
        .map(|(at, record)| (record.identifier(), at))
        .collect();
    let layout = puts.first().map(|record| &record.block.layout);
    let name = layout.map(|layout| layout.schema.field(layout.record_identifier).name());
    let place = |entry: Option<&BatchWriteRecordEntry>| {
        let mut values = entry?.record().iter();
        let found = values.find(|value| value.feature_name() == name.map(String::as_str))?;
        places.get(found.value_as_string()?).copied()
    };
    let mut outcomes = vec![Outcome::Done; puts.len()];
    let failed = errors.iter().map(|error| {
        let code = error.error_code().unwrap_or("an error without a code");
        let reason = match error.error_message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
        // An error code without its HTTP status: what is not known to pass is for good.
        (
            place(error.entry()),
            trouble::of_error(code, Some(400), reason),
        )
    });
    let later = unprocessed.iter().map(|entry| {
        let outcome = Outcome::Retry(
            Trouble::Throttled,
            "the service left it unprocessed".to_owned(),
        );
        (place(Some(entry)), outcome)
    });
    for (place, outcome) in failed.chain(later) {
        let Some(place) = place else {
            let reason = "BatchWriteRecord reports an entry that was not sent".to_owned();
            return vec![Outcome::Retry(Trouble::Away, reason); puts.len()];
        };
        outcomes[place] = outcome;
    }
    outcomes
}

#[async_trait]
impl OnlineStore for SageMakerStore {
    fn name(&self) -> &'static str {
        "sagemaker"
    }

    fn limit(&self) -> BatchLimit {
        let batches = self.batches.load(Ordering::Relaxed);
        BatchLimit {
            records: if batches { BATCH } else { 1 },
            bytes: 4 << 20,
            calls: self.calls,
        }
    }

    fn writes_offline(&self) -> bool {
        true
    }

    async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        let (deletes, puts): (Vec<_>, Vec<_>) =
            (0..records.len()).partition(|at| records[*at].operation().is_delete());
        let puts: Vec<(usize, &Record)> = puts.into_iter().map(|at| (at, &records[at])).collect();
        let put_records: Vec<&Record> = puts.iter().map(|(_, record)| *record).collect();
        let chunks = put_records.chunks(BATCH).map(|chunk| self.put_all(chunk));
        let deleted = deletes.iter().map(|at| self.delete(&records[*at]));
        let (put, deleted) = futures::join!(join_all(chunks), join_all(deleted));
        let mut outcomes = vec![Outcome::Done; records.len()];
        for ((at, _), outcome) in puts.iter().zip(put.into_iter().flatten()) {
            outcomes[*at] = outcome;
        }
        for (at, outcome) in deletes.iter().zip(deleted) {
            outcomes[*at] = outcome;
        }
        outcomes
    }

    async fn get(
        &self,
        group: &Arc<Layout>,
        identifiers: &[String],
    ) -> Result<Vec<Option<StoredRecord>>> {
        let mut found: HashMap<String, StoredRecord> = HashMap::new();
        let mut wanted: Vec<String> = identifiers.to_vec();
        wanted.sort();
        wanted.dedup();
        for chunk in wanted.chunks(GET_BATCH) {
            self.get_batch(&group.group, chunk.to_vec(), &mut found)
                .await?;
        }
        Ok(identifiers
            .iter()
            .map(|identifier| found.get(identifier).cloned())
            .collect())
    }
}

impl SageMakerStore {
    /// Asks until every identifier was looked at.
    async fn get_batch(
        &self,
        group: &str,
        mut wanted: Vec<String>,
        found: &mut HashMap<String, StoredRecord>,
    ) -> Result<()> {
        for attempt in 0..GET_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
            }
            let asked = BatchGetRecordIdentifier::builder()
                .feature_group_name(group)
                .set_record_identifiers_value_as_string(Some(wanted))
                .build();
            let answer = self
                .client
                .batch_get_record()
                .identifiers(asked)
                .expiration_time_response(ExpirationTimeResponse::Enabled)
                .send()
                .await
                .map_err(|failure| unread(group, trouble::of_call(&failure)))?;
            if let Some(error) = answer.errors().first() {
                let code = error.error_code().unwrap_or_default();
                let reason = format!("{code}: {}", error.error_message().unwrap_or_default());
                return Err(unread(group, trouble::of_error(code, Some(400), reason)));
            }
            for record in answer.records() {
                let identifier = record.record_identifier_value_as_string();
                let identifier = identifier.unwrap_or_default().to_owned();
                let text = |value: &FeatureValue| {
                    let name = value.feature_name()?.to_owned();
                    Some((name, value.value_as_string()?.to_owned()))
                };
                let stored = StoredRecord {
                    values: record.record().iter().filter_map(text).collect(),
                    expires_at: record.expires_at().and_then(|at| Instant::parse(at).ok()),
                    identifier: identifier.clone(),
                };
                found.insert(identifier, stored);
            }
            let left = answer.unprocessed_identifiers().iter();
            wanted = left
                .flat_map(|left| left.record_identifiers_value_as_string().iter().cloned())
                .collect();
            if wanted.is_empty() {
                return Ok(());
            }
        }
        Err(Error::unavailable(format!(
            "BatchGetRecord left records of feature group '{group}' unprocessed {GET_ATTEMPTS} times: \
             try again later"
        )))
    }
}

fn unread(group: &str, outcome: Outcome) -> Error {
    let (kind, reason) = match outcome {
        Outcome::Retry(Trouble::Denied, reason) => (Kind::PermissionDenied, reason),
        Outcome::Retry(_, reason) => (Kind::Unavailable, reason),
        Outcome::Refused(reason) | Outcome::Stale(reason) => (Kind::FailedPrecondition, reason),
        Outcome::Done => (Kind::Internal, "no reason".to_owned()),
    };
    let kind = if reason.starts_with("ResourceNotFound") {
        Kind::NotFound
    } else {
        kind
    };
    Error::new(
        kind,
        format!("the online store of feature group '{group}' cannot be read ({reason})"),
    )
}
