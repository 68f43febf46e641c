//! Rewriting the expressions of a plan that is analyzed, where a step has any that matter.

use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// `plan` with each of its expressions as `rewrite` makes it, from the inside out, under the name that
/// it had. Steps without an expression that `matters` stay as they are. The schema is that of a step's
/// inputs.
///
/// # Errors
/// Those of `rewrite`.
pub fn rewrite(
    plan: LogicalPlan,
    matters: impl Fn(&Expr) -> bool,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|step| {
        if !any(&step, &matters)? {
            return Ok(Transformed::no(step));
        }
        let schema = merge_schema(&step.inputs());
        let names = NamePreserver::new(&step);
        step.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| rewrite(expr, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })
    });
    rewritten.map(|rewritten| rewritten.data)
}

fn any(step: &LogicalPlan, matters: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    step.apply_expressions(|expr| {
        expr.apply(|expr| {
            found |= matters(expr);
            Ok(if found {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })
    })?;
    Ok(found)
}
