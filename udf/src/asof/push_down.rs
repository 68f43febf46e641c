//! The optimizer rule of the as-of join: predicates above it go to the side they speak of.
//!
//! A predicate on left columns alone goes to the left side: every left row is one of the output.
//! One on left keys alone holds for the right rows of the same keys too, and goes to both. A
//! predicate on right columns stays above: below, it would choose another match.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ExprSchema};
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Extension, Filter, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::asof::node::AsofJoin;

/// See the module.
#[derive(Debug)]
pub(crate) struct PushDownAsofFilter;

impl OptimizerRule for PushDownAsofFilter {
    fn name(&self) -> &'static str {
        "push_down_asof_filter"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else {
            return Ok(Transformed::no(plan));
        };
        let join = match filter.input.as_ref() {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<AsofJoin>(),
            _ => None,
        };
        let Some(join) = join else {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        };
        let (below, above): (Vec<_>, Vec<_>) = split_conjunction_owned(filter.predicate.clone())
            .into_iter()
            .partition(|part| is_on_left(join, part));
        if below.is_empty() {
            return Ok(Transformed::no(LogicalPlan::Filter(filter)));
        }
        let on_right = below.iter().map(|part| for_right(join, part));
        let on_right: Vec<Expr> = on_right.collect::<Result<Vec<_>>>()?.concat();
        let mut join = join.clone();
        join.left = filtered(join.left, below)?;
        join.right = filtered(join.right, on_right)?;
        let join = LogicalPlan::Extension(Extension {
            node: Arc::new(join),
        });
        Ok(Transformed::yes(filtered(join, above)?))
    }
}

fn filtered(plan: LogicalPlan, predicates: Vec<Expr>) -> Result<LogicalPlan> {
    Ok(match conjunction(predicates) {
        Some(predicate) => LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan))?),
        None => plan,
    })
}

/// Volatile predicates stay where they are evaluated once per output row.
fn is_on_left(join: &AsofJoin, predicate: &Expr) -> bool {
    let columns = predicate.column_refs();
    !predicate.is_volatile()
        && !columns.is_empty()
        && columns.iter().all(|column| is_of(&join.left, column))
        && !columns.iter().any(|column| is_of(&join.right, column))
}

fn is_of(side: &LogicalPlan, column: &Column) -> bool {
    side.schema().has_column(column)
}

/// A predicate on left keys as one on right keys: itself or nothing.
fn for_right(join: &AsofJoin, predicate: &Expr) -> Result<Vec<Expr>> {
    let pairs: Vec<(&Column, &Column)> = join
        .on
        .iter()
        .filter_map(|(left, right)| Some((left.try_as_col()?, right.try_as_col()?)))
        // The zeros are one key, and a predicate may tell them apart.
        .filter(|(_, right)| {
            let field = join.right.schema().field_from_column(right);
            field.is_ok_and(|field| !field.data_type().is_floating())
        })
        .collect();
    let place = |column: &Column| join.left.schema().maybe_index_of_column(column);
    let same = |left: &Column| {
        let pair = pairs.iter().find(|(key, _)| place(key) == place(left));
        pair.map(|(_, right)| (*right).clone())
    };
    let columns = predicate.column_refs();
    if !columns.iter().all(|column| same(column).is_some()) {
        return Ok(Vec::new());
    }
    let rewritten = predicate.clone().transform_up(|expr| {
        let Expr::Column(column) = &expr else {
            return Ok(Transformed::no(expr));
        };
        Ok(match same(column) {
            Some(right) => Transformed::yes(Expr::Column(right)),
            None => Transformed::no(expr),
        })
    })?;
    Ok(vec![rewritten.data])
}
