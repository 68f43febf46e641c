//! Phase two: the wanted features of the versions that won.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use featureflight_catalog::scan::versions::{Columns, VersionBatch};
use featureflight_catalog::{Error, Result};
use futures::stream::{BoxStream, StreamExt};
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

/// The features (positions in the definitions) of `places`, in their order, with the position of
/// each batch's first row among them. All lie in one file, sorted and distinct.
pub(crate) fn fetch(
    history: &History,
    places: &[Place],
    features: &[usize],
) -> BoxStream<'static, Result<(usize, VersionBatch)>> {
    let Some(file) = places.first().map(|place| place.file) else {
        return futures::stream::empty().boxed();
    };
    let file = Arc::clone(&history.files[file as usize]);
    let columns = Columns {
        features: features.to_vec(),
        ..Columns::default()
    };
    let wanted = places.len();
    let selection = Some(selection(places));
    let batches = history
        .reader
        .read(&history.table, &file, &columns, selection);
    checked(batches, wanted, file.meta.location.to_string())
}

/// Ends with an error when fewer or more rows come than were selected: an answer is never short.
fn checked(
    batches: BoxStream<'static, Result<VersionBatch>>,
    wanted: usize,
    object: String,
) -> BoxStream<'static, Result<(usize, VersionBatch)>> {
    let state = (batches, 0_usize, object);
    futures::stream::try_unfold(state, move |(mut batches, seen, object)| async move {
        match batches.next().await.transpose()? {
            Some(batch) => {
                let rows = batch.rows;
                Ok(Some(((seen, batch), (batches, seen + rows, object))))
            }
            None if seen == wanted => Ok(None),
            None => Err(Error::data_loss(format!(
                "{object} gave {seen} of {wanted} selected rows: was it overwritten?"
            ))),
        }
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

    #[tokio::test]
    async fn too_few_rows_are_an_error_that_names_the_object() {
        let batch = VersionBatch {
            first_row: 0,
            rows: 2,
            features: Vec::new(),
            event_time: None,
            write_time: None,
            api_invocation_time: None,
            is_deleted: None,
        };
        let rows = |batches: usize, wanted| {
            let batches: Vec<_> = (0..batches).map(|_| Ok(batch.clone())).collect();
            let batches = futures::stream::iter(batches).boxed();
            checked(batches, wanted, "a.parquet".to_owned()).collect::<Vec<_>>()
        };
        let whole = rows(2, 4).await;
        let starts: Vec<_> = whole.into_iter().map(|batch| batch.unwrap().0).collect();
        assert_eq!(starts, [0, 2]);
        let error = rows(1, 4).await.pop().unwrap().unwrap_err();
        assert_eq!(
            error.message,
            "a.parquet gave 2 of 4 selected rows: was it overwritten?"
        );
    }

    #[test]
    fn parts_stay_in_one_file() {
        let places = places(&[(0, 1), (0, 2), (0, 3), (2, 0), (3, 7), (3, 8)]);
        assert_eq!(by_file(&places, 2), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(by_file(&places, 100), [0..3, 3..4, 4..6]);
        assert!(by_file(&[], 2).is_empty());
    }
}
