//! Makes operators that turn one batch into very many let other tasks have their turn.
//!
//! `DataFusion` yields where batches enter a plan. A join may compute for minutes on one of them,
//! and a cancelled task ends only where it yields: so such operators yield for their output too.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Operators whose output is not bounded by their input.
const AMPLIFIERS: [&str; 6] = [
    "CrossJoinExec",
    "NestedLoopJoinExec",
    "HashJoinExec",
    "SortMergeJoinExec",
    "PiecewiseMergeJoinExec",
    "UnnestExec",
];

#[derive(Debug)]
pub(crate) struct YieldAboveAmplifiers;

impl PhysicalOptimizerRule for YieldAboveAmplifiers {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|node| {
            Ok(if AMPLIFIERS.contains(&node.name()) {
                Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
            } else {
                Transformed::no(node)
            })
        })?;
        Ok(wrapped.data)
    }

    fn name(&self) -> &'static str {
        "yield_above_amplifiers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
