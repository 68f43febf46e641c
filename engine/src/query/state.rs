//! A query as others see it: `system.queries`, clients that poll, figures.

use std::time::SystemTime;

/// Where a query stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryState {
    Planning,
    /// Planned and pinned, not running.
    Planned,
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl QueryState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Planned => "planned",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether anything of it is still to come.
    pub fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Planning | Self::Planned | Self::Queued | Self::Running
        )
    }
}

/// One query as `system.queries` shows it; times in milliseconds.
#[derive(Debug, Clone)]
pub struct QueryStatus {
    pub id: String,
    /// The session's label.
    pub session: String,
    pub statement: String,
    pub state: QueryState,
    pub started: SystemTime,
    pub planning_ms: Option<u64>,
    pub queued_ms: Option<u64>,
    pub running_ms: Option<u64>,
    pub rows: u64,
    pub bytes: u64,
    pub files: u64,
    /// The share of the files that was read or left out, 0 to 1, while it runs.
    pub progress: Option<f64>,
    /// What the user was told when it failed.
    pub error: Option<String>,
}
