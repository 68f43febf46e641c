//! `now()` and its kin as literals: the plan means the same time whenever, and by whomever, it is
//! optimized and run.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use featureflight_catalog::Result;

use super::error::classify;

/// `plan` with every function of the statement's time replaced by its value.
pub(super) fn fix(plan: LogicalPlan, context: &SimplifyContext) -> Result<LogicalPlan> {
    if !mentions_time(&plan).map_err(classify)? {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(|plan| {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let fixed = expr.transform_up(|expr| fix_expr(expr, context))?;
            Ok(fixed.update_data(|expr| name.restore(expr)))
        })?
        .map_data(LogicalPlan::recompute_schema)
    })
    .map(|transformed| transformed.data)
    .map_err(classify)
}

fn fix_expr(expr: Expr, context: &SimplifyContext) -> EngineResult<Transformed<Expr>> {
    let Expr::ScalarFunction(mut call) = expr else {
        return Ok(Transformed::no(expr));
    };
    if !tells_time(&call.func, &call.args) {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    match call
        .func
        .simplify(std::mem::take(&mut call.args), context)?
    {
        ExprSimplifyResult::Simplified(expr) => Ok(Transformed::yes(expr)),
        ExprSimplifyResult::Original(args) => {
            call.args = args;
            Ok(Transformed::no(Expr::ScalarFunction(call)))
        }
    }
}

/// Functions that are constant within a statement only.
fn tells_time(func: &datafusion::logical_expr::ScalarUDF, args: &[Expr]) -> bool {
    args.is_empty() && func.signature().volatility == Volatility::Stable
}

fn mentions_time(plan: &LogicalPlan) -> EngineResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && tells_time(&call.func, &call.args)
                {
                    found = true;
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}
