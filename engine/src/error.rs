//! From the errors of `DataFusion`, Arrow, Parquet and object stores to our kinds, in one place.
//!
//! Everything that runs below may wrap everything else, so one walk unwraps until it meets one of
//! our own errors or a leaf. Errors about the statement itself are put into words by the planner.
//! The conversions are pure; what is hidden from the user is logged where the query ends.

use std::io;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::object_store;
use datafusion::parquet::errors::ParquetError;
use featureflight_catalog::{Error, Kind};

/// The error as the user may see it. An `Internal` one carries its details as the source only.
pub fn classify(error: DataFusionError) -> Error {
    if let Some(ours) = Error::find(&error) {
        return ours.clone();
    }
    from_datafusion(error)
}

fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(error, _) => from_arrow(*error),
        DataFusionError::ParquetError(error) => from_parquet(*error),
        DataFusionError::ObjectStore(error) => from_object_store(*error),
        DataFusionError::IoError(error) => from_io(error),
        error @ (DataFusionError::SQL(..)
        | DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::SchemaError(..)) => from_planning(error),
        DataFusionError::ExecutionJoin(error) if error.is_cancelled() => {
            Error::new(Kind::Cancelled, "the query was cancelled")
        }
        DataFusionError::ResourcesExhausted(message) => exhausted(&message),
        DataFusionError::External(error) => from_external(error),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            from_datafusion(*inner)
        }
        DataFusionError::Shared(inner) => from_shared(&inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => from_datafusion(first),
            None => internal(io::Error::other("an empty collection of errors")),
        },
        DataFusionError::Internal(message) if is_about_types(&message) => {
            from_planning(DataFusionError::Plan(message))
        }
        error @ (DataFusionError::ExecutionJoin(_)
        | DataFusionError::Internal(_)
        | DataFusionError::Substrait(_)
        | DataFusionError::Ffi(_)) => internal(error),
    }
}

/// `DataFusion` calls a `BETWEEN` of types that cannot be compared, a `RANGE` over ones without a
/// distance, and an aggregate of ones it cannot take, its own fault.
fn is_about_types(message: &str) -> bool {
    message.starts_with("Failed to coerce types")
        || message.starts_with("Cannot run range queries on datatype")
        || message.contains("not implemented for type")
}

/// A shared error cannot be taken apart; what its root says is enough to know its kind.
fn from_shared(error: &Arc<DataFusionError>) -> Error {
    match error.find_root() {
        DataFusionError::ArrowError(inner, _) if is_spill_quota(inner) => {
            exhausted(&inner.to_string())
        }
        DataFusionError::ArrowError(inner, _) => {
            let kind = arrow_kind(inner);
            Error::new(kind, first_lower(&inner.to_string()))
        }
        DataFusionError::ParquetError(inner) => damaged(inner),
        DataFusionError::ObjectStore(inner) => store_error(inner),
        DataFusionError::ResourcesExhausted(message) => exhausted(message),
        DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::SQL(..) => from_planning(DataFusionError::Shared(Arc::clone(error))),
        DataFusionError::IoError(inner) => from_io(io::Error::new(inner.kind(), inner.to_string())),
        other => internal(io::Error::other(other.to_string())),
    }
}

/// An Arrow error by what it says about the values at hand.
pub(crate) fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => from_external(inner),
        other if is_spill_quota(&other) => exhausted(&other.to_string()),
        ArrowError::IoError(_, inner) => from_io(inner),
        other => match arrow_kind(&other) {
            Kind::Internal => internal(other),
            kind => Error::new(kind, first_lower(&arrow_message(other))),
        },
    }
}

