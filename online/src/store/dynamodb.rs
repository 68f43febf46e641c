//! DynamoDB as an online store: one table for all groups of a warehouse, one item per record,
//! written with a condition on the event time, so that writers in any order end alike.
//!
//! | attribute | type | what |
//! |---|---|---|
//! | `record_identifier` | S, partition key | |
//! | `feature_group` | S, sort key | |
//! | `event_time` | N | nanoseconds since 1970-01-01T00:00:00Z |
//! | `expires_nanos` | N | when the record stops being there, exactly |
//! | `expires_at` | N | the same in whole seconds, rounded up: the table's TTL attribute |
//! | `features` | M of S | every value that is not null; absent after a soft delete |
//!
//! `BatchWriteItem` takes no conditions and would let an older write win, so records go one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, DeleteRequest, KeySchemaElement, KeyType,
    KeysAndAttributes, ReturnValue, ScalarAttributeType, TimeToLiveSpecification, WriteRequest,
};
use featureflight_catalog::{Error, Instant, Result};
use futures::future::join_all;

use super::{BatchLimit, OnlineStore, Outcome, StoredRecord, stale, trouble};
use crate::group::Layout;
use crate::record::{Operation, Record};

const IDENTIFIER: &str = "record_identifier";
const GROUP: &str = "feature_group";
const EVENT_TIME: &str = "event_time";
const EXPIRES_NANOS: &str = "expires_nanos";
const EXPIRES_AT: &str = "expires_at";
const FEATURES: &str = "features";

/// What counts as newer: nothing there, something older, or something expired.
const NEWER: &str = "attribute_not_exists(event_time) OR event_time < :t OR expires_nanos <= :now";

/// Keys of one `BatchGetItem`.
const GET_BATCH: usize = 100;
const ATTEMPTS: u32 = 6;
/// Requests of one `BatchWriteItem`.
const DELETE_BATCH: usize = 25;
/// Records sent side by side in one call of [`OnlineStore::write`].
const SIDE_BY_SIDE: usize = 16;

/// A DynamoDB table as an online store.
#[derive(Debug)]
pub struct DynamoDbStore {
    client: Client,
    table: String,
    calls: usize,
}

impl DynamoDbStore {
    /// `timeout` bounds every call, `calls` the batches of [`OnlineStore::write`] in flight.
    pub fn new(config: &SdkConfig, table: &str, timeout: Duration, calls: usize) -> Self {
        let timeouts = TimeoutConfig::builder().operation_timeout(timeout).build();
        let config = aws_sdk_dynamodb::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        Self {
            client: Client::from_conf(config),
            table: table.to_owned(),
            calls,
        }
    }

