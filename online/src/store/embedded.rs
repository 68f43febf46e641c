//! The embedded online store: one redb file, no server. A call is one durable transaction.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use featureflight_catalog::{Error, Instant, Result};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::{
    BatchLimit, Decision, OnlineStore, Outcome, Records, StoredRecord, Trouble, decide, stale,
};
use crate::group::Layout;
use crate::record::Record;

/// (group, identifier) to a [`Stored`] as JSON.
const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");

/// Records of one transaction of [`OnlineStore::clear`].
const CLEARED_AT_ONCE: usize = 10_000;

/// A record, or the mark of a soft delete.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    /// Microseconds since the epoch and 0 to 999 nanoseconds.
    event_time: (i64, u16),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<(i64, u16)>,
    /// `None` after a soft delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    values: Option<Vec<(String, String)>>,
}

impl Stored {
    fn of(record: &Record) -> Self {
        let pair = |instant: Instant| (instant.micros, instant.nanos);
        let values = || {
            let values = record.values();
            values.map(|(name, text)| (name.to_owned(), text)).collect()
        };
        Self {
            event_time: pair(record.event_time()),
            expires_at: record.expiry().map(pair),
            values: (!record.operation().is_delete()).then(values),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, redb::Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| redb::Error::Corrupted(format!("a record is not JSON: {error}")))
    }

    fn expires_at(&self) -> Option<Instant> {
        self.expires_at.map(instant)
    }

    /// What readers see at `now`.
    fn record(self, identifier: &str, now: Instant) -> Option<StoredRecord> {
        if self.is_expired(now) {
            return None;
        }
        Some(StoredRecord {
            identifier: identifier.to_owned(),
            expires_at: self.expires_at(),
            values: self.values?,
        })
    }

    fn is_expired(&self, now: Instant) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }
}

fn instant((micros, nanos): (i64, u16)) -> Instant {
    Instant { micros, nanos }
}

/// An online store in a file of this machine.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    database: Arc<Database>,
}

impl EmbeddedStore {
    /// Opens or makes `dir/records.redb`.
    ///
    /// # Errors
    /// `FailedPrecondition` when it cannot be opened: another process has it, or it is no database.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("records.redb");
        let refuse = |why: String| {
            let path = path.display();
            Error::precondition(format!("the online store '{path}' cannot be opened: {why}"))
        };
        std::fs::create_dir_all(dir).map_err(|error| refuse(error.to_string()))?;
        let database = Database::create(&path).map_err(|error| refuse(error.to_string()))?;
        let store = Self {
            database: Arc::new(database),
        };
        store
            .write_now(&[], Instant::now())
            .map_err(|error| refuse(error.to_string()))?;
        Ok(store)
    }

    /// Removes what has outlived its time to live, up to `limit` records, and says how many that
    /// were. Readers do not see them in any case. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails.
    pub fn sweep(&self, limit: usize) -> Result<usize> {
        let now = Instant::now();
        let run = || {
            let transaction = self.database.begin_write()?;
            let mut removed = 0;
            {
                let mut records = transaction.open_table(RECORDS)?;
                let mut expired = Vec::new();
                for entry in records.iter()? {
                    let (key, value) = entry?;
                    if Stored::parse(value.value())?.is_expired(now) {
                        let (group, identifier) = key.value();
                        expired.push((group.to_owned(), identifier.to_owned()));
                        if expired.len() == limit {
                            break;
                        }
                    }
                }
                for (group, identifier) in expired {
                    records.remove((group.as_str(), identifier.as_str()))?;
                    removed += 1;
                }
            }
            transaction.commit()?;
            Ok(removed)
        };
        run().map_err(failed)
    }

    fn write_now(&self, records: &[Record], now: Instant) -> Result<Vec<Outcome>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let outcomes = {
            let mut table = transaction.open_table(RECORDS)?;
            let write = |record: &Record| write_one(&mut table, record, now);
            records.iter().map(write).collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        Ok(outcomes)
    }

    fn get_now(
        &self,
        group: &str,
        identifiers: &[String],
        now: Instant,
    ) -> Result<Vec<Option<StoredRecord>>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(RECORDS)?;
        let get = |identifier: &String| {
            let Some(found) = table.get((group, identifier.as_str()))? else {
                return Ok(None);
            };
            Ok(Stored::parse(found.value())?.record(identifier, now))
        };
        identifiers.iter().map(get).collect()
    }

    /// Removes the first `limit` records of a group; how many these were.
    fn clear_some(&self, group: &str, limit: usize) -> Result<usize, redb::Error> {
        let transaction = self.database.begin_write()?;
        let removed = {
            let mut records = transaction.open_table(RECORDS)?;
            let mut found = Vec::new();
            for entry in records.range((group, "")..)?.take(limit) {
                let (key, _) = entry?;
                let (of, identifier) = key.value();
                if of != group {
                    break;
                }
                found.push(identifier.to_owned());
            }
            for identifier in &found {
                records.remove((group, identifier.as_str()))?;
            }
            found.len()
        };
        transaction.commit()?;
        Ok(removed)
    }

    fn forget_now(&self, group: &str, identifier: &str) -> Result<bool, redb::Error> {
        let transaction = self.database.begin_write()?;
        let removed = {
            let mut records = transaction.open_table(RECORDS)?;
            records.remove((group, identifier))?.is_some()
        };
        transaction.commit()?;
        Ok(removed)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || run(&store)).await;
        done.map_err(|error| Error::internal("the online store broke off").with_source(error))?
            .map_err(failed)
    }
}

