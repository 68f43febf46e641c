//! One call to AWS: the answer as the JSON it came in, and what a failure means.
//!
//! The clients' typed answers drop fields that are newer than the client, and the catalog keeps
//! everything; so the body is captured beside them.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sagemaker::config::http::HttpResponse;
use aws_sdk_sagemaker::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_sagemaker::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sagemaker::error::{BoxError, ProvideErrorMetadata, SdkError};
use parking_lot::Mutex;
use serde_json::Value;

use crate::error::{Error, Kind};

/// What a failed call means for the load it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The thing asked for does not exist (any more).
    Absent,
    /// The server's identity may not make this call, or not for this thing.
    Denied,
    /// The endpoint does not have this operation: a stand-in, not AWS.
    Unsupported,
    /// Throttled, failing or out of reach: later it may work.
    Away,
    /// Answered, but with a refusal or something that cannot be understood.
    Refused,
}

/// A failed call. The message names the call, the cause and what to do.
#[derive(Debug, Clone)]
pub(super) struct CallError {
    pub(super) class: Class,
    pub(super) error: Error,
}

pub(super) type CallResult<T> = Result<T, CallError>;

impl From<CallError> for Error {
    fn from(failed: CallError) -> Self {
        failed.error
    }
}

impl CallError {
    /// An answer that is not what `operation` answers.
    pub(super) fn odd_answer(operation: &str, why: impl std::fmt::Display) -> Self {
        let message = format!("{operation} answered something that cannot be understood: {why}");
        Self {
            class: Class::Refused,
            error: Error::unavailable(message),
        }
    }

    fn new<E>(operation: &str, failure: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let code = failure.code().unwrap_or_default();
        let response = failure.raw_response();
        let status = response.map(|response| response.status().as_u16());
        let class = classify(code, status, response.is_some_and(is_web_page));
        let credentials = find_credentials_error(failure);
        let detail = match (failure.message(), code) {
            (Some(message), _) if !message.is_empty() => format!("{code}: {message}"),
            (_, "") => chain(failure),
            (_, code) => code.to_owned(),
        };
        let (kind, what) = match (class, credentials) {
            (_, Some(CredentialsError::CredentialsNotLoaded(_))) => (
                Kind::FailedPrecondition,
                "found no AWS credentials: set up a profile, environment variables or a role",
            ),
            (_, Some(_)) => (Kind::Unavailable, "could not get AWS credentials"),
            (Class::Absent, _) => (Kind::NotFound, "found nothing"),
            (Class::Denied, _) if is_about_credentials(code) => (
                Kind::PermissionDenied,
                "was refused: the server's AWS credentials are not valid, renew them",
            ),
            (Class::Denied, _) => (
                Kind::PermissionDenied,
                "is not allowed: grant this action to the server's AWS identity",
            ),
            (Class::Unsupported, _) => (
                Kind::FailedPrecondition,
                "is not supported by this endpoint",
            ),
            (Class::Away, _) if is_throttle(code, status) => (
                Kind::Unavailable,
                "is throttled by AWS: refresh less often or raise the account's quota",
            ),
            (Class::Away, _) => (
                Kind::Unavailable,
                "failed, AWS does not answer as it should",
            ),
            (Class::Refused, _) => (Kind::FailedPrecondition, "was refused"),
        };
        Self {
            class,
            error: Error::new(kind, format!("{operation} {what} ({detail})")),
        }
    }
}

