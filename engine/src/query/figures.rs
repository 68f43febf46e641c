//! What statements came to, counted since the start.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::state::{QueryState, QueryStatus};

/// Upper bounds in seconds: from a lookup to a training set.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
    3600.0,
];

/// What a statement is there for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It was refused before that was known.
    #[default]
    Unknown,
    /// To answer rows.
    Query,
    /// To write rows of a feature group.
    Write,
    /// To change the session or the catalog.
    Command,
    /// To make the rows of a write, which is a statement of its own.
    Part,
}

/// The labels of a count of statements.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// `query`, `write`, `command`, or `unknown` for what was refused before that was known.
    pub kind: &'static str,
    /// `succeeded`, `failed`, `cancelled`, or `unfetched` for a result that nobody came for.
    pub outcome: &'static str,
}

/// The label of a duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Took {
    /// As of [`Ended`].
    pub kind: &'static str,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct QueryFigures {
    /// Statements; each run of a result that is fetched again counts.
    pub ended: Family<Ended, Counter>,
    /// Seconds of planning, waiting and running.
    pub seconds: Family<Took, Histogram, fn() -> Histogram>,
    /// Rows and bytes of results, as they were read; bytes in memory, before encoding.
    pub rows: Counter,
    pub bytes: Counter,
}

impl Default for QueryFigures {
    fn default() -> Self {
        Self {
            ended: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            rows: Counter::default(),
            bytes: Counter::default(),
        }
    }
}

impl QueryFigures {
    pub(super) fn ended(&self, purpose: Purpose, status: &QueryStatus) {
        let kind = match purpose {
            Purpose::Unknown => "unknown",
            Purpose::Query => "query",
            Purpose::Write => "write",
            Purpose::Command => "command",
            Purpose::Part => return,
        };
        let outcome = match status.state {
            QueryState::Succeeded => "succeeded",
            QueryState::Failed => "failed",
            QueryState::Planned => "unfetched",
            QueryState::Cancelled
            | QueryState::Planning
            | QueryState::Queued
            | QueryState::Running => "cancelled",
        };
        self.ended.get_or_create(&Ended { kind, outcome }).inc();
        let spent = [status.planning_ms, status.queued_ms, status.running_ms];
        let spent: u64 = spent.into_iter().flatten().sum();
        self.seconds
            .get_or_create(&Took { kind })
            .observe(spent as f64 / 1e3);
    }

    pub(super) fn sent(&self, purpose: Purpose, rows: usize, bytes: usize) {
        if purpose == Purpose::Query {
            self.rows.inc_by(rows as u64);
            self.bytes.inc_by(bytes as u64);
        }
    }
}
