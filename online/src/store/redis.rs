//! Redis or Valkey as an online store in memory: one hash per record, under
//! `PREFIX:{GROUP}:IDENTIFIER`.
//!
//! | field | what |
//! |---|---|
//! | `t` | event time: nanoseconds since year 0, 24 digits, so that text order is time order |
//! | `x` | when the record stops being there, in the same form; the key expires then, too |
//! | `f:NAME` | every value that is not null; none after a soft delete |
//!
//! Commands alone cannot compare and write: a short script does, on the server, in one step. It
//! touches one key, so it runs in a cluster as well.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use featureflight_catalog::{Error, Instant, Result};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, FromRedisValue, Pipeline, RedisError, Script, Value};

use super::{BatchLimit, OnlineStore, Outcome, StoredRecord, Trouble, stale};
use crate::group::Layout;
use crate::record::{Operation, Record};

/// KEYS[1]; ARGV: the event time, now, `put` or `remove`, the time to live in milliseconds or an
/// empty text, then fields and values. Answers 1 when it counts, 0 when what is there is as new.
const WRITE: &str = r"
local stored = redis.call('HMGET', KEYS[1], 't', 'x')
if stored[1] and stored[1] >= ARGV[1] and not (stored[2] and stored[2] <= ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[3] == 'put' then
  for at = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
  if ARGV[4] ~= '' then redis.call('PEXPIREAT', KEYS[1], ARGV[4]) end
end
return 1
";

/// Keys looked at by one step of [`OnlineStore::clear`].
const SCANNED_AT_ONCE: usize = 1_000;

const EVENT_TIME: &str = "t";
const EXPIRY: &str = "x";
const FEATURE: &str = "f:";

/// A Redis server as an online store.
#[derive(Clone)]
pub struct RedisStore {
    connection: ConnectionManager,
    script: Arc<Script>,
    prefix: String,
    timeout: Duration,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// `url` is `redis://` or `rediss://`, with user and password where needed. The connection is
    /// made on first use and again after it breaks.
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that is none.
    pub fn new(url: &str, prefix: &str, timeout: Duration) -> Result<Self> {
        let wrong = |error: RedisError| {
            // The URL may hold a password: it is not repeated.
            Error::invalid(format!(
                "the URL of the Redis server is not usable: {error}"
            ))
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_number_of_retries(0);
        // The client asks rustls for its default, which panics where several are compiled in and
        // none was chosen. An error says that one was.
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .ok();
        let client = Client::open(url).map_err(wrong)?;
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?,
            script: Arc::new(Script::new(WRITE)),
            prefix: prefix.to_owned(),
            timeout,
        })
    }

    fn key(&self, group: &str, identifier: &str) -> String {
        format!("{}:{{{group}}}:{identifier}", self.prefix)
    }

    async fn run(&self, records: &[Record]) -> Result<Vec<Outcome>, RedisError> {
        let now = sortable(Instant::now());
        let mut pipeline = Pipeline::new();
        pipeline.ignore_errors();
        for record in records {
            let call = pipeline.cmd("EVALSHA");
            call.arg(self.script.get_hash()).arg(1);
            call.arg(self.key(record.group(), &record.identifier()));
            call.arg(sortable(record.event_time())).arg(&now);
            call.arg(if record.operation() == Operation::HardDelete {
                "remove"
            } else {
                "put"
            });
            let expiry = record.expiry();
            call.arg(expiry.map(unix_millis).unwrap_or_default());
            call.arg(EVENT_TIME).arg(sortable(record.event_time()));
            if let Some(expiry) = expiry {
                call.arg(EXPIRY).arg(sortable(expiry));
            }
            if !record.operation().is_delete() {
                for (name, text) in record.values() {
                    call.arg(format!("{FEATURE}{name}")).arg(text);
                }
            }
        }
        let mut connection = self.connection.clone();
        let answers: Vec<Value> = pipeline.query_async(&mut connection).await?;
        if answers.iter().any(is_unknown_script) {
            // A server that was restarted has forgotten it.
            self.script
                .prepare_invoke()
                .load_async(&mut connection)
                .await?;
            let answers: Vec<Value> = pipeline.query_async(&mut connection).await?;
            return Ok(outcomes(records, answers));
        }
        Ok(outcomes(records, answers))
    }

    /// # Errors
    /// `Unavailable` when the server does not answer, or refuses.
    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        let mut connection = self.connection.clone();
        let asked = tokio::time::timeout(self.timeout, command.query_async(&mut connection)).await;
        asked
            .map_err(|_| away("it does not answer"))?
            .map_err(|error| away(&error.to_string()))
    }

    async fn fetch(
        &self,
        group: &str,
        identifiers: &[String],
    ) -> Result<Vec<Vec<(String, String)>>, RedisError> {
        let mut pipeline = Pipeline::new();
        for identifier in identifiers {
            pipeline.cmd("HGETALL").arg(self.key(group, identifier));
        }
        pipeline.query_async(&mut self.connection.clone()).await
    }
}

