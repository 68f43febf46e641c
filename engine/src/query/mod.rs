//! The life of a query: received → planned and pinned → permitted → streaming → succeeded, failed
//! or (dropped) cancelled; one log line at its end.

pub(crate) mod admission;
pub(crate) mod life;
mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::{Error, Kind, Result};
use parking_lot::Mutex;

use crate::session::Session;

pub use life::{QueryLog, QueryState, QueryStatus};
pub use stream::ResultStream;
pub(crate) use stream::{Rows, Run, start, timed_out};

/// A planned statement with its clocks and files fixed.
#[derive(Debug)]
pub struct PinnedQuery {
    /// Names the query in logs, errors and `system.queries`.
    pub id: String,
    /// The announced schema; every batch of [`ResultStream`] has exactly this one.
    pub schema: SchemaRef,
    /// False for a plan that would not give the same rows again (volatile functions, a `LIMIT`
    /// without an order, measured times): its ticket is good once.
    pub repeatable: bool,
    /// The system-time cut of some relation is younger than the settling time, or there is none.
    pub unsettled: bool,
    pub(crate) source: Source,
    pub(crate) entry: Arc<life::Entry>,
    /// Kept so that a session is not idle while a result of it is under way.
    pub(crate) _session: Arc<Session>,
    pub(crate) ran: AtomicBool,
}

/// Where the rows come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Already there: the answer of a statement with an effect, or of `SHOW featureflight.*`.
    Rows(RecordBatch),
    Plan(PinnedPlan),
}

#[derive(Debug)]
pub(crate) struct PinnedPlan {
    pub(crate) state: Arc<SessionState>,
    /// Optimized; its tables hold the frozen pin.
    pub(crate) logical: Arc<LogicalPlan>,
    /// The physical plan that took the listings. It runs once, since operators keep what they
    /// learned; later runs plan anew.
    pub(crate) first: Mutex<Option<Arc<dyn ExecutionPlan>>>,
}

impl PinnedQuery {
    /// # Errors
    /// `Aborted` for the second run of a query that does not repeat.
    pub(crate) fn claim(&self) -> Result<()> {
        if self.ran.swap(true, Ordering::AcqRel) && !self.repeatable {
            return Err(Error::new(
                Kind::Aborted,
                "this statement may give other rows when it is read again, so its ticket is good \
                 once: run it again",
            ));
        }
        Ok(())
    }
}

impl Drop for PinnedQuery {
    fn drop(&mut self) {
        life::forget(&self.entry);
    }
}
