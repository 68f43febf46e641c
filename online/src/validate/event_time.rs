//! Event times: text, timestamps, dates or Unix seconds, into the form of the group's definition.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use featureflight_catalog::{Error, Instant, Result};

use super::kernel;
use super::refusal::Wrong;
use super::values::not_finite;
use crate::record::event_time_seconds;

const OUT_OF_RANGE: &str = "an event time lies in the years 0000 to 9999";

/// `values`, of a type that `columns` let through, as `Utf8` or `Float64`. Refuses nulls, what is
/// not a point in time, what the form cannot hold exactly, and what is later than `latest`.
pub(super) fn convert(
    values: &ArrayRef,
    form: &DataType,
    latest: Option<Instant>,
    wrong: &mut Wrong,
) -> Result<ArrayRef> {
    wrong.refuse_nulls(values, "the event time is missing");
    if *values.data_type() == DataType::Null {
        return Ok(arrow::array::new_null_array(form, values.len()));
    }
    let mut instants = instants(values, wrong)?;
    if let Some(latest) = latest {
        for (row, instant) in instants.iter_mut().enumerate() {
            if instant.is_some_and(|at| at > latest) {
                *instant = None;
                wrong.refuse(
                    row,
                    "future",
                    "the event time is too far ahead of the clock",
                );
            }
        }
    }
    Ok(match form {
        DataType::Float64 => Arc::new(seconds(&instants, wrong)),
        _ => Arc::new(StringArray::from_iter(
            instants.iter().map(|at| at.map(|at| at.to_string())),
        )),
    })
}

/// Refuses rows whose event time, in a form of [`convert`], is not in a later microsecond than the
/// one in `stored`. Rows without one are left alone.
pub(super) fn refuse_older(
    event_times: &ArrayRef,
    stored: &ArrayRef,
    wrong: &mut Wrong,
) -> Result<()> {
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    let stored = cast(&cast(stored, &plain).map_err(kernel)?, &DataType::Int64).map_err(kernel)?;
    let stored = stored.as_primitive::<Int64Type>();
    let instants = instants(event_times, &mut Wrong::new(event_times.len()))?;
    for (row, instant) in instants.into_iter().enumerate() {
        let Some(instant) = instant else { continue };
        if stored.is_valid(row) && instant.micros <= stored.value(row) {
            wrong.refuse(
                row,
                "not newer",
                format!(
                    "the record that is there happened at {}: give a later event time",
                    Instant::from_micros(stored.value(row))
                ),
            );
        }
    }
    Ok(())
}

fn seconds(instants: &[Option<Instant>], wrong: &mut Wrong) -> Float64Array {
    let convert = |(row, instant): (usize, &Option<Instant>)| {
        let seconds = event_time_seconds((*instant)?);
        if seconds.is_none() {
            let reason = "the group's event time is Fractional, seconds that hold microseconds";
            wrong.refuse(row, "too fine", reason);
        }
        seconds
    };
    Float64Array::from_iter(instants.iter().enumerate().map(convert))
}

fn instants(values: &ArrayRef, wrong: &mut Wrong) -> Result<Vec<Option<Instant>>> {
    match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => from_text(values, wrong),
        DataType::Timestamp(unit, _) => {
            let plain = cast(values, &DataType::Timestamp(*unit, None)).map_err(kernel)?;
            from_units(&plain, *unit, wrong)
        }
        DataType::Date32 | DataType::Date64 => {
            // Seconds hold every date of either type.
            let plain =
                cast(values, &DataType::Timestamp(TimeUnit::Second, None)).map_err(kernel)?;
            from_units(&plain, TimeUnit::Second, wrong)
        }
        kind if kind.is_integer() => {
            let plain = cast(values, &DataType::Int64).map_err(kernel)?;
            from_units(&plain, TimeUnit::Second, wrong)
        }
        kind if kind.is_floating() => from_seconds(values, wrong),
        kind => Err(Error::internal(format!("{kind} is not an event time"))),
    }
}

fn from_text(values: &ArrayRef, wrong: &mut Wrong) -> Result<Vec<Option<Instant>>> {
    let texts = cast(values, &DataType::Utf8View).map_err(kernel)?;
    let texts = texts.as_string_view();
    let parse = |(row, text): (usize, Option<&str>)| {
        let instant = Instant::parse(text?).ok();
        if instant.is_none() {
            let reason = "it is not ISO-8601 such as 2026-01-31T12:30:00Z, in the years 0000 to \
                          9999";
            wrong.refuse(row, "text", reason);
        }
        instant
    };
    Ok(texts.iter().enumerate().map(parse).collect())
}

fn from_units(
    values: &ArrayRef,
    unit: TimeUnit,
    wrong: &mut Wrong,
) -> Result<Vec<Option<Instant>>> {
    let counts = cast(values, &DataType::Int64).map_err(kernel)?;
    let counts = counts.as_primitive::<Int64Type>();
    let convert = |(row, count): (usize, Option<i64>)| {
        let instant = Instant::from_unit(count?, unit).filter(in_range);
        if instant.is_none() {
            wrong.refuse(row, "timestamp", OUT_OF_RANGE);
        }
        instant
    };
    Ok(counts.iter().enumerate().map(convert).collect())
}

fn in_range(instant: &Instant) -> bool {
    (Instant::MIN..=Instant::MAX).contains(instant)
}

fn from_seconds(values: &ArrayRef, wrong: &mut Wrong) -> Result<Vec<Option<Instant>>> {
    let seconds = cast(values, &DataType::Float64).map_err(kernel)?;
    let seconds = seconds.as_primitive::<Float64Type>();
    let convert = |(row, value): (usize, Option<f64>)| {
        let value = value?;
        let instant = Instant::from_seconds(value);
        if instant.is_none() {
            wrong.refuse(row, not_finite(value).unwrap_or("seconds"), OUT_OF_RANGE);
        }
        instant
    };
    Ok(seconds.iter().enumerate().map(convert).collect())
}
