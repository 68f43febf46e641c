//! `{'a': x}` and `struct(x, y)`, which the planner makes of functions of its own: while it plans,
//! since a type that doubles keeps it busy before anything else sees the plan.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::functions::core;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawDictionaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::growth::{Guarded, Rule};

/// See the module.
#[derive(Debug)]
pub(crate) struct StructLiterals {
    named: Arc<ScalarUDF>,
    unnamed: Arc<ScalarUDF>,
}

impl StructLiterals {
    pub(crate) fn new() -> Self {
        let guarded = |function| {
            let guarded = Guarded::new(function, Rule::Width);
            Arc::new(ScalarUDF::new_from_impl(guarded))
        };
        Self {
            named: guarded(core::named_struct()),
            unnamed: guarded(core::r#struct()),
        }
    }
}

fn call(function: &Arc<ScalarUDF>, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), args))
}

impl ExprPlanner for StructLiterals {
    fn plan_dictionary_literal(
        &self,
        expr: RawDictionaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawDictionaryExpr>> {
        let pairs = expr.keys.into_iter().zip(expr.values);
        let args = pairs.flat_map(|(key, value)| [key, value]).collect();
        Ok(PlannerResult::Planned(call(&self.named, args)))
    }

    fn plan_struct_literal(
        &self,
        args: Vec<Expr>,
        is_named_struct: bool,
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let function = if is_named_struct {
            &self.named
        } else {
            &self.unnamed
        };
        Ok(PlannerResult::Planned(call(function, args)))
    }
}
