//! `avg(x ORDER BY t)` without its order, which changes nothing of it. Grouped aggregates of
//! `DataFusion` 55.2 that know no order panic when they are given one.

use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;

/// Aggregates to which the order of their rows is nothing.
const UNORDERED: [&str; 28] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct DropIdleOrder;

impl FunctionRewrite for DropIdleOrder {
    fn name(&self) -> &'static str {
        "drop_idle_order"
    }

    fn rewrite(
        &self,
        expr: Expr,
        _schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let Expr::AggregateFunction(mut call) = expr else {
            return Ok(Transformed::no(expr));
        };
        let idle = UNORDERED.contains(&call.func.name()) && !call.params.order_by.is_empty();
        if idle {
            call.params.order_by.clear();
        }
        Ok(Transformed::new_transformed(
            Expr::AggregateFunction(call),
            idle,
        ))
    }
}
