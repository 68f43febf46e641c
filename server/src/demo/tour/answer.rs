//! A small result, whole in memory, and its values by row and column name.

use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow::util::pretty::pretty_format_batches;
use featureflight_catalog::{Error, Result};

/// What a query answered, and how long that took.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) batch: RecordBatch,
    pub(super) took: Duration,
}

impl Answer {
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// As a table of at most `rows` rows.
    ///
    /// # Errors
    /// `Internal` for a value that has no text form.
    pub(super) fn table(&self, rows: usize) -> Result<String> {
        let shown = self.batch.slice(0, rows.min(self.rows()));
        let table = pretty_format_batches(&[shown]).map_err(|error| unreadable(&error))?;
        Ok(table.to_string())
    }

    /// A number of any integer type.
    ///
    /// # Errors
    /// `Internal` when there is no such value, or a null.
    pub(super) fn integer(&self, row: usize, column: &str) -> Result<i64> {
        let values = self.column(row, column, &DataType::Int64)?;
        Ok(values.as_primitive::<Int64Type>().value(row))
    }

    /// A number of any type.
    ///
    /// # Errors
    /// As [`Answer::integer`].
    pub(super) fn real(&self, row: usize, column: &str) -> Result<f64> {
        let values = self.column(row, column, &DataType::Float64)?;
        Ok(values.as_primitive::<Float64Type>().value(row))
    }

    /// # Errors
    /// As [`Answer::integer`].
    pub(super) fn text(&self, row: usize, column: &str) -> Result<String> {
        let values = self.column(row, column, &DataType::Utf8)?;
        Ok(values.as_string::<i32>().value(row).to_owned())
    }

    fn column(&self, row: usize, name: &str, kind: &DataType) -> Result<arrow::array::ArrayRef> {
        let column = self
            .batch
            .column_by_name(name)
            .ok_or_else(|| Error::internal(format!("the answer has no column `{name}`")))?;
        let values = cast(column, kind).map_err(|error| unreadable(&error))?;
        if row >= values.len() || values.is_null(row) {
            return Err(Error::internal(format!(
                "the answer has no `{name}` in row {row}"
            )));
        }
        Ok(values)
    }
}

fn unreadable(error: &ArrowError) -> Error {
    Error::internal(format!("cannot read the answer: {error}"))
}
