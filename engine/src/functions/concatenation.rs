//! `a || b || c` as one call. The operator makes every intermediate text anew, and nested guards
//! would be asked for their types again at every level.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, LargeStringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

/// The operands of `||`, all of them in one; null when one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    pub(super) const NAME: &str = "concatenation";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

/// `left || right`, flat when `left` is flat already; `None` for arrays, which have a function of
/// their own.
pub(super) fn flatten(
    function: &Arc<ScalarUDF>,
    left: &Expr,
    right: &Expr,
    schema: &DFSchema,
) -> Result<Option<Expr>> {
    let mut operands = match left {
        Expr::ScalarFunction(call) if call.func.name() == Concatenation::NAME => call.args.clone(),
        other => vec![other.clone()],
    };
    operands.push(right.clone());
    let of = |expr: &Expr| expr.get_type(schema);
    let (first, last) = (of(left)?, of(right)?);
    if first.is_list() || last.is_list() || concatenated(&first, &last).is_err() {
        return Ok(None);
    }
    Ok(Some(Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::clone(function),
        operands,
    ))))
}

fn concatenated(left: &DataType, right: &DataType) -> Result<DataType> {
    BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let mut types = types.iter();
        let first = types.next().cloned().unwrap_or(DataType::Utf8);
        types.try_fold(first, |left, right| concatenated(&left, right))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let made = args.return_type().clone();
        let constant = args
            .args
            .iter()
            .all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let binary = matches!(
            made,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView
        );
        let wide = if binary {
            DataType::LargeBinary
        } else {
            DataType::LargeUtf8
        };
        let operands = args.args.iter().map(|arg| {
            Ok(match arg {
                ColumnarValue::Array(array) => (cast(array, &wide)?, false),
                ColumnarValue::Scalar(scalar) => (cast(&scalar.to_array()?, &wide)?, true),
            })
        });
        let operands: Vec<(ArrayRef, bool)> = operands.collect::<Result<_>>()?;
        let joined = if binary {
            join_bytes(&operands, rows)
        } else {
            join_text(&operands, rows)
        };
        // A text of more than two gigabytes does not fit the narrow types; the guard is far below.
        let joined = cast(&joined, &made).map_err(DataFusionError::from)?;
        if constant {
            let value = datafusion::scalar::ScalarValue::try_from_array(&joined, 0)?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(joined))
    }
}

/// The values of a row, unless one is null.
fn present(operands: &[(ArrayRef, bool)], row: usize) -> bool {
    operands
        .iter()
        .all(|(array, constant)| array.is_valid(place(*constant, row)))
}

fn place(constant: bool, row: usize) -> usize {
    if constant { 0 } else { row }
}

fn join_text(operands: &[(ArrayRef, bool)], rows: usize) -> ArrayRef {
    let mut builder = LargeStringBuilder::new();
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        if present(operands, row) {
            for (array, constant) in operands {
                text.push_str(array.as_string::<i64>().value(place(*constant, row)));
            }
            builder.append_value(&text);
        } else {
            builder.append_null();
        }
    }
    Arc::new(builder.finish())
}

fn join_bytes(operands: &[(ArrayRef, bool)], rows: usize) -> ArrayRef {
    let mut builder = LargeBinaryBuilder::new();
    let mut bytes = Vec::new();
    for row in 0..rows {
        bytes.clear();
        if present(operands, row) {
            for (array, constant) in operands {
                bytes.extend_from_slice(array.as_binary::<i64>().value(place(*constant, row)));
            }
            builder.append_value(&bytes);
        } else {
            builder.append_null();
        }
    }
    Arc::new(builder.finish())
}
