//! Rows that operators repeat. A join, an unnest or a window may write one value of its input out for
//! each row of a batch, in one step, before any limit is looked at: a list of a million numbers times
//! 8,192 rows is more memory than there is, and the process ends. So their inputs are looked at, and a
//! row too wide to be repeated is an error.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions, WindowExpr,
};
use featureflight_catalog::{Error, Kind, value_bytes};
use futures::StreamExt;

/// Bytes of a row where each row is repeated for a whole batch: 512 MiB for its 8,192 rows.
const ALWAYS_REPEATED: usize = 64 << 10;

/// Bytes of a row that is repeated only as often as its key is: a record of a feature group may have
/// 350 KB.
const SOMETIMES_REPEATED: usize = 384 << 10;

/// Puts [`WideRowsExec`] below the operators that repeat.
#[derive(Debug)]
pub(crate) struct RefuseWideRows;

impl PhysicalOptimizerRule for RefuseWideRows {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guarded = plan.transform_up(|node| {
            let inputs = node.children().into_iter().enumerate();
            let guards = inputs.map(|(place, input)| {
                let (columns, limit) = repeated(&node, place)?;
                WideRowsExec::new(input, columns, limit)
            });
            let guards: Vec<_> = guards.collect();
            if guards.iter().all(Option::is_none) {
                return Ok(Transformed::no(node));
            }
            let inputs = node.children().into_iter().zip(guards);
            let inputs = inputs.map(|(input, guard)| match guard {
                Some(guard) => Arc::new(guard) as Arc<dyn ExecutionPlan>,
                None => Arc::clone(input),
            });
            let inputs = inputs.collect();
            let changed = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.replace_children(inputs, changed).map(Transformed::yes)
        })?;
        Ok(guarded.data)
    }

    fn name(&self) -> &'static str {
        "refuse_wide_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The columns of an input that `node` may repeat, and how wide they may be in a row together.
fn repeated(node: &Arc<dyn ExecutionPlan>, input: usize) -> Option<(Vec<usize>, usize)> {
    let width = node.children().get(input)?.schema().fields().len();
    let all = || (0..width).collect::<Vec<_>>();
    if node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
    {
        return Some((all(), ALWAYS_REPEATED));
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let unnested = unnest.list_column_indices().iter();
        let unnested: Vec<_> = unnested.map(|list| list.index_in_input_schema).collect();
        let others = all()
            .into_iter()
            .filter(|column| !unnested.contains(column));
        return Some((others.collect(), ALWAYS_REPEATED));
    }
    if node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>() {
        return Some((all(), SOMETIMES_REPEATED));
    }
    let windows = node
        .downcast_ref::<WindowAggExec>()
        .map(WindowAggExec::window_expr);
    let windows = windows.or_else(|| {
        let bounded = node.downcast_ref::<BoundedWindowAggExec>();
        bounded.map(BoundedWindowAggExec::window_expr)
    })?;
    Some((named(windows), SOMETIMES_REPEATED))
}

fn named(windows: &[Arc<dyn WindowExpr>]) -> Vec<usize> {
    let values = windows.iter().flat_map(|window| window.expressions());
    let mut columns: Vec<_> = values
        .flat_map(|value| collect_columns(&value))
        .map(|column| column.index())
        .collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Its input, until a row is too wide.
#[derive(Debug)]
struct WideRowsExec {
    input: Arc<dyn ExecutionPlan>,
    /// Those that are looked at: of no fixed size.
    columns: Vec<usize>,
    limit: usize,
}

impl WideRowsExec {
    /// `None` where all columns are of fixed size.
    fn new(input: &Arc<dyn ExecutionPlan>, columns: Vec<usize>, limit: usize) -> Option<Self> {
        let schema = input.schema();
        let varies = |column: &usize| {
            let field = schema.fields().get(*column);
            field.is_some_and(|field| field.data_type().primitive_width().is_none())
        };
        let columns: Vec<_> = columns.into_iter().filter(varies).collect();
        (!columns.is_empty()).then(|| Self {
            input: Arc::clone(input),
            columns,
            limit,
        })
    }
}

impl DisplayAs for WideRowsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WideRowsExec: limit={}", self.limit)
    }
}

impl ExecutionPlan for WideRowsExec {
    fn name(&self) -> &'static str {
        "WideRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            input: children.swap_remove(0),
            columns: self.columns.clone(),
            limit: self.limit,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let (columns, limit) = (self.columns.clone(), self.limit);
        let batches = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            if has_wider(&batch.project(&columns)?, limit) {
                return Err(Error::new(
                    Kind::ResourceExhausted,
                    format!(
                        "a row has more than {} KiB in columns that a join, an unnest or a window would \
                         repeat for other rows: leave them out there, or join before you gather values \
                         into lists and texts",
                        limit >> 10
                    ),
                )
                .into());
            }
            Ok(batch)
        });
        let schema = self.input.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

/// Whether a row has more than `limit` bytes. Halves of a batch that have no more than that together
/// are not looked into.
fn has_wider(batch: &RecordBatch, limit: usize) -> bool {
    let rows = batch.num_rows();
    if value_bytes(batch) <= limit {
        return false;
    }
    let half = rows / 2;
    rows <= 1
        || has_wider(&batch.slice(0, half), limit)
        || has_wider(&batch.slice(half, rows - half), limit)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    #[test]
    fn one_wide_row_is_found_wherever_it_is() {
        for place in [0, 1, 500, 998, 999] {
            let text = |row| "x".repeat(if row == place { 1_000 } else { 50 });
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(text)));
            let batch = RecordBatch::try_from_iter([("a", Arc::clone(&texts)), ("b", texts)]);
            let batch = batch.unwrap();
            assert!(has_wider(&batch, 2_000), "{place}");
            assert!(!has_wider(&batch, 2_100), "{place}");
            assert!(!has_wider(&batch.slice(0, 0), 100));
        }
    }
}
