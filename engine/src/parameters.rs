//! Bound parameters: rows of Arrow data, of which each is one set of values.

use arrow::array::RecordBatch;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Result};

/// The values of each row, in order.
///
/// # Errors
/// `InvalidArgument` for a type that cannot be a parameter.
pub fn values(rows: &[RecordBatch]) -> Result<Vec<Vec<ScalarValue>>> {
    let places = rows
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    places.map(|(batch, row)| of_row(batch, row)).collect()
}

fn of_row(batch: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>> {
    let values = batch.columns().iter().map(|column| {
        ScalarValue::try_from_array(column, row).map_err(|error| {
            let kind = column.data_type();
            Error::invalid(format!("a parameter of type {kind} cannot be bound")).with_source(error)
        })
    });
    values.collect()
}
