//! How many elements lists have, nulls included. A list of nulls takes no bytes, and a cast of it
//! those of its new type for each: so lists are measured where an element becomes larger.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
};
use datafusion::optimizer::AnalyzerRule;
use featureflight_udf::planner::expressions;

use super::checked::{Checked, What};
use super::width::width;
use super::{MAX_CALL_BYTES, too_large};

/// Bytes of an element as text.
const ELEMENT_TEXT: u64 = 32;

/// Functions that cast.
pub(super) const CASTS: [&str; 2] = ["arrow_cast", "arrow_try_cast"];

/// The type of a list's elements.
pub(super) fn of(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

/// Least bytes of an element of a list of that type.
pub(crate) fn element_width(list: &DataType) -> usize {
    let width = of(list).map_or(0, |item| width(item, u64::MAX));
    usize::try_from(width).unwrap_or(usize::MAX)
}

/// The elements of all lists of an array, and those of the lists in them.
fn inner(lists: &ArrayRef) -> Option<ArrayRef> {
    Some(match lists.data_type() {
        DataType::List(_) => {
            let lists = lists.as_list::<i32>();
            let (first, last) = (lists.offsets().first()?, lists.offsets().last()?);
            let (first, last) = (*first as usize, *last as usize);
            lists.values().slice(first, last - first)
        }
        DataType::LargeList(_) => {
            let lists = lists.as_list::<i64>();
            let (first, last) = (lists.offsets().first()?, lists.offsets().last()?);
            let (first, last) = (*first as usize, *last as usize);
            lists.values().slice(first, last - first)
        }
        DataType::FixedSizeList(..) => Arc::clone(lists.as_fixed_size_list().values()),
        _ => return None,
    })
}

/// What the lists of an array, and those in them, have together.
fn innermost(array: &ArrayRef) -> ArrayRef {
    inner(array).map_or_else(|| Arc::clone(array), |items| innermost(&items))
}

/// Least bytes of an array: what its elements take, whatever they are.
pub(super) fn least(array: &ArrayRef) -> u64 {
    let items = innermost(array);
    (items.len() as u64).saturating_mul(width(items.data_type(), u64::MAX))
}

/// # Errors
/// `ResourceExhausted` when the elements of the lists would become too large, `width` bytes each.
pub(super) fn check(args: &ScalarFunctionArgs, width: u64) -> Result<()> {
    let items = match args.args.first() {
        Some(ColumnarValue::Array(array)) => innermost(array),
        Some(ColumnarValue::Scalar(list)) => innermost(&list.to_array()?),
        None => return Ok(()),
    };
    if (items.len() as u64).saturating_mul(width) > MAX_CALL_BYTES {
        return Err(too_large(format!(
            "the elements of the lists that are cast would take more than {MAX_CALL_BYTES} bytes for \
             the rows of a batch: use shorter lists, or a narrower type"
        )));
    }
    Ok(())
}

/// Puts a [`check`] below casts of lists. Comes behind the coercion of types, which casts too.
#[derive(Debug)]
pub(crate) struct MeasureListCasts;

impl AnalyzerRule for MeasureListCasts {
    fn name(&self) -> &'static str {
        "measure_list_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        expressions::rewrite(plan, casts, |expr, schema| Ok(measured(expr, schema)))
    }
}

fn casts(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(_) | Expr::TryCast(_) => true,
        // They become casts in the optimizer.
        Expr::ScalarFunction(call) => CASTS.contains(&call.func.name()),
        _ => false,
    }
}

fn measured(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    if !casts(&expr) {
        return Transformed::no(expr);
    }
    let Ok(to) = expr.get_type(schema) else {
        return Transformed::no(expr);
    };
    let list = match &mut expr {
        Expr::Cast(cast) => cast.expr.as_mut(),
        Expr::TryCast(cast) => cast.expr.as_mut(),
        Expr::ScalarFunction(call) => match call.args.first_mut() {
            Some(list) => list,
            None => return Transformed::no(expr),
        },
        _ => return Transformed::no(expr),
    };
    let from = list.get_type(schema).ok();
    let Some(width) = from.and_then(|from| grown(&from, &to)) else {
        return Transformed::no(expr);
    };
    let items = Arc::new(ScalarUDF::new_from_impl(Checked::new(What::Items(width))));
    let argument = vec![std::mem::take(list)];
    *list = Expr::ScalarFunction(ScalarFunction::new_udf(items, argument));
    Transformed::yes(expr)
}

/// Bytes of what the innermost elements of a list become, where that is more than they are.
fn grown(from: &DataType, to: &DataType) -> Option<u64> {
    let item = of(from)?;
    match of(to) {
        Some(to) if of(item).is_some() => grown(item, to),
        Some(to) => {
            let known = item.primitive_width().map_or(0, |bytes| bytes as u64);
            let new = width(to, u64::MAX);
            (new > known).then_some(new)
        }
        // As text.
        None => Some(ELEMENT_TEXT),
    }
}
