//! The index beside the segments, in redb: marks, idempotency keys, the quarantine, and how far
//! the segments were known to reach. Marks and how far segments reach may lag behind; keys and
//! quarantined records are in it before the segment that held them goes.

use std::collections::HashMap;
use std::path::Path;

use featureflight_catalog::{Error, Instant, Result};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use super::answer::{Answer, IdempotencyKey};
use super::stage::{Position, Stage};

/// By name, see the constants below.
const NUMBERS: TableDefinition<&str, i64> = TableDefinition::new("numbers");
/// (sequence, part, stage) to the rows settled: a bit set, or nothing for all.
const MARKS: TableDefinition<(u64, u32, u8), &[u8]> = TableDefinition::new("marks");
/// To (accepted at, answer as JSON).
const KEYS: TableDefinition<&str, (i64, &[u8])> = TableDefinition::new("keys");
/// (accepted at, key), so that old keys are found.
const KEY_TIMES: TableDefinition<(i64, &str), ()> = TableDefinition::new("key_times");
/// Quarantined records: head as JSON and the record's frame payloads.
pub(super) const QUARANTINE: TableDefinition<u64, (&[u8], &[u8])> =
    TableDefinition::new("quarantine");

/// How far the segments were known to reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// The oldest segment that is needed.
    pub(super) first: u64,
    /// The segment written to, and how much of it was on disk.
    pub(super) active: u64,
    pub(super) synced: u64,
    pub(super) next_sequence: u64,
    /// Microseconds since the epoch.
    pub(super) last_accepted_at: i64,
}

/// The saved marks of every block that has some.
pub(super) type Marks = HashMap<Position, Vec<(Stage, Vec<u8>)>>;

#[derive(Debug)]
pub(super) struct Index {
    database: Database,
}

