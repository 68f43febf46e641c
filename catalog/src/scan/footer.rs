//! Footers of data files: read, checked, and kept by the identity of their object.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use parquet::DecodeResult;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataPushDecoder,
    ParquetStatisticsPolicy,
};

use crate::error::Result;

use super::decode::guarded;
use super::fetch::{Identity, Object};

/// Bytes fetched from the end of a file before its footer's size is known. Most hourly files are
/// smaller, and come whole with this one request.
const TAIL: u64 = 256 * 1024;

/// No sane footer is larger: 2,500 features in a hundred row groups take a third of it.
const MAX_FOOTER: u64 = 64 * 1024 * 1024;

/// A range of a file and its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

impl Piece {
    pub(crate) fn get(&self, range: &std::ops::Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// What a file says about itself, with the Arrow types its columns are decoded to: text as views,
/// INT96 as microseconds.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) reader: ArrowReaderMetadata,
    /// The same with INT96 as (wrapping) nanoseconds, if any column is INT96 and may hold less
    /// than whole microseconds.
    pub(crate) nanos: Option<ArrowReaderMetadata>,
    /// Root columns that are text by annotation but that the decoder does not check to be UTF-8.
    pub(crate) unchecked_text: Vec<usize>,
    int96: Vec<usize>,
    /// Nested root columns with leaves the decoder may read wrongly: INT96, which it wraps around,
    /// and text it does not check to be UTF-8.
    unsafe_nested: Vec<usize>,
    /// Root columns by lowercase name.
    names: HashMap<String, Vec<usize>>,
    memory: usize,
}

/// The outcome of looking for a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    /// The position among the root columns.
    At(usize),
    /// Several columns have this name, ignoring case, and not one of them exactly.
    Ambiguous,
}

impl Footer {
    /// The column of this name: the exact one, else the only one that matches ignoring case.
    pub(crate) fn find(&self, name: &str) -> Found {
        let Some(same) = self.names.get(&name.to_lowercase()) else {
            return Found::Missing;
        };
        let fields = self.reader.schema().fields();
        let exact: Vec<usize> = same
            .iter()
            .copied()
            .filter(|&at| fields[at].name() == name)
            .collect();
        match (exact.as_slice(), same.as_slice()) {
            ([at], _) | ([], [at]) => Found::At(*at),
            _ => Found::Ambiguous,
        }
    }

    /// Whether a root column has a twin in `nanos`.
    pub(crate) fn is_int96(&self, root: usize) -> bool {
        self.int96.contains(&root)
    }

    /// Whether a nested root column cannot be decoded faithfully.
    pub(crate) fn is_unsafe_nested(&self, root: usize) -> bool {
        self.unsafe_nested.contains(&root)
    }

    pub(crate) fn try_new(metadata: ParquetMetaData) -> Result<Self, ParquetError> {
        check_row_counts(&metadata)?;
        let metadata = Arc::new(metadata);
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let plain = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options())?;
        let int96 = int96_roots(&metadata);
        let micros = hinted(plain.schema(), &int96, TimeUnit::Microsecond);
        let reader =
            ArrowReaderMetadata::try_new(Arc::clone(&metadata), options().with_schema(micros))?;
        let nanos = if int96.is_empty() || has_whole_micros(&metadata) {
            None
        } else {
            let schema = hinted(plain.schema(), &int96, TimeUnit::Nanosecond);
            Some(ArrowReaderMetadata::try_new(
                Arc::clone(&metadata),
                options().with_schema(schema),
            )?)
        };
        let mut names: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, field) in reader.schema().fields().iter().enumerate() {
            names
                .entry(field.name().to_lowercase())
                .or_default()
                .push(at);
        }
        let unchecked_text = unchecked_text(&reader);
        let unsafe_nested = unsafe_nested(&metadata);
        let memory = metadata.memory_size() + reader.schema().fields().len() * 400 + 1_000;
        Ok(Self {
            reader,
            nanos,
            unchecked_text,
            int96,
            unsafe_nested,
            names,
            memory,
        })
    }
}

/// The sums must agree before positions in the file mean anything.
fn check_row_counts(metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    let mut total = 0_i64;
    for group in metadata.row_groups() {
        if group.num_rows() < 0 {
            return Err(ParquetError::General(
                "a row group has a negative row count".to_owned(),
            ));
        }
        total = total.saturating_add(group.num_rows());
    }
    let claimed = metadata.file_metadata().num_rows();
    if total == claimed {
        Ok(())
    } else {
        Err(ParquetError::General(format!(
            "its row groups hold {total} rows and its footer says {claimed}"
        )))
    }
}

/// The root column of each leaf that is one.
fn root_leaves(metadata: &ParquetMetaData) -> impl Iterator<Item = (usize, usize)> + '_ {
    let schema = metadata.file_metadata().schema_descr();
    (0..schema.num_columns())
        .map(|leaf| (schema.get_column_root_idx(leaf), leaf))
        .filter(move |&(root, _)| schema.root_schema().get_fields()[root].is_primitive())
}

fn int96_roots(metadata: &ParquetMetaData) -> Vec<usize> {
    let schema = metadata.file_metadata().schema_descr();
    root_leaves(metadata)
        .filter(|&(_, leaf)| schema.column(leaf).physical_type() == PhysicalType::INT96)
        .map(|(root, _)| root)
        .collect()
}

