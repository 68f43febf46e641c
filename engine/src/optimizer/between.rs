//! `2 BETWEEN low AND high` with the columns first. The simplifier of `DataFusion` 55.2 makes it
//! `2 = x` where both are `x`, and finds that in contradiction to `x = 2`.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Between, Expr};

/// See the module.
#[derive(Debug)]
pub(crate) struct ConstantBetween;

impl FunctionRewrite for ConstantBetween {
    fn name(&self) -> &'static str {
        "constant_between"
    }

    fn rewrite(
        &self,
        expr: Expr,
        _schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let Expr::Between(between) = expr else {
            return Ok(Transformed::no(expr));
        };
        // Written twice: nothing but a literal may be.
        if !matches!(*between.expr, Expr::Literal(..)) {
            return Ok(Transformed::no(Expr::Between(between)));
        }
        Ok(Transformed::yes(columns_first(between)))
    }
}

/// `between` of a constant.
pub(super) fn columns_first(between: Between) -> Expr {
    let constant = *between.expr;
    let low = between.low.lt_eq(constant.clone());
    let within = low.and(between.high.gt_eq(constant));
    if between.negated { !within } else { within }
}
