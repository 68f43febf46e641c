//! The life of a query: received → planned and pinned → permitted → streaming → succeeded, failed
//! or (dropped) cancelled; one log line at its end.

pub(crate) mod admission;
pub(crate) mod figures;
pub(crate) mod life;
mod log;
mod progress;
mod state;
mod stream;
mod watch;

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
use crate::settings::Settings;
use crate::writes::Written;

pub use figures::{Ended, QueryFigures, Took};
pub use log::QueryLog;
pub use state::{QueryState, QueryStatus};
pub(crate) use stream::{Limit, Rows, Run, past_deadline, start, stopped};
pub use stream::{ResultStream, RunStats};
pub use watch::Watch;

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
    /// Files that were pinned, and how long it took.
    pub files: u64,
    pub planned_ms: u64,
    /// How many slices the result can be read in, each by a run of its own: together they are the
    /// whole, as a multiset. One unless the session asks for more.
    pub slices: usize,
    /// Why there is one slice where more were asked for.
    pub whole_because: Option<&'static str>,
    /// What it wrote when it was pinned.
    pub written: Option<Written>,
    /// Of its text and parameters.
    pub(crate) input_bytes: usize,
    pub(crate) settings: Settings,
    pub(crate) source: Source,
    pub(crate) entry: Arc<life::Entry>,
    /// Kept so that a session is not idle while a result of it is under way.
    pub(crate) session: Arc<Session>,
    pub(crate) ran: Vec<AtomicBool>,
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

/// What a plan holds for each byte of its statement, most of all for lists of literals, for each
/// file of its listings, and anyway: roundly, from measurements.
const BYTES_PER_INPUT_BYTE: usize = 16;
const BYTES_PER_FILE: usize = 320;
const BYTES_ANYWAY: usize = 64 << 10;

impl PinnedQuery {
    /// About how much memory it holds until it is forgotten, in bytes.
    pub fn held_bytes(&self) -> usize {
        let files = usize::try_from(self.files).unwrap_or(usize::MAX);
        BYTES_ANYWAY
            .saturating_add(self.input_bytes.saturating_mul(BYTES_PER_INPUT_BYTE))
            .saturating_add(files.saturating_mul(BYTES_PER_FILE))
    }

    /// The one row of a statement that had its effect when it was pinned, or that shows a setting.
    pub fn answer(&self) -> Option<&RecordBatch> {
        let types = |schema: &SchemaRef| -> Vec<_> {
            let fields = schema.fields().iter();
            fields.map(|field| field.data_type().clone()).collect()
        };
        match &self.source {
            // Rows that leave in other types are made when they are fetched.
            Source::Rows(row) => {
                (row.num_rows() == 1 && types(&row.schema()) == types(&self.schema)).then_some(row)
            }
            Source::Plan(_) => None,
        }
    }

    /// How far it is, and the way to stop it.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.entry))
    }

    /// # Errors
    /// `Aborted` for the second run of a query that does not repeat, `InvalidArgument` for a slice
    /// there is not.
    pub(crate) fn claim(&self, slice: usize) -> Result<()> {
        let Some(ran) = self.ran.get(slice) else {
            return Err(Error::invalid(format!("the result has no slice {slice}")));
        };
        if ran.swap(true, Ordering::AcqRel) && !self.repeatable {
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
