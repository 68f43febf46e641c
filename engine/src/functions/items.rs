//! How many elements lists have, nulls included. A list of nulls takes no bytes, and a cast of it
//! those of its new type for each: so lists are measured where an element becomes larger.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

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

/// Least bytes of an array: what its elements take, whatever they are.
pub(super) fn least(array: &ArrayRef) -> u64 {
    match inner(array) {
        Some(items) => least(&items),
        None => (array.len() as u64).saturating_mul(width(array.data_type(), u64::MAX)),
    }
}

fn leaves(array: &ArrayRef) -> u64 {
    match inner(array) {
        Some(items) => leaves(&items),
        None => array.len() as u64,
    }
}

/// Puts [`Items`] below casts of lists. Comes behind the coercion of types, which casts too.
#[derive(Debug)]
pub(crate) struct MeasureListCasts;

impl AnalyzerRule for MeasureListCasts {
    fn name(&self) -> &'static str {
        "measure_list_casts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let measured = plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let measured = expr.transform_up(|expr| Ok(measured(expr, &schema)))?;
                Ok(measured.update_data(|expr| name.restore(expr)))
            })
        });
        measured.map(|measured| measured.data)
    }
}

fn measured(mut expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Ok(to) = expr.get_type(schema) else {
        return Transformed::no(expr);
    };
    let list = match &mut expr {
        Expr::Cast(cast) => cast.expr.as_mut(),
        Expr::TryCast(cast) => cast.expr.as_mut(),
        // They become casts in the optimizer.
        Expr::ScalarFunction(call) if CASTS.contains(&call.func.name()) => {
            match call.args.first_mut() {
                Some(list) => list,
                None => return Transformed::no(expr),
            }
        }
        _ => return Transformed::no(expr),
    };
    let from = list.get_type(schema).ok();
    let Some(width) = from.and_then(|from| grown(&from, &to)) else {
        return Transformed::no(expr);
    };
    let items = Arc::new(ScalarUDF::new_from_impl(Items::new(width)));
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

/// Lists as they are, after a look at how many elements they have.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Items {
    /// Bytes that each becomes.
    width: u64,
    signature: Signature,
}

impl Items {
    fn new(width: u64) -> Self {
        Self {
            width,
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Items {
    fn name(&self) -> &'static str {
        "checked_items"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lists = args.args.swap_remove(0);
        let items = match &lists {
            ColumnarValue::Array(array) => leaves(array),
            ColumnarValue::Scalar(list) => leaves(&list.to_array()?),
        };
        if items.saturating_mul(self.width) > MAX_CALL_BYTES {
            return Err(too_large(format!(
                "the elements of the lists that are cast would take more than {MAX_CALL_BYTES} bytes \
                 for the rows of a batch: use shorter lists, or a narrower type"
            )));
        }
        Ok(lists)
    }
}
