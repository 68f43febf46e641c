//! `/readyz`: whether clients should be sent here, and why not.

use http::StatusCode;

use super::{Answer, Serving, text};

/// One reason on each line.
pub(super) fn answer(serving: Option<&Serving>) -> Answer {
    let reasons = reasons(serving);
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let lines = reasons.join("\n") + "\n";
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

/// A catalog whose source is away goes on being served, so that is none.
fn reasons(serving: Option<&Serving>) -> Vec<String> {
    let Some(Serving { watched, .. }) = serving else {
        return vec!["starting: reading the catalog and the outbox".to_owned()];
    };
    let mut reasons = Vec::new();
    if watched.calls.is_draining() {
        reasons.push("stopping: nothing new is begun".to_owned());
    }
    let gateway = watched.engine.gateway();
    if let Some(failure) = gateway.and_then(|gateway| gateway.outbox.failure()) {
        reasons.push(format!("the outbox accepts nothing since {failure}"));
    }
    reasons
}