/// The records of a group when it was made. The file does not give back what they take while it
/// lives.
struct Snapshot {
    transaction: redb::ReadTransaction,
    group: String,
    now: Instant,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl Records for Snapshot {
    fn page(&self, after: Option<&str>, limit: usize) -> Result<Vec<StoredRecord>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let run = || {
            let table = self.transaction.open_table(RECORDS)?;
            let group = self.group.as_str();
            let from = after.map_or(Included((group, "")), |after| Excluded((group, after)));
            let mut found = Vec::new();
            for entry in table.range::<(&str, &str)>((from, Unbounded))? {
                let (key, value) = entry?;
                let (of, identifier) = key.value();
                if of != group || found.len() == limit {
                    break;
                }
                found.extend(Stored::parse(value.value())?.record(identifier, self.now));
            }
            Ok(found)
        };
        run().map_err(failed)
    }
}

type Table<'a> = redb::Table<'a, (&'static str, &'static str), &'static [u8]>;

fn write_one(table: &mut Table<'_>, record: &Record, now: Instant) -> Result<Outcome, redb::Error> {
    let (group, identifier) = (record.group(), record.identifier());
    let key = (group, identifier.as_str());
    let stored = match table.get(key)? {
        Some(found) => Some(Stored::parse(found.value())?),
        None => None,
    };
    let stored = stored.filter(|stored| !stored.is_expired(now));
    match decide(record, stored.map(|stored| instant(stored.event_time))) {
        Decision::Keep => {}
        Decision::Stale => return Ok(stale()),
        Decision::Remove => {
            table.remove(key)?;
        }
        Decision::Replace => {
            let stored = serde_json::to_vec(&Stored::of(record)).map_err(|error| {
                redb::Error::Corrupted(format!("a record has no JSON: {error}"))
            })?;
            table.insert(key, stored.as_slice())?;
        }
    }
    Ok(Outcome::Done)
}

fn failed(error: redb::Error) -> Error {
    Error::unavailable(format!("the embedded online store failed: {error}")).with_source(error)
}

#[async_trait]
impl OnlineStore for EmbeddedStore {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn limit(&self) -> BatchLimit {
        BatchLimit {
            records: 4_096,
            bytes: 16 << 20,
            calls: 1,
        }
    }

    async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        let sent = records.to_vec();
        let written = self
            .blocking(move |store| store.write_now(&sent, Instant::now()))
            .await;
        match written {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Outcome::Retry(Trouble::Away, error.message); records.len()],
        }
    }

    async fn list(&self, group: &Arc<Layout>) -> Result<Option<Arc<dyn Records>>> {
        let group = group.group.clone();
        let transaction = self
            .blocking(|store| Ok(store.database.begin_read()?))
            .await?;
        Ok(Some(Arc::new(Snapshot {
            transaction,
            group,
            now: Instant::now(),
        })))
    }

    async fn get(
        &self,
        group: &Arc<Layout>,
        identifiers: &[String],
    ) -> Result<Vec<Option<StoredRecord>>> {
        let (group, identifiers) = (group.group.clone(), identifiers.to_vec());
        self.blocking(move |store| store.get_now(&group, &identifiers, Instant::now()))
            .await
    }

    async fn forget(&self, group: &str, identifier: &str) -> Result<bool> {
        let (group, identifier) = (group.to_owned(), identifier.to_owned());
        self.blocking(move |store| store.forget_now(&group, &identifier))
            .await
    }

    async fn clear(&self, group: &str) -> Result<()> {
        loop {
            let group = group.to_owned();
            let cleared = self.blocking(move |store| store.clear_some(&group, CLEARED_AT_ONCE));
            if cleared.await? < CLEARED_AT_ONCE {
                return Ok(());
            }
        }
    }
}
