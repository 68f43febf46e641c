//! From errors to gRPC: the only place that builds a [`Status`].
//!
//! The code follows what the client should do next, so it follows from the [`Kind`] alone. Every
//! status carries the request's id; a bug of ours carries nothing else.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

#[cfg(test)]
mod tests;

use std::time::Duration;

use arrow_flight::error::FlightError;
use featureflight_catalog::{Error, Kind};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// Names the request in the answer's metadata and in the log.
pub(crate) const REQUEST_ID: &str = "featureflight-request-id";

/// gRPC sends messages as a header, percent-encoded; a longer one can break the connection.
const MAX_MESSAGE_BYTES: usize = 2_000;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Error(Error),
    /// The RPC, command or action itself does not exist here; what SQL cannot do is an
    /// `InvalidArgument`.
    Unimplemented(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Fault {
    /// As the client sees it.
    pub(crate) fn into_status(self, request_id: &str) -> Status {
        let (code, message) = match self {
            Self::Error(error) if error.kind == Kind::Internal => (
                Code::Internal,
                format!("internal error; the server's log has it as request {request_id}"),
            ),
            Self::Error(error) => (code(error.kind), error.message),
            Self::Unimplemented(what) => (Code::Unimplemented, what),
        };
        let mut metadata = MetadataMap::new();
        if let Ok(id) = MetadataValue::try_from(request_id) {
            metadata.insert(REQUEST_ID, id);
        }
        Status::with_metadata(code, shorten(message), metadata)
    }
}

/// Exhaustive, so that a new kind has to choose.
fn code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Aborted => Code::Aborted,
        Kind::Unavailable => Code::Unavailable,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Cancelled => Code::Cancelled,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::DataLoss => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push_str(" ...");
    }
    message
}

/// The end of a stream that is complete, with more to say than that: gRPC's trailers.
pub(crate) fn complete(said: Vec<(&'static str, String)>) -> Status {
    let mut trailers = MetadataMap::new();
    for (name, value) in said {
        if let Ok(value) = MetadataValue::try_from(value) {
            trailers.insert(name, value);
        }
    }
    Status::with_metadata(Code::Ok, "", trailers)
}

/// What went wrong while a result was encoded: the engine's own error if there is one inside.
pub(crate) fn of_result(error: &FlightError) -> Error {
    match Error::find(error) {
        Some(own) => own.clone(),
        None => Error::internal(format!("cannot encode the result: {error}")),
    }
}

/// What went wrong while the bytes of a request came in. tonic takes `Cancelled`, which a client's
/// reset of the stream is, for the end of the messages (`StreamingInner::poll_frame` of 0.14): what
/// came until then would look like all there is.
pub(crate) fn of_body(status: Status) -> Status {
    match status.code() {
        Code::Cancelled => Status::new(Code::Aborted, "the client broke off its request"),
        _ => status,
    }
}

/// An answer as it leaves. One that is not ours, without a request's id, is tonic's own verdict on
/// bytes it could not read: it calls them an internal error, and a message beyond the limit out of
/// range.
pub(crate) fn of_unread<B>(mut answer: http::Response<B>) -> http::Response<B> {
    let headers = answer.headers_mut();
    if headers.contains_key(REQUEST_ID) {
        return answer;
    }
    if let Some(verdict) = headers.get_mut("grpc-status") {
        let meant = match Code::from_bytes(verdict.as_bytes()) {
            Code::Internal => Code::InvalidArgument,
            Code::OutOfRange => Code::ResourceExhausted,
            other => other,
        };
        *verdict = http::HeaderValue::from(i32::from(meant));
    }
    answer
}

/// For a message that the server has no memory for.
pub(crate) fn no_room(error: &Error) -> Status {
    Status::new(Code::ResourceExhausted, error.message.clone())
}

/// For a request of which nothing came for `limit`.
pub(crate) fn stalled(limit: Duration) -> Status {
    Status::new(
        Code::DeadlineExceeded,
        format!(
            "nothing of the request came for {} seconds",
            limit.as_secs_f32()
        ),
    )
}

/// For a request that has not come to its end within `limit`.
pub(crate) fn dripping(limit: Duration) -> Status {
    Status::new(
        Code::DeadlineExceeded,
        format!(
            "the request did not come to its end within {} seconds: send it in several",
            limit.as_secs_f32()
        ),
    )
}

/// What went wrong while a request's messages came in.
pub(crate) fn of_request(status: &Status) -> Error {
    let kind = match status.code() {
        Code::Cancelled | Code::Aborted => Kind::Cancelled,
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        // tonic's code for a message above the size limit.
        Code::OutOfRange | Code::ResourceExhausted => Kind::ResourceExhausted,
        _ => Kind::InvalidArgument,
    };
    Error::new(
        kind,
        format!(
            "the request's messages cannot be read: {}",
            status.message()
        ),
    )
}
