//! Reads versions that are in no file yet as if they were rows of one.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter;
use futures::StreamExt;
use futures::stream::{BoxStream, try_unfold};
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::{Error, Result};
use crate::table::FeatureTable;
use crate::unlanded::Unlanded;

use super::prune::Prune;
use super::versions::{Columns, InstantColumn, VersionBatch};

/// What is left to read of a sequence.
struct Rest {
    unlanded: Arc<dyn Unlanded>,
    table: Arc<FeatureTable>,
    columns: Columns,
    /// Of the rows, counted through all batches; `None` for all.
    selected: Option<Vec<Range<usize>>>,
    prune: Prune,
    batch: usize,
    first_row: usize,
}

/// As [`FileReader::read`](super::versions::FileReader::read).
pub(super) fn read(
    unlanded: Arc<dyn Unlanded>,
    table: Arc<FeatureTable>,
    columns: Columns,
    selection: Option<RowSelection>,
    prune: Prune,
) -> BoxStream<'static, Result<VersionBatch>> {
    let rest = Rest {
        unlanded,
        table,
        columns,
        selected: selection.map(ranges),
        prune,
        batch: 0,
        first_row: 0,
    };
    try_unfold(rest, |mut rest| async move {
        Ok(rest.next().await?.map(|batch| (batch, rest)))
    })
    .boxed()
}

impl Rest {
    async fn next(&mut self) -> Result<Option<VersionBatch>> {
        while self.batch < self.unlanded.batches() {
            let (batch, first) = (self.batch, self.first_row);
            let rows = self.unlanded.rows(batch);
            self.batch += 1;
            self.first_row += rows;
            if !self.unlanded.may_pass(batch, &self.prune) {
                continue;
            }
            let wanted = self.selected.as_ref().map(|selected| {
                let is_in = |row: usize| selected.iter().any(|range| range.contains(&row));
                (first..first + rows).map(is_in).collect::<BooleanArray>()
            });
            if wanted
                .as_ref()
                .is_some_and(|wanted| wanted.true_count() == 0)
            {
                continue;
            }
            let (unlanded, table) = (Arc::clone(&self.unlanded), Arc::clone(&self.table));
            let columns = self.columns.clone();
            let read = move || unlanded.read(batch, &table, &columns);
            let mut read = tokio::task::spawn_blocking(read).await.map_err(|error| {
                Error::internal("reading accepted rows broke off").with_source(error)
            })??;
            read.first_row = first as u64;
            return match wanted {
                Some(wanted) => picked(&read, &wanted).map(Some),
                None => Ok(Some(read)),
            };
        }
        Ok(None)
    }
}

fn ranges(selection: RowSelection) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    for selector in selection.iter() {
        if !selector.skip {
            ranges.push(at..at + selector.row_count);
        }
        at += selector.row_count;
    }
    ranges
}

/// The rows of `batch` where `wanted` is true.
fn picked(batch: &VersionBatch, wanted: &BooleanArray) -> Result<VersionBatch> {
    let failed = |error| Error::internal("accepted rows cannot be picked").with_source(error);
    let keep = |column: &ArrayRef| filter(column, wanted).map_err(failed);
    let rows = || (0..batch.rows).filter(|row| wanted.value(*row));
    let instants = |column: &Option<InstantColumn>| {
        column.as_ref().map(|column| InstantColumn {
            micros: rows().map(|row| column.micros[row]).collect(),
            nanos: column
                .nanos
                .as_ref()
                .map(|nanos| rows().map(|row| nanos[row]).collect()),
        })
    };
    Ok(VersionBatch {
        first_row: batch.first_row,
        rows: wanted.true_count(),
        features: batch.features.iter().map(keep).collect::<Result<_>>()?,
        event_time: instants(&batch.event_time),
        write_time: instants(&batch.write_time),
        api_invocation_time: instants(&batch.api_invocation_time),
        is_deleted: batch
            .is_deleted
            .as_ref()
            .map(|column| rows().map(|row| Some(column.value(row))).collect()),
    })
}
