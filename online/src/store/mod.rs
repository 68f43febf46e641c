//! Online stores behind one trait. Which of them a group uses follows from where it lives.
//!
//! All keep one record per group and identifier, and decide alike: a put or a soft delete counts
//! when its event time is strictly newer than the stored one, a hard delete too, but it leaves
//! nothing behind, not even its event time. A record that has outlived its time to live is not
//! there.

pub mod dynamodb;
pub mod embedded;
pub mod redis;
pub mod sagemaker;
mod trouble;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use featureflight_catalog::{Error, Instant, Result};

use crate::group::Layout;
use crate::record::Record;

/// What became of one record that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The store has it, or had something as new before.
    Done,
    /// Refused because the store has a newer record: only a hard delete tells. A delete that was
    /// sent before may have been carried out then.
    Stale(String),
    /// Not now: sending it again may help.
    Retry(Trouble, String),
    /// Never: the reason is about this record.
    Refused(String),
}

/// Why a record has to be sent again, and with it how to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The store asks for fewer calls.
    Throttled,
    /// It fails or does not answer.
    Away,
    /// It does not let us in: credentials or permissions must be mended first.
    Denied,
}

/// What one call takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    pub records: usize,
    /// Of all records, measured as text.
    pub bytes: usize,
    /// The most calls worth making at once.
    pub calls: usize,
}

/// A record as an online store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    pub identifier: String,
    /// Name and text of every value that is not null, identifier and event time included.
    pub values: Vec<(String, String)>,
    /// When it stops being there, if known.
    pub expires_at: Option<Instant>,
}

#[async_trait]
pub trait OnlineStore: Send + Sync + fmt::Debug {
    /// Which store it is, for people.
    fn name(&self) -> &str;

    fn limit(&self) -> BatchLimit;

    /// Whether it writes the offline store too: what it refuses is in neither then.
    fn writes_offline(&self) -> bool {
        false
    }

    /// Sends records of one group with identifiers that differ; one outcome for each, in order.
    /// Never longer than its own time-out.
    async fn write(&self, records: &[Record]) -> Vec<Outcome>;

    /// All records of a group as they are now; `None` where the store cannot list them.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer.
    async fn list(&self, _group: &Arc<Layout>) -> Result<Option<Arc<dyn Records>>> {
        Ok(None)
    }

    /// The records that are there, one place for every identifier.
    ///
    /// # Errors
    /// `NotFound` for a group the store does not have, `Unavailable` when it does not answer.
    async fn get(
        &self,
        group: &Arc<Layout>,
        identifiers: &[String],
    ) -> Result<Vec<Option<StoredRecord>>>;

    /// Takes a record away with its event time, as if it had never been written; false when there was
    /// none. Nothing of the group is written meanwhile.
    ///
    /// # Errors
    /// `FailedPrecondition` for a store that another service keeps, `Unavailable` when it does not
    /// answer: it may be gone then.
    async fn forget(&self, _group: &str, _identifier: &str) -> Result<bool> {
        Err(not_ours(self.name()))
    }

    /// Takes all records of a group away so, a bounded number at once. Nothing of the group is written
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Self::forget`]: some may be gone then.
    async fn clear(&self, _group: &str) -> Result<()> {
        Err(not_ours(self.name()))
    }
}

fn not_ours(store: &str) -> Error {
    Error::precondition(format!(
        "records of the store '{store}' are not this server's to erase"
    ))
}

/// The records of a group at one moment, by identifier.
pub trait Records: Send + Sync + fmt::Debug {
    /// The first `limit` records behind `after`, at least one if there are any. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the store fails.
    fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<StoredRecord>>;
}

/// What decides between two versions of a record where the store does not do it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write it in place of what is there.
    Replace,
    /// What is there stays.
    Keep,
    /// Take away what is there.
    Remove,
    /// A hard delete that is not newer.
    Stale,
}

/// `stored` is the event time of what is there, `None` for nothing or something expired.
pub(crate) fn decide(record: &Record, stored: Option<Instant>) -> Decision {
    use crate::record::Operation::{HardDelete, Put, SoftDelete};
    let newer = stored.is_none_or(|stored| record.event_time() > stored);
    match (record.operation(), newer) {
        (Put | SoftDelete, true) => Decision::Replace,
        (Put | SoftDelete, false) => Decision::Keep,
        (HardDelete, true) => Decision::Remove,
        (HardDelete, false) => Decision::Stale,
    }
}

pub(crate) fn stale() -> Outcome {
    Outcome::Stale("the hard delete is not newer than the stored record".to_owned())
}
