//! Comparisons of timestamps with constants of a finer unit, which are nanoseconds unless their text
//! says otherwise. `DataFusion` cuts such a constant to the unit of the column, and cuts it towards
//! 1970: a row at 12:00:00 would not be before 12:00:00.000000001. So the constant is rounded as the
//! comparison asks for it, and none between two values of the column equals one.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::scalar::ScalarValue;

use super::expressions;

/// See the module. Comes behind the coercion of types, which casts the column to the finer unit.
#[derive(Debug)]
pub(super) struct RoundConstants;

impl AnalyzerRule for RoundConstants {
    fn name(&self) -> &'static str {
        "round_constants"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let is_cast = |expr: &Expr| matches!(expr, Expr::Cast(_));
        expressions::rewrite(plan, is_cast, |expr, schema| {
            Ok(match rounded(&expr, schema, config)? {
                Some(rounded) => Transformed::yes(rounded),
                None => Transformed::no(expr),
            })
        })
    }
}

/// `expr` without its cast, if it is a comparison of that kind.
fn rounded(expr: &Expr, schema: &DFSchema, config: &ConfigOptions) -> Result<Option<Expr>> {
    let cut = |value: &Expr, constant: &Expr| Cut::of(value, constant, schema, config);
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (cut, op) = match (cut(left, right)?, op.swap()) {
                (Some(cut), _) => (cut, *op),
                (None, Some(op)) => match cut(right, left)? {
                    Some(cut) => (cut, op),
                    None => return Ok(None),
                },
                (None, None) => return Ok(None),
            };
            cut.compared(op)
        }
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let (Some(low), Some(high)) = (cut(expr, low)?, cut(expr, high)?) else {
                return Ok(None);
            };
            // The value stays written once: it may be long.
            Some(Expr::Between(Between {
                expr: Box::new(low.value),
                negated: *negated,
                low: Box::new(low.above),
                high: Box::new(high.below),
            }))
        }
        Expr::InList(InList {
            expr,
            list,
            negated,
        }) => {
            let cuts = list.iter().map(|item| cut(expr, item));
            let Some(cuts) = cuts.collect::<Result<Option<Vec<_>>>>()? else {
                return Ok(None);
            };
            let Some(never) = cuts.first().map(Cut::never) else {
                return Ok(None);
            };
            let exact = cuts.iter().filter(|cut| cut.exact);
            let exact: Vec<_> = exact.map(|cut| cut.below.clone()).collect();
            let value = cuts.into_iter().next().map(|cut| cut.value);
            Some(match value {
                Some(value) if !exact.is_empty() => value.in_list(exact, *negated),
                _ if *negated => !never,
                _ => never,
            })
        }
        _ => None,
    })
}

/// A value, and what a finer constant is in its unit.
struct Cut {
    value: Expr,
    /// The last at or before the constant, and the first at or behind it.
    below: Expr,
    above: Expr,
    /// Whether it is the constant.
    exact: bool,
}

impl Cut {
    /// `None` where `value` is cast to no finer unit, or `constant` is none.
    fn of(
        value: &Expr,
        constant: &Expr,
        schema: &DFSchema,
        config: &ConfigOptions,
    ) -> Result<Option<Self>> {
        let Expr::Cast(cast) = value else {
            return Ok(None);
        };
        let DataType::Timestamp(fine, _) = cast.field.data_type() else {
            return Ok(None);
        };
        let Ok(DataType::Timestamp(coarse, zone)) = cast.expr.get_type(schema) else {
            return Ok(None);
        };
        let parts = per_second(*fine) / per_second(coarse);
        if parts <= 1 || constant.any_column_refs() || !cast.expr.any_column_refs() {
            return Ok(None);
        }
        let context = SimplifyContext::builder()
            .with_config_options(Arc::new(config.clone()))
            .build();
        let Expr::Literal(constant, _) = ExprSimplifier::new(context).simplify(constant.clone())?
        else {
            return Ok(None);
        };
        let Some((constant, unit)) = ticks(&constant) else {
            return Ok(None);
        };
        if unit != *fine {
            return Ok(None);
        }
        let below = constant.div_euclid(parts);
        let exact = below * parts == constant;
        let above = if exact { below } else { below + 1 };
        Ok(Some(Self {
            value: cast.expr.as_ref().clone(),
            below: lit(timestamp(below, coarse, zone.clone())),
            above: lit(timestamp(above, coarse, zone)),
            exact,
        }))
    }

    /// `value op constant`.
    fn compared(self, op: Operator) -> Option<Expr> {
        use Operator as O;
        let never = self.never();
        let Self {
            value,
            below,
            above: _,
            exact,
        } = self;
        Some(match op {
            O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
                if exact =>
            {
                Expr::BinaryExpr(BinaryExpr::new(Box::new(value), op, Box::new(below)))
            }
            O::Lt | O::LtEq => value.lt_eq(below),
            O::Gt | O::GtEq => value.gt(below),
            O::Eq => never,
            O::NotEq => !never,
            O::IsDistinctFrom => lit(true),
            O::IsNotDistinctFrom => lit(false),
            _ => return None,
        })
    }

    /// False, and null for a null.
    fn never(&self) -> Expr {
        let unknown = lit(ScalarValue::Boolean(None));
        self.value.clone().is_null().and(unknown)
    }
}

const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn ticks(constant: &ScalarValue) -> Option<(i64, TimeUnit)> {
    use ScalarValue as V;
    match constant {
        V::TimestampNanosecond(ticks, _) => Some(((*ticks)?, TimeUnit::Nanosecond)),
        V::TimestampMicrosecond(ticks, _) => Some(((*ticks)?, TimeUnit::Microsecond)),
        V::TimestampMillisecond(ticks, _) => Some(((*ticks)?, TimeUnit::Millisecond)),
        _ => None,
    }
}

fn timestamp(ticks: i64, unit: TimeUnit, zone: Option<Arc<str>>) -> ScalarValue {
    use ScalarValue as V;
    match unit {
        TimeUnit::Second => V::TimestampSecond(Some(ticks), zone),
        TimeUnit::Millisecond => V::TimestampMillisecond(Some(ticks), zone),
        TimeUnit::Microsecond => V::TimestampMicrosecond(Some(ticks), zone),
        TimeUnit::Nanosecond => V::TimestampNanosecond(Some(ticks), zone),
    }
}
