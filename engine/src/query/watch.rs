//! A statement as whoever sent it sees it from outside, from the moment it came in: how far it is,
//! and a way to stop it.

use std::sync::Arc;

use super::life::Entry;
use super::state::QueryStatus;

/// See the module.
#[derive(Debug, Clone)]
pub struct Watch(pub(crate) Arc<Entry>);

impl Watch {
    /// As `system.queries` shows it.
    pub fn status(&self) -> QueryStatus {
        self.0.status()
    }

    /// Stops its planning, its write and its runs, and lets no further one begin. False when nothing
    /// was left to stop: the rows of all of it are out, or what it writes is, or is becoming, durable.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }
}
