//! The quarantine: accepted records that their online store refuses for good, with the reason,
//! until someone sends them again or discards them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use featureflight_catalog::{Error, Instant, Result};
use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::entry::{self, LayoutHead, RowsHead};
use super::index::QUARANTINE;
use super::stage::{Stage, Stages};
use super::{Outbox, PendingBlock};
use crate::group::Layout;
use crate::record::{Block, Operation, Record};

/// A record in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub id: u64,
    pub group: String,
    pub identifier: String,
    /// In the form of the group's definition.
    pub event_time: String,
    pub operation: Operation,
    /// What the online store said.
    pub reason: String,
    /// How often it was sent.
    pub attempts: u32,
    pub accepted_at: Instant,
    pub quarantined_at: Instant,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    group: String,
    identifier: String,
    event_time: String,
    operation: Operation,
    reason: String,
    attempts: u32,
    /// Microseconds since the epoch.
    accepted_at: i64,
    quarantined_at: i64,
}

/// A record that is not in the index yet.
#[derive(Debug)]
pub(super) struct NewEntry {
    id: u64,
    head: Vec<u8>,
    record: Vec<u8>,
}

impl NewEntry {
    pub(super) fn save(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(QUARANTINE)?;
        table.insert(self.id, (self.head.as_slice(), self.record.as_slice()))?;
        Ok(())
    }
}

impl Outbox {
    /// Puts a row of `pending`, read as `record`, into quarantine. It is settled online then, and
    /// offline too where the online store is the one that writes that.
    ///
    /// # Errors
    /// `Internal` when it cannot be encoded; nothing has changed then.
    pub fn quarantine(
        &self,
        pending: &PendingBlock,
        record: &Record,
        reason: &str,
        attempts: u32,
        writes_offline: bool,
    ) -> Result<()> {
        let stages = Stages {
            online: true,
            offline: writes_offline && pending.head.stages.offline,
        };
        let head = Head {
            group: record.group().to_owned(),
            identifier: record.identifier(),
            event_time: record.event_time_text(),
            operation: record.operation(),
            reason: reason.to_owned(),
            attempts,
            accepted_at: pending.accepted_at.micros,
            quarantined_at: Instant::now().micros,
        };
        let head = serde_json::to_vec(&head).map_err(|error| {
            Error::internal("a quarantined record has no JSON").with_source(error)
        })?;
        let entry = NewEntry {
            id: self.core.next_quarantine.fetch_add(1, Ordering::Relaxed),
            head,
            record: encode(&record.block.slice(record.row, 1), stages)?,
        };
        self.core.quarantine.lock().push(entry);
        self.settle(pending.position, Stage::Online, &[record.row]);
        if writes_offline {
            self.settle(pending.position, Stage::Offline, &[record.row]);
        }
        Ok(())
    }

    /// The oldest `limit` records in quarantine. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be read or written.
    pub fn quarantined(&self, limit: usize) -> Result<Vec<Quarantined>> {
        self.core.checkpoint()?;
        let heads = self.core.index.read(|table| {
            let entries = table.iter()?.take(limit);
            entries
                .map(|entry| {
                    let (id, value) = entry?;
                    Ok((id.value(), value.value().0.to_vec()))
                })
                .collect::<Result<Vec<_>, redb::Error>>()
        })?;
        heads
            .into_iter()
            .map(|(id, head)| listed(id, &head))
            .collect()
    }

    /// Records in quarantine.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be read.
    pub fn quarantine_size(&self) -> Result<u64> {
        let unsaved = self.core.quarantine.lock().len() as u64;
        Ok(self.core.index.quarantined()? + unsaved)
    }

