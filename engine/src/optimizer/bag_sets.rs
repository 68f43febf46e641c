//! `EXCEPT ALL` and `INTERSECT ALL` count rows: of a row that is `m` times on the left and `n` times on
//! the right, `m - n` remain, or the lesser of both. `DataFusion` 55.2 plans them as an anti and a semi
//! join, which keep all `m` or none. Here the copies of a row are numbered on either side, and the join
//! compares the numbers too.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

/// See the module.
#[derive(Debug)]
pub(crate) struct CountCopies;

impl AnalyzerRule for CountCopies {
    fn name(&self) -> &'static str {
        "count_copies"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let counted = plan.transform_up_with_subqueries(|step| match step {
            LogicalPlan::Join(join) if is_bag_set(&join) => counted(join).map(Transformed::yes),
            other => Ok(Transformed::no(other)),
        })?;
        Ok(counted.data)
    }
}

/// Before the optimizer nothing but a set operation joins in this way. Without `ALL` its left side has
/// each row once.
fn is_bag_set(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn counted(mut join: Join) -> Result<LogicalPlan> {
    let columns = join.left.schema().columns().into_iter().map(Expr::Column);
    let columns: Vec<_> = columns.collect();
    let (left_keys, right_keys) = join.on.iter().cloned().unzip();
    let (left, left_copy) = numbered(&join.left, left_keys, "copy on the left")?;
    let (right, right_copy) = numbered(&join.right, right_keys, "copy on the right")?;
    join.on.push((left_copy, right_copy));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        join.on,
        join.filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined))
        .project(columns)?
        .build()
}

/// `side` with one more column of this name: the how manieth a row is of those with the same `keys`.
fn numbered(side: &LogicalPlan, keys: Vec<Expr>, name: &str) -> Result<(LogicalPlan, Expr)> {
    let number = row_number().partition_by(keys).build()?;
    let windows = LogicalPlanBuilder::from(side.clone()).window([number.clone()])?;
    let columns = side.schema().columns().into_iter().map(Expr::Column);
    let number = Column::from_name(number.schema_name().to_string());
    let columns = columns.chain([Expr::Column(number).alias(name)]);
    let plan = windows.project(columns.collect::<Vec<_>>())?.build()?;
    Ok((plan, Expr::Column(Column::from_name(name))))
}
