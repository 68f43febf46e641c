//! The rows of `history`: versions that pass the cut, projected.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::instant::Instant;
use crate::listing::{DataFile, EventRange};
use crate::scan::convert::timestamps;
use crate::scan::exec::Relation;
use crate::scan::files::ScanMetrics;
use crate::scan::prune::Prune;
use crate::scan::versions::{Columns, InstantColumn, VersionBatch};
use crate::table::FeatureTable;
use crate::unlanded::PENDING;

use super::{Cut, ScanContext};

/// A projection of a group's history under a cut.
#[derive(Debug)]
pub(super) struct History {
    table: Arc<FeatureTable>,
    context: ScanContext,
    columns: Columns,
    prune: Prune,
    projector: Projector,
}

impl History {
    /// `projection` are positions in the history schema. Versions outside of `range` do not
    /// matter.
    pub(super) fn try_new(
        table: &Arc<FeatureTable>,
        cut: Cut,
        range: EventRange,
        context: &ScanContext,
        projection: Vec<usize>,
    ) -> Result<Self, ArrowError> {
        Ok(Self {
            columns: columns(table, cut, &projection),
            prune: Prune {
                event_time: range,
                write_time_at_most: cut.system_time,
                ..Prune::default()
            },
            projector: Projector {
                schema: Arc::new(table.history_schema.project(&projection)?),
                cut,
                features: table.state_schema.fields().len(),
                projection,
            },
            table: Arc::clone(table),
            context: context.clone(),
        })
    }
}

/// The columns to decode: the projection's and the cut's.
fn columns(table: &FeatureTable, cut: Cut, projection: &[usize]) -> Columns {
    let features = table.state_schema.fields().len();
    let system = |at: usize| projection.contains(&(features + at));
    Columns {
        features: projection
            .iter()
            .copied()
            .filter(|&at| at < features)
            .collect(),
        event_time: cut.event_time.from.is_some() || cut.event_time.to.is_some(),
        write_time: system(0) || cut.system_time.is_some(),
        api_invocation_time: system(1),
        is_deleted: system(2),
    }
}

impl Relation for History {
    fn operator(&self) -> &'static str {
        "HistoryExec"
    }

    fn table(&self) -> &str {
        self.table.name()
    }

    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut {
            event_time,
            system_time,
        } = self.projector.cut;
        if let Some(from) = event_time.from {
            write!(f, ", event_time>={from}")?;
        }
        if let Some(to) = event_time.to {
            write!(f, ", event_time<={to}")?;
        }
        match system_time {
            Some(system) => write!(f, ", write_time<={system}"),
            None => Ok(()),
        }
    }

    fn schema(&self) -> &SchemaRef {
        &self.projector.schema
    }

    fn read(
        &self,
        files: Vec<Arc<DataFile>>,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let projector = self.projector.clone();
        self.context
            .read_files(&self.table, files, &self.columns, &self.prune, metrics)
            .try_filter_map(move |(_, batch)| std::future::ready(projector.project(&batch)))
            .boxed()
    }
}

/// From versions to rows of the relation.
#[derive(Debug, Clone)]
struct Projector {
    schema: SchemaRef,
    cut: Cut,
    /// Columns of the history schema before the system columns.
    features: usize,
    projection: Vec<usize>,
}

impl Projector {
    /// `None` when no row passes the cut.
    fn project(&self, batch: &VersionBatch) -> Result<Option<RecordBatch>> {
        let keep = keep(batch, self.cut);
        if keep.as_ref().is_some_and(|keep| keep.count_set_bits() == 0) {
            return Ok(None);
        }
        let mut features = batch.features.iter();
        let columns = self.projection.iter().map(|&at| {
            let system = |column: Option<ArrayRef>| {
                column.ok_or_else(|| Error::internal("a system column was not decoded"))
            };
            match at.checked_sub(self.features) {
                None => system(features.next().cloned()),
                Some(0) => system(batch.write_time.as_ref().map(write_times)),
                Some(1) => system(batch.api_invocation_time.as_ref().map(timestamps)),
                Some(_) => system(batch.is_deleted.clone().map(|column| Arc::new(column) as _)),
            }
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(unfit)?;
        Ok(Some(match keep {
            Some(keep) if keep.count_set_bits() < batch.rows => {
                filter_record_batch(&rows, &BooleanArray::new(keep, None)).map_err(unfit)?
            }
            _ => rows,
        }))
    }
}

/// Null where a version is not written yet.
fn write_times(instants: &InstantColumn) -> ArrayRef {
    let is_pending = |micros: &i64| *micros == PENDING.micros;
    if !instants.micros.iter().any(is_pending) {
        return timestamps(instants);
    }
    let written = instants.micros.iter();
    let written = written.map(|micros| Some(*micros).filter(|micros| !is_pending(micros)));
    let written: TimestampMicrosecondArray = written.collect();
    Arc::new(written.with_timezone("UTC"))
}

fn unfit(error: ArrowError) -> Error {
    Error::internal("decoded columns do not fit the relation").with_source(error)
}

/// Which versions pass the cut, compared as instants; `None` for all.
fn keep(batch: &VersionBatch, cut: Cut) -> Option<BooleanBuffer> {
    let mut kept: Option<BooleanBuffer> = None;
    let mut apply = |column: &Option<InstantColumn>, holds: &dyn Fn(Instant) -> bool| {
        if let Some(column) = column {
            let passes = BooleanBuffer::collect_bool(batch.rows, |row| holds(column.get(row)));
            kept = Some(match &kept {
                Some(kept) => kept & &passes,
                None => passes,
            });
        }
    };
    if let Some(from) = cut.event_time.from {
        apply(&batch.event_time, &|at| at >= from);
    }
    if let Some(to) = cut.event_time.to {
        apply(&batch.event_time, &|at| at <= to);
    }
    if let Some(system) = cut.system_time {
        apply(&batch.write_time, &|at| at <= system);
    }
    kept
}
