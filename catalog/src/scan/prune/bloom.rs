//! Bloom filters of record identifiers: small sets that know of every key that is not in a row
//! group, but for a few.
//!
//! A filter is read where the footer names one, where it is smaller than what it may save, and
//! where the keys are few enough to be tried. A filter that cannot be read says nothing. Values
//! are hashed as they are stored, so both zeros are tried, and a NaN, of which there are many, may
//! be anywhere.

use std::ops::Range;

use arrow::datatypes::DataType;
use bytes::Bytes;
use bytes::buf::{Buf, Reader};
use parking_lot::Mutex;
use parquet::basic::Type as PhysicalType;
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::Result;
use crate::model::FeatureType;
use crate::scan::decode::guarded;
use crate::scan::fetch::Object;
use crate::scan::footer::Piece;

use super::{GroupBounds, Key, KeyBounds, LeftOut, has_no_nulls};

/// Fetched where the footer does not say how long a filter is.
const GUESS: u64 = 16 * 1024;

impl GroupBounds<'_> {
    /// Leaves out row groups that hold none of `keys` for all that their filters say. `roots` are
    /// the columns that would be read of them, `tail` is in memory already.
    ///
    /// # Errors
    /// Those of fetching.
    pub(crate) async fn rule_out(
        &self,
        keys: &dyn KeyBounds,
        roots: &[usize],
        object: &Object,
        tail: Option<&Piece>,
        left_out: &mut LeftOut,
    ) -> Result<()> {
        let candidates = self.candidates(keys, roots, object, left_out);
        if candidates.is_empty() {
            return Ok(());
        }
        let mut pieces = Pieces(tail.cloned().into_iter().collect());
        let ranges: Vec<Range<u64>> = candidates
            .iter()
            .filter_map(|candidate| {
                let wanted = candidate.length.unwrap_or(GUESS);
                let end = candidate.start.saturating_add(wanted).min(object.size());
                candidate.worth_fetching(candidate.start..end, &pieces)
            })
            .collect();
        pieces.fetch(object, ranges).await?;
        for candidate in candidates {
            let Some(filter) = candidate.filter(object, &mut pieces).await? else {
                continue;
            };
            let group = candidate.group;
            let may_be_there = self.keys(group, |range| {
                let keys = keys.each(range);
                keys.is_none_or(|mut keys| keys.any(|key| may_hold(&filter, key)))
            });
            if !may_be_there {
                left_out.add(group);
                left_out.by_bloom_filter += 1;
            }
        }
        Ok(())
    }

    fn candidates(
        &self,
        keys: &dyn KeyBounds,
        roots: &[usize],
        object: &Object,
        left_out: &LeftOut,
    ) -> Vec<Candidate<'_>> {
        let root = self.places.record_identifier;
        let Some(leaf) = self.footer.leaf(root).filter(|_| self.has_plain_keys()) else {
            return Vec::new();
        };
        let groups = self.footer.reader.metadata().row_groups().iter();
        let candidates = groups.enumerate().filter_map(|(group, metadata)| {
            let column = metadata.column(leaf);
            let start = u64::try_from(column.bloom_filter_offset()?).ok()?;
            let length = match column.bloom_filter_length() {
                Some(length) => Some(u64::try_from(length).ok()?),
                None => None,
            };
            let end = start.checked_add(length.unwrap_or(1))?;
            let is_candidate = !left_out.contains(group)
                && metadata.num_rows() > 0
                && end <= object.size()
                && column
                    .statistics()
                    .map_or(column.column_descr().max_def_level() == 0, |statistics| {
                        has_no_nulls(column, statistics)
                    })
                && self.keys(group, |range| keys.each(range).is_some());
            let leaves = roots.iter().filter_map(|&root| self.footer.leaf(root));
            is_candidate.then(|| Candidate {
                group,
                column,
                start,
                length,
                saves: leaves
                    .filter_map(|leaf| u64::try_from(metadata.column(leaf).compressed_size()).ok())
                    .fold(0, u64::saturating_add),
            })
        });
        candidates.collect()
    }

    /// Whether identifiers are stored as what their definition says, so that a filter holds the
    /// bytes they are looked for by.
    fn has_plain_keys(&self) -> bool {
        let root = self.places.record_identifier;
        let definition = &self.table.group.feature_definitions[self.table.record_identifier];
        let schema = self.footer.reader.parquet_schema();
        let physical = self.footer.leaf(root);
        let physical = physical.map(|leaf| schema.column(leaf).physical_type());
        let fields = self.footer.reader.schema().fields();
        let decoded = fields.get(root).map(|field| field.data_type());
        matches!(
            (physical, decoded, &definition.feature_type),
            (
                Some(PhysicalType::INT64),
                Some(DataType::Int64),
                FeatureType::Integral
            ) | (
                Some(PhysicalType::DOUBLE),
                Some(DataType::Float64),
                FeatureType::Fractional
            ) | (
                Some(PhysicalType::BYTE_ARRAY),
                Some(DataType::Utf8View),
                FeatureType::String
            )
        )
    }
}

