//! The life of a query as a token that only moves forward: received → planned, and for each run of
//! it permitted → streaming → finished. A token that is dropped on the way is a cancelled query.
//! Every end, planned or run, writes one log line.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Instant as Moment, SystemTime};

use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::{Error, Kind};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::figures::Purpose;
use super::log::QueryLog;
use super::progress;
use super::state::{QueryState, QueryStatus};

/// Bytes of a statement that logs and `system.queries` show.
const SHOWN_STATEMENT: usize = 2_000;

/// One query, shared by its token, its pinned plan and the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    session: String,
    statement: String,
    started: SystemTime,
    rows: AtomicU64,
    bytes: AtomicU64,
    files: AtomicU64,
    times: Mutex<Times>,
    runs: Mutex<Runs>,
    cancelled: CancellationToken,
    log: Arc<QueryLog>,
}

/// The runs of a query: several at once where its slices are read in parallel.
#[derive(Debug, Default)]
struct Runs {
    active: usize,
    /// Slices run since the counters began at zero; one that runs again begins anew.
    slices: BTreeSet<usize>,
    /// How many there are to run.
    of: usize,
    plans: Vec<Weak<dyn ExecutionPlan>>,
}

#[derive(Debug, Clone)]
struct Times {
    purpose: Purpose,
    state: QueryState,
    since: Moment,
    planning_ms: Option<u64>,
    queued_ms: Option<u64>,
    running_ms: Option<u64>,
    error: Option<String>,
    /// What it writes is, or is becoming, durable.
    commits: bool,
}

impl Entry {
    /// A statement that came in just now.
    pub(super) fn new(session: &str, sql: &str, log: &Arc<QueryLog>) -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::new_v4().to_string(),
            session: session.to_owned(),
            statement: shortened(sql),
            started: SystemTime::now(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            times: Mutex::new(Times {
                purpose: Purpose::default(),
                state: QueryState::Planning,
                since: Moment::now(),
                planning_ms: None,
                queued_ms: None,
                running_ms: None,
                error: None,
                commits: false,
            }),
            runs: Mutex::default(),
            cancelled: CancellationToken::new(),
            log: Arc::clone(log),
        })
    }

    /// It receives the rows it writes.
    pub(crate) fn writes(&self) {
        step(self, QueryState::Running);
    }

    /// Rows it writes came in.
    pub(crate) fn received(&self, rows: usize, bytes: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// All rows it writes came in, and it makes them durable: nothing cancels it any more.
    ///
    /// # Errors
    /// `Cancelled` where that came first.
    pub(crate) fn commits(&self) -> Result<(), Error> {
        let mut times = self.times.lock();
        if self.cancelled.is_cancelled() {
            return Err(cancelled());
        }
        times.commits = true;
        Ok(())
    }

    /// What its progress is told by, beside its runs.
    pub(crate) fn reads(&self, plan: Option<&Arc<dyn ExecutionPlan>>) {
        let plan = plan.map(Arc::downgrade);
        self.runs.lock().plans.extend(plan);
    }

    /// Says what the statement turned out to be.
    pub(crate) fn is_for(&self, purpose: Purpose) {
        self.times.lock().purpose = purpose;
    }

    fn purpose(&self) -> Purpose {
        self.times.lock().purpose
    }

    pub(super) fn session(&self) -> &str {
        &self.session
    }

    pub(crate) fn status(&self) -> QueryStatus {
        let times = self.times.lock().clone();
        let so_far = |done: Option<u64>, current: QueryState| {
            done.or_else(|| (times.state == current).then(|| millis(times.since)))
        };
        QueryStatus {
            id: self.id.clone(),
            session: self.session.clone(),
            statement: self.statement.clone(),
            state: times.state,
            started: self.started,
            planning_ms: so_far(times.planning_ms, QueryState::Planning),
            queued_ms: so_far(times.queued_ms, QueryState::Queued),
            running_ms: so_far(times.running_ms, QueryState::Running),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            progress: self.progress(times.state),
            error: times.error.clone(),
        }
    }

    fn progress(&self, state: QueryState) -> Option<f64> {
        match state {
            QueryState::Succeeded => Some(1.0),
            QueryState::Running => progress::of(&self.plans()),
            _ => None,
        }
    }

    fn plans(&self) -> Vec<Arc<dyn ExecutionPlan>> {
        let runs = self.runs.lock();
        runs.plans.iter().filter_map(Weak::upgrade).collect()
    }

    /// Rows and bytes of all its runs so far.
    pub(crate) fn sent(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.rows), of(&self.bytes))
    }

    /// Its planning and its runs end when they see it; one that waits to be fetched ends here. False
    /// when nothing was left to stop: all of it is out, or what it writes stays written.
    pub(crate) fn cancel(&self) -> bool {
        let state = {
            let times = self.times.lock();
            if times.commits || !times.state.is_under_way() {
                return false;
            }
            self.cancelled.cancel();
            times.state
        };
        if state == QueryState::Planned {
            end(self, QueryState::Cancelled, Some(&cancelled()));
        }
        true
    }

    /// Resolves when somebody cancels the query.
    pub(crate) async fn cancelled(&self) -> Error {
        self.cancelled.cancelled().await;
        cancelled()
    }

    fn log_line(&self) {
        let QueryStatus {
            id,
            session,
            statement,
            state,
            started: _,
            planning_ms,
            queued_ms,
            running_ms,
            rows,
            bytes,
            files,
            progress: _,
            error,
        } = self.status();
        tracing::info!(
            target: "featureflight::query",
            query = id,
            session,
            statement,
            outcome = state.name(),
            error,
            rows,
            bytes,
            files,
            planning_ms,
            queued_ms,
            running_ms,
            "query"
        );
    }
}

