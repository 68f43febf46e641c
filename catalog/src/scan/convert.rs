//! From the types a file stores to the types its definition says. What does not fit exactly is a
//! `DataLoss` error that names the object, the column and the row: nothing is rounded, cut or
//! turned into a null.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, StringViewArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::error::{Error, Result};
use crate::instant::{Instant, Parser};
use crate::table::EventTimeForm;

use super::fetch::Object;
use super::versions::InstantColumn;

/// Where a value comes from, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) object: &'a Object,
    pub(crate) column: &'a str,
    /// Position in the file of row 0, when rows are consecutive.
    pub(crate) first_row: Option<u64>,
}

impl Place<'_> {
    fn at(&self, row: usize, reason: impl Display) -> Error {
        let row = match self.first_row {
            Some(first) => format!(" in row {}", first + row as u64),
            None => String::new(),
        };
        Error::data_loss(format!(
            "{}: column '{}'{row}: {reason}",
            self.object.name(),
            self.column
        ))
    }

    /// The column as a whole is not what it should be.
    pub(crate) fn wrong(&self, reason: impl Display) -> Error {
        Error::data_loss(format!(
            "{}: column '{}': {reason}",
            self.object.name(),
            self.column
        ))
    }

    fn not_a(&self, wanted: &str, stored: &DataType) -> Error {
        self.wrong(format!(
            "it is stored as {stored}, which cannot be read as {wanted}"
        ))
    }

    /// An error for the first null, if there is one.
    pub(crate) fn no_nulls(&self, array: &dyn Array) -> Result<()> {
        let first = array
            .nulls()
            .filter(|nulls| nulls.null_count() > 0)
            .and_then(|nulls| (0..nulls.len()).find(|&row| nulls.is_null(row)));
        match first {
            Some(row) => Err(self.at(row, "it is null, and must not be")),
            None if array.data_type() == &DataType::Null && !array.is_empty() => {
                Err(self.at(0, "it is null, and must not be"))
            }
            None => Ok(()),
        }
    }
}

/// An Integral feature.
pub(crate) fn integral(array: &ArrayRef, place: Place<'_>) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Int64 => Arc::clone(array),
        DataType::Int8 => Arc::new(widen::<Int8Type, Int64Type>(array)),
        DataType::Int16 => Arc::new(widen::<Int16Type, Int64Type>(array)),
        DataType::Int32 => Arc::new(widen::<Int32Type, Int64Type>(array)),
        DataType::UInt8 => Arc::new(widen::<UInt8Type, Int64Type>(array)),
        DataType::UInt16 => Arc::new(widen::<UInt16Type, Int64Type>(array)),
        DataType::UInt32 => Arc::new(widen::<UInt32Type, Int64Type>(array)),
        DataType::UInt64 => {
            let convert = |value: u64| i64::try_from(value).ok();
            let values: Int64Array =
                each(array.as_primitive::<UInt64Type>(), place, convert, |v| {
                    format!("{v} does not fit a 64-bit signed integer")
                })?;
            Arc::new(values)
        }
        DataType::Null => new_null_array(&DataType::Int64, array.len()),
        other => return Err(place.not_a("Integral", other)),
    })
}

/// A Fractional feature.
pub(crate) fn fractional(array: &ArrayRef, place: Place<'_>) -> Result<ArrayRef> {
    let inexact = |v: String| format!("{v} has no exact value as a double");
    Ok(match array.data_type() {
        DataType::Float64 => Arc::clone(array),
        DataType::Float32 => Arc::new(widen::<Float32Type, Float64Type>(array)),
        DataType::Float16 => Arc::new(widen::<Float16Type, Float64Type>(array)),
        DataType::Int8 => Arc::new(widen::<Int8Type, Float64Type>(array)),
        DataType::Int16 => Arc::new(widen::<Int16Type, Float64Type>(array)),
        DataType::Int32 => Arc::new(widen::<Int32Type, Float64Type>(array)),
        DataType::UInt8 => Arc::new(widen::<UInt8Type, Float64Type>(array)),
        DataType::UInt16 => Arc::new(widen::<UInt16Type, Float64Type>(array)),
        DataType::UInt32 => Arc::new(widen::<UInt32Type, Float64Type>(array)),
        DataType::Int64 => {
            let values: Float64Array = each(
                array.as_primitive::<Int64Type>(),
                place,
                |v| exact(v.into()),
                |v| inexact(v.to_string()),
            )?;
            Arc::new(values)
        }
        DataType::UInt64 => {
            let values: Float64Array = each(
                array.as_primitive::<UInt64Type>(),
                place,
                |v| exact(v.into()),
                |v| inexact(v.to_string()),
            )?;
            Arc::new(values)
        }
        DataType::Null => new_null_array(&DataType::Float64, array.len()),
        other => return Err(place.not_a("Fractional", other)),
    })
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "checked by the round trip"
)]
fn exact(value: i128) -> Option<f64> {
    let double = value as f64;
    (double as i128 == value).then_some(double)
}

