//! Which column of a request is which feature, and whether its type fits.

use arrow::datatypes::{DataType, Schema};
use featureflight_catalog::model::SYSTEM_COLUMNS;
use featureflight_catalog::{Error, Result};

use super::Partial;
use crate::group::Layout;
use crate::record::Operation;

/// For every column of the layout the position of the input's; `None` for a feature left out.
pub(super) fn resolve(
    layout: &Layout,
    operation: Operation,
    schema: &Schema,
    partial: Partial,
    no_feature: Option<usize>,
) -> Result<Vec<Option<usize>>> {
    let mut sources = vec![None; layout.schema.fields().len()];
    for (source, field) in schema.fields().iter().enumerate() {
        if no_feature == Some(source) {
            continue;
        }
        let name = field.name();
        let target = find(layout, name).ok_or_else(|| unknown(layout, operation, name))?;
        if sources[target].replace(source).is_some() {
            let group = &layout.group;
            return Err(Error::invalid(format!(
                "column '{name}' of feature group '{group}' is given twice"
            )));
        }
        if target == layout.event_time {
            check_event_time(name, field.data_type())?;
        } else {
            check_type(
                name,
                layout.schema.field(target).data_type(),
                field.data_type(),
            )?;
        }
    }
    check_complete(layout, partial, &sources)?;
    Ok(sources)
}

/// By exact name, else ignoring case: the names of a definition never differ in case alone.
fn find(layout: &Layout, name: &str) -> Option<usize> {
    let fields = layout.schema.fields();
    let exact = fields.iter().position(|field| field.name() == name);
    exact.or_else(|| {
        let folded = name.to_lowercase();
        fields
            .iter()
            .position(|field| field.name().to_lowercase() == folded)
    })
}

fn unknown(layout: &Layout, operation: Operation, name: &str) -> Error {
    let group = &layout.group;
    if SYSTEM_COLUMNS.contains(&name.to_lowercase().as_str()) {
        return Error::invalid(format!(
            "column '{name}' cannot be written: the store sets it; leave it out"
        ));
    }
    let names: Vec<_> = layout.schema.fields().iter().take(20).collect();
    let names: Vec<_> = names.iter().map(|field| field.name().as_str()).collect();
    let dots = if layout.schema.fields().len() > 20 {
        ", ..."
    } else {
        ""
    };
    let what = if operation.is_delete() {
        "a delete names"
    } else {
        "it has"
    };
    Error::invalid(format!(
        "feature group '{group}' takes no column '{name}': {what} {}{dots}",
        names.join(", ")
    ))
}

fn check_complete(layout: &Layout, partial: Partial, sources: &[Option<usize>]) -> Result<()> {
    let group = &layout.group;
    for (role, at) in [
        ("record identifier", layout.record_identifier),
        ("event time", layout.event_time),
    ] {
        if sources[at].is_none() {
            let name = layout.schema.field(at).name();
            return Err(Error::invalid(format!(
                "the {role} '{name}' of feature group '{group}' is missing: every row needs one"
            )));
        }
    }
    let missing: Vec<_> = sources
        .iter()
        .zip(layout.schema.fields())
        .filter(|(source, _)| source.is_none())
        .map(|(_, field)| format!("'{}'", field.name()))
        .collect();
    if missing.is_empty() || partial == Partial::Null {
        return Ok(());
    }
    let shown = missing[..missing.len().min(10)].join(", ");
    let more = match missing.len().saturating_sub(10) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::invalid(format!(
        "features {shown}{more} of feature group '{group}' are left out, and a put replaces the \
         whole record: give every feature, or SET featureflight.partial = 'null' to make them null"
    )))
}

fn check_type(name: &str, wanted: &DataType, given: &DataType) -> Result<()> {
    use DataType::{
        Decimal128, Decimal256, Dictionary, Float64, Int64, LargeUtf8, Null, Utf8, Utf8View,
    };
    let given = match given {
        Dictionary(_, values) => values.as_ref(),
        plain => plain,
    };
    let (kind, takes) = match wanted {
        Int64 => ("Integral", "integers and whole floating-point numbers"),
        Float64 => (
            "Fractional",
            "floating-point numbers, integers and decimals",
        ),
        _ => ("String", "text"),
    };
    let fits = match wanted {
        _ if *given == Null => true,
        Int64 => {
            given.is_integer()
                || given.is_floating()
                || matches!(given, Decimal128(_, 0) | Decimal256(_, 0))
        }
        Float64 => given.is_numeric(),
        _ => matches!(given, Utf8 | LargeUtf8 | Utf8View),
    };
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "column '{name}' is {given}, but the feature is {kind}, which takes {takes}: cast it"
    )))
}

fn check_event_time(name: &str, given: &DataType) -> Result<()> {
    use DataType::{Date32, Date64, Dictionary, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    let plain = match given {
        Dictionary(_, values) => values.as_ref(),
        plain => plain,
    };
    let fits = matches!(
        plain,
        Null | Utf8 | LargeUtf8 | Utf8View | Timestamp(..) | Date32 | Date64
    ) || plain.is_integer()
        || plain.is_floating();
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "column '{name}' is {given}, but it is the event time, which takes timestamps, dates, \
         ISO-8601 text and Unix seconds: cast it"
    )))
}