#[derive(Debug)]
pub(crate) struct Received;
#[derive(Debug)]
pub(crate) struct Queued;
#[derive(Debug)]
pub(crate) struct Running;

/// See the module.
pub(crate) struct Token<S> {
    entry: Arc<Entry>,
    /// False once the query has gone on or ended: dropping the token then means nothing.
    open: bool,
    state: PhantomData<S>,
}

impl<S> Token<S> {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            open: true,
            state: PhantomData,
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.entry.id
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The query failed. What a bug says goes to the log, the user gets the query's id.
    pub(crate) fn fail(mut self, error: Error) -> Error {
        self.open = false;
        let error = shown(error, &self.entry.id);
        let state = match error.kind {
            Kind::Cancelled => QueryState::Cancelled,
            _ => QueryState::Failed,
        };
        end(&self.entry, state, Some(&error));
        error
    }

    fn advance<T>(mut self, to: QueryState) -> Token<T> {
        self.open = false;
        step(&self.entry, to);
        Token::new(Arc::clone(&self.entry))
    }
}

impl Token<Received> {
    /// What `work` comes to, or an error once somebody cancels the query.
    pub(crate) fn until_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        // Boxed: else every future it is handed through is as large as all those inside it.
        let work = Box::pin(work);
        async {
            tokio::select! {
                biased;
                done = work => done,
                error = self.entry.cancelled() => Err(error),
            }
        }
    }

    /// As [`Self::until_cancelled`], for work that is all there is to the query.
    pub(crate) fn complete<T>(
        mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        let work = Box::pin(work);
        async move {
            match self.until_cancelled(work).await {
                Ok(done) => {
                    self.open = false;
                    end(&self.entry, QueryState::Succeeded, None);
                    Ok(done)
                }
                Err(error) => Err(self.fail(error)),
            }
        }
    }

    /// Planned and pinned; the entry lives on in the pinned query.
    pub(crate) fn planned(mut self, files: usize, slices: usize) -> Arc<Entry> {
        let entry = Arc::clone(&self.entry);
        self.open = false;
        entry.runs.lock().of = slices;
        entry.files.store(files as u64, Ordering::Relaxed);
        step(&entry, QueryState::Planned);
        entry
    }
}

impl Token<Queued> {
    /// A run of one slice of a planned query begins, or of the whole: it waits for its permit.
    pub(crate) fn begin(entry: &Arc<Entry>, slice: Option<usize>) -> Self {
        entry.log.revive(entry);
        let mut runs = entry.runs.lock();
        let slices = slice.map_or(0..runs.of.max(1), |slice| slice..slice + 1);
        let read = slices.clone().any(|slice| runs.slices.contains(&slice));
        let again = runs.slices.is_empty() || read;
        if runs.active == 0 {
            let mut times = entry.times.lock();
            times.error = None;
            times.state = QueryState::Queued;
            times.since = Moment::now();
            if again {
                times.queued_ms = None;
                times.running_ms = None;
                runs.slices.clear();
                runs.plans.clear();
                entry.rows.store(0, Ordering::Relaxed);
                entry.bytes.store(0, Ordering::Relaxed);
            }
        }
        runs.slices.extend(slices);
        runs.active += 1;
        Self::new(Arc::clone(entry))
    }

    pub(crate) fn permitted(self, plan: Option<&Arc<dyn ExecutionPlan>>) -> Token<Running> {
        self.entry.reads(plan);
        self.advance(QueryState::Running)
    }
}

impl Token<Running> {
    pub(crate) fn sent(&self, rows: usize, bytes: usize) {
        self.entry.received(rows, bytes);
        let figures = &self.entry.log.figures;
        figures.sent(self.entry.purpose(), rows, bytes);
    }

    /// A run came to its end, and with the last slice the query.
    pub(crate) fn succeed(mut self) {
        self.open = false;
        let left = {
            let mut runs = self.entry.runs.lock();
            let left = runs.active == 1 && runs.slices.len() < runs.of;
            if left {
                runs.active = 0;
            }
            left
        };
        if left && self.entry.times.lock().error.is_none() {
            step(&self.entry, QueryState::Planned);
        } else if !left {
            end(&self.entry, QueryState::Succeeded, None);
        }
    }
}

impl<S> Drop for Token<S> {
    fn drop(&mut self) {
        if self.open {
            end(&self.entry, QueryState::Cancelled, None);
        }
    }
}

