//! Filters that name no column, such as `HAVING (SELECT ...) > 1` or what a join that never matches
//! leaves of its condition. `push_down_filter` of `DataFusion` 55.2 takes them below an aggregate without
//! groups, which makes a row of no input, and so a row where there should be none.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::LogicalRule;

/// The rule, for filters that are not above such an aggregate.
#[derive(Debug)]
pub(super) struct FilterAboveTotals(pub(super) LogicalRule);

impl OptimizerRule for FilterAboveTotals {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if filters_totals(&plan) {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

fn filters_totals(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = plan else {
        return false;
    };
    // The rule makes one of filters that follow each other.
    let mut below = &filter.input;
    while let LogicalPlan::Filter(filter) = Arc::as_ref(below) {
        below = &filter.input;
    }
    let LogicalPlan::Aggregate(aggregate) = Arc::as_ref(below) else {
        return false;
    };
    let grouping = &aggregate.group_expr;
    grouping.is_empty()
        || grouping
            .iter()
            .any(|key| matches!(key, Expr::GroupingSet(_)))
}
