//! Puts the guards where the planner does not ask the function registry: `||`, array literals,
//! patterns that are no constants, and values of subqueries.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{Like, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, ScalarUDF};

use super::GUARDED;
use super::checked::{Checked, What};
use super::concatenation::{Concatenation, flatten};
use super::growth::{Guarded, Rule};
use super::patterns::{MAX_FREE_POSITIONS, Search};

/// Functions whose second argument is a regular expression.
const REGEXP: [&str; 5] = [
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
];

/// See the module.
#[derive(Debug)]
pub(super) struct Bounds {
    guarded: HashMap<String, Arc<ScalarUDF>>,
    patterns: Arc<ScalarUDF>,
    subqueries: Arc<ScalarUDF>,
    texts: Arc<ScalarUDF>,
    concatenation: Arc<ScalarUDF>,
}

impl Bounds {
    /// The guards of `state`.
    pub(super) fn new(state: &SessionState) -> Self {
        let functions = state.scalar_functions();
        let checked = |what| Arc::new(ScalarUDF::new_from_impl(Checked::new(what)));
        let guarded = GUARDED.iter().filter_map(|(name, _)| {
            let function = functions.get(*name)?;
            Some(((*name).to_owned(), Arc::clone(function)))
        });
        Self {
            guarded: guarded.collect(),
            patterns: checked(What::Patterns),
            subqueries: checked(What::Subquery),
            texts: checked(What::Texts),
            concatenation: Arc::new(ScalarUDF::new_from_impl(Guarded::new(
                Arc::new(ScalarUDF::new_from_impl(Concatenation::new())),
                Rule::Sum,
            ))),
        }
    }

    /// `text` as it is where `pattern` is known and small, so that the planner still knows the
    /// column; else asked with the pattern how long matching takes.
    fn text(&self, text: Expr, pattern: &Expr, search: fn(&str) -> Search) -> Expr {
        let small = |pattern| search(pattern).once(1) <= MAX_FREE_POSITIONS;
        let known = constant(pattern).map(|pattern| pattern.try_as_str().flatten());
        match (&text, known) {
            (_, Some(pattern)) if pattern.is_none_or(small) => text,
            (Expr::ScalarFunction(call), _) if call.func.name() == What::Texts.name() => text,
            _ => Expr::ScalarFunction(ScalarFunction::new_udf(
                Arc::clone(&self.texts),
                vec![text, pattern.clone()],
            )),
        }
    }

    fn pattern(&self, pattern: Expr) -> Expr {
        match constant(&pattern) {
            Some(_) => pattern,
            None => within(pattern, &self.patterns),
        }
    }
}

/// A literal; the planner has folded none of them yet.
fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => constant(&cast.expr),
        _ => None,
    }
}

/// The regular expression of `expr` where it is a constant.
pub(super) fn constant_pattern(expr: &Expr) -> Option<&str> {
    use Operator as O;
    let pattern = match expr {
        Expr::BinaryExpr(BinaryExpr {
            op: O::RegexMatch | O::RegexIMatch | O::RegexNotMatch | O::RegexNotIMatch,
            right,
            ..
        }) => right.as_ref(),
        Expr::SimilarTo(like) => like.pattern.as_ref(),
        Expr::ScalarFunction(call) if REGEXP.contains(&call.func.name()) => call.args.get(1)?,
        _ => return None,
    };
    constant(pattern)?.try_as_str().flatten()
}

fn within(argument: Expr, function: &Arc<ScalarUDF>) -> Expr {
    match &argument {
        Expr::ScalarFunction(call) if call.func.name() == function.name() => argument,
        _ => Expr::ScalarFunction(ScalarFunction::new_udf(
            Arc::clone(function),
            vec![argument],
        )),
    }
}

impl FunctionRewrite for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        use Operator as O;
        Ok(match expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: O::StringConcat,
                right,
            }) => match flatten(&self.concatenation, &left, &right, schema)? {
                Some(call) => Transformed::yes(call),
                None => Transformed::no(binary(*left, O::StringConcat, *right)),
            },
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: op @ (O::RegexMatch | O::RegexIMatch | O::RegexNotMatch | O::RegexNotIMatch),
                right,
            }) => {
                let text = self.text(*left, &right, Search::new);
                Transformed::yes(binary(text, op, self.pattern(*right)))
            }
            Expr::SimilarTo(like) => {
                Transformed::yes(Expr::SimilarTo(self.like(like, Search::new)))
            }
            Expr::Like(like) => Transformed::yes(Expr::Like(self.like(like, Search::like))),
            Expr::ScalarFunction(call) => Transformed::yes(Expr::ScalarFunction(self.call(call))),
            subquery @ Expr::ScalarSubquery(_) if !subquery.get_type(schema)?.is_primitive() => {
                Transformed::yes(within(subquery, &self.subqueries))
            }
            other => Transformed::no(other),
        })
    }
}

impl Bounds {
    fn like(&self, like: Like, search: fn(&str) -> Search) -> Like {
        Like {
            expr: Box::new(self.text(*like.expr, &like.pattern, search)),
            pattern: Box::new(self.pattern(*like.pattern)),
            ..like
        }
    }

    fn call(&self, mut call: ScalarFunction) -> ScalarFunction {
        let name = call.func.name();
        if REGEXP.contains(&name)
            && let Some(pattern) = call.args.get_mut(1)
        {
            *pattern = self.pattern(std::mem::take(pattern));
            // The others are asked for more than one search, or by themselves.
            if name == "regexp_like"
                && let [text, pattern, ..] = call.args.as_mut_slice()
            {
                *text = self.text(std::mem::take(text), pattern, Search::new);
            }
        }
        if let Some(guarded) = self.guarded.get(name) {
            call.func = Arc::clone(guarded);
        }
        call
    }
}

fn binary(left: Expr, op: Operator, right: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))
}
