//! How an outbox is kept.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// When a request is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After fsync: it survives a crash of the process and a power cut.
    Synced,
    /// Once the operating system has it, with an fsync this long after at the latest: it survives
    /// a crash of the process; a power cut may lose what came after the last fsync.
    Written(Duration),
}

/// Called at every named step between receiving a request and forgetting it, see
/// [`STEPS`](super::STEPS). An error takes the place of the step's own failure. It exists to prove what
/// a crash or a failing disk at that step does.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>>);

impl Probe {
    pub fn new(at: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(at)))
    }

    pub fn at(&self, step: &'static str) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(at) => at(step),
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Probe" } else { "none" })
    }
}

/// Sizes in bytes.
#[derive(Debug, Clone)]
pub struct OutboxOptions {
    pub durability: Durability,
    /// A new segment file is begun beyond this size.
    pub segment_bytes: u64,
    /// Requests are refused while the segments hold more than this.
    pub max_bytes: u64,
    /// Requests are refused while the file system has less free space than this: settling what is
    /// pending needs some.
    pub reserve_bytes: u64,
    /// How often marks are saved. A crash sends again what was marked since.
    pub checkpoint: Duration,
    /// How long an idempotency key is remembered.
    pub key_window: Duration,
    /// Go on although stored data is damaged or missing: what is lost is logged, the rest is kept.
    /// Without it, damage is an error that names the place.
    pub accept_damage: bool,
    pub probe: Probe,
}

impl Default for OutboxOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            segment_bytes: 128 << 20,
            max_bytes: 8 << 30,
            reserve_bytes: 256 << 20,
            checkpoint: Duration::from_millis(200),
            key_window: Duration::from_secs(24 * 60 * 60),
            accept_damage: false,
            probe: Probe::default(),
        }
    }
}
