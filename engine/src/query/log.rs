//! Which queries there are: those under way, and the most recent finished ones.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use featureflight_catalog::{Error, Kind, Result};
use parking_lot::Mutex;

use super::figures::QueryFigures;
use super::life::{Entry, Received, Token};
use super::state::QueryStatus;

/// Finished queries that `system.queries` remembers.
const RECENT: usize = 1_000;

/// Running and recent queries.
#[derive(Debug, Default)]
pub struct QueryLog {
    pub(super) figures: QueryFigures,
    inner: Mutex<Queries>,
}

#[derive(Debug, Default)]
struct Queries {
    live: HashMap<String, Arc<Entry>>,
    recent: VecDeque<QueryStatus>,
}

impl QueryLog {
    /// A statement came in.
    pub(crate) fn receive(self: &Arc<Self>, session: &str, sql: &str) -> Token<Received> {
        let entry = Entry::new(session, sql, self);
        self.inner
            .lock()
            .live
            .insert(entry.id.clone(), Arc::clone(&entry));
        Token::new(entry)
    }

    /// What all of them came to.
    pub(crate) fn figures(&self) -> &QueryFigures {
        &self.figures
    }

    /// Live queries, then finished ones, newest first.
    pub fn statuses(&self) -> Vec<QueryStatus> {
        let inner = self.inner.lock();
        let mut live: Vec<_> = inner.live.values().map(|entry| entry.status()).collect();
        live.sort_by_key(|query| std::cmp::Reverse(query.started));
        live.extend(inner.recent.iter().rev().cloned());
        live
    }

    /// Cancels a query of `session`.
    ///
    /// # Errors
    /// `NotFound` for a query that is not under way, `PermissionDenied` for another session's,
    /// `FailedPrecondition` for one that nothing stops any more.
    pub(crate) fn cancel(&self, id: &str, session: &str) -> Result<()> {
        let entry = self.inner.lock().live.get(id).cloned();
        let Some(entry) = entry else {
            return Err(Error::not_found(format!(
                "no query `{id}` is under way; system.queries shows which are"
            )));
        };
        if entry.session() != session {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("the query `{id}` is not this session's: only its owner may cancel it"),
            ));
        }
        if entry.cancel() {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the query `{id}` cannot be cancelled any more: it has ended, or what it writes is \
             being made durable"
        )))
    }

    pub(super) fn retire(&self, entry: &Entry) {
        let mut inner = self.inner.lock();
        if inner.live.remove(&entry.id).is_none() {
            inner.recent.retain(|query| query.id != entry.id);
        }
        if inner.recent.len() >= RECENT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(entry.status());
    }

    pub(super) fn revive(&self, entry: &Arc<Entry>) {
        let mut inner = self.inner.lock();
        inner.recent.retain(|query| query.id != entry.id);
        inner.live.insert(entry.id.clone(), Arc::clone(entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_queries_are_remembered_up_to_a_limit() {
        let log = Arc::new(QueryLog::default());
        for _ in 0..RECENT + 5 {
            drop(log.receive("session-1", "select 1"));
        }
        assert_eq!(log.statuses().len(), RECENT);
    }
}