fn away(why: &str) -> Error {
    Error::unavailable(format!("the Redis server cannot be used: {why}"))
}

fn outcomes(records: &[Record], answers: Vec<Value>) -> Vec<Outcome> {
    let outcome = |(record, answer): (&Record, Value)| match answer {
        Value::Int(1) => Outcome::Done,
        Value::Int(0) if record.operation() == Operation::HardDelete => stale(),
        Value::Int(0) => Outcome::Done,
        Value::ServerError(error) => failed(&error.into()),
        other => Outcome::Retry(Trouble::Away, format!("Redis answered {other:?}")),
    };
    let mut outcomes: Vec<_> = records.iter().zip(answers).map(outcome).collect();
    let missing = || Outcome::Retry(Trouble::Away, "Redis answered too little".to_owned());
    outcomes.resize_with(records.len(), missing);
    outcomes
}

fn is_unknown_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// Nothing a server says is about one record alone: all of them are well-formed hashes.
fn failed(error: &RedisError) -> Outcome {
    let trouble = match error.kind() {
        ErrorKind::AuthenticationFailed => Trouble::Denied,
        _ => match error.code() {
            Some("NOAUTH" | "NOPERM" | "WRONGPASS") => Trouble::Denied,
            Some("OOM") => Trouble::Throttled,
            _ => Trouble::Away,
        },
    };
    Outcome::Retry(trouble, error.to_string())
}

/// 24 digits whose text order is the order in time, for all instants there can be.
fn sortable(instant: Instant) -> String {
    /// More than from year 0 back to the earliest instant.
    const ZERO: i128 = 100_000_000_000_000_000_000_000;
    format!("{:024}", instant.total_nanos() + ZERO)
}

fn from_sortable(text: &str) -> Option<Instant> {
    Instant::from_total_nanos(text.parse::<i128>().ok()? - 100_000_000_000_000_000_000_000)
}

/// Rounded up, and never negative, which Redis does not take: both are past anyway.
fn unix_millis(instant: Instant) -> String {
    let millis = -(-instant.total_nanos()).div_euclid(1_000_000);
    millis.max(1).to_string()
}

#[async_trait]
impl OnlineStore for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn limit(&self) -> BatchLimit {
        BatchLimit {
            records: 256,
            bytes: 4 << 20,
            calls: 4,
        }
    }

    async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        let all = |outcome: Outcome| vec![outcome; records.len()];
        match tokio::time::timeout(self.timeout, self.run(records)).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => all(failed(&error)),
            Err(_) => all(Outcome::Retry(
                Trouble::Away,
                "Redis does not answer".to_owned(),
            )),
        }
    }

    async fn get(
        &self,
        group: &Arc<Layout>,
        identifiers: &[String],
    ) -> Result<Vec<Option<StoredRecord>>> {
        if identifiers.is_empty() {
            return Ok(Vec::new()); // Redis knows no empty pipeline.
        }
        let fetched = tokio::time::timeout(self.timeout, self.fetch(&group.group, identifiers))
            .await
            .map_err(|_| away("it does not answer"))?
            .map_err(|error| away(&error.to_string()))?;
        let now = Instant::now();
        let records = identifiers.iter().zip(fetched);
        Ok(records
            .map(|(identifier, fields)| stored(identifier, fields, now))
            .collect())
    }

    async fn forget(&self, group: &str, identifier: &str) -> Result<bool> {
        let removed: u64 = self
            .ask(redis::cmd("UNLINK").arg(self.key(group, identifier)))
            .await?;
        Ok(removed > 0)
    }

    /// Walks the keys of the database, those of others too: Redis has no list of a group's.
    async fn clear(&self, group: &str) -> Result<()> {
        let keys = format!("{}*", literal(&self.key(group, "")));
        let mut cursor: u64 = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(&keys)
                .arg("COUNT")
                .arg(SCANNED_AT_ONCE);
            let (next, found): (u64, Vec<Vec<u8>>) = self.ask(&scan).await?;
            if !found.is_empty() {
                let _: u64 = self.ask(redis::cmd("UNLINK").arg(found)).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

/// `text` as a pattern that matches it alone.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

/// `None` for a record that is not there, deleted or expired.
fn stored(identifier: &str, fields: Vec<(String, String)>, now: Instant) -> Option<StoredRecord> {
    let expiry = fields.iter().find(|(name, _)| name == EXPIRY);
    let expires_at = expiry.and_then(|(_, text)| from_sortable(text));
    let features = fields.into_iter();
    let features =
        features.filter_map(|(name, text)| Some((name.strip_prefix(FEATURE)?.to_owned(), text)));
    let mut values: Vec<_> = features.collect();
    values.sort();
    let there = !values.is_empty() && expires_at.is_none_or(|at| at > now);
    there.then(|| StoredRecord {
        identifier: identifier.to_owned(),
        values,
        expires_at,
    })
}
