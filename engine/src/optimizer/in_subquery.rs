//! `x IN (SELECT y ...)` is unknown where nothing equals `x` and `x` or a `y` is null. `DataFusion`
//! 55.2 says false instead, unless it is a `NOT IN` without outer columns that a `WHERE` asks for by
//! itself. That is right where only truth counts: below `AND` and `OR` of a condition. Elsewhere it
//! would be a wrong answer, so it is refused. So is the `NOT IN` of an `x` that is a constant, or comes
//! to one, whose comparison the optimizer takes into the subquery.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};
use featureflight_catalog::Error;

/// See the module. Changes nothing.
#[derive(Debug)]
pub(crate) struct RefuseUnknownMembership;

impl AnalyzerRule for RefuseUnknownMembership {
    fn name(&self) -> &'static str {
        "refuse_unknown_membership"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|step| {
            let schema = merge_schema(&step.inputs());
            let asks = match step {
                LogicalPlan::Filter(_) => Asks::Alone,
                LogicalPlan::Join(_) => Asks::Truth,
                _ => Asks::Value,
            };
            step.apply_expressions(|expr| {
                check(expr, asks, &schema)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(plan)
    }
}

/// What becomes of a truth value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// A row is kept where it is true, and nothing else decides that.
    Alone,
    /// Unknown and false come to the same.
    Truth,
    /// They do not.
    Value,
}

fn check(expr: &Expr, asks: Asks, schema: &DFSchema) -> Result<()> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let below = match (op, asks) {
                (Operator::And, _) => asks,
                (Operator::Or, Asks::Alone | Asks::Truth) => Asks::Truth,
                _ => Asks::Value,
            };
            check(left, below, schema)?;
            check(right, below, schema)
        }
        Expr::InSubquery(member) => {
            check(&member.expr, Asks::Value, schema)?;
            member_of(member, member.negated, asks, schema)
        }
        Expr::Not(inner) => match inner.as_ref() {
            Expr::InSubquery(member) => member_of(member, !member.negated, asks, schema),
            other => check(other, Asks::Value, schema),
        },
        other => {
            other.apply_children(|child| {
                check(child, Asks::Value, schema)?;
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(())
        }
    }
}

fn member_of(member: &InSubquery, negated: bool, asks: Asks, schema: &DFSchema) -> Result<()> {
    let answered = match asks {
        Asks::Alone if negated => member.subquery.outer_ref_columns.is_empty(),
        Asks::Alone | Asks::Truth => !negated,
        Asks::Value => false,
    };
    if answered {
        return Ok(());
    }
    let listed = member.subquery.subquery.schema();
    let nulls = listed.fields().iter().any(|field| field.is_nullable())
        // Of an outer query's column it is not known here.
        || member.expr.nullable(schema).unwrap_or(true);
    if !nulls {
        return Ok(());
    }
    Err(refused())
}

fn refused() -> DataFusionError {
    Error::invalid(
        "IN (SELECT ...) of values that may be null is not answered inside of other expressions, nor \
         NOT IN of a subquery that names columns of the outer one, nor of a constant: write [NOT] EXISTS \
         (SELECT ... WHERE y = x), and add what nulls are to mean",
    )
    .into()
}

/// Finds the joins of `NOT IN` that have lost what they compare. Comes last.
#[derive(Debug)]
pub(super) struct RefuseConstantMembership;

impl OptimizerRule for RefuseConstantMembership {
    fn name(&self) -> &'static str {
        "refuse_constant_membership"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if join.null_aware && join.on.is_empty() => Err(refused()),
            _ => Ok(Transformed::no(plan)),
        }
    }
}
