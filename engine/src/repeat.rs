//! Whether a plan gives the same rows again from the same files, and how an order with ties is made
//! to.
//!
//! Operators run in parallel, so the order in which rows arrive differs between runs. That shows in
//! the rows themselves where the plan takes the first of them: `LIMIT`, numbering windows,
//! order-sensitive aggregates. `ORDER BY ... LIMIT` is settled by sorting on the remaining columns
//! too; the rest marks the query as good once. (Sums of floating-point numbers may differ in their
//! last digits; nothing here changes that.)

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    Expr, LogicalPlan, SortExpr, WindowFrameUnits, WindowFunctionDefinition,
};

/// Aggregates whose result depends on the order of their input.
const ORDERED_AGGREGATES: [&str; 8] = [
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
];

/// Window functions that give rows of one rank the same value.
const TIE_FREE_WINDOWS: [&str; 4] = ["rank", "dense_rank", "percent_rank", "cume_dist"];

/// `plan` with every `ORDER BY ... LIMIT` made total, where its columns can be ordered.
pub(crate) fn settle_ties(plan: LogicalPlan) -> Result<LogicalPlan> {
    let settled = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Limit(mut limit) => {
            let input = settle_order(limit.input.as_ref().clone())?;
            let changed = input.is_some();
            if let Some(input) = input {
                limit.input = std::sync::Arc::new(input);
            }
            let node = LogicalPlan::Limit(limit);
            Ok(if changed {
                Transformed::yes(node)
            } else {
                Transformed::no(node)
            })
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(settled.data)
}

/// The sort below a limit, through what keeps its order, extended by its input's other columns.
fn settle_order(plan: LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            let Some(ties) = tie_breaks(&sort.expr, sort.input.schema()) else {
                return Ok(None);
            };
            if ties.is_empty() {
                return Ok(None);
            }
            sort.expr.extend(ties);
            Ok(Some(LogicalPlan::Sort(sort)))
        }
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            let Some(input) = plan.inputs().first().map(|input| LogicalPlan::clone(input)) else {
                return Ok(None);
            };
            let Some(input) = settle_order(input)? else {
                return Ok(None);
            };
            Ok(Some(plan.with_new_exprs(plan.expressions(), vec![input])?))
        }
        _ => Ok(None),
    }
}

/// Keys that make `keys` a total order of rows of `schema`; `None` when a column has no order.
fn tie_breaks(keys: &[SortExpr], schema: &DFSchema) -> Option<Vec<SortExpr>> {
    let mut ties = Vec::new();
    for (qualifier, field) in schema.iter() {
        let column = Expr::Column(Column::from((qualifier, field.as_ref())));
        if keys.iter().any(|key| key.expr == column) {
            continue;
        }
        if !has_order(field.data_type()) {
            return None;
        }
        ties.push(column.sort(true, true));
    }
    Some(ties)
}

fn has_order(data_type: &DataType) -> bool {
    data_type.is_primitive()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Null
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
        )
}

/// Whether every run of `plan` over the same files gives the same rows, as a multiset.
pub(crate) fn repeats(plan: &LogicalPlan) -> Result<bool> {
    let mut repeats = true;
    plan.apply_with_subqueries(|node| {
        repeats = repeats && node_repeats(node)?;
        Ok(if repeats {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    })?;
    Ok(repeats)
}

fn node_repeats(node: &LogicalPlan) -> Result<bool> {
    match node {
        // Measured times.
        LogicalPlan::Analyze(_) => return Ok(false),
        LogicalPlan::Limit(limit) if !is_ordered(&limit.input) => return Ok(false),
        LogicalPlan::TableScan(scan) if scan.fetch.is_some() => return Ok(false),
        LogicalPlan::Distinct(datafusion::logical_expr::Distinct::On(_)) => return Ok(false),
        _ => {}
    }
    let mut repeats = true;
    node.apply_expressions(|expr| {
        repeats = repeats && !expr.exists(|e| Ok(depends_on_order(e) || e.is_volatile_node()))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(repeats)
}

/// Whether rows come in a total order.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => {
            tie_breaks(&sort.expr, sort.input.schema()).is_some_and(|ties| ties.is_empty())
        }
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().is_some_and(|input| is_ordered(input))
        }
        LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        _ => false,
    }
}

fn depends_on_order(expr: &Expr) -> bool {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, .. }) => {
            ORDERED_AGGREGATES.contains(&func.name())
        }
        Expr::WindowFunction(window) => {
            let WindowFunction { fun, params } = window.as_ref();
            match fun {
                WindowFunctionDefinition::WindowUDF(fun) => !TIE_FREE_WINDOWS.contains(&fun.name()),
                WindowFunctionDefinition::AggregateUDF(fun) => {
                    let frame = &params.window_frame;
                    let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
                    ORDERED_AGGREGATES.contains(&fun.name())
                        || (frame.units != WindowFrameUnits::Range && !whole)
                }
            }
        }
        _ => false,
    }
}
