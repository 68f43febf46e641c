//! Columns of features into the type that their definition wants. A value that does not fit makes
//! a null here and a refusal of its row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use featureflight_catalog::Result;

use super::kernel;
use super::refusal::Wrong;

/// The column without a dictionary.
pub(super) fn plain(values: &ArrayRef) -> Result<ArrayRef> {
    match values.data_type() {
        DataType::Dictionary(_, plain) => cast(values, plain),
        _ => Ok(Arc::clone(values)),
    }
}

/// `values`, of a type that `columns` let through, as `wanted`.
pub(super) fn convert(values: &ArrayRef, wanted: &DataType, wrong: &mut Wrong) -> Result<ArrayRef> {
    match (wanted, values.data_type()) {
        (_, DataType::Null) => Ok(new_null_array(wanted, values.len())),
        (DataType::Int64, kind) if kind.is_floating() => whole(values, wrong),
        (DataType::Int64, _) => {
            let converted = cast(values, wanted)?;
            refuse_lost(
                values,
                &converted,
                "integer",
                "it is beyond 64 bits with a sign",
                wrong,
            );
            Ok(converted)
        }
        (DataType::Float64, kind) if kind.is_integer() => doubles(values, wrong),
        (DataType::Float64, _) => finite(values, wrong),
        _ => cast(values, wanted),
    }
}

fn cast(values: &dyn Array, wanted: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(values, wanted, &options).map_err(kernel)
}

/// Refuses rows whose value became null.
fn refuse_lost(
    before: &dyn Array,
    after: &dyn Array,
    found: &'static str,
    reason: &'static str,
    wrong: &mut Wrong,
) {
    if before.null_count() == after.null_count() {
        return;
    }
    for row in (0..before.len()).filter(|row| before.is_valid(*row) && after.is_null(*row)) {
        wrong.refuse(row, found, reason);
    }
}

/// What kind of number cannot be a feature's value, if it is one.
pub(super) fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some("infinity")
    } else {
        None
    }
}

/// Floating-point numbers that are integers, as a table with missing values sends them.
fn whole(values: &ArrayRef, wrong: &mut Wrong) -> Result<ArrayRef> {
    /// 2^63, the first double beyond the range.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let doubles = cast(values, &DataType::Float64)?;
    let doubles = doubles.as_primitive::<Float64Type>();
    let convert = |(row, value): (usize, Option<f64>)| {
        let value = value?;
        if let Some(found) = not_finite(value) {
            wrong.refuse(
                row,
                found,
                "it is not a number an Integral feature can hold",
            );
        } else if value.fract() != 0.0 {
            wrong.refuse(row, "fraction", "the feature is Integral");
        } else if !(-END..END).contains(&value) {
            wrong.refuse(row, "number", "it is beyond 64 bits with a sign");
        } else {
            return Some(value as i64);
        }
        None
    };
    Ok(Arc::new(Int64Array::from_iter(
        doubles.iter().enumerate().map(convert),
    )))
}

/// Integers as doubles, exactly.
fn doubles(values: &ArrayRef, wrong: &mut Wrong) -> Result<ArrayRef> {
    const INEXACT: &str = "no double is exactly this integer: send it as floating point, rounded";
    let integers = cast(values, &DataType::Int64)?;
    refuse_lost(values, &integers, "integer", INEXACT, wrong);
    let integers = integers.as_primitive::<Int64Type>();
    let convert = |(row, value): (usize, Option<i64>)| {
        let value = value?;
        let double = value as f64;
        if double as i128 != i128::from(value) {
            wrong.refuse(row, "integer", INEXACT);
        }
        Some(double)
    };
    Ok(Arc::new(Float64Array::from_iter(
        integers.iter().enumerate().map(convert),
    )))
}

/// Floating-point numbers and decimals as doubles.
fn finite(values: &ArrayRef, wrong: &mut Wrong) -> Result<ArrayRef> {
    let converted = cast(values, &DataType::Float64)?;
    refuse_lost(
        values,
        &converted,
        "number",
        "it is beyond the range of a double",
        wrong,
    );
    let doubles = converted.as_primitive::<Float64Type>();
    for (row, value) in doubles.iter().enumerate() {
        if let Some(found) = value.and_then(not_finite) {
            let reason = "the store refuses it: send null, which leaves the feature out";
            wrong.refuse(row, found, reason);
        }
    }
    Ok(converted)
}
