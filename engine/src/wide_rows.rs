//! Rows that operators repeat. A join, an unnest or a window may write one value of its input out for
//! each row of a batch, in one step, before any limit is looked at: a list of a million numbers times
//! 8,192 rows is more memory than there is, and the process ends. So their inputs are looked at, and a
//! row too wide to be repeated is an error.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::kernels::length::length;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, UInt64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNode;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, WindowExpr};
use featureflight_catalog::{Error, Kind, value_bytes};
use futures::{StreamExt, TryStreamExt, stream};

use crate::functions::{GROWING, element_width, rows_of};
use crate::pass_through::{Pass, above_inputs};

/// Bytes of a row where each row is repeated for a whole batch: 512 MiB for its 8,192 rows.
const ALWAYS_REPEATED: usize = 64 << 10;

/// Bytes of a row that is repeated only as often as its key is: a record of a feature group may have
/// 350 KB.
const SOMETIMES_REPEATED: usize = 384 << 10;

/// Bytes of what `unnest` makes of rows at once, and of one row at most.
const UNNESTED_AT_ONCE: usize = 64 << 20;
const UNNESTED_ROW: usize = 256 << 20;

/// Bytes of a window function's values, each as wide as the widest of all rows.
const WINDOW: usize = 1 << 30;

/// Widths below this are taken for it.
const NARROW: usize = 32;

/// Puts [`WideRows`] below the operators that repeat.
#[derive(Debug)]
pub(crate) struct RefuseWideRows;

