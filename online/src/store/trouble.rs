//! What a failed call to an AWS service means for the records it carried.

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use super::{Outcome, Trouble};

/// The outcome of every record of a call that failed as a whole.
pub(super) fn of_call<E>(failure: &SdkError<E, HttpResponse>) -> Outcome
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = failure
        .raw_response()
        .map(|response| response.status().as_u16());
    let code = failure.code().unwrap_or_default();
    let reason = match (failure.message(), code) {
        (Some(message), code) if !message.is_empty() => format!("{code}: {message}"),
        (_, "") => DisplayErrorContext(failure).to_string(),
        (_, code) => code.to_owned(),
    };
    if is_about_credentials(failure) {
        return Outcome::Retry(Trouble::Denied, reason);
    }
    of_error(code, status, reason)
}

/// From an error code, and the HTTP status where there is one.
pub(super) fn of_error(code: &str, status: Option<u16>, reason: String) -> Outcome {
    // A code may come with its namespace before or a URL behind it.
    let code = code.rsplit('#').next().unwrap_or(code);
    let code = code.split(':').next().unwrap_or(code);
    let starts = |starts: &[&str]| starts.iter().any(|start| code.starts_with(start));
    if starts(&[
        "Throttl",
        "TooManyRequests",
        "RequestLimitExceeded",
        "ProvisionedThroughputExceeded",
        "SlowDown",
        "LimitExceeded",
    ]) || status == Some(429)
    {
        return Outcome::Retry(Trouble::Throttled, reason);
    }
    if starts(&[
        "AccessDenied",
        "AccessForbidden",
        "ExpiredToken",
        "UnrecognizedClient",
        "InvalidClientTokenId",
        "InvalidSignature",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "RequestExpired",
        "NotAuthorized",
        "Unauthorized",
        "OptInRequired",
    ]) || matches!(status, Some(401 | 403))
    {
        return Outcome::Retry(Trouble::Denied, reason);
    }
    match (code, status) {
        (
            "InternalFailure" | "InternalServerError" | "ServiceUnavailable" | "RequestTimeout",
            _,
        )
        | (_, Some(408 | 500..) | None) => Outcome::Retry(Trouble::Away, reason),
        _ => Outcome::Refused(reason),
    }
}

fn is_about_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    use aws_credential_types::provider::error::CredentialsError;
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    false
}
