//! What the process really takes, asked of the kernel several times a second. Short of memory, no
//! query begins while others run and no operator gets more; beyond the limit the largest query ends,
//! one at a time, until the process is below it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use featureflight_catalog::{Error, Kind, Result};
use parking_lot::Mutex;

use super::pool::Ledger;

const EVERY: Duration = Duration::from_millis(100);

/// A query that was given up needs some time to let go.
const PATIENCE: Duration = Duration::from_millis(500);

/// The thread that looks; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    pressure: Arc<AtomicBool>,
    _alive: Sender<()>,
}

impl Watch {
    /// # Errors
    /// `ResourceExhausted` when there is no thread left.
    pub(super) fn start(ledger: Arc<Mutex<Ledger>>, limit: u64) -> Result<Self> {
        let pressure = Arc::new(AtomicBool::new(false));
        let (alive, ended) = channel();
        let mut guard = Guard {
            ledger,
            pressure: Arc::clone(&pressure),
            limit,
            gave_up: None,
        };
        // A thread of its own: it has to run when no worker gets to.
        std::thread::Builder::new()
            .name("memory-watch".to_owned())
            .spawn(move || {
                while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                    if let Some(resident) = resident_bytes() {
                        guard.look(resident);
                    }
                }
            })
            .map_err(|error| {
                Error::new(
                    Kind::ResourceExhausted,
                    "the server has no thread left to watch its memory",
                )
                .with_source(error)
            })?;
        Ok(Self {
            pressure,
            _alive: alive,
        })
    }

    pub(super) fn is_short(&self) -> bool {
        self.pressure.load(Ordering::Acquire)
    }

    pub(super) fn pressure(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.pressure)
    }
}

/// What to do about a reading.
pub(super) struct Guard {
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) pressure: Arc<AtomicBool>,
    pub(super) limit: u64,
    pub(super) gave_up: Option<Instant>,
}

impl Guard {
    pub(super) fn look(&mut self, resident: u64) {
        let short = resident > self.limit / 10 * 9;
        if self.pressure.swap(short, Ordering::AcqRel) != short {
            tracing::warn!(resident, limit = self.limit, short, "memory of the process");
        }
        let waits = self.gave_up.is_some_and(|at| at.elapsed() < PATIENCE);
        if resident > self.limit && !waits && self.ledger.lock().give_up_largest() {
            tracing::warn!(resident, limit = self.limit, "gave up the largest query");
            self.gave_up = Some(Instant::now());
        }
    }
}

/// `None` where the kernel does not say: then only the pools bound queries.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kilobytes.checked_mul(1024)
}
