//! From the type a file stores to the type a Glue table declares, where nothing is lost.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Field, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};

use crate::error::Result;
use crate::scan::convert::{self, Place};

/// `array` as `wanted`: widths change only when every value fits, timestamps become UTC
/// microseconds (floored), text and bytes stay what they are.
pub(super) fn cast(array: &ArrayRef, wanted: &DataType, place: Place<'_>) -> Result<ArrayRef> {
    use DataType::{
        Binary, BinaryView, Decimal128, Decimal256, FixedSizeBinary, Float64, List, Map, Null,
        Struct, Timestamp, Utf8, Utf8View,
    };
    let stored = array.data_type();
    if stored == wanted {
        return Ok(Arc::clone(array));
    }
    match (stored, wanted) {
        (Null, _) => Ok(new_null_array(wanted, array.len())),
        (_, DataType::Int64) => convert::integral(array, place),
        (_, Float64) => convert::fractional(array, place),
        (stored, wanted) if stored.is_integer() && wanted.is_integer() => {
            checked(array, wanted, place)
        }
        (BinaryView, Utf8View) => convert::text(array, place),
        // What is no view lies inside lists and structs: views are asked for at the top only.
        (Utf8 | Utf8View | Binary, Utf8View | BinaryView)
        | (BinaryView | FixedSizeBinary(_), BinaryView) => checked(array, wanted, place),
        (Timestamp(..), Timestamp(TimeUnit::Microsecond, _)) => timestamps(array, wanted, place),
        (Decimal128(_, from) | Decimal256(_, from), Decimal128(_, to)) if from <= to => {
            checked(array, wanted, place)
        }
        (List(_), List(item)) => list(array.as_list(), item, place),
        (Struct(_), Struct(fields)) => structure(array.as_struct(), fields, place),
        (Map(..), Map(entries, sorted)) => map(array.as_map(), entries, *sorted, place),
        _ => Err(not_lossless(stored, wanted, place)),
    }
}

fn not_lossless(stored: &DataType, wanted: &DataType, place: Place<'_>) -> crate::error::Error {
    place.wrong(format!(
        "it is stored as {stored}, which cannot be read as {wanted}"
    ))
}

/// Arrow's cast, with values that do not fit as errors.
fn checked(array: &ArrayRef, wanted: &DataType, place: Place<'_>) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(array, wanted, &options).map_err(|error| place.wrong(error))
}

fn timestamps(array: &ArrayRef, wanted: &DataType, place: Place<'_>) -> Result<ArrayRef> {
    let DataType::Timestamp(unit, _) = array.data_type() else {
        return Err(not_lossless(array.data_type(), wanted, place));
    };
    let out_of_range = |value: i64| format!("the timestamp {value} is out of range");
    let micros: TimestampMicrosecondArray = match unit {
        TimeUnit::Second => convert::each(
            array.as_primitive::<TimestampSecondType>(),
            place,
            |value| value.checked_mul(1_000_000),
            out_of_range,
        )?,
        TimeUnit::Millisecond => convert::each(
            array.as_primitive::<TimestampMillisecondType>(),
            place,
            |value| value.checked_mul(1_000),
            out_of_range,
        )?,
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().clone(),
        TimeUnit::Nanosecond => array
            .as_primitive::<TimestampNanosecondType>()
            .unary(|value| value.div_euclid(1_000)),
    };
    Ok(Arc::new(micros.with_data_type(wanted.clone())))
}

fn list(array: &ListArray, item: &Arc<Field>, place: Place<'_>) -> Result<ArrayRef> {
    let values = cast(array.values(), item.data_type(), place)?;
    let list = ListArray::try_new(
        Arc::clone(item),
        array.offsets().clone(),
        values,
        array.nulls().cloned(),
    );
    list.map(|list| Arc::new(list) as ArrayRef)
        .map_err(|error| place.wrong(error))
}

/// Fields match by name ignoring case; a field the file lacks is null.
fn structure(
    array: &StructArray,
    fields: &arrow::datatypes::Fields,
    place: Place<'_>,
) -> Result<ArrayRef> {
    let column = |field: &Arc<Field>| {
        let same = |stored: &&Arc<Field>| stored.name().eq_ignore_ascii_case(field.name());
        let mut found = array
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, stored)| same(stored));
        match (found.next(), found.next()) {
            (None, _) => Ok(new_null_array(field.data_type(), array.len())),
            (Some((at, _)), None) => cast(array.column(at), field.data_type(), place),
            (Some(_), Some(_)) => Err(place.wrong(format!(
                "several fields are called '{}' when case is ignored",
                field.name()
            ))),
        }
    };
    let columns = fields.iter().map(column).collect::<Result<Vec<_>>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, array.nulls().cloned(), array.len())
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|error| place.wrong(error))
}

fn map(array: &MapArray, entries: &Arc<Field>, sorted: bool, place: Place<'_>) -> Result<ArrayRef> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(not_lossless(array.data_type(), entries.data_type(), place));
    };
    let [key, value] = fields.as_ref() else {
        return Err(not_lossless(array.data_type(), entries.data_type(), place));
    };
    let columns = vec![
        cast(array.keys(), key.data_type(), place)?,
        cast(array.values(), value.data_type(), place)?,
    ];
    StructArray::try_new(fields.clone(), columns, None)
        .and_then(|pairs| {
            let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
            MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls, sorted)
        })
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|error| place.wrong(error))
}
