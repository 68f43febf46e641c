//! Which columns of a result are announced without nulls: those that a table is known to have without,
//! and that come from it as they are. What else a plan says of nulls changes while it is optimized, and
//! a statement that is prepared, or asked for its schema, is not.

use std::sync::Arc;

use arrow::datatypes::{Field, Fields, Schema};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// For each column of `plan`, which is as it was planned, whether it never has a null.
pub(crate) fn never_null(plan: &LogicalPlan) -> Vec<bool> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let fields = scan.projected_schema.fields().iter();
            fields.map(|field| !field.is_nullable()).collect()
        }
        LogicalPlan::Projection(projection) => {
            let (below, schema) = (never_null(&projection.input), projection.input.schema());
            let kept = |expr: &Expr| match expr.clone().unalias_nested().data {
                Expr::Column(column) => schema
                    .maybe_index_of_column(&column)
                    .is_some_and(|at| below.get(at) == Some(&true)),
                _ => false,
            };
            projection.expr.iter().map(kept).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => never_null(&alias.input),
        LogicalPlan::Filter(filter) => never_null(&filter.input),
        LogicalPlan::Sort(sort) => never_null(&sort.input),
        LogicalPlan::Limit(limit) => never_null(&limit.input),
        LogicalPlan::Window(window) => {
            let mut kept = never_null(&window.input);
            kept.resize(window.schema.fields().len(), false);
            kept
        }
        other => vec![false; other.schema().fields().len()],
    }
}

/// `schema` with just these columns without nulls.
pub(crate) fn with_nulls(schema: &Schema, never_null: &[bool]) -> Schema {
    let fields = schema.fields().iter().enumerate().map(|(at, field)| {
        let nullable = never_null.get(at) != Some(&true);
        Arc::new(Field::clone(field).with_nullable(nullable))
    });
    Schema::new_with_metadata(fields.collect::<Fields>(), schema.metadata().clone())
}
