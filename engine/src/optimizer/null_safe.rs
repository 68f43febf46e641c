//! Joins on `IS NOT DISTINCT FROM` beside others. `eliminate_cross_join` of `DataFusion` 55.2 takes a
//! tree of inner joins apart and makes all of them compare nulls as the outermost does.

use datafusion::common::NullEquality;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::{JoinType, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::LogicalRule;

/// The rule, for plans without such joins.
#[derive(Debug)]
pub(super) struct KeepNullSafeJoins(pub(super) LogicalRule);

impl OptimizerRule for KeepNullSafeJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let is_null_safe = |plan: &LogicalPlan| {
            Ok(matches!(
                plan,
                LogicalPlan::Join(join)
                    if join.join_type == JoinType::Inner
                        && join.null_equality == NullEquality::NullEqualsNull
            ))
        };
        if plan.exists(is_null_safe)? {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}