fn classify(code: &str, status: Option<u16>, web_page: bool) -> Class {
    const ABSENT: [&str; 3] = [
        "ResourceNotFound",
        "ResourceNotFoundException",
        "EntityNotFoundException",
    ];
    const UNSUPPORTED: [&str; 4] = [
        "UnknownOperationException",
        "InvalidAction",
        "NotImplemented",
        "NotImplementedException",
    ];
    let denied = [
        "AccessDenied",
        "AccessForbidden",
        "Unauthorized",
        "NotAuthorized",
        "OptInRequired",
    ];
    let Some(status) = status else {
        return Class::Away;
    };
    match status {
        _ if is_throttle(code, Some(status)) => Class::Away,
        _ if ABSENT.contains(&code) => Class::Absent,
        _ if UNSUPPORTED.contains(&code) => Class::Unsupported,
        _ if denied.iter().any(|start| code.starts_with(start)) => Class::Denied,
        _ if is_about_credentials(code) => Class::Denied,
        401 | 403 => Class::Denied,
        // The services answer JSON; a page for people comes from a stand-in without the operation.
        404 | 500 if web_page => Class::Unsupported,
        501 => Class::Unsupported,
        408 | 500.. => Class::Away,
        _ => Class::Refused,
    }
}

fn is_throttle(code: &str, status: Option<u16>) -> bool {
    const THROTTLES: [&str; 5] = [
        "Throttl",
        "TooManyRequests",
        "RequestLimitExceeded",
        "SlowDown",
        "RequestThrottled",
    ];
    THROTTLES.iter().any(|start| code.starts_with(start)) || matches!(status, Some(429))
}

fn is_about_credentials(code: &str) -> bool {
    const CODES: [&str; 8] = [
        "ExpiredToken",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
    ];
    CODES.contains(&code) || code == "MissingAuthenticationTokenException"
}

fn is_web_page(response: &HttpResponse) -> bool {
    response
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.starts_with("text/html"))
}

fn find_credentials_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CredentialsError> {
    match error.downcast_ref::<CredentialsError>() {
        Some(found) => Some(found),
        None => find_credentials_error(error.source()?),
    }
}

/// An error and its causes, without repeating what a wrapper already says.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Keeps the body of the newest answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Body(Arc<Mutex<Vec<u8>>>);

impl Intercept for Body {
    fn name(&self) -> &'static str {
        "Body"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *self.0.lock() = context
            .response()
            .body()
            .bytes()
            .unwrap_or_default()
            .to_vec();
        Ok(())
    }
}

impl Body {
    /// That a call whose answer is empty was carried out.
    pub(super) fn done<T, E>(
        operation: &str,
        outcome: Result<T, SdkError<E, HttpResponse>>,
    ) -> CallResult<()>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match outcome {
            Ok(_) => Ok(()),
            Err(failure) => Err(CallError::new(operation, &failure)),
        }
    }

    /// The JSON answer of the call this was an interceptor of.
    pub(super) fn answer<T, E>(
        &self,
        operation: &str,
        outcome: Result<T, SdkError<E, HttpResponse>>,
    ) -> CallResult<Value>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        match outcome {
            Ok(_) => serde_json::from_slice(&self.0.lock())
                .map_err(|error| CallError::odd_answer(operation, error)),
            Err(failure) => Err(CallError::new(operation, &failure)),
        }
    }
}

/// Asks for page after page: `call` gets the token, `each` the pages.
pub(super) async fn pages<F>(
    operation: &str,
    mut call: impl FnMut(Option<String>) -> F,
    mut each: impl FnMut(Value) -> CallResult<()>,
) -> CallResult<()>
where
    F: Future<Output = CallResult<Value>>,
{
    let mut seen = HashSet::new();
    let mut token = None;
    loop {
        let mut page = call(token).await?;
        let next = page.get_mut("NextToken").map(Value::take);
        each(page)?;
        match next {
            Some(Value::String(next)) if !next.is_empty() => {
                if !seen.insert(next.clone()) {
                    return Err(CallError::odd_answer(
                        operation,
                        "its pages come in a circle",
                    ));
                }
                token = Some(next);
            }
            _ => return Ok(()),
        }
    }
}

/// Takes the array called `key` out of a page; empty when the page has none.
pub(super) fn take_array(page: &mut Value, key: &str) -> Vec<Value> {
    match page.get_mut(key).map(Value::take) {
        Some(Value::Array(values)) => values,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
