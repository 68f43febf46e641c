//! The outbox: the durable queue between an acknowledged write and its online store.
//!
//! A directory with segment files of checksummed [frames](frame) and an [index] beside them:
//!
//! ```text
//! DIR/lock               held by the process that has the outbox open
//! DIR/NUMBER.segment     layouts, rows, commits and aborts, in the order they were written
//! DIR/index.redb         marks of what is settled, idempotency keys, the quarantine, landings,
//!                        erasures
//! ```
//!
//! A [`Draft`] writes a request's rows as they come; its commit entry makes all of them count. One
//! [writer] thread appends and fsyncs for all requests that wait (group commit) and
//! acknowledges after it. What is accepted is [pending] until every stage it was accepted for
//! marked it; [checkpoints](checkpoint) save the marks and remove spent segments. After a crash
//! [recovery](recover) reads the segments again: what was marked since the last checkpoint is
//! sent once more, in the same order.

mod answer;
mod checkpoint;
mod command;
mod core;
mod draft;
mod entry;
mod erase;
mod figures;
mod frame;
mod index;
mod landings;
mod lock;
mod options;
mod pending;
mod quarantine;
mod recover;
mod rows;
mod segment;
mod space;
mod stage;
mod summary;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use featureflight_catalog::{Error, Instant, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use self::core::Core;
use command::Command;
use draft::{Claim, KeyGuard};
use index::Index;
use lock::Lock;
use writer::Writer;

use crate::turns::Turns;

pub use answer::{Answer, IdempotencyKey};
pub use draft::{Draft, Receipt};
pub(crate) use erase::{Erasure, What};
pub use figures::OutboxFigures;
pub use landings::Landing;
pub use options::{Durability, OutboxOptions, Probe};
pub use pending::PendingBlock;
pub use quarantine::Quarantined;
pub use stage::{Position, Stage, Stages};

/// The steps at which a [`Probe`] is called, in the order of a request's life.
pub const STEPS: [&str; 14] = [
    "segment.create",
    "segment.header",
    "segment.name",
    "append.write",
    "append.half",
    "append.sync",
    "append.synced",
    "acknowledge",
    "send",
    "sent",
    "mark",
    "checkpoint.save",
    "checkpoint.saved",
    "segment.remove",
];

/// A durable queue of writes, open in one process.
#[derive(Debug)]
pub struct Outbox {
    core: Arc<Core>,
    writer: Sender<Command>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    _lock: Lock,
}

/// A request with an idempotency key, at its beginning.
#[derive(Debug)]
pub enum Begin {
    /// It is the first with its key.
    Draft(Draft),
    /// It was answered before.
    Repeat(Answer),
}

impl Outbox {
    /// Opens or makes the outbox in `dir`, and reads what is pending. Blocks the thread.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process has it open or a newer version wrote it;
    /// `DataLoss` that names the place where acknowledged data is damaged or missing; `Unavailable`
    /// when the disk fails.
    pub fn open(dir: &Path, options: OutboxOptions) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|error| {
            let dir = dir.display();
            Error::precondition(format!("the outbox '{dir}' cannot be made: {error}"))
        })?;
        let lock = Lock::take(dir)?;
        let path = dir.join("index.redb");
        if !path.exists() && !segment::list(dir).is_ok_and(|files| files.is_empty()) {
            let path = path.display();
            return Err(Error::data_loss(format!(
                "the outbox has segments but its index '{path}' is missing: restore it"
            )));
        }
        let index = Index::open(&path)?;
        let recovered = recover::recover(dir, &index, &options)?;
        let number = recovered.next_segment();
        let core = Arc::new(Core {
            dir: dir.to_owned(),
            options,
            index,
            pending: Mutex::new(recovered.pending),
            keys: Mutex::new(recovered.keys),
            quarantine: Mutex::default(),
            next_quarantine: AtomicU64::new(1),
            reach: Mutex::new(recovered.reach),
            next_request: AtomicU64::new(recovered.next_request),
            failure: Mutex::default(),
            changed: watch::channel(0).0,
            checkpoints: Mutex::default(),
            erased: Mutex::default(),
            turns: Turns::default(),
            figures: OutboxFigures::default(),
        });
        core.next_quarantine.store(
            core.first_free_quarantine()?,
            std::sync::atomic::Ordering::Relaxed,
        );
        let writer = Writer::new(Arc::clone(&core), number).map_err(|error| {
            let dir = dir.display();
            Error::unavailable(format!("no segment can be begun in '{dir}': {error}"))
        })?;
        // The index knows of the new segment before anything in it is acknowledged.
        core.checkpoint()?;
        Self::start(core, writer, lock)
    }

    fn start(core: Arc<Core>, writer: Writer, lock: Lock) -> Result<Self> {
        let (commands, queue) = channel();
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(run).map_err(|error| {
                Error::unavailable("the outbox cannot start its threads").with_source(error)
            })
        };
        let checkpoints = {
            let (core, stop) = (Arc::clone(&core), Arc::clone(&stop));
            move || run_checkpoints(&core, &stop)
        };
        let threads = vec![
            spawn("outbox-writer", Box::new(move || writer.run(&queue)))?,
            spawn("outbox-checkpoint", Box::new(checkpoints))?,
        ];
        Ok(Self {
            core,
            writer: commands,
            threads,
            stop,
            _lock: lock,
        })
    }

    /// Begins a request without an idempotency key.
    pub fn draft(&self, stages: Stages) -> Draft {
        Draft::new(Arc::clone(&self.core), self.writer.clone(), stages, None)
    }

    /// Begins a request with an idempotency key. While the first request with the key goes on,
    /// others wait for its end.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is empty or too long; `Unavailable` when the index fails.
    pub async fn begin(&self, stages: Stages, key: &IdempotencyKey) -> Result<Begin> {
        if key.key.is_empty() || key.key.len() > IdempotencyKey::MAX_BYTES {
            return Err(Error::invalid(format!(
                "an idempotency key has 1 to {} bytes, this one has {}",
                IdempotencyKey::MAX_BYTES,
                key.key.len()
            )));
        }
        loop {
            match KeyGuard::claim(&self.core, key)? {
                Claim::Answered(answer) => return Ok(Begin::Repeat(answer)),
                Claim::Wait(mut first) => while first.changed().await.is_ok() {},
                Claim::First(guard) => {
                    let core = Arc::clone(&self.core);
                    let writer = self.writer.clone();
                    return Ok(Begin::Draft(Draft::new(core, writer, stages, Some(guard))));
                }
            }
        }
    }

    /// Waits until every request accepted up to `cut` is visible; later ones are accepted after it.
    /// A cut in the future counts as now.
    ///
    /// # Errors
    /// `Unavailable` when the outbox is closed.
    pub async fn settle_clock(&self, cut: Instant) -> Result<()> {
        let (reply, done) = oneshot::channel();
        let closed = || Error::unavailable("the outbox is closed: the server is shutting down");
        self.writer
            .send(Command::Barrier(cut.min(Instant::now()), reply))
            .map_err(|_| closed())?;
        done.await.map_err(|_| closed())
    }

    /// Blocks of `group` with rows that have not been through `stage`, in the order of acceptance.
    pub fn pending(&self, group: &str, stage: Stage) -> Vec<Arc<PendingBlock>> {
        self.pending_after(group, stage, None, usize::MAX)
    }

    /// The first `limit` of [`Self::pending`] behind `after`.
    pub fn pending_after(
        &self,
        group: &str,
        stage: Stage,
        after: Option<Position>,
        limit: usize,
    ) -> Vec<Arc<PendingBlock>> {
        let pending = self.core.pending.lock();
        pending.of_group(group, stage, after, limit)
    }

    /// Groups with rows that have not been through `stage`.
    pub fn pending_groups(&self, stage: Stage) -> HashSet<String> {
        self.core.pending.lock().groups(stage)
    }

    /// The place in the order of acceptance that no request has yet.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.core.reach.lock().next_sequence
    }

    /// Marks rows of a block: they have been through `stage`. The marks are saved by the next
    /// checkpoint.
    pub fn settle(&self, position: Position, stage: Stage, rows: &[usize]) {
        self.core.pending.lock().settle(position, stage, rows);
    }

    /// Counts up when something was accepted.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.core.changed.subscribe()
    }

    /// Whose turn it is with the rows of each group.
    pub(crate) fn turns(&self) -> &Turns {
        &self.core.turns
    }

    /// Passes a step of what happens to accepted rows outside the outbox.
    pub(crate) fn step(&self, step: &'static str) {
        // Only a crash can be proven there: the steps cannot fail by themselves.
        self.core.options.probe.at(step).ok();
    }

    /// Saves marks, keys and the quarantine now. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the index cannot be written; nothing acknowledged is lost by that.
    pub fn checkpoint(&self) -> Result<()> {
        self.core.checkpoint()
    }

    /// Why nothing is accepted any more, if so.
    pub fn failure(&self) -> Option<String> {
        self.core.failure.lock().clone()
    }

    /// What is in the outbox.
    pub fn progress(&self) -> Progress {
        let pending = self.core.pending.lock();
        Progress {
            durability: self.core.options.durability,
            segments: pending.segments.len(),
            bytes: pending.bytes(),
            max_bytes: self.core.options.max_bytes,
            groups: pending.progress(),
        }
    }

    /// What came in since the start.
    pub fn figures(&self) -> &OutboxFigures {
        &self.core.figures
    }
}

