//! Phase two: the wanted features of the versions that won.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use featureflight_catalog::Result;
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::versions::{Columns, VersionBatch};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use crate::ranking::pass::History;
use crate::ranking::rank::Rank;

/// The place of one version: position in the files of a history, and row in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) row: u32,
}

impl From<&Rank> for Place {
    fn from(rank: &Rank) -> Self {
        Self {
            file: rank.file,
            row: rank.row,
        }
    }
}

/// Ranges of `places`, which are sorted and distinct, that lie in one file and hold at most
/// `longest` rows.
pub(crate) fn by_file(places: &[Place], longest: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for same_file in places.chunk_by(|a, b| a.file == b.file) {
        for part in same_file.chunks(longest.max(1)) {
            ranges.push(start..start + part.len());
            start += part.len();
        }
    }
    ranges
}

/// The features (positions in the definitions) of the places in `runs`, in their order, with the
/// position of each batch's first row among `places`, which are sorted and distinct. Runs are as
/// [`by_file`] makes them; at most `ahead` files are opened ahead.
pub(crate) fn fetch(
    history: &History,
    places: &Arc<[Place]>,
    runs: Vec<Range<usize>>,
    features: &[usize],
    ahead: usize,
    metrics: &ScanMetrics,
) -> BoxStream<'static, Result<(usize, VersionBatch)>> {
    let file = |run: &Range<usize>| Arc::clone(&history.files[places[run.start].file as usize]);
    let files = runs.iter().map(file).collect();
    let columns = Columns {
        features: features.to_vec(),
        ..Columns::default()
    };
    let mut next: Vec<usize> = runs.iter().map(|run| run.start).collect();
    let places = Arc::clone(places);
    let select = move |position: usize| selection(&places[runs[position].clone()]);
    history
        .reader
        .read_selected(&history.table, files, select, &columns, ahead, metrics)
        .map_ok(move |(position, batch)| {
            let start = next[position];
            next[position] += batch.rows;
            (start, batch)
        })
        .boxed()
}

fn selection(places: &[Place]) -> RowSelection {
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut end = 0_usize;
    for run in places.chunk_by(|a, b| a.row + 1 == b.row) {
        let first = run[0].row as usize;
        if first > end {
            selectors.push(RowSelector::skip(first - end));
        }
        selectors.push(RowSelector::select(run.len()));
        end = first + run.len();
    }
    selectors.into()
}

/// `column` without the unreferenced bytes that selected views drag along: they keep whole pages
/// alive, and whoever counts memory counts them once per batch.
pub(crate) fn compact(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column,
    }
}

/// `batch` with every column as [`compact`] makes it.
pub(crate) fn compacted(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().cloned().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// The rows at `indices` of every column, holding nothing else; a null index is a null.
pub(crate) fn taken(
    columns: &[ArrayRef],
    indices: &UInt32Array,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let taken = columns
        .iter()
        .map(|column| Ok(compact(take(column, indices, None)?)));
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places: &[(u32, u32)]) -> Vec<Place> {
        places
            .iter()
            .map(|(file, row)| Place {
                file: *file,
                row: *row,
            })
            .collect()
    }

    #[test]
    fn runs_become_one_selector() {
        let selection = selection(&places(&[(0, 0), (0, 1), (0, 5), (0, 6), (0, 9)]));
        let selectors: Vec<RowSelector> = selection.into();
        let expected = [
            RowSelector::select(2),
            RowSelector::skip(3),
            RowSelector::select(2),
            RowSelector::skip(2),
            RowSelector::select(1),
        ];
        assert_eq!(selectors, expected);
    }

    #[test]
    fn parts_stay_in_one_file() {
        let places = places(&[(0, 1), (0, 2), (0, 3), (2, 0), (3, 7), (3, 8)]);
        assert_eq!(by_file(&places, 2), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(by_file(&places, 100), [0..3, 3..4, 4..6]);
        assert!(by_file(&[], 2).is_empty());
    }
}
