//! What a writer is told, and the key under which it may ask again.

use serde::{Deserialize, Serialize};

use crate::contents::Contents;
use crate::validate::Refusals;

/// The outcome of a request. A repeat of its idempotency key gets the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Rows accepted: they are durable and will reach the online store or the quarantine.
    pub accepted: u64,
    pub refused: Refusals,
    /// What a request with a key held, to know its repeats by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
}

/// Names a request, so that a repeat has one effect. Two scopes never share a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// Whose key it is: a principal and a feature group.
    pub scope: String,
    pub key: String,
}

impl IdempotencyKey {
    /// Longer keys are refused.
    pub const MAX_BYTES: usize = 256;

    /// One text for both, with no two pairs alike.
    pub(super) fn stored(&self) -> String {
        format!("{}:{}:{}", self.scope.len(), self.scope, self.key)
    }
}
