//! From the planner's errors to ours: what is wrong with a statement, in words for the user.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use featureflight_catalog::Error;

/// Ours if there is one inside, else what the planner says about the statement. Of errors that are
/// not about the statement only the text is kept: whoever runs queries knows them better.
#[must_use]
pub fn classify(error: DataFusionError) -> Error {
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    if let DataFusionError::Collection(errors) = error {
        let first = errors.into_iter().next();
        return first.map_or_else(
            || Error::internal("an empty collection of errors"),
            classify,
        );
    }
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => classify_schema(schema),
        DataFusionError::SQL(parser, _) => Error::invalid(text(&parser.to_string())),
        DataFusionError::Plan(message) => classify_plan(message),
        DataFusionError::NotImplemented(message) => not_supported(message),
        DataFusionError::Configuration(message) | DataFusionError::Execution(message) => {
            Error::invalid(text(message))
        }
        // From folding constants.
        DataFusionError::ArrowError(arrow, _) => classify_arrow(arrow),
        _ => Error::internal(text(&error.strip_backtrace())).with_source(error),
    }
}

/// Some of these messages end in a syntax tree.
fn not_supported(message: &str) -> Error {
    let message = text(message);
    let readable = message
        .split(['{', '['])
        .next()
        .unwrap_or_default()
        .trim_end();
    Error::invalid(format!("not supported: {readable}"))
}

fn classify_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::InvalidArgumentError(message) => Error::invalid(text(message)),
        ArrowError::DivideByZero => Error::invalid("division by zero"),
        other => Error::internal(other.to_string()),
    }
}

fn classify_schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            let wanted = field.flat_name();
            let known: Vec<String> = valid_fields.iter().map(Column::flat_name).collect();
            Error::invalid(missing("column", &wanted, known.iter().map(String::as_str)))
        }
        SchemaError::AmbiguousReference { field } => Error::invalid(format!(
            "column {} is ambiguous: several relations have it; write it with the relation's name \
             or alias",
            field.flat_name()
        )),
        SchemaError::DuplicateQualifiedField { qualifier, name } => Error::invalid(format!(
            "column {qualifier}.{name} appears twice: give one of the relations an alias"
        )),
        SchemaError::DuplicateUnqualifiedField { name } => Error::invalid(format!(
            "column {name} appears twice: give one of the two an alias, or compute it in a subquery"
        )),
    }
}

fn classify_plan(message: &str) -> Error {
    let message = text(message);
    if message.starts_with("table '") && message.ends_with("' not found") {
        return Error::not_found(message);
    }
    Error::invalid(message)
}

/// A message as users see it: without the engine's prefixes, backtrace and request to report bugs.
fn text(message: &str) -> String {
    let mut message = message
        .split("\n\nbacktrace:")
        .next()
        .unwrap_or(message)
        .trim();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "SQL error: ",
        "sql parser error: ",
    ] {
        message = message.strip_prefix(prefix).unwrap_or(message);
    }
    message.to_owned()
}

/// Names near `wanted`, best first, at most three.
#[must_use]
pub(super) fn near<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = wanted.to_lowercase();
    let last = wanted.rsplit('.').next().unwrap_or(&wanted).to_owned();
    let mut scored: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| {
            let lower = name.to_lowercase();
            let tail = lower.rsplit('.').next().unwrap_or(&lower);
            let score = strsim::normalized_damerau_levenshtein(&wanted, &lower)
                .max(strsim::normalized_damerau_levenshtein(&last, tail));
            let contains = last.len() >= 3 && (tail.contains(&last) || last.contains(tail));
            (if contains { score.max(0.7) } else { score }, name)
        })
        .filter(|(score, _)| *score >= 0.55)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.truncate(3);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// "there is no `what` `wanted`", with near names or, of a few, all of them.
#[must_use]
pub(super) fn missing<'a>(
    what: &str,
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let close = near(wanted, known.iter().copied());
    if !close.is_empty() {
        return format!(
            "there is no {what} {wanted}; near names: {}",
            close.join(", ")
        );
    }
    match known.len() {
        0 => format!("there is no {what} {wanted}"),
        1..=12 => format!(
            "there is no {what} {wanted}; there is: {}",
            known.join(", ")
        ),
        _ => format!("there is no {what} {wanted}"),
    }
}

/// A type in words of SQL.
#[must_use]
pub(super) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 | DataType::UInt8 => "TINYINT".to_owned(),
        DataType::Int16 | DataType::UInt16 => "SMALLINT".to_owned(),
        DataType::Int32 | DataType::UInt32 => "INTEGER".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "VARBINARY".to_owned(),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Dictionary(_, value) => sql_type(value),
        other => other.to_string(),
    }
}
