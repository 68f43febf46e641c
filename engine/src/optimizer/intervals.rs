//! Intervals in the order of the time they take: a month is 30 days and a day 24 hours, as in
//! `PostgreSQL` and `DuckDB`. `DataFusion` 55.2 compares months, then days, then nanoseconds, and makes
//! an interval of nanoseconds alone of the difference of two timestamps: four days are then less than
//! `INTERVAL '1 day'`.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, TimeUnit,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, Sort as SortKey};
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::between::columns_first;

/// In comparisons, and in the order of windows and aggregates.
#[derive(Debug)]
pub(crate) struct CompareIntervals;

impl FunctionRewrite for CompareIntervals {
    fn name(&self) -> &'static str {
        "compare_intervals"
    }

    fn rewrite(
        &self,
        expr: Expr,
        schema: &DFSchema,
        _config: &ConfigOptions,
    ) -> Result<Transformed<Expr>> {
        let intervals = |expr: &Expr| is_interval(expr, schema);
        Ok(match expr {
            Expr::BinaryExpr(mut pair)
                if compares(pair.op) && (intervals(&pair.left) || intervals(&pair.right)) =>
            {
                *pair.left = length(*pair.left);
                *pair.right = length(*pair.right);
                Transformed::yes(Expr::BinaryExpr(pair))
            }
            Expr::Between(mut between)
                if [&between.expr, &between.low, &between.high]
                    .into_iter()
                    .any(|of| intervals(of)) =>
            {
                let is_constant = matches!(*between.expr, Expr::Literal(..));
                *between.expr = length(*between.expr);
                *between.low = length(*between.low);
                *between.high = length(*between.high);
                Transformed::yes(if is_constant {
                    columns_first(between)
                } else {
                    Expr::Between(between)
                })
            }
            Expr::InList(mut member)
                if intervals(&member.expr) || member.list.iter().any(intervals) =>
            {
                *member.expr = length(*member.expr);
                member.list = member.list.into_iter().map(length).collect();
                Transformed::yes(Expr::InList(member))
            }
            Expr::InSubquery(member)
                if intervals(&member.expr) || has_interval(member.subquery.subquery.schema()) =>
            {
                return plan_err!(
                    "IN (SELECT ...) of intervals is not supported: write EXISTS (SELECT ... WHERE y = x)"
                );
            }
            Expr::Case(mut case)
                if case.expr.as_deref().is_some_and(intervals)
                    || case.when_then_expr.iter().any(|(when, _)| intervals(when)) =>
            {
                case.expr = case.expr.map(|base| Box::new(length(*base)));
                let arms = case.when_then_expr.into_iter();
                let arms = arms.map(|(when, then)| (Box::new(length(*when)), then));
                case.when_then_expr = arms.collect();
                Transformed::yes(Expr::Case(case))
            }
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                if ["min", "max"].contains(&func.name()) && params.args.iter().any(intervals) {
                    return unordered(func.name());
                }
                let changed = keys(&mut params.order_by, schema);
                let call = Expr::AggregateFunction(AggregateFunction { func, params });
                changed.update_data(|()| call)
            }
            Expr::WindowFunction(mut window) => {
                let name = window.fun.name().to_owned();
                if ["min", "max"].contains(&name.as_str())
                    && window.params.args.iter().any(intervals)
                {
                    return unordered(&name);
                }
                let changed = keys(&mut window.params.order_by, schema);
                changed.update_data(|()| Expr::WindowFunction(window))
            }
            Expr::ScalarFunction(call)
                if ["greatest", "least", "nullif"].contains(&call.name())
                    && call.args.iter().any(intervals) =>
            {
                return unordered(call.name());
            }
            other => Transformed::no(other),
        })
    }
}

