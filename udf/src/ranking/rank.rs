//! The order of the versions of one record.

use arrow::array::BooleanArray;
use featureflight_catalog::scan::versions::{Columns, InstantColumn, VersionBatch};
use featureflight_catalog::unlanded::PENDING;
use featureflight_catalog::{Error, Instant, Kind, Result};

/// Where one version stands among those of its record: greater is newer. The derived order
/// compares the fields from the top; file and row decide what times leave open, so that no two
/// versions tie. Files are numbered in the order of their object keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    event_micros: i64,
    event_nanos: u16,
    api_micros: i64,
    api_nanos: u16,
    write_micros: i64,
    write_nanos: u16,
    pub(crate) file: u32,
    pub(crate) row: u32,
    /// Not part of the order: a version has one rank and is a tombstone or not.
    pub(crate) tombstone: bool,
}

impl Rank {
    pub(crate) fn event_time(&self) -> Instant {
        Instant {
            micros: self.event_micros,
            nanos: self.event_nanos,
        }
    }

    /// When the service is known to have received it: of a pending version that is not known yet.
    pub(crate) fn api_invocation_time(&self) -> Instant {
        if self.write_time() == PENDING {
            return PENDING;
        }
        Instant {
            micros: self.api_micros,
            nanos: self.api_nanos,
        }
    }

    pub(crate) fn write_time(&self) -> Instant {
        Instant {
            micros: self.write_micros,
            nanos: self.write_nanos,
        }
    }
}

/// What a pass must decode to rank versions, beside the feature at `key`.
pub(crate) fn columns(key: usize) -> Columns {
    Columns {
        features: vec![key],
        event_time: true,
        write_time: true,
        api_invocation_time: true,
        is_deleted: true,
    }
}

/// The ranks of one batch read with [`columns`].
#[derive(Debug)]
pub(crate) struct Ranks<'a> {
    event: &'a InstantColumn,
    api: &'a InstantColumn,
    write: &'a InstantColumn,
    is_deleted: &'a BooleanArray,
    file: u32,
    first_row: u32,
}

impl<'a> Ranks<'a> {
    /// # Errors
    /// `ResourceExhausted` for rows that a [`Rank`] cannot number.
    pub(crate) fn try_new(file: u32, batch: &'a VersionBatch) -> Result<Self> {
        let end = batch.first_row.saturating_add(batch.rows as u64);
        let first_row = u32::try_from(batch.first_row)
            .ok()
            .filter(|_| u32::try_from(end).is_ok())
            .ok_or_else(|| {
                let message = "a data file of more than four billion rows cannot be ranked";
                Error::new(Kind::ResourceExhausted, message)
            })?;
        let missing = || Error::internal("a batch of versions lacks the columns to rank them by");
        Ok(Self {
            event: batch.event_time.as_ref().ok_or_else(missing)?,
            api: batch.api_invocation_time.as_ref().ok_or_else(missing)?,
            write: batch.write_time.as_ref().ok_or_else(missing)?,
            is_deleted: batch.is_deleted.as_ref().ok_or_else(missing)?,
            file,
            first_row,
        })
    }

    pub(crate) fn event_time(&self, row: usize) -> Instant {
        self.event.get(row)
    }

    /// The event time without what it has beyond the microseconds.
    pub(crate) fn event_micros(&self, row: usize) -> i64 {
        self.event.micros[row]
    }

    pub(crate) fn get(&self, row: usize) -> Rank {
        let event = self.event.get(row);
        let api = self.api.get(row);
        let write = self.write.get(row);
        Rank {
            event_micros: event.micros,
            event_nanos: event.nanos,
            api_micros: api.micros,
            api_nanos: api.nanos,
            write_micros: write.micros,
            write_nanos: write.nanos,
            file: self.file,
            row: self.first_row + row as u32,
            tombstone: self.is_deleted.value(row),
        }
    }
}
