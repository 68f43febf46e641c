//! How large the value of `(SELECT ...)` may be where an expression has it: it is computed once and
//! written out for each row of a batch, as a constant is, but nobody knows it while planning.

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::growth::size_of;
use super::{MAX_CALL_BYTES, too_large};

/// Hands the value of a subquery through, unless the rows of a batch make it too much.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Subqueries {
    signature: Signature,
}

impl Subqueries {
    pub(super) const NAME: &str = "checked_subquery";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Subqueries {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let value = args.args.swap_remove(0);
        if let ColumnarValue::Scalar(scalar) = &value {
            let bytes = size_of(&scalar.to_array()?, 0);
            if bytes.saturating_mul(args.number_rows as u64) > MAX_CALL_BYTES {
                return Err(too_large(format!(
                    "a subquery gives a value of {bytes} bytes for each row: join what it reads, \
                     or select less of it"
                )));
            }
        }
        Ok(value)
    }
}
