//! Taking accepted rows away for good: those of a record that is to be forgotten, or all of a group
//! that is dropped.
//!
//! An [`Erasure`] is noted in the index before anything of it is done, and forgotten when all of it
//! is, so that what a crash cut short is known. Its rows are settled for every stage: nobody sends,
//! writes or shows them any more, and the segments that hold them go as those of settled rows do. The
//! segment written to is closed for it, so that it can go too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::{Error, Kind, Result};
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::command::Command;
use super::index::QUARANTINE;
use super::pending::PendingBlock;
use super::stage::Stage;
use super::{Outbox, quarantine};
use crate::group::Layout;
use crate::record::Block;

/// The group, and the record or an empty text, as JSON, to an [`Erasure`] as JSON.
const ERASURES: TableDefinition<&str, &[u8]> = TableDefinition::new("erasures");

/// Rows that are to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Erasure {
    pub(crate) group: String,
    pub(crate) what: What,
    /// Rows accepted from this place of the order on stay.
    pub(crate) before: u64,
    /// Whether the offline store has nothing of it any more: what came there since stays.
    pub(crate) offline_done: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// The record of this identifier.
    Record(String),
    /// The whole group, as it was defined.
    Group(Box<FeatureGroup>),
}

impl Erasure {
    fn key(&self) -> Result<String> {
        let identifier = match &self.what {
            What::Record(identifier) => Some(identifier),
            What::Group(_) => None,
        };
        serde_json::to_string(&(&self.group, identifier)).map_err(no_json)
    }
}

/// What of a group was erased since the start: rows before these places.
#[derive(Debug, Default)]
pub(super) struct Erased {
    all: u64,
    records: HashMap<String, u64>,
}

/// Groups that take no rows of requests before a number.
#[derive(Debug, Default)]
pub(super) struct Closed(HashMap<String, u64>);

impl Closed {
    pub(super) fn until(&mut self, group: String, request: u64) {
        self.0.insert(group, request);
    }

    /// # Errors
    /// `NotFound` for rows of a group that was dropped since their request began.
    pub(super) fn check<'a>(
        &self,
        request: u64,
        layouts: impl Iterator<Item = &'a Arc<Layout>>,
    ) -> Result<()> {
        for layout in layouts {
            let group = &layout.group;
            if self.0.get(group).is_some_and(|from| request < *from) {
                return Err(Error::not_found(format!(
                    "feature group '{group}' was dropped: nothing was written to it"
                )));
            }
        }
        Ok(())
    }
}

impl Outbox {
    /// The place in the order of acceptance behind everything accepted so far, with nothing before it
    /// in the segment written to from now on. Rows of the group that `closes` names are refused when
    /// they would be accepted later, until [`Self::reopen`].
    ///
    /// # Errors
    /// `Unavailable` when the outbox is closed.
    pub(crate) async fn place(&self, closes: Option<&str>) -> Result<u64> {
        let (reply, place) = oneshot::channel();
        let closes = closes.map(str::to_owned);
        let closed = || Error::unavailable("the outbox is closed: the server is shutting down");
        self.writer
            .send(Command::Place { closes, reply })
            .map_err(|_| closed())?;
        place.await.map_err(|_| closed())
    }

    /// Rows of a closed group are accepted again, but for those of requests that began before.
    pub(crate) fn reopen(&self, group: &str) {
        let next = self.core.next_request.load(Ordering::Relaxed);
        let reopen = Command::Reopen(group.to_owned(), next);
        self.writer.send(reopen).ok();
    }

    /// Notes what is going to be erased, in place of what was noted of the same. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be written.
    pub(crate) fn note_erasure(&self, erasure: &Erasure) -> Result<()> {
        let key = erasure.key()?;
        let noted = serde_json::to_vec(erasure).map_err(no_json)?;
        self.core.index.write(|transaction| {
            let mut table = transaction.open_table(ERASURES)?;
            table.insert(key.as_str(), noted.as_slice())?;
            Ok(())
        })
    }

    /// Forgets the note: all of it was done, or nothing will be. Blocks the thread.
    ///
    /// # Errors
    /// As [`Self::note_erasure`].
    pub(crate) fn forget_erasure(&self, erasure: &Erasure) -> Result<()> {
        let key = erasure.key()?;
        self.core.index.write(|transaction| {
            transaction.open_table(ERASURES)?.remove(key.as_str())?;
            Ok(())
        })
    }