impl PhysicalOptimizerRule for RefuseWideRows {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let guarded = plan.transform_up(|node| {
            above_inputs(node, |node, place, input| {
                let (columns, limit, repeats) = repeated(node, place)?;
                WideRows::new(input, columns, limit, repeats)
            })
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

/// How often a row is repeated, where that is more than a batch has rows.
#[derive(Debug, Clone)]
enum Repeats {
    /// As often as a batch has rows, at most.
    Batch,
    /// As often as these lists are long.
    Lists(Vec<usize>),
    /// As often as there are rows, and so are these constants, by bytes, and what is computed.
    Rows(usize, Vec<Arc<dyn PhysicalExpr>>),
}

/// The columns of an input that `node` may repeat, how wide they may be in a row together, and how
/// often they are repeated.
fn repeated(node: &Arc<dyn ExecutionPlan>, input: usize) -> Option<(Vec<usize>, usize, Repeats)> {
    let width = node.children().get(input)?.schema().fields().len();
    let all = || (0..width).collect::<Vec<_>>();
    if node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
    {
        return Some((all(), ALWAYS_REPEATED, Repeats::Batch));
    }
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        let unnested = unnest.list_column_indices().iter();
        let unnested: Vec<_> = unnested.map(|list| list.index_in_input_schema).collect();
        let others = all()
            .into_iter()
            .filter(|column| !unnested.contains(column))
            .collect();
        return Some((others, ALWAYS_REPEATED, Repeats::Lists(unnested)));
    }
    if node.is::<HashJoinExec>() || node.is::<SortMergeJoinExec>() {
        return Some((all(), SOMETIMES_REPEATED, Repeats::Batch));
    }
    if let Some(windows) = node.downcast_ref::<WindowAggExec>() {
        let windows = windows.window_expr();
        let repeats = Repeats::Rows(constants(windows), computed(windows));
        return Some((named(windows), SOMETIMES_REPEATED, repeats));
    }
    let windows = node.downcast_ref::<BoundedWindowAggExec>()?.window_expr();
    let limit = windows.iter().filter_map(gathered).max();
    let limit = limit.map_or(SOMETIMES_REPEATED, |rows| ALWAYS_REPEATED / rows.max(1));
    Some((named(windows), limit, Repeats::Batch))
}

/// The rows that a window function gathers into each of its values.
fn gathered(window: &Arc<dyn WindowExpr>) -> Option<usize> {
    let gathers = GROWING.iter().any(|name| window.name().starts_with(name));
    let rows = gathers.then(|| rows_of(window.get_window_frame()))??;
    usize::try_from(rows).ok()
}

/// What window functions compute of more than one column's bytes.
fn computed(windows: &[Arc<dyn WindowExpr>]) -> Vec<Arc<dyn PhysicalExpr>> {
    let values = windows.iter().flat_map(|window| window.expressions());
    values
        .filter(|value| !value.is::<Column>() && !value.is::<Literal>())
        .collect()
}

/// Bytes of the widest constant of window functions.
fn constants(windows: &[Arc<dyn WindowExpr>]) -> usize {
    let values = windows.iter().flat_map(|window| window.expressions());
    let bytes = values.filter_map(|value| {
        let array = value.downcast_ref::<Literal>()?.value().to_array().ok()?;
        Some(value_bytes(
            &RecordBatch::try_from_iter([("", array)]).ok()?,
        ))
    });
    bytes.max().unwrap_or_default()
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

/// Lets batches through until a row is too wide.
#[derive(Debug, Clone)]
struct WideRows {
    /// Those that are looked at: of no fixed size.
    columns: Vec<usize>,
    limit: usize,
    repeats: Repeats,
}

impl WideRows {
    /// `None` where all columns are of fixed size, and repeated for a batch at most.
    fn new(
        input: &Arc<dyn ExecutionPlan>,
        columns: Vec<usize>,
        limit: usize,
        repeats: Repeats,
    ) -> Option<Self> {
        let schema = input.schema();
        let varies = |column: &usize| {
            let field = schema.fields().get(*column);
            field.is_some_and(|field| field.data_type().primitive_width().is_none())
        };
        let columns: Vec<_> = match repeats {
            Repeats::Lists(_) => columns,
            _ => columns.into_iter().filter(varies).collect(),
        };
        let more = match &repeats {
            Repeats::Batch => 0,
            Repeats::Lists(lists) => lists.len(),
            Repeats::Rows(constants, computed) => *constants + computed.len(),
        };
        (!columns.is_empty() || more > 0).then_some(Self {
            columns,
            limit,
            repeats,
        })
    }
}

impl Pass for WideRows {
    const NAME: &'static str = "WideRowsExec";

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: limit={}", Self::NAME, self.limit)
    }

    fn pass(
        &self,
        batches: SendableRecordBatchStream,
        _context: &TaskContext,
    ) -> SendableRecordBatchStream {
        let schema = batches.schema();
        let (columns, limit) = (self.columns.clone(), self.limit);
        let repeats = self.repeats.clone();
        let (mut rows, mut widest) = (0_usize, NARROW);
        let batches = batches.map(move |batch| {
            let batch = batch?;
            let repeated = batch.project(&columns)?;
            if has_wider(&repeated, limit) {
                return Err(too_wide(limit));
            }
            Ok(match &repeats {
                Repeats::Batch => vec![batch],
                Repeats::Lists(lists) => {
                    let mut parts = Vec::new();
                    split(&batch, &columns, lists, &mut parts)?;
                    parts
                }
                Repeats::Rows(constants, computed) => {
                    rows += batch.num_rows();
                    widest = widest.max(*constants).max(width_of(&repeated, widest));
                    for value in computed {
                        let value = value.evaluate(&batch)?.into_array(batch.num_rows())?;
                        let value = RecordBatch::try_from_iter([("", value)])?;
                        widest = width_of(&value, widest);
                    }
                    if widest > NARROW && widest.saturating_mul(rows) > WINDOW {
                        return Err(too_wide(WINDOW / rows));
                    }
                    vec![batch]
                }
            })
        });
        let batches = batches.map_ok(|parts| stream::iter(parts.into_iter().map(Ok)));
        let batches = batches.try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}

fn too_wide(limit: usize) -> DataFusionError {
    Error::new(
        Kind::ResourceExhausted,
        format!(
            "a row has more than {limit} bytes in columns that a join, an unnest or a window would repeat for \
             other rows: leave them out there, or join before you gather values into lists and texts"
        ),
    )
    .into()
}

/// `batch` in parts of which `unnest` does not make too much at once.
///
/// # Errors
/// `ResourceExhausted` for a row of which it would.
fn split(
    batch: &RecordBatch,
    others: &[usize],
    lists: &[usize],
    parts: &mut Vec<RecordBatch>,
) -> Result<()> {
    let mut longest = None;
    let mut width = value_bytes(&batch.project(others)?);
    for list in lists {
        let list = batch.column(*list);
        let lengths = cast(length(list)?.as_ref(), &DataType::UInt64)?;
        longest = max(lengths.as_primitive::<UInt64Type>()).max(longest);
        // What is shorter is filled up with nulls.
        width += element_width(list.data_type()) * batch.num_rows();
    }
    let longest = usize::try_from(longest.unwrap_or(0).max(1)).unwrap_or(usize::MAX);
    let rows = batch.num_rows();
    let most = if rows == 1 {
        UNNESTED_ROW
    } else {
        UNNESTED_AT_ONCE
    };
    if longest.saturating_mul(width) <= most {
        parts.push(batch.clone());
        return Ok(());
    }
    if rows <= 1 {
        return Err(too_wide(UNNESTED_ROW / longest));
    }
    let half = rows / 2;
    split(&batch.slice(0, half), others, lists, parts)?;
    split(&batch.slice(half, rows - half), others, lists, parts)
}

/// `least`, or a power of two of it that no row is wider than.
fn width_of(batch: &RecordBatch, least: usize) -> usize {
    let mut width = least;
    while has_wider(batch, width) {
        width = width.saturating_mul(2);
    }
    width
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