impl Index {
    /// # Errors
    /// `DataLoss` when the file cannot be read as a database.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let database = Database::create(path).map_err(|error| {
            let path = path.display();
            Error::data_loss(format!(
                "the outbox's index '{path}' cannot be opened: {error}"
            ))
        })?;
        let index = Self { database };
        // Tables are there from the first moment, so that reading never meets an absent one.
        index.write(|transaction| {
            transaction.open_table(NUMBERS)?;
            transaction.open_table(MARKS)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(KEY_TIMES)?;
            transaction.open_table(QUARANTINE)?;
            Ok(())
        })?;
        Ok(index)
    }

    /// One durable transaction.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails or is full; nothing has changed then.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T> {
        let run = || {
            let transaction = self.database.begin_write()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(failed)
    }

    pub(super) fn reach(&self) -> Result<Reach> {
        let run = || {
            let transaction = self.database.begin_read()?;
            let numbers = transaction.open_table(NUMBERS)?;
            let get = |name| Ok::<_, redb::Error>(numbers.get(name)?.map_or(0, |n| n.value()));
            Ok(Reach {
                first: get("first")?.cast_unsigned(),
                active: get("active")?.cast_unsigned(),
                synced: get("synced")?.cast_unsigned(),
                next_sequence: get("next_sequence")?.cast_unsigned(),
                last_accepted_at: get("last_accepted_at")?,
            })
        };
        run().map_err(failed)
    }

    pub(super) fn marks(&self) -> Result<Marks> {
        let run = || {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(MARKS)?;
            let mut marks = Marks::new();
            for entry in table.iter()? {
                let (key, bytes) = entry?;
                let (sequence, part, stage) = key.value();
                let stage = if stage == 0 {
                    Stage::Online
                } else {
                    Stage::Offline
                };
                let at = marks.entry(Position { sequence, part }).or_default();
                at.push((stage, bytes.value().to_vec()));
            }
            Ok(marks)
        };
        run().map_err(failed)
    }

    /// The answer given under `key` at or after `since`.
    pub(super) fn answer(&self, key: &IdempotencyKey, since: Instant) -> Result<Option<Answer>> {
        let run = || {
            let transaction = self.database.begin_read()?;
            let table = transaction.open_table(KEYS)?;
            let found = table.get(key.stored().as_str())?;
            Ok(found.map(|found| (found.value().0, found.value().1.to_vec())))
        };
        match run().map_err(failed)? {
            Some((accepted_at, answer)) if accepted_at >= since.micros => {
                let answer = serde_json::from_slice(&answer);
                Ok(Some(answer.map_err(|error| {
                    let what = "an answer in the outbox's index cannot be read";
                    Error::data_loss(what).with_source(error)
                })?))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(
            redb::ReadOnlyTable<u64, (&'static [u8], &'static [u8])>,
        ) -> Result<T, redb::Error>,
    ) -> Result<T> {
        let run = || {
            let transaction = self.database.begin_read()?;
            look(transaction.open_table(QUARANTINE)?)
        };
        run().map_err(failed)
    }

    pub(super) fn quarantined(&self) -> Result<u64> {
        self.read(|table| Ok(table.len()?))
    }
}

pub(super) fn save_reach(transaction: &WriteTransaction, reach: Reach) -> Result<(), redb::Error> {
    let Reach {
        first,
        active,
        synced,
        next_sequence,
        last_accepted_at,
    } = reach;
    let mut numbers = transaction.open_table(NUMBERS)?;
    numbers.insert("first", first.cast_signed())?;
    numbers.insert("active", active.cast_signed())?;
    numbers.insert("synced", synced.cast_signed())?;
    numbers.insert("next_sequence", next_sequence.cast_signed())?;
    numbers.insert("last_accepted_at", last_accepted_at)?;
    Ok(())
}

pub(super) fn save_mark(
    transaction: &WriteTransaction,
    position: Position,
    stage: Stage,
    rows: &[u8],
) -> Result<(), redb::Error> {
    let mut marks = transaction.open_table(MARKS)?;
    let key = (position.sequence, position.part, stage.index() as u8);
    marks.insert(key, rows)?;
    Ok(())
}

pub(super) fn forget_marks(
    transaction: &WriteTransaction,
    position: Position,
) -> Result<(), redb::Error> {
    let mut marks = transaction.open_table(MARKS)?;
    for stage in Stage::ALL {
        marks.remove((position.sequence, position.part, stage.index() as u8))?;
    }
    Ok(())
}

pub(super) fn save_key(
    transaction: &WriteTransaction,
    key: &IdempotencyKey,
    accepted_at: i64,
    answer: &[u8],
) -> Result<(), redb::Error> {
    let key = key.stored();
    let mut keys = transaction.open_table(KEYS)?;
    let mut times = transaction.open_table(KEY_TIMES)?;
    let before = keys.insert(key.as_str(), (accepted_at, answer))?;
    if let Some(before) = before.map(|before| before.value().0)
        && before != accepted_at
    {
        times.remove((before, key.as_str()))?;
    }
    times.insert((accepted_at, key.as_str()), ())?;
    Ok(())
}

/// Forgets keys older than `since`, a bounded number at a time.
pub(super) fn forget_keys(
    transaction: &WriteTransaction,
    since: Instant,
) -> Result<(), redb::Error> {
    let mut keys = transaction.open_table(KEYS)?;
    let mut times = transaction.open_table(KEY_TIMES)?;
    let old: Vec<_> = times
        .range((i64::MIN, "")..(since.micros, ""))?
        .take(1_000)
        .map(|entry| entry.map(|(time, _)| (time.value().0, time.value().1.to_owned())))
        .collect::<Result<_, _>>()?;
    for (time, key) in old {
        times.remove((time, key.as_str()))?;
        keys.remove(key.as_str())?;
    }
    Ok(())
}

fn failed(error: redb::Error) -> Error {
    Error::unavailable(format!("the outbox's index failed: {error}")).with_source(error)
}