impl<S> fmt::Debug for Token<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.id()).finish()
    }
}

/// Nobody will run the query any more: its ticket is gone. What it did when it was pinned is done.
pub(crate) fn forget(entry: &Entry) {
    let Times { state, purpose, .. } = entry.times.lock().clone();
    match purpose {
        _ if state != QueryState::Planned => {}
        Purpose::Write | Purpose::Command => end(entry, QueryState::Succeeded, None),
        Purpose::Unknown | Purpose::Query | Purpose::Part => {
            entry.log.figures.ended(purpose, &entry.status());
            entry.log.retire(entry);
        }
    }
}

fn step(entry: &Entry, to: QueryState) {
    let mut times = entry.times.lock();
    let spent = Some(millis(times.since));
    match times.state {
        QueryState::Planning => times.planning_ms = spent,
        QueryState::Queued => times.queued_ms = add(times.queued_ms, spent),
        QueryState::Running => times.running_ms = add(times.running_ms, spent),
        QueryState::Planned
        | QueryState::Succeeded
        | QueryState::Failed
        | QueryState::Cancelled => {}
    }
    times.state = to;
    times.since = Moment::now();
}

/// Of slices read one after the other.
fn add(before: Option<u64>, spent: Option<u64>) -> Option<u64> {
    Some(before.unwrap_or(0) + spent.unwrap_or(0))
}

fn end(entry: &Entry, state: QueryState, error: Option<&Error>) {
    {
        let mut runs = entry.runs.lock();
        runs.active = runs.active.saturating_sub(1);
        // Other slices still run, and the query with them; or one has failed before.
        if error.is_none() && (runs.active > 0 || entry.times.lock().error.is_some()) {
            return;
        }
    }
    step(entry, state);
    entry.times.lock().error = error.map(|error| error.message.clone());
    entry.log.figures.ended(entry.purpose(), &entry.status());
    entry.log.retire(entry);
    entry.log_line();
}

fn cancelled() -> Error {
    Error::new(
        Kind::Cancelled,
        "the query was cancelled by its owner: run the statement again",
    )
}

/// The error as the user sees it; the details of a bug are logged here, once.
fn shown(error: Error, id: &str) -> Error {
    if error.kind != Kind::Internal {
        return error;
    }
    let details = details(&error);
    tracing::error!(target: "featureflight::query", query = id, details, "internal error");
    Error::internal(format!(
        "internal error: tell the operator the request id {id}"
    ))
}

fn details(error: &Error) -> String {
    let mut text = error.message.clone();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn millis(since: Moment) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// `sql` on one line, cut between characters.
fn shortened(sql: &str) -> String {
    let end = sql.floor_char_boundary(SHOWN_STATEMENT);
    let mut text: String = sql[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if end < sql.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_between_characters() {
        let sql = "é".repeat(SHOWN_STATEMENT);
        let text = shortened(&sql);
        assert!(text.ends_with('…'));
        assert_eq!(shortened("select 1\nfrom t"), "select 1 from t");
        let odd = format!("x{sql}");
        assert!(shortened(&odd).len() <= SHOWN_STATEMENT + '…'.len_utf8());
    }

    #[test]
    fn a_dropped_token_is_a_cancelled_query() {
        let log = Arc::new(QueryLog::default());
        drop(log.receive("session-1", "select 1"));
        let statuses = log.statuses();
        assert_eq!(statuses.len(), 1);
        assert_eq!(statuses[0].state, QueryState::Cancelled);
    }

    #[test]
    fn what_becomes_durable_is_not_cancelled_and_what_is_cancelled_does_not() {
        let log = Arc::new(QueryLog::default());
        let first = log.receive("session-1", "insert");
        assert!(first.entry().cancel());
        assert!(first.entry().commits().is_err());
        let second = log.receive("session-1", "insert");
        assert!(second.entry().commits().is_ok());
        assert!(!second.entry().cancel());
        let entry = second.planned(0, 1);
        assert!(!entry.cancel());
        assert_eq!(entry.status().state, QueryState::Planned);
    }

    #[test]
    fn a_bug_gives_the_user_the_request_id_and_nothing_else() {
        let log = Arc::new(QueryLog::default());
        let token = log.receive("session-1", "select 1");
        let id = token.id().to_owned();
        let error = token.fail(Error::internal("index 3 out of bounds of the secret"));
        assert!(error.message.contains(&id));
        assert!(!error.message.contains("secret"));
        assert!(error.source.is_none());
    }

    #[test]
    fn each_run_counts_its_own_rows() {
        let log = Arc::new(QueryLog::default());
        let entry = log.receive("session-1", "select 1").planned(2, 1);
        for _ in 0..2 {
            let running = Token::begin(&entry, Some(0)).permitted(None);
            running.sent(5, 40);
            running.succeed();
            let statuses = log.statuses();
            assert_eq!(statuses.len(), 1);
            assert_eq!((statuses[0].rows, statuses[0].files), (5, 2));
            assert_eq!(statuses[0].state, QueryState::Succeeded);
        }
    }
}