fn widen<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(array: &ArrayRef) -> PrimitiveArray<T>
where
    T::Native: From<F::Native>,
{
    array.as_primitive::<F>().unary(T::Native::from)
}

pub(crate) fn each<F: ArrowPrimitiveType, T: ArrowPrimitiveType>(
    array: &PrimitiveArray<F>,
    place: Place<'_>,
    convert: impl Fn(F::Native) -> Option<T::Native>,
    reason: impl Fn(F::Native) -> String,
) -> Result<PrimitiveArray<T>> {
    let mut values = Vec::with_capacity(array.len());
    for (row, &value) in array.values().iter().enumerate() {
        match convert(value) {
            Some(value) => values.push(value),
            None if array.is_null(row) => values.push(T::default_value()),
            None => return Err(place.at(row, reason(value))),
        }
    }
    Ok(PrimitiveArray::new(values.into(), array.nulls().cloned()))
}

/// A String feature.
pub(crate) fn text(array: &ArrayRef, place: Place<'_>) -> Result<ArrayRef> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::clone(array),
        DataType::BinaryView => Arc::new(
            array
                .as_binary_view()
                .clone()
                .to_string_view()
                .map_err(|_| place.wrong("it is not UTF-8"))?,
        ),
        DataType::Null => new_null_array(&DataType::Utf8View, array.len()),
        other => return Err(place.not_a("String", other)),
    })
}

/// A Boolean without nulls.
pub(crate) fn boolean(array: &ArrayRef, place: Place<'_>) -> Result<BooleanArray> {
    let booleans = array
        .as_boolean_opt()
        .ok_or_else(|| place.not_a("boolean", array.data_type()))?;
    place.no_nulls(array)?;
    Ok(BooleanArray::new(booleans.values().clone(), None))
}

/// A timestamp without nulls, of any unit. `nanos` are its values as wrapping nanoseconds, where
/// the file stores INT96.
pub(crate) fn timestamp(
    array: &ArrayRef,
    nanos: Option<&ArrayRef>,
    place: Place<'_>,
) -> Result<InstantColumn> {
    place.no_nulls(array)?;
    let DataType::Timestamp(unit, _) = array.data_type() else {
        return Err(place.not_a("a timestamp", array.data_type()));
    };
    match unit {
        TimeUnit::Microsecond => {
            let micros = array
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .clone();
            let nanos = nanos
                .map(|nanos| sub_micros(&micros, nanos, place))
                .transpose()?
                .flatten();
            Ok(InstantColumn { micros, nanos })
        }
        TimeUnit::Nanosecond => collect(
            array
                .as_primitive::<TimestampNanosecondType>()
                .values()
                .iter()
                .map(|&value| {
                    Instant::from_unit(value, TimeUnit::Nanosecond)
                        .ok_or_else(|| place.wrong("a timestamp is out of range"))
                }),
        ),
        TimeUnit::Millisecond => coarse::<TimestampMillisecondType>(array, place, 1_000),
        TimeUnit::Second => coarse::<TimestampSecondType>(array, place, 1_000_000),
    }
}

fn coarse<T: ArrowPrimitiveType<Native = i64>>(
    array: &ArrayRef,
    place: Place<'_>,
    factor: i64,
) -> Result<InstantColumn> {
    let micros: PrimitiveArray<TimestampMicrosecondType> = each(
        array.as_primitive::<T>(),
        place,
        |value| value.checked_mul(factor),
        |value| format!("the timestamp {value} is out of range"),
    )?;
    Ok(InstantColumn {
        micros: micros.values().clone(),
        nanos: None,
    })
}

