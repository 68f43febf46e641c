//! Which rows go into which file, and in what order.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array,
    new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use chrono::DateTime;
use featureflight_catalog::model::FeatureType;
use featureflight_catalog::table::{FeatureTable, system_fields};
use featureflight_catalog::{Error, Instant, Result};

use crate::outbox::{Landing, PendingBlock, Position, Stage};
use crate::record::Block;

pub(super) const HOUR: i64 = 3_600_000_000;

/// A file to be written.
pub(super) struct Planned {
    /// The object's key.
    pub(super) path: Arc<str>,
    /// Sorted by record identifier, event time and order of acceptance.
    pub(super) batch: RecordBatch,
    /// The rows of each block that are in it.
    pub(super) rows: Vec<(Arc<PendingBlock>, Vec<usize>)>,
}

impl Planned {
    pub(super) fn landing(&self) -> Landing {
        let rows = self.rows.iter();
        Landing {
            file: self.path.to_string(),
            rows: rows
                .map(|(block, rows)| (block.position, rows.clone()))
                .collect(),
        }
    }

    /// The first and the last place in the order of acceptance, by which a second file of the same
    /// rows would be known.
    pub(super) fn positions(&self) -> Option<(Position, Position)> {
        let mut positions = self.rows.iter().map(|(block, _)| block.position);
        let first = positions.next()?;
        Some((first, positions.next_back().unwrap_or(first)))
    }
}

/// Rows of one hour as they are found.
#[derive(Default)]
struct Hour {
    batches: Vec<RecordBatch>,
    instants: Vec<Instant>,
    rows: Vec<(Arc<PendingBlock>, Vec<usize>)>,
}

/// The files for all rows of `blocks` that are not in the offline store.
pub(super) fn files(table: &FeatureTable, blocks: &[Arc<PendingBlock>]) -> Result<Vec<Planned>> {
    let schema = schema(table);
    let mut hours: BTreeMap<i64, Hour> = BTreeMap::new();
    for pending in blocks {
        let block = pending.read()?;
        let mut rows_of_hour: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for row in pending.unsettled(Stage::Offline) {
            let hour = block.instants()[row].micros.div_euclid(HOUR);
            rows_of_hour.entry(hour).or_default().push(row);
        }
        for (hour, rows) in rows_of_hour {
            let hour = hours.entry(hour).or_default();
            hour.batches
                .push(versions(&schema, pending, &block, &rows)?);
            hour.instants
                .extend(rows.iter().map(|row| block.instants()[*row]));
            hour.rows.push((Arc::clone(pending), rows));
        }
    }
    let planned = hours
        .into_iter()
        .map(|(hour, rows)| planned(table, &schema, hour, rows));
    planned.collect()
}

fn planned(table: &FeatureTable, schema: &SchemaRef, hour: i64, rows: Hour) -> Result<Planned> {
    let Hour {
        batches,
        instants,
        rows,
    } = rows;
    let together = concat_batches(schema, &batches).map_err(unfit)?;
    let order = order(together.column(table.record_identifier), &instants)?;
    let latest = instants.iter().max().copied().unwrap_or(Instant::MIN);
    Ok(Planned {
        path: path(table, hour, latest)?,
        batch: take_record_batch(&together, &order).map_err(unfit)?,
        rows,
    })
}

/// Features as the definition lists them, then the service's three columns.
pub(super) fn schema(table: &FeatureTable) -> SchemaRef {
    let definitions = table.group.feature_definitions.iter();
    let features = definitions.map(|definition| {
        let kind = match definition.feature_type {
            FeatureType::Integral => DataType::Int64,
            FeatureType::Fractional => DataType::Float64,
            FeatureType::String | FeatureType::Other(_) => DataType::Utf8,
        };
        Field::new(&definition.feature_name, kind, true)
    });
    Arc::new(Schema::new(
        features.chain(system_fields()).collect::<Vec<_>>(),
    ))
}

/// Rows of a block as they stand in a file.
fn versions(
    schema: &SchemaRef,
    pending: &PendingBlock,
    block: &Block,
    rows: &[usize],
) -> Result<RecordBatch> {
    let wanted = UInt64Array::from_iter_values(rows.iter().map(|row| *row as u64));
    let taken = take_record_batch(&block.rows, &wanted).map_err(unfit)?;
    let times = vec![pending.accepted_at.micros; rows.len()];
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let deleted = BooleanArray::from(vec![block.operation.is_delete(); rows.len()]);
    let system: [ArrayRef; 3] = [Arc::clone(&times), times, Arc::new(deleted)];
    let features = schema.fields().len() - system.len();
    let features = schema.fields().iter().take(features).map(|field| {
        let column = taken.column_by_name(field.name());
        column.map_or_else(|| new_null_array(field.data_type(), rows.len()), Arc::clone)
    });
    RecordBatch::try_new(Arc::clone(schema), features.chain(system).collect()).map_err(unfit)
}

fn order(identifiers: &ArrayRef, instants: &[Instant]) -> Result<UInt64Array> {
    let keys = sort_keys(identifiers)?;
    let mut order: Vec<usize> = (0..instants.len()).collect();
    // Stable: rows that tie stay in the order of acceptance.
    order.sort_by(|a, b| {
        let (one, other) = (keys.row(*a), keys.row(*b));
        one.cmp(&other)
            .then_with(|| instants[*a].cmp(&instants[*b]))
    });
    Ok(UInt64Array::from_iter_values(
        order.into_iter().map(|row| row as u64),
    ))
}

/// Record identifiers in a form that is compared by its bytes: equal ones are the same record.
pub(super) fn sort_keys(identifiers: &ArrayRef) -> Result<Rows> {
    let field = SortField::new(identifiers.data_type().clone());
    let converter = RowConverter::new(vec![field]).map_err(unfit)?;
    let identifiers = match identifiers.as_primitive_opt::<Float64Type>() {
        // Zeros have no sign there.
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(|double| double + 0.0)),
        None => Arc::clone(identifiers),
    };
    converter.convert_columns(&[identifiers]).map_err(unfit)
}

fn path(table: &FeatureTable, hour: i64, latest: Instant) -> Result<Arc<str>> {
    let time = |seconds: i64| {
        DateTime::from_timestamp(seconds, 0)
            .ok_or_else(|| Error::internal("an event time has no calendar date"))
    };
    let folder = time(hour.saturating_mul(3_600))?.format("year=%Y/month=%m/day=%d/hour=%H");
    let latest = time(latest.micros.div_euclid(1_000_000))?.format("%Y%m%dT%H%M%SZ");
    let prefix = &table.files.location.prefix;
    Ok(format!("{prefix}/{folder}/{latest}_{}.parquet", suffix()).into())
}

/// 16 letters and digits that no two files share.
fn suffix() -> String {
    const DIGITS: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut number: u128 = rand::random();
    let digit = |_| {
        let digit = char::from(DIGITS[(number % 36) as usize]);
        number /= 36;
        digit
    };
    (0..16).map(digit).collect()
}

pub(super) fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::internal("accepted rows do not fit a data file").with_source(error)
}
