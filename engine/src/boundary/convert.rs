//! Converts one array to the type it is announced as, recursively.
//!
//! Arrow's own cast is not enough: it truncates nanoseconds before 1970 towards zero, and making
//! text of more than two gigabytes of views panics.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ByteView, FixedSizeListArray, ListArray, MapArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options, take};
use arrow::datatypes::{
    DataType, FieldRef, Fields, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use featureflight_catalog::table::timestamp_type;

#[derive(Debug)]
pub(super) enum ConvertError {
    /// More bytes than 32-bit offsets reach: try fewer rows.
    TooLarge,
    Arrow(ArrowError),
}

impl From<ArrowError> for ConvertError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::OffsetOverflowError(_) => Self::TooLarge,
            other => Self::Arrow(other),
        }
    }
}

const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow::util::display::FormatOptions::new(),
};

/// `to` is [`super::announced_type`] of the array's type, or that with text for timestamps.
pub(super) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ConvertError> {
    if array.data_type() == to {
        return Ok(Arc::clone(array));
    }
    match (array.data_type(), to) {
        (DataType::Timestamp(unit, _), DataType::Timestamp(..)) => timestamps(array, *unit, to),
        (DataType::Timestamp(..), DataType::Utf8) => {
            let instants = convert(array, &timestamp_type())?;
            Ok(cast_with_options(&instants, to, &STRICT)?)
        }
        (DataType::Dictionary(..), _) => {
            let dictionary = array.as_any_dictionary();
            let values = convert(dictionary.values(), to)?;
            Ok(take(&values, dictionary.keys(), None)?)
        }
        (DataType::RunEndEncoded(_, values), _) => {
            convert(&cast_with_options(array, values.data_type(), &STRICT)?, to)
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = array.as_list::<i32>();
            lists(list.offsets(), list.values(), list.nulls(), item)
        }
        (
            DataType::LargeList(from) | DataType::ListView(from) | DataType::LargeListView(from),
            _,
        ) => {
            let offsets_of_32_bits = DataType::List(Arc::clone(from));
            convert(&cast_with_options(array, &offsets_of_32_bits, &STRICT)?, to)
        }
        (DataType::FixedSizeList(..), DataType::FixedSizeList(item, size)) => {
            let list = array.as_fixed_size_list();
            let values = convert(list.values(), item.data_type())?;
            let nulls = list.nulls().cloned();
            Ok(Arc::new(FixedSizeListArray::try_new(
                Arc::clone(item),
                *size,
                values,
                nulls,
            )?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            Ok(Arc::new(structs(array.as_struct(), fields)?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            maps(array.as_map(), entries, *sorted)
        }
        (DataType::Utf8View, _) => {
            fits(array.as_string_view().views())?;
            Ok(cast_with_options(array, to, &STRICT)?)
        }
        (DataType::BinaryView, _) => {
            fits(array.as_binary_view().views())?;
            Ok(cast_with_options(array, to, &STRICT)?)
        }
        (DataType::LargeUtf8 | DataType::LargeBinary, _) => {
            let offsets = match array.data_type() {
                DataType::LargeUtf8 => array.as_string::<i64>().value_offsets(),
                _ => array.as_binary::<i64>().value_offsets(),
            };
            let bytes = offsets
                .last()
                .zip(offsets.first())
                .map_or(0, |(end, start)| end - start);
            if bytes > i64::from(i32::MAX) {
                return Err(ConvertError::TooLarge);
            }
            Ok(cast_with_options(array, to, &STRICT)?)
        }
        _ => Ok(cast_with_options(array, to, &STRICT)?),
    }
}

/// Whether the values behind `views` fit 32-bit offsets.
fn fits(views: &[u128]) -> Result<(), ConvertError> {
    let bytes: u64 = views
        .iter()
        .map(|view| u64::from(ByteView::from(*view).length))
        .sum();
    if bytes > i32::MAX as u64 {
        Err(ConvertError::TooLarge)
    } else {
        Ok(())
    }
}

/// Floored to the microsecond, as every instant here is; a timestamp without a zone is UTC.
fn timestamps(array: &ArrayRef, unit: TimeUnit, to: &DataType) -> Result<ArrayRef, ConvertError> {
    let scaled = |values: &ScalarBuffer<i64>, factor: i64| {
        let mut out = Vec::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            match value.checked_mul(factor) {
                Some(value) => out.push(value),
                None if array.is_null(row) => out.push(0),
                None => {
                    return Err(ArrowError::ArithmeticOverflow(
                        "a timestamp is outside the range of microseconds".to_owned(),
                    ));
                }
            }
        }
        Ok(ScalarBuffer::from(out))
    };
    let micros = match unit {
        TimeUnit::Second => scaled(
            array.as_primitive::<TimestampSecondType>().values(),
            1_000_000,
        )?,
        TimeUnit::Millisecond => scaled(
            array.as_primitive::<TimestampMillisecondType>().values(),
            1_000,
        )?,
        TimeUnit::Microsecond => array
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .clone(),
        TimeUnit::Nanosecond => array
            .as_primitive::<TimestampNanosecondType>()
            .values()
            .iter()
            .map(|nanos| nanos.div_euclid(1_000))
            .collect(),
    };
    let out = TimestampMicrosecondArray::try_new(micros, array.nulls().cloned())?;
    Ok(Arc::new(out.with_data_type(to.clone())))
}

/// Only the values the offsets reach are converted, so that a slice does not drag the rest along.
fn lists(
    offsets: &OffsetBuffer<i32>,
    values: &ArrayRef,
    nulls: Option<&NullBuffer>,
    item: &FieldRef,
) -> Result<ArrayRef, ConvertError> {
    let (offsets, values) = reached(offsets, values);
    let values = convert(&values, item.data_type())?;
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        offsets,
        values,
        nulls.cloned(),
    )?))
}