fn arrow_kind(error: &ArrowError) -> Kind {
    match error {
        ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::CsvError(_)
        | ArrowError::JsonError(_)
        | ArrowError::AvroError(_)
        | ArrowError::NotYetImplemented(_) => Kind::InvalidArgument,
        ArrowError::MemoryError(_)
        | ArrowError::DictionaryKeyOverflowError
        | ArrowError::RunEndIndexOverflowError
        | ArrowError::OffsetOverflowError(_) => Kind::ResourceExhausted,
        ArrowError::ParquetError(_) => Kind::DataLoss,
        ArrowError::IoError(..) => Kind::Unavailable,
        ArrowError::ExternalError(_)
        | ArrowError::SchemaError(_)
        | ArrowError::IpcError(_)
        | ArrowError::CDataInterface(_) => Kind::Internal,
    }
}

/// `DataFusion` reports the end of its spill quota from inside a writer, as an error of that.
fn is_spill_quota(error: &ArrowError) -> bool {
    matches!(error, ArrowError::IoError(message, _) if message.contains("The used disk space"))
}

/// Arrow's messages without the name of the variant in front.
fn arrow_message(error: ArrowError) -> String {
    match error {
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::ArithmeticOverflow(message)
        | ArrowError::InvalidArgumentError(message) => message,
        ArrowError::DivideByZero => "division by zero".to_owned(),
        other => other.to_string(),
    }
}

fn from_parquet(error: ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => from_external(inner),
        other => damaged(&other),
    }
}

fn damaged(error: &ParquetError) -> Error {
    Error::data_loss(format!("a data file cannot be read: {error}"))
}

fn from_object_store(error: object_store::Error) -> Error {
    store_error(&error).with_source(error)
}

fn store_error(error: &object_store::Error) -> Error {
    match error {
        object_store::Error::NotFound { path, .. } => Error::new(
            Kind::Aborted,
            format!("the data file `{path}` is gone: run the statement again"),
        ),
        object_store::Error::Precondition { path, .. } => Error::new(
            Kind::Aborted,
            format!("the data file `{path}` was replaced: run the statement again"),
        ),
        object_store::Error::PermissionDenied { path, .. } => Error::new(
            Kind::PermissionDenied,
            format!("the server may not read `{path}`: grant its role access to the object store"),
        ),
        object_store::Error::Unauthenticated { path, .. } => Error::unavailable(format!(
            "the object store does not accept the server's credentials for `{path}`"
        )),
        _ => Error::unavailable("the object store does not answer: try again later"),
    }
}

fn from_io(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(
            Kind::ResourceExhausted,
            "the server's disk for intermediate results is full: select less, or try later",
        )
        .with_source(error),
        io::ErrorKind::OutOfMemory => exhausted("out of memory").with_source(error),
        _ => match error.downcast::<DataFusionError>() {
            Ok(inner) => classify(inner),
            Err(error) => {
                Error::unavailable("reading or writing failed on the server: try again later")
                    .with_source(error)
            }
        },
    }
}

/// What is wrong with the statement itself, in the planner's words.
fn from_planning(error: DataFusionError) -> Error {
    let error = featureflight_udf::planner::error::classify(error);
    Error {
        message: first_lower(&error.message),
        ..error
    }
}

fn exhausted(details: &str) -> Error {
    Error::new(
        Kind::ResourceExhausted,
        "the query needs more memory or disk than the server grants: select fewer columns or a \
         shorter time range, or run it when fewer queries run",
    )
    .with_source(io::Error::other(details.to_owned()))
}

fn from_external(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let error = match error.downcast::<DataFusionError>() {
        Ok(inner) => return classify(*inner),
        Err(error) => error,
    };
    let error = match error.downcast::<ArrowError>() {
        Ok(inner) => return from_arrow(*inner),
        Err(error) => error,
    };
    let error = match error.downcast::<ParquetError>() {
        Ok(inner) => return from_parquet(*inner),
        Err(error) => error,
    };
    let error = match error.downcast::<object_store::Error>() {
        Ok(inner) => return from_object_store(*inner),
        Err(error) => error,
    };
    let error = match error.downcast::<io::Error>() {
        Ok(inner) => return from_io(*inner),
        Err(error) => error,
    };
    if let Some(ours) = Error::find(error.as_ref()) {
        return ours.clone();
    }
    let message = error.to_string();
    match message.strip_prefix("regex parse error:") {
        // It draws the pattern, and says what is wrong last.
        Some(drawn) => Error::invalid(format!(
            "the pattern cannot be read: {}",
            drawn.lines().last().unwrap_or_default().trim()
        )),
        None => internal(io::Error::other(error)),
    }
}

