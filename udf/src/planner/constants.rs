//! Constants in clauses and arguments: any expression that folds to one value at planning, `now()`
//! and bound parameters included.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, Value};
use featureflight_catalog::table::timestamp_type;
use featureflight_catalog::{Error, Instant, Result};

use super::error::classify;
use super::factors::Factors;

/// A constant, or that its parameter has no value yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Constant<T> {
    Known(T),
    /// The statement is only prepared.
    Unbound,
}

impl<T> Constant<T> {
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unbound => None,
        }
    }
}

/// The number of `$1`.
///
/// # Errors
/// `InvalidArgument` for a parameter with a name or number 0.
pub(super) fn number(id: &str) -> Result<usize> {
    match id.strip_prefix('$').and_then(|digits| digits.parse().ok()) {
        Some(number) if number > 0 => Ok(number),
        _ => Err(Error::invalid(format!(
            "parameter {id}: parameters are written $1, $2, ..."
        ))),
    }
}

impl Factors {
    /// The instant `expr` stands for; `what` names its place.
    ///
    /// # Errors
    /// `InvalidArgument` that lists the accepted forms.
    pub(super) fn instant(
        &self,
        what: &str,
        expr: ast::Expr,
        planner: &mut dyn RelationPlannerContext,
    ) -> Result<Constant<Instant>> {
        // Read as text, a literal keeps nanoseconds and years no nanosecond timestamp can hold.
        let value = match timestamp_text(&expr) {
            Some(text) => Constant::Known(ScalarValue::Utf8(Some(text))),
            None => self.scalar(what, "a timestamp", expr, timestamp_type(), planner)?,
        };
        match value {
            Constant::Unbound => Ok(Constant::Unbound),
            Constant::Known(value) => Instant::from_scalar(&value)
                .map(Constant::Known)
                .map_err(|error| Error::new(error.kind, format!("{what}: {}", error.message))),
        }
    }

    /// The interval `expr` stands for, none of its parts negative.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(super) fn interval(
        &self,
        what: &str,
        expr: ast::Expr,
        planner: &mut dyn RelationPlannerContext,
    ) -> Result<Constant<IntervalMonthDayNano>> {
        let wanted = DataType::Interval(IntervalUnit::MonthDayNano);
        let Constant::Known(value) =
            self.scalar(what, "an interval", expr, wanted.clone(), planner)?
        else {
            return Ok(Constant::Unbound);
        };
        let interval = match (&value, value.data_type()) {
            (_, DataType::Interval(_) | DataType::Duration(_)) => value.cast_to(&wanted).ok(),
            _ => None,
        };
        let Some(ScalarValue::IntervalMonthDayNano(Some(interval))) = interval else {
            return Err(Error::invalid(format!(
                "{what} must be an interval such as INTERVAL '30 days', not {value}"
            )));
        };
        if interval.months < 0 || interval.days < 0 || interval.nanoseconds < 0 {
            return Err(Error::invalid(format!("{what} must not be negative")));
        }
        Ok(Constant::Known(interval))
    }

    fn scalar(
        &self,
        what: &str,
        accepted: &str,
        expr: ast::Expr,
        wanted: DataType,
        planner: &mut dyn RelationPlannerContext,
    ) -> Result<Constant<ScalarValue>> {
        let written = expr.to_string();
        let not_constant = || {
            Error::invalid(format!(
                "{what} must be {accepted} that does not depend on rows (a literal, a parameter, \
                 now() and intervals are fine), not {written}"
            ))
        };
        let schema = DFSchema::empty();
        let expr = match planner.sql_to_expr(expr, &schema) {
            Ok(expr) => expr,
            Err(error) if matches!(error.find_root(), DataFusionError::SchemaError(..)) => {
                return Err(not_constant());
            }
            Err(error) => return Err(classify(error)),
        };
        let bare = matches!(expr, Expr::Placeholder(_));
        let Some(expr) = self.bind(expr, &|| bare.then(|| wanted.clone()))? else {
            return Ok(Constant::Unbound);
        };
        let simplifier = ExprSimplifier::new(self.scope.simplify_context());
        let folded = simplifier
            .coerce(expr, &schema)
            .and_then(|expr| simplifier.simplify(expr))
            .map_err(|error| {
                let error = classify(error);
                Error::new(error.kind, format!("{what}: {}", error.message))
            })?;
        match folded {
            Expr::Literal(value, _) => Ok(Constant::Known(value)),
            _ => Err(not_constant()),
        }
    }

    /// `expr` with values for its parameters; `None` when it has some and the statement is only
    /// prepared. `wanted` is the type to ask the client for.
    fn bind(&self, expr: Expr, wanted: &dyn Fn() -> Option<DataType>) -> Result<Option<Expr>> {
        let mut numbers = Vec::new();
        let mut bad = None;
        expr.apply(|expr| {
            if let Expr::Placeholder(Placeholder { id, .. }) = expr {
                match number(id) {
                    Ok(number) => numbers.push(number),
                    Err(error) => bad = Some(error),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(classify)?;
        if let Some(error) = bad {
            return Err(error);
        }
        if numbers.is_empty() {
            return Ok(Some(expr));
        }
        if self.in_view {
            return Err(Error::invalid("a view cannot have parameters"));
        }
        for number in numbers {
            self.scope.record_parameter(number, wanted());
        }
        let Some(values) = &self.scope.context.parameters else {
            return Ok(None);
        };
        substitute(expr, values).map(Some)
    }
}

/// `expr` with every `$n` replaced by the n-th of `values`.
pub(super) fn substitute(expr: Expr, values: &[ScalarValue]) -> Result<Expr> {
    expr.transform_up(|expr| match expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            let number = number(&id)?;
            match values.get(number - 1) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Err(Error::invalid(format!("parameter {id} has no value")).into()),
            }
        }
        expr => Ok(Transformed::no(expr)),
    })
    .map(|transformed| transformed.data)
    .map_err(classify)
}

/// The text of a timestamp literal or of a plain string.
fn timestamp_text(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Nested(inner) => timestamp_text(inner),
        ast::Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        ast::Expr::TypedString(typed) => match (&typed.data_type, &typed.value.value) {
            (
                ast::DataType::Timestamp(..) | ast::DataType::Datetime(..),
                Value::SingleQuotedString(text),
            ) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}
