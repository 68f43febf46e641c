//! Joins on `IS NOT DISTINCT FROM` beside others. `eliminate_cross_join` of `DataFusion` 55.2 takes a
//! tree of inner joins apart and makes all of them compare nulls as the outermost does.

use datafusion::common::NullEquality;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::{JoinType, LogicalPlan};

/// Whether `plan` has such a join.
pub(super) fn joins(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|plan| {
        Ok(matches!(
            plan,
            LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner
                    && join.null_equality == NullEquality::NullEqualsNull
        ))
    })
}
