//! What the parts of an outbox share: the writer's thread, the checkpoint's thread, drafts and
//! readers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use featureflight_catalog::{Error, Instant, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::answer::{Answer, IdempotencyKey};
use super::erase::Erased;
use super::figures::OutboxFigures;
use super::index::{Index, Reach};
use super::options::OutboxOptions;
use super::pending::Pending;
use super::quarantine::NewEntry;
use crate::turns::Turns;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) dir: PathBuf,
    pub(super) options: OutboxOptions,
    pub(super) index: Index,
    pub(super) pending: Mutex<Pending>,
    pub(super) keys: Mutex<HashMap<IdempotencyKey, KeyState>>,
    /// Records that went into quarantine since the last checkpoint.
    pub(super) quarantine: Mutex<Vec<NewEntry>>,
    pub(super) next_quarantine: AtomicU64,
    pub(super) reach: Mutex<Reach>,
    pub(super) next_request: AtomicU64,
    /// Why nothing is accepted any more.
    pub(super) failure: Mutex<Option<String>>,
    /// Counts what was accepted.
    pub(super) changed: watch::Sender<u64>,
    pub(super) figures: OutboxFigures,
    /// One checkpoint at a time.
    pub(super) checkpoints: Mutex<()>,
    /// By group. As old as the process, since whoever took rows down may be.
    pub(super) erased: Mutex<HashMap<String, Erased>>,
    pub(super) turns: Turns,
}

/// A key that is not in the index (yet).
#[derive(Debug)]
pub(super) enum KeyState {
    /// Its first request goes on; the channel closes when that ends.
    InFlight(watch::Receiver<()>),
    Answered(Answer, i64),
}

impl Core {
    pub(super) fn next_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// # Errors
    /// `Unavailable` once nothing is accepted any more.
    pub(super) fn check_accepting(&self) -> Result<()> {
        match &*self.failure.lock() {
            None => Ok(()),
            Some(why) => Err(Error::unavailable(format!(
                "the outbox accepts nothing since {why}: mend the disk and restart the server; what \
                 was acknowledged is kept"
            ))),
        }
    }

    /// From here on nothing is accepted. Returns the error for those who wait.
    pub(super) fn fail(&self, why: &str) -> Error {
        tracing::error!(why, "the outbox stops accepting writes");
        self.failure.lock().get_or_insert_with(|| why.to_owned());
        Error::unavailable(format!(
            "the outbox accepts nothing since {why}: the request may or may not count, repeat it \
             with its idempotency key after the server's restart"
        ))
    }

    pub(super) fn note_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn oldest_key(&self) -> Instant {
        let window = self.options.key_window.as_nanos();
        let window = i128::try_from(window).unwrap_or(i128::MAX);
        let oldest = Instant::now().total_nanos().saturating_sub(window);
        Instant::from_total_nanos(oldest).unwrap_or(Instant::MIN)
    }
}
