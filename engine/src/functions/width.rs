//! How wide a type may be. A null of a type takes the bytes of its fixed sizes all the same, and a
//! type of nested structs doubles with every level while its text only grows.

use std::sync::Arc;

use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, FieldRef,
    Schema, validate_decimal_precision_and_scale,
};
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

/// Whether the columns of `schema` have types that SQL can make too.
///
/// # Errors
/// `InvalidArgument` for one that it cannot, at any depth.
pub fn check_types(schema: &Schema) -> featureflight_catalog::Result<()> {
    match schema
        .fields()
        .iter()
        .find(|field| is_odd(field.data_type()))
    {
        None => Ok(()),
        Some(odd) => Err(Error::invalid(format!(
            "column '{}' has type {}: decimals have the digits of their type and no scale below \
             zero here, and lists of fixed size at least one element",
            odd.name(),
            odd.data_type()
        ))),
    }
}

/// Types that some of Arrow's kernels divide by zero on, look for the first element of, or look up
/// the largest value of.
fn is_odd(data_type: &DataType) -> bool {
    fn decimal<T: DecimalType>(digits: u8, scale: i8) -> bool {
        scale < 0 || validate_decimal_precision_and_scale::<T>(digits, scale).is_err()
    }
    match data_type {
        DataType::Decimal32(digits, scale) => decimal::<Decimal32Type>(*digits, *scale),
        DataType::Decimal64(digits, scale) => decimal::<Decimal64Type>(*digits, *scale),
        DataType::Decimal128(digits, scale) => decimal::<Decimal128Type>(*digits, *scale),
        DataType::Decimal256(digits, scale) => decimal::<Decimal256Type>(*digits, *scale),
        DataType::FixedSizeList(item, size) => *size <= 0 || is_odd(item.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => is_odd(item.data_type()),
        DataType::Dictionary(_, values) => is_odd(values),
        DataType::Struct(fields) => fields.iter().any(|field| is_odd(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| is_odd(field.data_type())),
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

/// Bytes of an array of `rows` nulls of a type: what holds nothing takes its fixed sizes.
pub(crate) fn of_nulls(data_type: &DataType, rows: u64) -> u64 {
    // The last bits of each of its buffers are rounded up, which is little beside the rows.
    null_bits(data_type).saturating_mul(rows).div_ceil(8)
}

/// Bits of one null in an array of them, with the bit that says it is one.
fn null_bits(data_type: &DataType) -> u64 {
    let bytes = match data_type {
        DataType::Null => return 0,
        DataType::FixedSizeList(item, size) => {
            let size = u64::try_from(*size).unwrap_or(u64::MAX);
            return null_bits(item.data_type())
                .saturating_mul(size)
                .saturating_add(1);
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| null_bits(field.data_type()));
            return fields.fold(1, u64::saturating_add);
        }
        DataType::FixedSizeBinary(size) => u64::try_from(*size).unwrap_or(u64::MAX),
        DataType::Utf8View | DataType::BinaryView | DataType::LargeListView(_) => 2 * OFFSET,
        DataType::Dictionary(keys, _) => return null_bits(keys),
        other => other.primitive_width().map_or(OFFSET, |bytes| bytes as u64),
    };
    bytes.saturating_mul(8).saturating_add(1)
}

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
    fn odd_types_are_found_at_any_depth() {
        use arrow::datatypes::{UnionFields, UnionMode};
        let field = |of: &DataType| Arc::new(Field::new("item", of.clone(), true));
        let around = |of: &DataType| {
            let item = || field(of);
            let struct_ = DataType::Struct(vec![item()].into());
            let ends = Arc::new(Field::new("run_ends", DataType::Int32, false));
            let union = UnionFields::try_new([0], [item()]).unwrap();
            [
                of.clone(),
                DataType::List(item()),
                DataType::LargeList(item()),
                DataType::ListView(item()),
                DataType::LargeListView(item()),
                DataType::FixedSizeList(item(), 2),
                DataType::Map(field(&struct_), false),
                struct_,
                DataType::Union(union, UnionMode::Sparse),
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(of.clone())),
                DataType::RunEndEncoded(ends, item()),
            ]
        };
        let refused = |of: DataType| {
            let schema = Schema::new(vec![Field::new("c", of, true)]);
            check_types(&schema).is_err()
        };
        for odd in [
            DataType::Decimal32(10, 0),
            DataType::Decimal64(19, 0),
            DataType::Decimal128(0, 0),
            DataType::Decimal128(39, 0),
            DataType::Decimal128(255, 0),
            DataType::Decimal128(5, 6),
            DataType::Decimal128(5, -1),
            DataType::Decimal256(77, 0),
            DataType::FixedSizeList(field(&DataType::Int64), 0),
        ] {
            for of in around(&odd).iter().flat_map(around) {
                assert!(refused(of.clone()), "{of}");
            }
        }
        for good in [
            DataType::Decimal32(9, 0),
            DataType::Decimal64(18, 18),
            DataType::Decimal128(38, 10),
            DataType::Decimal256(76, 0),
            DataType::FixedSizeList(field(&DataType::Int64), 1),
        ] {
            for of in around(&good).iter().flat_map(around) {
                assert!(!refused(of.clone()), "{of}");
            }
        }
    }

    #[test]
    fn nulls_take_what_they_are_said_to_take() {
        use arrow::array::{Array, new_null_array};
        let texts = || Arc::new(Field::new("item", DataType::Utf8, true));
        let structs = vec![
            Field::new("a", DataType::Utf8View, true),
            Field::new("b", vector(3), true),
            Field::new("c", DataType::Boolean, true),
        ];
        let entries = vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Utf8, true),
        ];
        let entries = Field::new("entries", DataType::Struct(entries.into()), false);
        let keyed = DataType::Dictionary(Box::new(DataType::Int32), Box::new(vector(9)));
        for data_type in [
            DataType::Null,
            DataType::Float32,
            DataType::Decimal256(7, 2),
            DataType::LargeUtf8,
            DataType::BinaryView,
            DataType::FixedSizeBinary(1_000),
            DataType::List(texts()),
            DataType::LargeList(texts()),
            DataType::Map(Arc::new(entries), false),
            DataType::Struct(structs.into()),
            DataType::FixedSizeList(texts(), 100),
            vector(1_536),
            keyed,
        ] {
            let rows = 10_000;
            let taken = new_null_array(&data_type, rows).get_array_memory_size() as u64;
            let said = of_nulls(&data_type, rows as u64) + 4_096;
            assert!(taken <= said, "{data_type}: {taken} of {said}");
        }
        let widest = DataType::FixedSizeBinary(i32::MAX);
        assert_eq!(of_nulls(&widest, u64::MAX), u64::MAX.div_ceil(8));
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
