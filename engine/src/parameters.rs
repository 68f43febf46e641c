//! Bound parameters: rows of Arrow data, of which each is one set of values.

use arrow::array::RecordBatch;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};

/// Rows of parameters of one query, each of which is planned by itself.
const MAX_ROWS: usize = 256;

/// The values of each row, in order.
///
/// # Errors
/// `InvalidArgument` for a type that cannot be a parameter, `ResourceExhausted` for more rows than a
/// query runs with: rows may take no bytes, but each value does.
pub fn values(rows: &[RecordBatch]) -> Result<Vec<Vec<ScalarValue>>> {
    let number: usize = rows.iter().map(RecordBatch::num_rows).sum();
    if number > MAX_ROWS {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "a query runs with at most {MAX_ROWS} rows of parameters, {number} are bound: upload \
                 them into a temporary table and join it"
            ),
        ));
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, NullArray};

    use super::*;

    #[test]
    fn rows_that_take_no_bytes_are_counted_before_they_are_values() {
        let nulls = |rows| {
            let nulls: ArrayRef = Arc::new(NullArray::new(rows));
            RecordBatch::try_from_iter_with_nullable([("1", nulls, true)]).unwrap()
        };
        assert_eq!(values(&[nulls(200), nulls(56)]).unwrap().len(), 256);
        let refused = values(&[nulls(200), nulls(1 << 24)]).unwrap_err();
        assert_eq!(refused.kind, Kind::ResourceExhausted);
        assert!(refused.message.contains("256"), "{refused}");
    }
}
