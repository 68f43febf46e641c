//! Filters that name no column, such as `HAVING (SELECT ...) > 1` or what a join that never matches
//! leaves of its condition. `push_down_filter` of `DataFusion` 55.2 takes them below an aggregate without
//! groups, which makes a row of no input, and so a row where there should be none.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Whether `plan` is a filter above such an aggregate.
pub(super) fn filtered(plan: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Filter(filter) = plan else {
        return Ok(false);
    };
    // The rule makes one of filters that follow each other.
    let mut below = &filter.input;
    while let LogicalPlan::Filter(filter) = Arc::as_ref(below) {
        below = &filter.input;
    }
    let LogicalPlan::Aggregate(aggregate) = Arc::as_ref(below) else {
        return Ok(false);
    };
    let keys = &aggregate.group_expr;
    let sets = keys.iter().any(|key| matches!(key, Expr::GroupingSet(_)));
    Ok(keys.is_empty() || sets)
}