    /// Makes the table, billed per request, with its time to live switched on, unless it is there.
    ///
    /// # Errors
    /// `Unavailable` with what DynamoDB said.
    pub async fn create_table(&self) -> Result<()> {
        let key = |name, kind| {
            let key = KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build();
            key.map_err(|error| self.failed("describe a key", &error))
        };
        let text = |name| {
            let attribute = AttributeDefinition::builder()
                .attribute_name(name)
                .attribute_type(ScalarAttributeType::S)
                .build();
            attribute.map_err(|error| self.failed("describe a key", &error))
        };
        let created = self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key(IDENTIFIER, KeyType::Hash)?)
            .key_schema(key(GROUP, KeyType::Range)?)
            .attribute_definitions(text(IDENTIFIER)?)
            .attribute_definitions(text(GROUP)?)
            .send()
            .await;
        match created {
            Ok(_) => {}
            Err(error) if error.code() == Some("ResourceInUseException") => return Ok(()),
            Err(error) => return Err(self.failed("create", &error)),
        }
        self.wait_until_active().await?;
        let ttl = TimeToLiveSpecification::builder()
            .attribute_name(EXPIRES_AT)
            .enabled(true)
            .build()
            .map_err(|error| self.failed("describe the time to live of", &error))?;
        self.client
            .update_time_to_live()
            .table_name(&self.table)
            .time_to_live_specification(ttl)
            .send()
            .await
            .map_err(|error| self.failed("set the time to live of", &error))?;
        Ok(())
    }

    async fn wait_until_active(&self) -> Result<()> {
        for _ in 0..120 {
            let described = self
                .client
                .describe_table()
                .table_name(&self.table)
                .send()
                .await;
            let described = described.map_err(|error| self.failed("describe", &error))?;
            let status = described.table().and_then(|table| table.table_status());
            if status.is_some_and(|status| status.as_str() == "ACTIVE") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Err(Error::unavailable(format!(
            "DynamoDB table '{}' is not active after a minute",
            self.table
        )))
    }

    fn failed(&self, what: &str, error: &(impl std::error::Error + 'static)) -> Error {
        let table = &self.table;
        let error = DisplayErrorContext(error);
        Error::unavailable(format!(
            "DynamoDB could not {what} table '{table}': {error}"
        ))
    }

    async fn write_one(&self, record: &Record) -> Outcome {
        let time = number(record.event_time().total_nanos());
        let now = number(Instant::now().total_nanos());
        if record.operation() == Operation::HardDelete {
            let deleted = self
                .client
                .delete_item()
                .table_name(&self.table)
                .set_key(Some(key(record.group(), &record.identifier())))
                .condition_expression(NEWER)
                .expression_attribute_values(":t", time)
                .expression_attribute_values(":now", now)
                .send()
                .await;
            return match deleted {
                Ok(_) => Outcome::Done,
                Err(error) if is_conditional(error.code()) => stale(),
                Err(error) => trouble::of_call(&error),
            };
        }
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item(record)))
            .condition_expression(NEWER)
            .expression_attribute_values(":t", time)
            .expression_attribute_values(":now", now)
            .send()
            .await;
        match put {
            Ok(_) => Outcome::Done,
            Err(error) if is_conditional(error.code()) => Outcome::Done,
            Err(error) => trouble::of_call(&error),
        }
    }

    async fn get_batch(
        &self,
        keys: Vec<Key>,
        found: &mut HashMap<String, StoredRecord>,
    ) -> Result<()> {
        let mut wanted = keys;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
            }
            let asked = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| self.failed("read", &error))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, asked)
                .send()
                .await
                .map_err(|error| self.failed("read", &error))?;
            let items = answer
                .responses()
                .and_then(|tables| tables.get(&self.table));
            for item in items.into_iter().flatten() {
                if let Some(record) = stored(item, Instant::now()) {
                    found.insert(record.identifier.clone(), record);
                }
            }
            let left = answer
                .unprocessed_keys()
                .and_then(|tables| tables.get(&self.table));
            wanted = left.map(|left| left.keys().to_vec()).unwrap_or_default();
            if wanted.is_empty() {
                return Ok(());
            }
        }
        Err(self.unprocessed("keys", ATTEMPTS))
    }
}

impl DynamoDbStore {
    async fn delete_batch(&self, keys: &[Key]) -> Result<()> {
        let request = |key: &Key| {
            let delete = DeleteRequest::builder().set_key(Some(key.clone())).build();
            let delete = delete.map_err(|error| self.failed("delete from", &error))?;
            Ok(WriteRequest::builder().delete_request(delete).build())
        };
        let mut wanted = keys.iter().map(request).collect::<Result<Vec<_>>>()?;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(50 << attempt)).await;
            }
            let answer = self
                .client
                .batch_write_item()
                .request_items(&self.table, wanted)
                .send()
                .await
                .map_err(|error| self.failed("delete from", &error))?;
            let left = answer.unprocessed_items();
            wanted = left
                .and_then(|tables| tables.get(&self.table))
                .cloned()
                .unwrap_or_default();
            if wanted.is_empty() {
                return Ok(());
            }
        }
        Err(self.unprocessed("items", ATTEMPTS))
    }

    fn unprocessed(&self, what: &str, times: u32) -> Error {
        Error::unavailable(format!(
            "DynamoDB left {what} of table '{}' unprocessed {times} times: try again later",
            self.table
        ))
    }
}

type Key = HashMap<String, AttributeValue>;

