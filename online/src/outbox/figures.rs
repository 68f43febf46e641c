//! What came in since the start, and how long the disk took.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds: from a disk with a cache that survives power cuts to one that hangs.
const SECONDS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0,
];

/// See the module.
#[derive(Debug, Clone)]
pub struct OutboxFigures {
    /// Requests that were acknowledged, and their rows.
    pub acknowledged: Counter,
    pub acknowledged_rows: Counter,
    /// Rows that validation refused.
    pub refused_rows: Counter,
    /// Requests that repeated an idempotency key.
    pub repeated: Counter,
    /// From the last row of a request to its acknowledgement.
    pub acknowledge_seconds: Histogram,
    pub fsync_seconds: Histogram,
}

impl Default for OutboxFigures {
    fn default() -> Self {
        Self {
            acknowledged: Counter::default(),
            acknowledged_rows: Counter::default(),
            refused_rows: Counter::default(),
            repeated: Counter::default(),
            acknowledge_seconds: Histogram::new(SECONDS),
            fsync_seconds: Histogram::new(SECONDS),
        }
    }
}

impl OutboxFigures {
    pub(super) fn acknowledged(&self, rows: u64, took: Duration) {
        self.acknowledged.inc();
        self.acknowledged_rows.inc_by(rows);
        self.acknowledge_seconds.observe(took.as_secs_f64());
    }
}