fn reached(offsets: &OffsetBuffer<i32>, values: &ArrayRef) -> (OffsetBuffer<i32>, ArrayRef) {
    let first = offsets.first().copied().unwrap_or(0);
    let last = offsets.last().copied().unwrap_or(0);
    let from_zero = offsets
        .iter()
        .map(|offset| offset - first)
        .collect::<ScalarBuffer<i32>>();
    let values = values.slice(to_usize(first), to_usize(last - first));
    (OffsetBuffer::new(from_zero), values)
}

fn to_usize(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn structs(array: &StructArray, fields: &Fields) -> Result<StructArray, ConvertError> {
    let columns = array
        .columns()
        .iter()
        .zip(fields)
        .map(|(column, field)| convert(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let nulls = array.nulls().cloned();
    Ok(StructArray::try_new_with_length(
        fields.clone(),
        columns,
        nulls,
        array.len(),
    )?)
}

fn maps(array: &MapArray, entries: &FieldRef, sorted: bool) -> Result<ArrayRef, ConvertError> {
    let DataType::Struct(fields) = entries.data_type() else {
        let text = "a map's entries are not a struct".to_owned();
        return Err(ConvertError::Arrow(ArrowError::SchemaError(text)));
    };
    let first = array.offsets().first().copied().unwrap_or(0);
    let last = array.offsets().last().copied().unwrap_or(0);
    let from_zero = array
        .offsets()
        .iter()
        .map(|offset| offset - first)
        .collect::<ScalarBuffer<i32>>();
    let rows = array
        .entries()
        .slice(to_usize(first), to_usize(last - first));
    let rows = structs(&rows, fields)?;
    let nulls = array.nulls().cloned();
    let offsets = OffsetBuffer::new(from_zero);
    Ok(Arc::new(MapArray::try_new(
        Arc::clone(entries),
        offsets,
        rows,
        nulls,
        sorted,
    )?))
}