/// What is in the outbox.
#[derive(Debug, Clone)]
pub struct Progress {
    pub durability: Durability,
    pub segments: usize,
    pub bytes: u64,
    pub max_bytes: u64,
    /// By name; only those with something pending.
    pub groups: BTreeMap<String, GroupProgress>,
}

/// What is pending of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupProgress {
    /// Of which some row waits.
    pub requests: u64,
    pub online_rows: u64,
    pub offline_rows: u64,
    /// When the oldest row that is not online was accepted.
    pub oldest_online: Option<Instant>,
    /// When the oldest row that is not offline was accepted.
    pub oldest_offline: Option<Instant>,
}

fn run_checkpoints(core: &Core, stop: &(Mutex<bool>, Condvar)) {
    let (stopped, wake) = stop;
    loop {
        {
            let mut stopped = stopped.lock();
            if !*stopped {
                wake.wait_for(&mut stopped, core.options.checkpoint);
            }
            if *stopped {
                return;
            }
        }
        if let Err(error) = core.checkpoint() {
            tracing::warn!(%error, "a checkpoint of the outbox failed and will be tried again");
        }
    }
}

/// Brings to disk what was written, and saves marks.
impl Drop for Outbox {
    fn drop(&mut self) {
        self.writer.send(Command::Stop).ok();
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
        if let Err(error) = self.core.checkpoint() {
            tracing::warn!(%error, "the last checkpoint of the outbox failed");
        }
    }
}