/// Spark's timestamps are whole microseconds.
fn has_whole_micros(metadata: &ParquetMetaData) -> bool {
    metadata
        .file_metadata()
        .key_value_metadata()
        .is_some_and(|pairs| {
            pairs
                .iter()
                .any(|pair| pair.key == "org.apache.spark.version")
        })
}

fn hinted(schema: &Schema, int96: &[usize], unit: TimeUnit) -> Arc<Schema> {
    let hint = |(at, field): (usize, &Arc<Field>)| {
        let kind = match field.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::Binary => DataType::BinaryView,
            DataType::Timestamp(_, zone) if int96.contains(&at) => {
                DataType::Timestamp(unit, zone.clone())
            }
            _ => return Arc::clone(field),
        };
        Arc::new(field.as_ref().clone().with_data_type(kind))
    };
    let fields: Vec<_> = schema.fields().iter().enumerate().map(hint).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn unchecked_text(reader: &ArrowReaderMetadata) -> Vec<usize> {
    let fields = reader.schema().fields();
    let columns = reader.parquet_schema();
    root_leaves(reader.metadata())
        .filter(|&(root, leaf)| {
            fields[root].data_type() == &DataType::Utf8View
                && columns.column(leaf).converted_type() != ConvertedType::UTF8
        })
        .map(|(root, _)| root)
        .collect()
}

fn unsafe_nested(metadata: &ParquetMetaData) -> Vec<usize> {
    let schema = metadata.file_metadata().schema_descr();
    let is_unsafe = |leaf: usize| {
        let column = schema.column(leaf);
        let is_text = matches!(
            column.logical_type_ref(),
            Some(LogicalType::String | LogicalType::Json)
        ) || column.converted_type() == ConvertedType::JSON;
        column.physical_type() == PhysicalType::INT96
            || (is_text && column.converted_type() != ConvertedType::UTF8)
    };
    let mut roots: Vec<usize> = (0..schema.num_columns())
        .filter(|&leaf| is_unsafe(leaf))
        .map(|leaf| schema.get_column_root_idx(leaf))
        .filter(|&root| !schema.root_schema().get_fields()[root].is_primitive())
        .collect();
    roots.dedup();
    roots
}

/// Reads and checks the footer of an object; also returns what was fetched of its end.
pub(crate) async fn read(object: &Object) -> Result<(Footer, Piece)> {
    let size = object.size();
    let tail_start = size.saturating_sub(TAIL);
    let range = tail_start..size;
    let bytes = object.ranges(std::slice::from_ref(&range)).await?;
    let bytes = bytes.into_iter().next().unwrap_or_default();
    let tail = Piece {
        start: tail_start,
        bytes,
    };
    let options = ParquetMetaDataOptions::new()
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let mut decoder = guarded::<_, ParquetError>(object, || {
        let mut decoder = ParquetMetaDataPushDecoder::try_new(size)?
            .with_page_index_policy(PageIndexPolicy::Skip)
            .with_metadata_options(Some(Arc::new(options)));
        decoder.push_range(tail.start..size, tail.bytes.clone())?;
        Ok(decoder)
    })?;
    loop {
        match guarded(object, || decoder.try_decode())? {
            DecodeResult::Data(metadata) => {
                let footer = guarded(object, || Footer::try_new(metadata))?;
                return Ok((footer, tail));
            }
            DecodeResult::NeedsData(ranges) => {
                let wanted: u64 = ranges
                    .iter()
                    .map(|r| r.end.saturating_sub(r.start))
                    .fold(0, u64::saturating_add);
                if wanted > MAX_FOOTER {
                    return Err(object.corrupt(format!("its footer claims {wanted} bytes")));
                }
                let bytes = object.ranges(&ranges).await?;
                guarded(object, || decoder.push_ranges(ranges, bytes))?;
            }
            DecodeResult::Finished => return Err(object.corrupt("it has no footer")),
        }
    }
}

/// The least recently used footers go when their bytes exceed the limit.
#[derive(Debug)]
pub(crate) struct FooterCache {
    limit: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    footers: HashMap<Identity, (Arc<Footer>, u64)>,
    by_use: BTreeMap<u64, Identity>,
    clock: u64,
    bytes: usize,
}

impl FooterCache {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<Arc<Footer>> {
        let mut entries = self.entries.lock();
        let Entries {
            footers,
            by_use,
            clock,
            ..
        } = &mut *entries;
        let (footer, used) = footers.get_mut(identity)?;
        *clock += 1;
        if let Some(key) = by_use.remove(used) {
            by_use.insert(*clock, key);
        }
        *used = *clock;
        Some(Arc::clone(footer))
    }

    pub(crate) fn put(&self, identity: Identity, footer: &Arc<Footer>) {
        if footer.memory > self.limit {
            return;
        }
        let mut entries = self.entries.lock();
        entries.clock += 1;
        let now = entries.clock;
        let old = entries
            .footers
            .insert(identity.clone(), (Arc::clone(footer), now));
        if let Some((old, used)) = old {
            entries.by_use.remove(&used);
            entries.bytes -= old.memory;
        }
        entries.by_use.insert(now, identity);
        entries.bytes += footer.memory;
        while entries.bytes > self.limit {
            let Some((_, oldest)) = entries.by_use.pop_first() else {
                break;
            };
            if let Some((gone, _)) = entries.footers.remove(&oldest) {
                entries.bytes -= gone.memory;
            }
        }
    }
}

#[cfg(test)]
impl FooterCache {
    pub(crate) fn bytes(&self) -> usize {
        self.entries.lock().bytes
    }
}