/// What wrapping nanoseconds have beyond the microseconds of the same values.
fn sub_micros(micros: &[i64], nanos: &ArrayRef, place: Place<'_>) -> Result<Option<Vec<u16>>> {
    let nanos = nanos.as_primitive::<TimestampNanosecondType>().values();
    if micros
        .iter()
        .zip(nanos)
        .all(|(&micros, &nanos)| micros.wrapping_mul(1_000) == nanos)
    {
        return Ok(None);
    }
    let rest = |(row, (&micros, &nanos)): (usize, (&i64, &i64))| {
        u16::try_from(nanos.wrapping_sub(micros.wrapping_mul(1_000)))
            .ok()
            .filter(|&rest| rest < 1_000)
            .ok_or_else(|| place.at(row, "the timestamp is out of range"))
    };
    micros
        .iter()
        .zip(nanos)
        .enumerate()
        .map(rest)
        .collect::<Result<_>>()
        .map(Some)
}

/// Gathers instants; the nanoseconds only once one is not zero.
fn collect(instants: impl ExactSizeIterator<Item = Result<Instant>>) -> Result<InstantColumn> {
    let rows = instants.len();
    let mut micros = Vec::with_capacity(rows);
    let mut nanos: Option<Vec<u16>> = None;
    for instant in instants {
        let instant = instant?;
        match &mut nanos {
            Some(nanos) => nanos.push(instant.nanos),
            None if instant.nanos > 0 => {
                let mut first = Vec::with_capacity(rows);
                first.resize(micros.len(), 0);
                first.push(instant.nanos);
                nanos = Some(first);
            }
            None => {}
        }
        micros.push(instant.micros);
    }
    Ok(InstantColumn {
        micros: ScalarBuffer::from(micros),
        nanos,
    })
}

/// The event time, as text or seconds, or as a timestamp or date where a writer chose that.
pub(crate) fn event_time(
    array: &ArrayRef,
    nanos: Option<&ArrayRef>,
    form: EventTimeForm,
    place: Place<'_>,
) -> Result<InstantColumn> {
    place.no_nulls(array)?;
    let outside =
        |seconds: &dyn Display| format!("{seconds} is not Unix seconds of the years 0000 to 9999");
    match (array.data_type(), form) {
        (DataType::Timestamp(..), _) => timestamp(array, nanos, place),
        (DataType::Date32, EventTimeForm::Text) => {
            let days = array.as_primitive::<Date32Type>().values().iter();
            collect(days.map(|&days| Ok(Instant::from_micros(i64::from(days) * 86_400_000_000))))
        }
        (DataType::Utf8View, EventTimeForm::Text) => parse_all(array.as_string_view(), place),
        (DataType::BinaryView, EventTimeForm::Text) => {
            parse_all(text(array, place)?.as_string_view(), place)
        }
        (DataType::Float64 | DataType::Float32 | DataType::Float16, EventTimeForm::Seconds) => {
            let doubles = fractional(array, place)?;
            let doubles = doubles.as_primitive::<Float64Type>().values();
            collect(doubles.iter().enumerate().map(|(row, &seconds)| {
                Instant::from_seconds(seconds).ok_or_else(|| place.at(row, outside(&seconds)))
            }))
        }
        (stored, EventTimeForm::Seconds) if stored.is_integer() => {
            let whole = integral(array, place)?;
            let whole = whole.as_primitive::<Int64Type>().values();
            collect(whole.iter().enumerate().map(|(row, &seconds)| {
                Instant::from_unit(seconds, TimeUnit::Second)
                    .filter(|instant| (Instant::MIN..=Instant::MAX).contains(instant))
                    .ok_or_else(|| place.at(row, outside(&seconds)))
            }))
        }
        (stored, EventTimeForm::Text) => Err(place.not_a("a String event time", stored)),
        (stored, EventTimeForm::Seconds) => Err(place.not_a("a Fractional event time", stored)),
    }
}

fn parse_all(texts: &StringViewArray, place: Place<'_>) -> Result<InstantColumn> {
    // Event times of one file are near each other: most differ in the time of day alone, and the
    // day is converted once. Remembering whole texts took two thirds longer than this.
    let mut parser = Parser::default();
    collect((0..texts.len()).map(|row| {
        let instant = parser.parse(texts.value(row));
        instant.map_err(|error| place.at(row, error.message))
    }))
}

/// Instants as [`crate::table::timestamp_type`], floored.
pub(crate) fn timestamps(instants: &InstantColumn) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::new(instants.micros.clone(), None).with_timezone("UTC"))
}
