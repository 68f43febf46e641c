//! How wide a type may be. A null of a type takes the bytes of its fixed sizes all the same, and a
//! type of nested structs doubles with every level while its text only grows.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use featureflight_catalog::{Error, Kind};

use super::{invalid, too_large};

/// Bytes that one value takes though it is null, which no memory pool counts: an embedding of 4,096
/// numbers, 128 MiB for the rows of a batch.
const MAX_WIDTH: u64 = 16 << 10;

/// Bytes that one row takes though all of it is null.
const MAX_ROW_WIDTH: u64 = 4 * MAX_WIDTH;

/// Fields of nested structs: planning looks at each many times.
const MAX_FIELDS: u64 = 4_096;

/// # Errors
/// `ResourceExhausted` for a type wider than any sensible one.
pub(super) fn check(data_type: &DataType, name: &str) -> Result<()> {
    if fields(data_type) > MAX_FIELDS {
        return Err(too_large(format!(
            "{name} would make a value of more than {MAX_FIELDS} nested fields"
        )));
    }
    if is_odd(data_type) {
        return Err(invalid(format!(
            "{name} would make a value of type {data_type}: decimals have no scale below zero here, \
             and lists of fixed size at least one element"
        )));
    }
    if width(data_type, MAX_WIDTH) > MAX_WIDTH {
        return Err(too_large(format!(
            "{name} would make a value of more than {MAX_WIDTH} bytes of fixed size"
        )));
    }
    Ok(())
}

/// Whether rows of `schema` are narrow enough for a batch of them, nulls included.
///
/// # Errors
/// `ResourceExhausted` for a column of more than [`MAX_FIELDS`] nested fields, and for columns that
/// take more than [`MAX_ROW_WIDTH`] bytes together for each row.
pub fn check_schema(schema: &Schema) -> featureflight_catalog::Result<()> {
    let mut sum = 0_u64;
    for field in schema.fields() {
        if fields(field.data_type()) > MAX_FIELDS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "column '{}' has more than {MAX_FIELDS} nested fields",
                    field.name()
                ),
            ));
        }
        sum = sum.saturating_add(width(field.data_type(), MAX_ROW_WIDTH));
        if sum > MAX_ROW_WIDTH {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "with column '{}' a row has more than {MAX_ROW_WIDTH} bytes of fixed size: use \
                     lists instead of lists of fixed size, or fewer columns",
                    field.name()
                ),
            ));
        }
    }
    Ok(())
}

/// Types that some of Arrow's kernels divide by zero on, or look for the first element of.
fn is_odd(data_type: &DataType) -> bool {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale < 0,
        DataType::FixedSizeList(item, size) => *size == 0 || is_odd(item.data_type()),
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => {
            is_odd(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| is_odd(field.data_type())),
        _ => false,
    }
}

/// The fields of a type, or more than [`MAX_FIELDS`] as soon as they are certain to be.
fn fields(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Struct(nested) => {
            let mut sum = 0;
            for field in nested {
                sum += fields(field.data_type());
                if sum > MAX_FIELDS {
                    break;
                }
            }
            sum
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => fields(item.data_type()),
        _ => 1,
    }
}

/// Bytes of a null of a type, or more than `enough` as soon as they are certain to be.
pub(super) fn width(data_type: &DataType, enough: u64) -> u64 {
    match data_type {
        DataType::FixedSizeBinary(size) => u64::try_from(*size).unwrap_or(u64::MAX),
        DataType::FixedSizeList(item, size) => {
            let size = u64::try_from(*size).unwrap_or(u64::MAX);
            width(item.data_type(), enough).saturating_mul(size.max(1))
        }
        DataType::Struct(fields) => {
            let mut sum = 0_u64;
            for field in fields {
                sum = sum.saturating_add(width(field.data_type(), enough));
                if sum > enough {
                    break;
                }
            }
            sum
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _) => OFFSET.saturating_add(width(item.data_type(), enough)),
        DataType::Dictionary(_, values) => OFFSET.saturating_add(width(values, enough)),
        DataType::RunEndEncoded(_, values) => width(values.data_type(), enough),
        other => other.primitive_width().map_or(OFFSET, |bytes| bytes as u64),
    }
}

/// Bytes of what has no fixed size, and of the start of a list, in a row.
const OFFSET: u64 = 8;

/// `arrow_cast`, which makes any type there is. It ends as a cast.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Cast(Arc<ScalarUDF>);

impl Cast {
    pub(super) fn new(inner: Arc<ScalarUDF>) -> Self {
        Self(inner)
    }
}

impl ScalarUDFImpl for Cast {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.0.inner().return_field_from_args(args)?;
        check(field.data_type(), self.name())?;
        Ok(field)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.0.inner().simplify(args, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.0.inner().invoke_with_args(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;

    #[test]
    fn a_type_that_doubles_is_measured_at_once() {
        let mut data_type = DataType::Int64;
        for _ in 0..60 {
            let field = Arc::new(Field::new("c", data_type, true));
            data_type = DataType::Struct(vec![Arc::clone(&field), field].into());
        }
        assert!(check(&data_type, "struct").is_err());
        assert!(check(&DataType::FixedSizeBinary(i32::MAX), "arrow_cast").is_err());
        assert!(check(&DataType::Utf8, "struct").is_ok());
    }

    fn vector(elements: i32) -> DataType {
        let item = Arc::new(Field::new("item", DataType::Int64, true));
        DataType::FixedSizeList(item, elements)
    }

    #[test]
    fn a_batch_of_nulls_fits_a_call() {
        assert!(check(&vector(2_048), "arrow_cast").is_ok());
        assert!(check(&vector(2_049), "arrow_cast").is_err());
    }

    #[test]
    fn columns_and_nested_lists_count_together() {
        let columns = |count, data_type: DataType| {
            let field = |n| Field::new(format!("c{n}"), data_type.clone(), true);
            Schema::new((0..count).map(field).collect::<Vec<_>>())
        };
        assert!(check_schema(&columns(1_000, DataType::Utf8)).is_ok());
        assert!(check_schema(&columns(4, vector(2_048))).is_ok());
        let error = check_schema(&columns(5, vector(2_048))).unwrap_err();
        assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
        let item = Arc::new(Field::new("item", vector(1_000), true));
        let nested = DataType::FixedSizeList(item, 1_000);
        assert!(check_schema(&columns(1, nested)).is_err());
    }
}