const fn compares(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(
        operator,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

fn unordered<T>(name: &str) -> Result<T> {
    plan_err!(
        "{name} of intervals is not supported, since an interval of days and one of hours may take the \
         same time: write {name}(extract(epoch FROM x)), which is in seconds"
    )
}

/// In the order of rows.
#[derive(Debug)]
pub(crate) struct OrderIntervals;

impl AnalyzerRule for OrderIntervals {
    fn name(&self) -> &'static str {
        "order_intervals"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let ordered = plan.transform_up_with_subqueries(|step| {
            let LogicalPlan::Sort(mut sort) = step else {
                return Ok(Transformed::no(step));
            };
            let changed = keys(&mut sort.expr, sort.input.schema());
            Ok(changed.update_data(|()| LogicalPlan::Sort(sort)))
        })?;
        Ok(ordered.data)
    }
}

fn keys(keys: &mut [SortKey], schema: &DFSchema) -> Transformed<()> {
    let mut changed = Transformed::no(());
    for key in keys {
        if is_interval(&key.expr, schema) {
            key.expr = length(std::mem::take(&mut key.expr));
            changed.transformed = true;
        }
    }
    changed
}

fn has_interval(schema: &DFSchema) -> bool {
    let mut fields = schema.fields().iter();
    fields.any(|field| matches!(field.data_type(), DataType::Interval(_)))
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::Interval(_)))
}

fn length(interval: Expr) -> Expr {
    static LENGTH: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::from(Length {
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    });
    let call = ScalarFunction::new_udf(Arc::clone(&LENGTH), vec![interval]);
    Expr::ScalarFunction(call)
}

/// Nanoseconds of an interval or a duration.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Length {
    signature: Signature,
}

impl ScalarUDFImpl for Length {
    fn name(&self) -> &'static str {
        "nanoseconds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let coerced = types.iter().map(|of| match of {
            DataType::Interval(_) | DataType::Duration(_) => Ok(of.clone()),
            DataType::Null => Ok(DataType::Interval(IntervalUnit::MonthDayNano)),
            other => plan_err!("an interval cannot be compared with {other}"),
        });
        coerced.collect()
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lengths = lengths(args.args[0].to_array(1)?.as_ref())?;
        Ok(match &args.args[0] {
            ColumnarValue::Array(_) => ColumnarValue::Array(lengths),
            ColumnarValue::Scalar(_) => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?)
            }
        })
    }
}

fn lengths(intervals: &dyn Array) -> Result<ArrayRef> {
    const DAY: i128 = 86_400_000_000_000;
    let duration = |array: &dyn Array, unit: i128| {
        let counts = cast(array, &DataType::Int64)?;
        let counts = counts.as_primitive::<Int64Type>().iter();
        Ok(Decimal128Array::from_iter(
            counts.map(|count| Some(i128::from(count?) * unit)),
        ))
    };
    let lengths = match intervals.data_type() {
        DataType::Duration(TimeUnit::Second) => duration(intervals, 1_000_000_000),
        DataType::Duration(TimeUnit::Millisecond) => duration(intervals, 1_000_000),
        DataType::Duration(TimeUnit::Microsecond) => duration(intervals, 1_000),
        DataType::Duration(TimeUnit::Nanosecond) => duration(intervals, 1),
        DataType::Interval(IntervalUnit::YearMonth) => {
            let months = intervals.as_primitive::<IntervalYearMonthType>().iter();
            Ok(Decimal128Array::from_iter(
                months.map(|of| Some(i128::from(of?) * 30 * DAY)),
            ))
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let times = intervals.as_primitive::<IntervalDayTimeType>().iter();
            let length = |of: <IntervalDayTimeType as ArrowPrimitiveType>::Native| {
                i128::from(of.days) * DAY + i128::from(of.milliseconds) * 1_000_000
            };
            Ok(Decimal128Array::from_iter(times.map(|of| of.map(length))))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let times = intervals.as_primitive::<IntervalMonthDayNanoType>().iter();
            let length = |of: <IntervalMonthDayNanoType as ArrowPrimitiveType>::Native| {
                (i128::from(of.months) * 30 + i128::from(of.days)) * DAY
                    + i128::from(of.nanoseconds)
            };
            Ok(Decimal128Array::from_iter(times.map(|of| of.map(length))))
        }
        other => plan_err!("{other} is no interval"),
    }?;
    let lengths = lengths.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?;
    Ok(Arc::new(lengths))
}
