//! How large the value of `(SELECT ...)` may be where an expression has it: it is computed once and
//! written out for each row of a batch, as a constant is, but nobody knows it while planning.

use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use super::growth::size_of;
use super::{MAX_CALL_BYTES, too_large};

/// # Errors
/// `ResourceExhausted` for a value, the first argument, that the rows of a batch make too much.
pub(super) fn check(args: &ScalarFunctionArgs) -> Result<()> {
    if let Some(ColumnarValue::Scalar(scalar)) = args.args.first() {
        let bytes = size_of(&scalar.to_array()?, 0);
        if bytes.saturating_mul(args.number_rows as u64) > MAX_CALL_BYTES {
            return Err(too_large(format!(
                "a subquery gives a value of {bytes} bytes for each row: join what it reads, or \
                 select less of it"
            )));
        }
    }
    Ok(())
}
