//! Functions a server cannot leave as they are: those that make much of little outside the memory
//! pool's sight.
//!
//! `repeat('x', 2147483647)` builds gigabytes in one value, before any limit is looked at. The
//! guarded ones refuse when one call would make more than [`MAX_VALUE_BYTES`] of one value or
//! [`MAX_CALL_BYTES`] in all.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use featureflight_catalog::{Error, Kind, Result};

const MAX_VALUE_BYTES: u64 = 64 << 20;
const MAX_CALL_BYTES: u64 = 512 << 20;

/// The functions, by how the size of a result follows from the first two arguments.
const GUARDED: [(&str, Grows); 4] = [
    ("repeat", Grows::Times),
    ("lpad", Grows::To),
    ("rpad", Grows::To),
    ("array_repeat", Grows::ElementTimes),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Grows {
    /// Bytes of the first argument, as often as the second says.
    Times,
    /// To as many characters as the second argument says.
    To,
    /// Elements like the first argument, as often as the second says.
    ElementTimes,
}

/// Puts the guards into `state`, under every name their functions have.
pub(crate) fn guard(state: &mut SessionState) -> Result<()> {
    for (name, grows) in GUARDED {
        let Ok(function) = state.udf(name) else {
            continue;
        };
        let guarded = Guarded {
            inner: function,
            grows,
        };
        let guarded = ScalarUDF::new_from_impl(guarded);
        state
            .register_udf(Arc::new(guarded))
            .map_err(crate::error::classify)?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Guarded {
    inner: Arc<ScalarUDF>,
    grows: Grows,
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> PlanResult<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(
        &self,
        args: ReturnFieldArgs<'_>,
    ) -> PlanResult<arrow::datatypes::FieldRef> {
        self.inner.inner().return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> PlanResult<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        if let [value, count, ..] = args.args.as_slice() {
            check(self.grows, value, count, args.number_rows, self.name())?;
        }
        self.inner.inner().invoke_with_args(args)
    }
}

fn check(
    grows: Grows,
    value: &ColumnarValue,
    count: &ColumnarValue,
    rows: usize,
    name: &str,
) -> PlanResult<()> {
    let constant = matches!(
        (value, count),
        (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_))
    );
    let rows = if constant { 1 } else { rows };
    let counts = cast(&count.to_array(rows)?, &DataType::Int64)?;
    let counts = counts.as_primitive::<Int64Type>();
    let values = value.to_array(rows)?;
    let mut total = 0_u64;
    for row in (0..rows).filter(|row| counts.is_valid(*row)) {
        let times = u64::try_from(counts.value(row)).unwrap_or(0);
        let bytes = match grows {
            Grows::Times | Grows::ElementTimes => times.saturating_mul(size_of(&values, row)),
            Grows::To => times,
        };
        total = total.saturating_add(bytes);
        if bytes > MAX_VALUE_BYTES || total > MAX_CALL_BYTES {
            return Err(DataFusionError::from(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "{name} would make a value too large: the limit is {MAX_VALUE_BYTES} bytes"
                ),
            )));
        }
    }
    Ok(())
}

/// The bytes of one value, at least one.
fn size_of(values: &ArrayRef, row: usize) -> u64 {
    let bytes = match values.data_type() {
        _ if values.is_null(row) => 0,
        DataType::Utf8 => values.as_string::<i32>().value(row).len(),
        DataType::LargeUtf8 => values.as_string::<i64>().value(row).len(),
        DataType::Utf8View => values.as_string_view().value(row).len(),
        DataType::Binary => values.as_binary::<i32>().value(row).len(),
        DataType::LargeBinary => values.as_binary::<i64>().value(row).len(),
        DataType::BinaryView => values.as_binary_view().value(row).len(),
        other => other
            .primitive_width()
            .unwrap_or_else(|| values.get_array_memory_size()),
    };
    (bytes as u64).max(1)
}
