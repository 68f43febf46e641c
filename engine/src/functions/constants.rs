//! How many bytes the constants of a plan have. One is written out once for each row of a batch
//! wherever it is a column or an arm of a `CASE`, and functions make new ones while the optimizer
//! folds: so this looks at what it leaves.

use arrow::array::ArrayRef;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::growth::size_of;
use super::width::width;
use super::{MAX_CONSTANT_BYTES, too_large};

/// Most bytes of all constants of a statement; numbers and times have none.
const MAX_CONSTANTS_BYTES: u64 = 2 * MAX_CONSTANT_BYTES;

/// Refuses plans with constants too large. Changes nothing.
#[derive(Debug)]
pub(crate) struct BoundedConstants;

impl OptimizerRule for BoundedConstants {
    fn name(&self) -> &'static str {
        "bounded_constants"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        check(&plan)?;
        Ok(Transformed::no(plan))
    }
}

/// # Errors
/// `ResourceExhausted` for constants too large. The rows of `VALUES` and what is listed behind `IN`
/// count not at all: each is written once.
fn check(plan: &LogicalPlan) -> Result<()> {
    let mut total = 0;
    plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Values(_)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        node.apply_expressions(|expr| count(expr, &mut total))
    })?;
    Ok(())
}

fn count(expr: &Expr, total: &mut u64) -> Result<TreeNodeRecursion> {
    expr.apply(|expr| match expr {
        Expr::Literal(value, _) => {
            let bytes = bytes(value)?;
            *total += bytes;
            if bytes > MAX_CONSTANT_BYTES || *total > MAX_CONSTANTS_BYTES {
                return Err(too_large(format!(
                    "the constants of the statement are too large: one may have \
                     {MAX_CONSTANT_BYTES} bytes, all together {MAX_CONSTANTS_BYTES}: upload the \
                     values into a temporary table and join it"
                )));
            }
            Ok(TreeNodeRecursion::Continue)
        }
        Expr::InList(list)
            if list
                .list
                .iter()
                .all(|item| matches!(item, Expr::Literal(..))) =>
        {
            count(&list.expr, total)?;
            Ok(TreeNodeRecursion::Jump)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    })
}

fn bytes(value: &ScalarValue) -> Result<u64> {
    let data_type = value.data_type();
    if data_type.is_primitive() || data_type.is_null() {
        return Ok(0);
    }
    let array: ArrayRef = value.to_array()?;
    Ok(size_of(&array, 0).max(width(&data_type, MAX_CONSTANT_BYTES)))
}