    /// What is noted. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be read, `DataLoss` for a note that is none.
    pub(crate) fn erasures(&self) -> Result<Vec<Erasure>> {
        let noted = self.core.index.write(|transaction| {
            let table = transaction.open_table(ERASURES)?;
            let notes = table.iter()?.map(|entry| Ok(entry?.1.value().to_vec()));
            notes.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let parse = |note: Vec<u8>| {
            serde_json::from_slice(&note).map_err(|error| {
                Error::data_loss("a note of the outbox's index cannot be read").with_source(error)
            })
        };
        noted.iter().cloned().map(parse).collect()
    }

    /// Takes the rows away, those in quarantine too; how many these were. Durable when it returns.
    /// Nobody may send or flush rows of the group meanwhile. Blocks the thread.
    ///
    /// # Errors
    /// `DataLoss` and `Unavailable` when rows cannot be read or marks not be saved; rows may have gone.
    pub(crate) fn erase(&self, erasure: &Erasure) -> Result<u64> {
        let Erasure { group, before, .. } = erasure;
        let blocks = self.core.pending.lock().before(group, *before);
        let mut found = Vec::new();
        for block in blocks {
            let rows = rows_of(&block, &erasure.what)?;
            if !rows.is_empty() {
                found.push((block, rows));
            }
        }
        {
            let mut erased = self.core.erased.lock();
            let erased = erased.entry(group.clone()).or_default();
            let place = match &erasure.what {
                What::Record(identifier) => erased.records.entry(identifier.clone()).or_default(),
                What::Group(_) => &mut erased.all,
            };
            *place = (*place).max(*before);
        }
        let mut gone = 0;
        for (block, rows) in found {
            let waits = |row: &&usize| {
                Stage::ALL
                    .iter()
                    .any(|stage| !block.is_settled(*stage, **row))
            };
            gone += rows.iter().filter(waits).count() as u64;
            for stage in Stage::ALL {
                self.settle(block.position, stage, &rows);
            }
        }
        self.core.checkpoint()?;
        gone += self.erase_quarantined(erasure)?;
        // The segments that nothing holds any more.
        self.core.checkpoint()?;
        Ok(gone)
    }

    fn erase_quarantined(&self, erasure: &Erasure) -> Result<u64> {
        self.core.index.write(|transaction| {
            let mut table = transaction.open_table(QUARANTINE)?;
            let mut removed = 0;
            table.retain(|_, (head, _)| {
                let goes = match &erasure.what {
                    What::Record(identifier) => {
                        quarantine::is_of(head, &erasure.group, Some(identifier))
                    }
                    What::Group(_) => quarantine::is_of(head, &erasure.group, None),
                };
                removed += u64::from(goes);
                !goes
            })?;
            Ok(removed)
        })
    }

    /// # Errors
    /// `Aborted` when one of `rows` of `block`, which somebody took down before, was erased since.
    pub(crate) fn check_kept(
        &self,
        pending: &PendingBlock,
        block: &Block,
        rows: &[usize],
    ) -> Result<()> {
        let erased = self.core.erased.lock();
        let Some(erased) = erased.get(pending.group()) else {
            return Ok(());
        };
        let at = pending.position.sequence;
        let goes = |row: &usize| {
            let before = erased.records.get(&block.identifier(*row));
            before.is_some_and(|before| at < *before)
        };
        if at < erased.all || (!erased.records.is_empty() && rows.iter().any(goes)) {
            return Err(Error::new(
                Kind::Aborted,
                format!(
                    "rows of feature group '{}' were erased after the statement was pinned; run it \
                     again",
                    pending.group()
                ),
            ));
        }
        Ok(())
    }
}

fn rows_of(block: &Arc<PendingBlock>, what: &What) -> Result<Vec<usize>> {
    let all = 0..block.rows();
    match what {
        What::Group(_) => Ok(all.collect()),
        What::Record(identifier) => {
            let rows = block.read()?;
            Ok(all
                .filter(|row| rows.identifier(*row) == *identifier)
                .collect())
        }
    }
}

fn no_json(error: serde_json::Error) -> Error {
    Error::internal("a note of the outbox has no JSON").with_source(error)
}