fn may_hold(filter: &Sbbf, key: Key<'_>) -> bool {
    match key {
        Key::Integer(key) => filter.check(&key),
        Key::Double(key) if key.is_nan() => true,
        Key::Double(0.0) => filter.check(&0.0_f64) || filter.check(&-0.0_f64),
        Key::Double(key) => filter.check(&key),
        Key::Text(key) => filter.check(key),
    }
}

/// A filter that may rule a row group out.
struct Candidate<'a> {
    group: usize,
    column: &'a ColumnChunkMetaData,
    start: u64,
    /// Absent where the footer does not say.
    length: Option<u64>,
    /// Bytes that need not be fetched once the row group is ruled out.
    saves: u64,
}

impl Candidate<'_> {
    /// The range, unless it is in memory or costs more than it saves.
    fn worth_fetching(&self, range: Range<u64>, pieces: &Pieces) -> Option<Range<u64>> {
        (range.end - range.start < self.saves && pieces.get(&range).is_none()).then_some(range)
    }

    async fn filter(&self, object: &Object, pieces: &mut Pieces) -> Result<Option<Sbbf>> {
        let filter = if let Some(length) = self.length {
            let Some(bytes) = pieces.get(&(self.start..self.start + length)) else {
                return Ok(None);
            };
            guarded(object, || Sbbf::from_bytes(&bytes)).ok()
        } else {
            let (mut filter, missing) = self.read(object, pieces);
            if let Some(missing) = missing.filter(|missing| missing.end <= object.size())
                && let Some(missing) = self.worth_fetching(missing, pieces)
            {
                pieces.fetch(object, vec![missing]).await?;
                (filter, _) = self.read(object, pieces);
            }
            filter
        };
        Ok(filter.filter(|filter| filter.num_blocks() > 0))
    }

    /// The filter as far as it is in memory, or else what is missing.
    fn read(&self, object: &Object, pieces: &Pieces) -> (Option<Sbbf>, Option<Range<u64>>) {
        let reader = Reading {
            size: object.size(),
            pieces,
            missing: Mutex::new(None),
        };
        let filter = guarded(object, || {
            Sbbf::read_from_column_chunk(self.column, &reader)
        });
        (filter.ok().flatten(), reader.missing.into_inner())
    }
}

/// Parts of a file in memory.
struct Pieces(Vec<Piece>);

impl Pieces {
    fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        self.0.iter().find_map(|piece| piece.get(range))
    }

    async fn fetch(&mut self, object: &Object, ranges: Vec<Range<u64>>) -> Result<()> {
        let fetched = object.ranges(&ranges).await?;
        let pieces = ranges.into_iter().zip(fetched).map(|(range, bytes)| Piece {
            start: range.start,
            bytes,
        });
        self.0.extend(pieces);
        Ok(())
    }
}

/// Reads of what is in memory, and remembers what is not.
struct Reading<'a> {
    size: u64,
    pieces: &'a Pieces,
    missing: Mutex<Option<Range<u64>>>,
}

impl Length for Reading<'_> {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Reading<'_> {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let rest = usize::try_from(self.size.saturating_sub(start))?;
        Ok(self.get_bytes(start, rest)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let range = start..start.saturating_add(length as u64);
        self.pieces.get(&range).ok_or_else(|| {
            let message = format!("bytes {} to {} are not in memory", range.start, range.end);
            *self.missing.lock() = Some(range);
            ParquetError::General(message)
        })
    }
}
