//! Whether the partitions of a plan are results of their own: read from different endpoints, each
//! by a run of its own, they are the whole result together, and no two of them do the same work.

use std::sync::Arc;

use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Operators whose partition reads nothing but the same partition of their only input, or, for
/// unions, one partition of one input. Leaves of files among them: their partitions are other files.
const PER_PARTITION: [&str; 9] = [
    "ProjectionExec",
    "FilterExec",
    "CoalesceBatchesExec",
    "CooperativeExec",
    "InterruptibleExec",
    "UnionExec",
    "DataSourceExec",
    "HistoryExec",
    "RawExec",
];

/// How many slices `plan` is made of, at most `wanted`, or why it is but one.
pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>, wanted: usize) -> Result<usize, &'static str> {
    if !independent(plan) {
        return Err("its parts share work");
    }
    match plan.output_partitioning().partition_count() {
        0 | 1 => Err("it has one part only"),
        parts => Ok(parts.min(wanted)),
    }
}

fn independent(plan: &Arc<dyn ExecutionPlan>) -> bool {
    PER_PARTITION.contains(&plan.name()) && plan.children().into_iter().all(independent)
}
