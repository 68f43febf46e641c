//! A running query: a task that computes batches a little ahead of their reader.
//!
//! The task owns the permit and the operators, so that all of it ends with the reader, at the
//! deadline even when the reader has stopped reading, and without harm when an operator panics. A
//! result ends with a mark of its own: a channel that just closes is an error, never a short answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result as PlanResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use featureflight_catalog::{Error, Kind, Result, value_bytes};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::PinnedQuery;
use super::admission::Permit;
use super::life::{Entry, Running, Token};
use crate::boundary::Outlet;
use crate::executor::Executor;
use crate::interruption::Over;
use crate::memory;
use crate::settings::{Setting, Settings};

/// Hand-overs computed ahead of the reader.
const AHEAD: usize = 2;

/// Batches that are there at once go to the reader together, up to this size and unless that takes
/// longer. Query and reader run on threads of different pools, and waking one costs more than a
/// small batch does.
const HAND_OVER_BYTES: usize = 1 << 20;
const HAND_OVER_AFTER: Duration = Duration::from_millis(1);

/// Batches at the boundary's types. Dropping it cancels the work.
#[derive(Debug)]
pub struct ResultStream {
    pub schema: SchemaRef,
    /// The operators at work, for their metrics; none where the rows were there already.
    pub plan: Option<Arc<dyn ExecutionPlan>>,
    pub stats: Arc<RunStats>,
    messages: mpsc::Receiver<Message>,
    /// Read already, by [`ResultStream::begun`].
    ahead: Option<Message>,
    /// What is left of the last hand-over.
    batches: std::vec::IntoIter<Batch>,
    finished: bool,
}

