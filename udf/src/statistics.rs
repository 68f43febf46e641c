//! What the optimizer may know of the rows of a join that keeps its left side.

use arrow::datatypes::Schema;
use datafusion::common::Statistics;

/// Statistics of a join to `schema` with exactly one row per row of the left side, whose columns
/// come first. `left` is what is known of that side.
pub(crate) fn of_left_join(schema: &Schema, left: Option<&Statistics>) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    if let Some(left) = left {
        statistics.num_rows = left.num_rows;
        let columns = statistics.column_statistics.iter_mut();
        for (own, left) in columns.zip(&left.column_statistics) {
            own.clone_from(left);
        }
    }
    statistics
}
