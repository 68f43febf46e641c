//! Who may hold how much memory. [`pool`] shares what is granted among the queries that run;
//! [`process`] watches what the process really takes, since buffers of expressions, decoded pages
//! and messages on their way out are in no pool; [`arenas`] keeps the allocator from holding on to
//! what was freed.

mod arenas;
mod pool;
mod process;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryPool, MemoryReservation, TrackConsumersPool,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, TaskContext};
use featureflight_catalog::{Error, Kind, Result};
use parking_lot::Mutex;

pub use arenas::few_arenas;
use pool::{KeptPool, Ledger, QueryPool};
use process::Watch;
pub(crate) use process::resident_bytes;

use crate::engine::Engine;
use crate::error::classify;
use crate::interruption::Over;

/// How many consumers an error of the pool names, for the log.
const NAMED_CONSUMERS: NonZeroUsize = match NonZeroUsize::new(5) {
    Some(count) => count,
    None => NonZeroUsize::MIN,
};

/// The memory of all queries of a process.
#[derive(Debug)]
pub(crate) struct Memory {
    ledger: Arc<Mutex<Ledger>>,
    /// Ends with the engine.
    watch: Watch,
}

impl Memory {
    /// `granted` bytes for what operators ask for; a process of `process_limit` bytes gives up its
    /// largest query.
    ///
    /// # Errors
    /// `ResourceExhausted` when there is no thread left for the watch.
    pub(crate) fn new(granted: usize, process_limit: u64) -> Result<Self> {
        let ledger = Arc::new(Mutex::new(Ledger::new(granted)));
        Ok(Self {
            watch: Watch::start(Arc::clone(&ledger), process_limit)?,
            ledger,
        })
    }

    /// What one run of a query runs in.
    ///
    /// # Errors
    /// `ResourceExhausted` while the process is short of memory and other queries run.
    pub(crate) fn context(&self, state: &SessionState) -> Result<Arc<TaskContext>> {
        if self.watch.is_short() && self.ledger.lock().queries() > 0 {
            return Err(Error::new(
                Kind::ResourceExhausted,
                "the server is short of memory until other queries end: try again in 5 s",
            ));
        }
        let pool = QueryPool::new(&self.ledger, self.watch.pressure());
        let runtime = RuntimeEnv {
            memory_pool: Arc::new(TrackConsumersPool::new(pool, NAMED_CONSUMERS)),
            ..RuntimeEnv::clone(state.runtime_env())
        };
        let config = state
            .config()
            .clone()
            .with_extension(Arc::new(Over::default()));
        let context = TaskContext::from(state)
            .with_session_config(config)
            .with_runtime(Arc::new(runtime));
        Ok(Arc::new(context))
    }

    /// Where what outlives queries is accounted.
    pub(crate) fn kept(&self) -> Arc<dyn MemoryPool> {
        Arc::new(KeptPool::new(&self.ledger, self.watch.pressure()))
    }

    /// What operators hold now, of all queries.
    pub(crate) fn reserved(&self) -> usize {
        self.ledger.lock().reserved()
    }
}

/// What anything outside of queries may have uncounted: a server short of memory still takes
/// statements and the parameters of lookups.
const FREE_BYTES: usize = 16 << 10;

/// Memory that something outside of queries takes, out of what all share; given back when dropped.
#[derive(Debug)]
pub struct Kept {
    taken: AtomicUsize,
    reservation: MemoryReservation,
}

impl Kept {
    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `ResourceExhausted` where there is no more; what was taken stays.
    pub fn grow(&self, bytes: usize) -> Result<()> {
        self.resize(self.taken.load(Ordering::Acquire).saturating_add(bytes))
    }

    /// Takes `bytes` from here on, less or more than before.
    ///
    /// # Errors
    /// As [`Kept::grow`].
    pub fn resize(&self, bytes: usize) -> Result<()> {
        let counted = bytes.saturating_sub(FREE_BYTES);
        self.reservation.try_resize(counted).map_err(classify)?;
        self.taken.store(bytes, Ordering::Release);
        Ok(())
    }
}

impl From<MemoryReservation> for Kept {
    fn from(reservation: MemoryReservation) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            reservation,
        }
    }
}

impl Engine {
    /// Nothing yet, for `what`, which errors name.
    pub fn keep(&self, what: &str) -> Kept {
        MemoryConsumer::new(what)
            .register(&self.core.memory.kept())
            .into()
    }
}

/// Waits until a run is given up for the memory it takes.
pub(crate) async fn given_up(context: &TaskContext) -> Error {
    let pool = context.memory_pool();
    match pool.downcast_ref::<TrackConsumersPool<QueryPool>>() {
        Some(pool) => pool.inner().given_up().await,
        None => std::future::pending().await,
    }
    Error::new(
        Kind::ResourceExhausted,
        "the query was given up because the server ran out of memory, and it held the most: select \
         fewer columns or a shorter time range, or run it when fewer queries run",
    )
}