impl ResultStream {
    /// Waits until the first rows are there, or the end of a result without any.
    ///
    /// # Errors
    /// Those of the query.
    pub async fn begun(&mut self) -> Result<()> {
        if self.ahead.is_none() {
            self.ahead = self.messages.recv().await;
        }
        match &self.ahead {
            Some(Message::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// What one run has given its reader so far.
#[derive(Debug)]
pub struct RunStats {
    rows: AtomicU64,
    bytes: AtomicU64,
    pub queued_ms: u64,
    began: Instant,
}

impl RunStats {
    fn new(queued_ms: u64) -> Self {
        Self {
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            queued_ms,
            began: Instant::now(),
        }
    }

    fn count(&self, batch: &Batch) {
        self.rows
            .fetch_add(batch.rows.num_rows() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes as u64, Ordering::Relaxed);
    }

    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// In memory, before encoding.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Since the run was permitted.
    pub fn executed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Rows at the boundary's types.
#[derive(Debug)]
struct Batch {
    rows: RecordBatch,
    bytes: usize,
}

impl From<RecordBatch> for Batch {
    fn from(rows: RecordBatch) -> Self {
        let bytes = value_bytes(&rows);
        Self { rows, bytes }
    }
}

#[derive(Debug)]
enum Message {
    Batches(Vec<Batch>),
    Failed(Error),
    End,
}

impl Stream for ResultStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        if let Some(batch) = self.batches.next() {
            self.stats.count(&batch);
            return Poll::Ready(Some(Ok(batch.rows)));
        }
        let message = match self.ahead.take() {
            Some(message) => Some(message),
            None => ready!(self.messages.poll_recv(cx)),
        };
        Poll::Ready(match message {
            Some(Message::Batches(batches)) => {
                self.batches = batches.into_iter();
                return self.poll_next(cx);
            }
            Some(Message::End) => {
                self.finished = true;
                None
            }
            Some(Message::Failed(error)) => {
                self.finished = true;
                Some(Err(error))
            }
            None => {
                self.finished = true;
                Some(Err(Error::new(
                    Kind::Cancelled,
                    "the server stopped before the result was complete: run the statement again",
                )))
            }
        })
    }
}

/// What a run is made of.
pub(crate) struct Run {
    pub(crate) query: Arc<PinnedQuery>,
    pub(crate) rows: Rows,
    pub(crate) token: Token<Running>,
    pub(crate) permit: Permit,
    pub(crate) limit: Limit,
    pub(crate) queued_ms: u64,
}

/// When a run ends although it is not done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    /// The server's or the session's, and the client's.
    pub(crate) timeout: Option<Instant>,
    pub(crate) deadline: Option<Instant>,
}

pub(crate) enum Rows {
    Ready(RecordBatch),
    Plan(Arc<dyn ExecutionPlan>, Arc<TaskContext>),
    /// The partitions of a plan that fall to one slice, one after the other.
    Slice {
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        slice: usize,
        of: usize,
    },
}

impl Rows {
    fn context(&self) -> Option<&Arc<TaskContext>> {
        match self {
            Self::Ready(_) => None,
            Self::Plan(_, context) | Self::Slice { context, .. } => Some(context),
        }
    }

    pub(crate) fn plan(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        match self {
            Self::Ready(_) => None,
            Self::Plan(plan, _) | Self::Slice { plan, .. } => Some(plan),
        }
    }
}

/// Starts the task of a run.
pub(crate) fn start(run: Run, executor: &Executor) -> ResultStream {
    let (sender, messages) = mpsc::channel(AHEAD);
    let schema = Arc::clone(&run.query.schema);
    let plan = run.rows.plan().cloned();
    let stats = Arc::new(RunStats::new(run.queued_ms));
    // The line at the query's end belongs to the call that asked for it.
    executor.spawn(drive(run, sender).in_current_span());
    ResultStream {
        schema,
        plan,
        stats,
        messages,
        ahead: None,
        batches: Vec::new().into_iter(),
        finished: false,
    }
}

async fn drive(run: Run, sender: mpsc::Sender<Message>) {
    let Run {
        query,
        rows,
        token,
        permit,
        limit,
        queued_ms: _,
    } = run;
    let work = std::panic::AssertUnwindSafe(pump(&query, rows, &token, &sender, limit));
    let outcome = work
        .catch_unwind()
        .await
        .unwrap_or_else(|panic| Err(crate::planning::panicked(panic.as_ref())));
    drop(permit);
    let last = match outcome {
        Ok(Ended::Complete) => {
            token.succeed();
            Message::End
        }
        Ok(Ended::Unread) => return,
        Err(error) => Message::Failed(token.fail(error)),
    };
    // A reader that is gone needs no last word.
    let _ = sender.send(last).await;
}

enum Ended {
    Complete,
    /// The reader went away.
    Unread,
}

async fn pump(
    query: &PinnedQuery,
    rows: Rows,
    token: &Token<Running>,
    sender: &mpsc::Sender<Message>,
    limit: Limit,
) -> Result<Ended> {
    if let Some(error) = stopped(token.entry(), limit).now_or_never() {
        return Err(error);
    }
    let (over, mut early) = ends_early(&rows, token, sender.clone(), limit);
    let batches = match rows {
        Rows::Ready(batch) => futures::stream::once(async { Ok(batch) }).boxed(),
        Rows::Plan(plan, context) => {
            let batches = execute_stream(plan, context);
            batches.map_err(crate::error::classify)?
        }
        Rows::Slice {
            plan,
            context,
            slice,
            of,
        } => {
            let all = plan.output_partitioning().partition_count();
            futures::stream::iter((slice..all).step_by(of))
                .map(move |partition| plan.execute(partition, Arc::clone(&context)))
                .try_flatten()
                .boxed()
        }
    };
    let mut batches = hand_overs(batches, Outlet::new(Arc::clone(&query.schema)));
    loop {
        let next = tokio::select! {
            biased;
            ended = early.outcome() => return ended,
            next = batches.next() => next,
        };
        let ready = match next {
            // What an operator says that was interrupted is not why.
            Some(Err(_)) if over.0.is_cancelled() => return early.outcome().await,
            Some(ready) => ready?,
            None => return Ok(Ended::Complete),
        };
        for batch in &ready {
            token.sent(batch.rows.num_rows(), batch.bytes);
            within_limits(&query.settings, token)?;
        }
        let sent = tokio::select! {
            biased;
            ended = early.outcome() => return ended,
            sent = sender.send(Message::Batches(ready)) => sent,
        };
        if sent.is_err() {
            return Ok(Ended::Unread);
        }
    }
}

/// What ends a run before its time, and what its operators see of that.
fn ends_early(
    rows: &Rows,
    token: &Token<Running>,
    sender: mpsc::Sender<Message>,
    limit: Limit,
) -> (Over, Early) {
    let context = rows.context().cloned();
    let over = context.as_deref().map(Over::of).unwrap_or_default();
    let (entry, ended) = (Arc::clone(token.entry()), over.clone());
    let (tell, outcome) = oneshot::channel();
    let given_up = async move {
        match context {
            Some(context) => memory::given_up(&context).await,
            None => std::future::pending().await,
        }
    };
    let watch = async move {
        let outcome = tokio::select! {
            biased;
            () = sender.closed() => Ok(Ended::Unread),
            error = stopped(&entry, limit) => Err(error),
            error = given_up => Err(error),
        };
        // A run that is done needs no reason.
        let _ = tell.send(outcome);
        ended.0.cancel();
    };
    let early = Early {
        outcome,
        _watch: SpawnedTask::spawn(watch),
    };
    (over, early)
}

/// Looks for what ends a run before its time in a task of its own: that of the run may compute for
/// long without an await.
struct Early {
    outcome: oneshot::Receiver<Result<Ended>>,
    _watch: SpawnedTask<()>,
}

impl Early {
    async fn outcome(&mut self) -> Result<Ended> {
        let outcome = (&mut self.outcome).await;
        outcome.unwrap_or_else(|gone| Err(crate::error::internal(gone)))
    }
}

/// What `batches` become at the outlet, those together that are ready together. An error is the
/// last of it, without what was ready before it.
fn hand_overs(
    batches: impl Stream<Item = PlanResult<RecordBatch>> + Unpin,
    outlet: Outlet,
) -> impl Stream<Item = Result<Vec<Batch>>> + Unpin {
    let mut batches = batches.fuse();
    futures::stream::poll_fn(move |cx| {
        let (mut ready, mut bytes) = (Vec::new(), 0);
        let began = Instant::now();
        while bytes < HAND_OVER_BYTES && (ready.is_empty() || began.elapsed() < HAND_OVER_AFTER) {
            match batches.poll_next_unpin(cx) {
                Poll::Ready(Some(batch)) => {
                    for rows in outlet.send(&batch.map_err(crate::error::classify)?)? {
                        let batch = Batch::from(rows);
                        bytes += batch.bytes;
                        ready.push(batch);
                    }
                }
                Poll::Ready(None) | Poll::Pending if !ready.is_empty() => break,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Some(Ok(ready)))
    })
}

/// Waits for what ends a query before its time: its timeout, the client's deadline, a cancel.
pub(crate) async fn stopped(entry: &Entry, limit: Limit) -> Error {
    async fn at(moment: Option<Instant>) {
        match moment {
            Some(moment) => tokio::time::sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }
    tokio::select! {
        error = entry.cancelled() => error,
        () = at(limit.deadline) => past_deadline(),
        () = at(limit.timeout) => timed_out(),
    }
}

/// A result that is cut short would look complete, so more than was asked for is an error.
fn within_limits(settings: &Settings, token: &Token<Running>) -> Result<()> {
    let (rows, bytes) = token.entry().sent();
    let beyond = |what: &str, limit: u64, setting: Setting| {
        Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "the result has more than {limit} {what}, the limit that {setting} sets: select \
                 less, or SET {setting} higher"
            ),
        ))
    };
    match (settings.max_rows, settings.max_bytes) {
        (Some(limit), _) if rows > limit => beyond("rows", limit, Setting::MaxRows),
        (_, Some(limit)) if bytes > limit => beyond("bytes", limit, Setting::MaxBytes),
        _ => Ok(()),
    }
}

pub(crate) fn past_deadline() -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        "the call's deadline has passed before its answer was complete: allow the driver a longer \
         timeout, or select less",
    )
}

pub(crate) fn timed_out() -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        "the query took longer than it may: select less, SET featureflight.query_timeout higher, \
         or ask the operator for a longer engine.query_timeout",
    )
}
