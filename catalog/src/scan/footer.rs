//! Footers of data files: read, checked, and kept by the identity of their object.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    FooterTail, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy,
};
use parquet::schema::types::SchemaDescriptor;

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
    /// The leaves whose statistics were decoded, ascending.
    kept: Vec<usize>,
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

    /// The leaf of a root column, if it is one itself.
    pub(crate) fn leaf(&self, root: usize) -> Option<usize> {
        leaf(self.reader.parquet_schema(), root)
    }

    /// Whether statistics are kept of the columns of these names, where they are in the file.
    pub(crate) fn keeps(&self, names: &[&str]) -> bool {
        names.iter().all(|name| match self.find(name) {
            Found::At(root) => self.leaf(root).is_none_or(|leaf| self.kept.contains(&leaf)),
            Found::Missing | Found::Ambiguous => true,
        })
    }

    /// From the metadata at the end of a file.
    fn decode(encoded: &[u8], kept: &[&str]) -> Result<Self, ParquetError> {
        let schema = ParquetMetaDataReader::decode_schema(encoded)?;
        let mut leaves: Vec<usize> = kept
            .iter()
            .flat_map(|name| roots_called(&schema, name))
            .filter_map(|root| leaf(&schema, root))
            .collect();
        leaves.sort_unstable();
        leaves.dedup();
        let decode = |kept: ParquetStatisticsPolicy| {
            let options = ParquetMetaDataOptions::new()
                .with_schema(Arc::clone(&schema))
                .with_column_stats_policy(kept)
                .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
                .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
            ParquetMetaDataReader::decode_metadata_with_options(encoded, Some(&options))
        };
        // Nobody needs statistics: where they are broken the file is read without.
        let metadata = decode(ParquetStatisticsPolicy::skip_except(&leaves))
            .or_else(|_| decode(ParquetStatisticsPolicy::SkipAll))?;
        let mut footer = Self::try_new(metadata)?;
        footer.kept = leaves;
        Ok(footer)
    }

    /// Without statistics.
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
            kept: Vec::new(),
            memory,
        })
    }
}

/// Root columns of this name, ignoring case.
fn roots_called<'a>(
    schema: &'a SchemaDescriptor,
    name: &str,
) -> impl Iterator<Item = usize> + use<'a> {
    let name = name.to_lowercase();
    let fields = schema.root_schema().get_fields();
    (0..fields.len()).filter(move |&root| {
        let field = fields[root].name();
        if field.is_ascii() {
            field.eq_ignore_ascii_case(&name)
        } else {
            field.to_lowercase() == name
        }
    })
}

/// The leaf of a root column that is one itself. Leaves are in the order of their roots.
fn leaf(schema: &SchemaDescriptor, root: usize) -> Option<usize> {
    if !schema.root_schema().get_fields().get(root)?.is_primitive() {
        return None;
    }
    let (mut from, mut to) = (0, schema.num_columns());
    while from < to {
        let middle = usize::midpoint(from, to);
        if schema.get_column_root_idx(middle) < root {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    Some(from)
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

/// Reads and checks the footer of an object, with the statistics of the columns of these names;
/// also returns what was fetched of its end.
pub(crate) async fn read(object: &Object, kept: &[&str]) -> Result<(Footer, Piece)> {
    let size = object.size();
    let tail_start = size.saturating_sub(TAIL);
    let tail = Piece {
        start: tail_start,
        bytes: object.range(tail_start..size).await?,
    };
    let length = guarded(object, || metadata_length(&tail.bytes))?;
    if length > MAX_FOOTER || length + TAIL_LENGTH > size {
        return Err(object.corrupt(format!("its footer claims {length} bytes")));
    }
    let (start, end) = (size - TAIL_LENGTH - length, size - TAIL_LENGTH);
    let encoded = if start < tail_start {
        let mut encoded = object.range(start..tail_start).await?.to_vec();
        let here = tail.get(&(tail_start..end)).unwrap_or_default();
        encoded.extend_from_slice(&here);
        encoded.into()
    } else {
        tail.get(&(start..end)).unwrap_or_default()
    };
    let footer = guarded(object, || Footer::decode(&encoded, kept))?;
    Ok((footer, tail))
}

/// What ends a file: the length of the metadata before it, and the magic.
const TAIL_LENGTH: u64 = 8;

fn metadata_length(tail: &[u8]) -> Result<u64, ParquetError> {
    let tail = tail
        .last_chunk()
        .ok_or_else(|| ParquetError::General("it is too short for a Parquet file".to_owned()))?;
    let tail = FooterTail::try_new(tail)?;
    if tail.is_encrypted_footer() {
        return Err(ParquetError::General("it is encrypted".to_owned()));
    }
    Ok(tail.metadata_length() as u64)
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