    /// Sends a record again, behind everything accepted so far. A crash in between sends it twice.
    ///
    /// # Errors
    /// `NotFound` when it is not in quarantine; else as [`super::Draft::push`].
    pub async fn redrive(&self, id: u64) -> Result<()> {
        self.core.checkpoint()?;
        let (block, _) = self.quarantined_rows(id)?;
        let turn = self.turns().of(&block.layout.group);
        // It may have been erased before this turn came.
        let _turn = turn.sending.read().await;
        let (block, stages) = self.quarantined_rows(id)?;
        let mut draft = self.draft(stages);
        draft.push(&block).await?;
        draft.commit(crate::validate::Refusals::default()).await?;
        self.discard(id)
    }

    fn quarantined_rows(&self, id: u64) -> Result<(Block, Stages)> {
        let record = self.core.index.read(|table| {
            let found = table.get(id)?;
            Ok(found.map(|found| found.value().1.to_vec()))
        })?;
        decode(&record.ok_or_else(|| absent(id))?)
    }

    /// Forgets a record for good. Blocks the thread.
    ///
    /// # Errors
    /// `NotFound` when it is not in quarantine.
    pub fn discard(&self, id: u64) -> Result<()> {
        self.core.checkpoint()?;
        let removed = self.core.index.write(|transaction| {
            let mut table = transaction.open_table(QUARANTINE)?;
            let removed = table.remove(id)?.is_some();
            Ok(removed)
        })?;
        if removed { Ok(()) } else { Err(absent(id)) }
    }
}

impl Core {
    /// The number of the next record in quarantine.
    pub(super) fn first_free_quarantine(&self) -> Result<u64> {
        self.index.read(|table| {
            let last = table.last()?;
            Ok(last.map_or(1, |(id, _)| id.value() + 1))
        })
    }
}

fn absent(id: u64) -> Error {
    Error::not_found(format!(
        "there is no record {id} in quarantine: it was sent again or discarded"
    ))
}

/// Whether what this head describes is of `group`, and of this record, if one is named.
pub(super) fn is_of(head: &[u8], group: &str, identifier: Option<&str>) -> bool {
    serde_json::from_slice::<Head>(head).is_ok_and(|head| {
        head.group == group && identifier.is_none_or(|identifier| head.identifier == identifier)
    })
}

fn listed(id: u64, head: &[u8]) -> Result<Quarantined> {
    let Head {
        group,
        identifier,
        event_time,
        operation,
        reason,
        attempts,
        accepted_at,
        quarantined_at,
    } = serde_json::from_slice(head).map_err(|error| {
        Error::data_loss(format!("record {id} in quarantine cannot be read")).with_source(error)
    })?;
    Ok(Quarantined {
        id,
        group,
        identifier,
        event_time,
        operation,
        reason,
        attempts,
        accepted_at: Instant::from_micros(accepted_at),
        quarantined_at: Instant::from_micros(quarantined_at),
    })
}

/// A block with its layout, on its own, and what it goes through if it is sent again.
fn encode(block: &Block, stages: Stages) -> Result<Vec<u8>> {
    let Layout {
        group,
        record_identifier,
        event_time,
        schema,
    } = block.layout.as_ref();
    let layout = LayoutHead {
        layout: 0,
        group: group.clone(),
        record_identifier: *record_identifier,
        event_time: *event_time,
    };
    let rows = RowsHead {
        request: 0,
        part: 0,
        layout: 0,
        operation: block.operation,
        ttl: block.ttl,
        rows: block.len(),
        stages,
    };
    let layout = entry::encode(&layout, &entry::encode_schema(schema)?)?;
    let rows = entry::encode(&rows, &entry::encode_rows(&block.rows)?)?;
    let mut bytes = (layout.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&layout);
    bytes.extend_from_slice(&rows);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<(Block, Stages)> {
    let broken = || Error::data_loss("a record in quarantine cannot be decoded");
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(broken)?;
    let length = u64::from_le_bytes(*length) as usize;
    let (layout, rows) = rest.split_at_checked(length).ok_or_else(broken)?;
    let (_, layout) = entry::decode_layout(layout)?;
    let (head, _) = entry::decode::<RowsHead>(rows)?;
    let block = entry::decode_rows(rows, &Arc::new(layout))?;
    Ok((block, head.stages))
}
