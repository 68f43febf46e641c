//! From `DataFusion`'s errors to ours: what the client should do next, in words for the user. The
//! one place that reads them, for planning and for execution.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use featureflight_catalog::{Error, Kind};

/// Ours if there is one inside, else what the variant says about its cause.
#[must_use]
pub fn classify(error: DataFusionError) -> Error {
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            classify(*inner)
        }
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => classify(first),
            None => Error::internal("an empty collection of errors"),
        },
        DataFusionError::Shared(inner) => classify_shared(&inner),
        DataFusionError::SchemaError(schema, _) => classify_schema(&schema),
        DataFusionError::SQL(parser, _) => Error::invalid(text(&parser.to_string())),
        DataFusionError::Plan(message) => classify_plan(&message),
        DataFusionError::NotImplemented(message) => not_supported(&message),
        DataFusionError::Configuration(message) | DataFusionError::Execution(message) => {
            Error::invalid(text(&message))
        }
        DataFusionError::ArrowError(arrow, _) => classify_arrow(*arrow),
        DataFusionError::ResourcesExhausted(message) => {
            Error::new(Kind::ResourceExhausted, text(&message))
        }
        DataFusionError::ParquetError(parquet) => {
            Error::data_loss(format!("a data file cannot be read: {parquet}")).with_source(*parquet)
        }
        DataFusionError::ObjectStore(store) => {
            Error::unavailable(format!("the object store failed: {store}")).with_source(*store)
        }
        DataFusionError::ExecutionJoin(join) if join.is_cancelled() => {
            Error::new(Kind::Cancelled, "the query was cancelled")
        }
        other => Error::internal(text(&other.strip_backtrace())).with_source(other),
    }
}

/// [`classify`] for an error that several partitions share.
fn classify_shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            classify_shared(inner)
        }
        DataFusionError::Shared(inner) => classify_shared(inner),
        DataFusionError::SchemaError(schema, _) => classify_schema(schema),
        DataFusionError::Plan(message) => classify_plan(message),
        DataFusionError::Execution(message) | DataFusionError::Configuration(message) => {
            Error::invalid(text(message))
        }
        DataFusionError::NotImplemented(message) => not_supported(message),
        DataFusionError::ResourcesExhausted(message) => {
            Error::new(Kind::ResourceExhausted, text(message))
        }
        DataFusionError::ArrowError(arrow, _) => arrow_kind(arrow),
        DataFusionError::ParquetError(parquet) => {
            Error::data_loss(format!("a data file cannot be read: {parquet}"))
        }
        DataFusionError::ObjectStore(store) => {
            Error::unavailable(format!("the object store failed: {store}"))
        }
        other => Error::internal(text(&other.strip_backtrace())),
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

fn classify_arrow(error: ArrowError) -> Error {
    let classified = arrow_kind(&error);
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast::<DataFusionError>() {
            Ok(inner) => classify(*inner),
            Err(_) => classified,
        },
        error => classified.with_source(error),
    }
}

fn arrow_kind(error: &ArrowError) -> Error {
    match error {
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::InvalidArgumentError(message) => Error::invalid(text(message)),
        ArrowError::DivideByZero => Error::invalid("division by zero"),
        ArrowError::MemoryError(message) => Error::new(Kind::ResourceExhausted, text(message)),
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
            "column {name} appears twice: give one of the two an alias"
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