fn is_conditional(code: Option<&str>) -> bool {
    code == Some("ConditionalCheckFailedException")
}

fn number(value: i128) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn key(group: &str, identifier: &str) -> Key {
    HashMap::from([
        (
            IDENTIFIER.to_owned(),
            AttributeValue::S(identifier.to_owned()),
        ),
        (GROUP.to_owned(), AttributeValue::S(group.to_owned())),
    ])
}

fn item(record: &Record) -> Key {
    let mut item = key(record.group(), &record.identifier());
    item.insert(
        EVENT_TIME.to_owned(),
        number(record.event_time().total_nanos()),
    );
    if let Some(expiry) = record.expiry() {
        let nanos = expiry.total_nanos();
        item.insert(EXPIRES_NANOS.to_owned(), number(nanos));
        let seconds = -(-nanos).div_euclid(1_000_000_000);
        item.insert(EXPIRES_AT.to_owned(), number(seconds));
    }
    if !record.operation().is_delete() {
        let values = record.values();
        let features = values.map(|(name, text)| (name.to_owned(), AttributeValue::S(text)));
        item.insert(FEATURES.to_owned(), AttributeValue::M(features.collect()));
    }
    item
}

/// The record of an item; `None` for one that is deleted or expired.
fn stored(item: &Key, now: Instant) -> Option<StoredRecord> {
    let nanos = item.get(EXPIRES_NANOS).and_then(|value| value.as_n().ok());
    let expires_at = nanos.and_then(|nanos| Instant::from_total_nanos(nanos.parse().ok()?));
    if expires_at.is_some_and(|at| at <= now) {
        return None;
    }
    let features = item.get(FEATURES)?.as_m().ok()?.iter();
    let mut values: Vec<_> = features
        .filter_map(|(name, value)| Some((name.clone(), value.as_s().ok()?.clone())))
        .collect();
    values.sort();
    Some(StoredRecord {
        identifier: item.get(IDENTIFIER)?.as_s().ok()?.clone(),
        values,
        expires_at,
    })
}

#[async_trait]
impl OnlineStore for DynamoDbStore {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn limit(&self) -> BatchLimit {
        BatchLimit {
            records: SIDE_BY_SIDE,
            bytes: 4 << 20,
            calls: self.calls,
        }
    }

    async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        join_all(records.iter().map(|record| self.write_one(record))).await
    }

    async fn get(
        &self,
        group: &Arc<Layout>,
        identifiers: &[String],
    ) -> Result<Vec<Option<StoredRecord>>> {
        let mut wanted: Vec<String> = identifiers.to_vec();
        wanted.sort();
        wanted.dedup();
        let mut found = HashMap::new();
        for chunk in wanted.chunks(GET_BATCH) {
            let keys = chunk.iter().map(|identifier| key(&group.group, identifier));
            self.get_batch(keys.collect(), &mut found).await?;
        }
        Ok(identifiers
            .iter()
            .map(|identifier| found.get(identifier).cloned())
            .collect())
    }

    async fn forget(&self, group: &str, identifier: &str) -> Result<bool> {
        let deleted = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(group, identifier)))
            .return_values(ReturnValue::AllOld)
            .send()
            .await
            .map_err(|error| self.failed("delete from", &error))?;
        Ok(deleted.attributes().is_some_and(|item| !item.is_empty()))
    }

    /// Reads the whole table: its partition key is the record, so that no record is hot.
    async fn clear(&self, group: &str) -> Result<()> {
        let mut from = None;
        loop {
            let page = self
                .client
                .scan()
                .table_name(&self.table)
                .consistent_read(true)
                .filter_expression("feature_group = :g")
                .expression_attribute_values(":g", AttributeValue::S(group.to_owned()))
                .projection_expression("record_identifier, feature_group")
                .set_exclusive_start_key(from)
                .send()
                .await
                .map_err(|error| self.failed("scan", &error))?;
            for keys in page.items().chunks(DELETE_BATCH) {
                self.delete_batch(keys).await?;
            }
            from = page.last_evaluated_key().cloned();
            if from.is_none() {
                return Ok(());
            }
        }
    }
}
