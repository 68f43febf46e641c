//! Joins that write wide values out for every row they are repeated in run with small batches.
//!
//! A join on keys makes a batch in one step, and no limit looks at it before it is made. A record of
//! a feature group may have 350 KB: a usual batch of such rows would be gigabytes.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};

use crate::pass_through::{Pass, above, above_inputs};

/// Rows of a batch of such a join: with the widest rows that it takes, 384 MiB of each side.
const JOINED_ROWS: usize = 1_024;

/// Puts [`BatchRows`] around joins: a small number for them, the usual one for what they read.
#[derive(Debug)]
pub(crate) struct JoinInSmallBatches;

impl PhysicalOptimizerRule for JoinInSmallBatches {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let usual = BatchRows(config.execution.batch_size.into());
        let small = BatchRows(usual.0.min(JOINED_ROWS));
        let changed = plan.transform_up(|node| {
            if !writes_out(&node) {
                return Ok(Transformed::no(node));
            }
            let join = above_inputs(node, |_, _, _| Some(usual))?;
            Ok(Transformed::yes(above(join.data, small)))
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &'static str {
        "join_in_small_batches"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether `node` joins on keys, and writes values of any width out for each row of its answer.
fn writes_out(node: &Arc<dyn ExecutionPlan>) -> bool {
    let joins = node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>();
    let inputs = node.children().into_iter().map(|input| input.schema());
    joins
        && inputs
            .flat_map(|schema| schema.fields().to_vec())
            .any(|field| copied(field.data_type()))
}

/// Whether a value may be wide, and repeating it copies its bytes: views and dictionaries are shared.
fn copied(values: &DataType) -> bool {
    match values {
        DataType::Null
        | DataType::Boolean
        | DataType::Utf8View
        | DataType::BinaryView
        | DataType::Dictionary(..) => false,
        DataType::Struct(fields) => fields.iter().any(|field| copied(field.data_type())),
        other => other.primitive_width().is_none(),
    }
}

/// Rows that what is below makes its batches of.
#[derive(Debug, Clone, Copy)]
struct BatchRows(usize);

impl Pass for BatchRows {
    const NAME: &'static str = "BatchRowsExec";

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: rows={}", Self::NAME, self.0)
    }

    fn context(&self, context: Arc<TaskContext>) -> Arc<TaskContext> {
        let config = context.session_config();
        if config.batch_size() == self.0 {
            return context;
        }
        Arc::new(TaskContext::new(
            context.task_id(),
            context.session_id(),
            config.clone().with_batch_size(self.0),
            context.scalar_functions().clone(),
            context.higher_order_functions().clone(),
            context.aggregate_functions().clone(),
            context.window_functions().clone(),
            context.runtime_env(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::physical_plan::{collect, displayable};
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn plan(sql: &str) -> (SessionContext, Arc<dyn ExecutionPlan>) {
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(JoinInSmallBatches))
            .build();
        let context = SessionContext::new_with_state(state);
        let plan = context.sql(sql).await.unwrap();
        let plan = plan.create_physical_plan().await.unwrap();
        (context, plan)
    }

    fn joined(wide: &str) -> String {
        format!(
            "SELECT v, b.value FROM (SELECT {wide} v, value k FROM range(3)) a \
             JOIN range(20000) b ON b.value % 3 = a.k"
        )
    }

    #[tokio::test]
    async fn wide_values_are_repeated_in_small_batches() {
        for wide in [
            "repeat('x', value)",
            "range(value)",
            "named_struct('a', range(value))",
        ] {
            let (context, plan) = plan(&joined(wide)).await;
            let batches = collect(Arc::clone(&plan), context.task_ctx()).await;
            let rows: Vec<_> = batches.unwrap().iter().map(RecordBatch::num_rows).collect();
            assert_eq!(rows.iter().sum::<usize>(), 20_000, "{wide}");
            assert!(
                rows.iter().all(|rows| *rows <= JOINED_ROWS),
                "{wide}: {rows:?}"
            );
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(shown.matches("rows=1024").count(), 1, "{shown}");
            assert_eq!(shown.matches("rows=8192").count(), 2, "{shown}");
        }
    }

    #[tokio::test]
    async fn what_is_shared_or_narrow_is_joined_as_ever() {
        for narrow in ["value", "arrow_cast(repeat('x', value), 'Utf8View')"] {
            let (_, plan) = plan(&joined(narrow)).await;
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert!(shown.contains("HashJoinExec"), "{shown}");
            assert!(!shown.contains(BatchRows::NAME), "{shown}");
        }
    }
}