/// A bug of ours: its details are for the log.
pub(crate) fn internal(details: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("internal error").with_source(details)
}

/// Messages start in lower case unless they start with a name.
fn first_lower(message: &str) -> String {
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            let rest = &message[first.len_utf8()..];
            first.to_lowercase().chain(rest.chars()).collect()
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: DataFusionError) -> Kind {
        classify(error).kind
    }

    #[test]
    fn our_own_error_survives_any_wrapping() {
        let ours = Error::new(Kind::Aborted, "the file `a` was replaced: run it again");
        let wrapped = DataFusionError::Context(
            "scan".into(),
            Box::new(DataFusionError::Shared(Arc::new(
                DataFusionError::ArrowError(
                    Box::new(ArrowError::ExternalError(Box::new(DataFusionError::from(
                        ours,
                    )))),
                    None,
                ),
            ))),
        );
        let error = classify(wrapped);
        assert_eq!(error.kind, Kind::Aborted);
        assert_eq!(error.message, "the file `a` was replaced: run it again");
    }

    #[test]
    fn each_kind_tells_what_to_do_next() {
        use DataFusionError as E;
        assert_eq!(kind(E::Plan("x".into())), Kind::InvalidArgument);
        assert_eq!(kind(E::NotImplemented("x".into())), Kind::InvalidArgument);
        let types = "Failed to coerce types Boolean and Int64 in BETWEEN expression";
        assert_eq!(kind(E::Internal(types.into())), Kind::InvalidArgument);
        assert_eq!(kind(E::Internal("x".into())), Kind::Internal);
        let divided = E::ArrowError(Box::new(ArrowError::DivideByZero), None);
        assert_eq!(kind(divided), Kind::InvalidArgument);
        assert_eq!(
            kind(E::ResourcesExhausted("pool".into())),
            Kind::ResourceExhausted
        );
        let gone = object_store::Error::NotFound {
            path: "a".into(),
            source: "b".into(),
        };
        assert_eq!(kind(E::ObjectStore(Box::new(gone))), Kind::Aborted);
        let away = object_store::Error::Generic {
            store: "S3",
            source: "timeout".into(),
        };
        assert_eq!(kind(E::External(Box::new(away))), Kind::Unavailable);
        let torn = ParquetError::EOF("footer".into());
        assert_eq!(kind(E::External(Box::new(torn))), Kind::DataLoss);
        assert_eq!(kind(E::Collection(vec![])), Kind::Internal);
        let quota = "The used disk space during the spilling process has exceeded the limit";
        let quota = || ArrowError::IoError(quota.into(), io::Error::other(quota));
        assert_eq!(from_arrow(quota()).kind, Kind::ResourceExhausted);
        let shared = E::Shared(Arc::new(E::ArrowError(Box::new(quota()), None)));
        assert_eq!(kind(shared), Kind::ResourceExhausted);
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(kind(E::IoError(full)), Kind::ResourceExhausted);
    }

    #[test]
    fn a_bug_shows_nothing_of_its_details() {
        let error = classify(DataFusionError::Internal("secret path /x".into()));
        assert_eq!(error.kind, Kind::Internal);
        assert_eq!(error.message, "internal error");
        assert!(
            error
                .source
                .is_some_and(|source| source.to_string().contains("secret path"))
        );
    }

    #[test]
    fn a_shared_error_keeps_its_kind() {
        let shared =
            DataFusionError::Shared(Arc::new(DataFusionError::ResourcesExhausted("x".into())));
        assert_eq!(kind(shared), Kind::ResourceExhausted);
        let shared = DataFusionError::Shared(Arc::new(DataFusionError::Execution("Bad".into())));
        assert_eq!(classify(shared).message, "bad");
    }
}
