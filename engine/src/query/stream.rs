//! A running query: a task that computes batches a little ahead of their reader.
//!
//! The task owns the permit and the operators, so that all of it ends with the reader, at the
//! deadline even when the reader has stopped reading, and without harm when an operator panics. A
//! result ends with a mark of its own: a channel that just closes is an error, never a short answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use featureflight_catalog::{Error, Kind, Result};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;

use super::PinnedQuery;
use super::admission::Permit;
use super::life::{Running, Token};
use crate::boundary::Outlet;
use crate::executor::Executor;
use crate::memory;

/// Batches computed ahead of the reader.
const AHEAD: usize = 2;

/// Batches at the boundary's types. Dropping it cancels the work.
#[derive(Debug)]
pub struct ResultStream {
    pub schema: SchemaRef,
    /// The operators at work, for their metrics; none where the rows were there already.
    pub plan: Option<Arc<dyn ExecutionPlan>>,
    messages: mpsc::Receiver<Message>,
    finished: bool,
}

#[derive(Debug)]
enum Message {
    Batch(RecordBatch),
    Failed(Error),
    End,
}

impl Stream for ResultStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let message = ready!(self.messages.poll_recv(cx));
        Poll::Ready(match message {
            Some(Message::Batch(batch)) => Some(Ok(batch)),
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
    pub(crate) deadline: Option<Instant>,
}

pub(crate) enum Rows {
    Ready(RecordBatch),
    Plan(Arc<dyn ExecutionPlan>, Arc<TaskContext>),
}

/// Starts the task of a run.
pub(crate) fn start(run: Run, executor: &Executor) -> ResultStream {
    let (sender, messages) = mpsc::channel(AHEAD);
    let schema = Arc::clone(&run.query.schema);
    let plan = match &run.rows {
        Rows::Ready(_) => None,
        Rows::Plan(plan, _) => Some(Arc::clone(plan)),
    };
    // The line at the query's end belongs to the call that asked for it.
    executor.spawn(drive(run, sender).in_current_span());
    ResultStream {
        schema,
        plan,
        messages,
        finished: false,
    }
}

async fn drive(run: Run, sender: mpsc::Sender<Message>) {
    let Run {
        query,
        rows,
        token,
        permit,
        deadline,
    } = run;
    let outlet = Outlet::new(Arc::clone(&query.schema));
    let work = std::panic::AssertUnwindSafe(pump(rows, &outlet, &token, &sender, deadline));
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
    rows: Rows,
    outlet: &Outlet,
    token: &Token<Running>,
    sender: &mpsc::Sender<Message>,
    deadline: Option<Instant>,
) -> Result<Ended> {
    let mut batches = match rows {
        Rows::Ready(batch) => futures::stream::once(async { Ok(batch) }).boxed(),
        Rows::Plan(plan, context) => {
            let batches = execute_stream(plan, Arc::clone(&context));
            memory::guarded(batches.map_err(crate::error::classify)?, &context).boxed()
        }
    };
    let expiry = expiry(deadline);
    tokio::pin!(expiry);
    loop {
        let next = tokio::select! {
            biased;
            () = sender.closed() => return Ok(Ended::Unread),
            error = &mut expiry => return Err(error),
            next = batches.next() => next,
        };
        let Some(batch) = next else {
            return Ok(Ended::Complete);
        };
        for batch in outlet.send(&batch.map_err(crate::error::classify)?)? {
            let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
            let sent = tokio::select! {
                biased;
                error = &mut expiry => return Err(error),
                sent = sender.send(Message::Batch(batch)) => sent,
            };
            if sent.is_err() {
                return Ok(Ended::Unread);
            }
            token.sent(rows, bytes);
        }
    }
}

/// Waits for the deadline; for ever if there is none.
async fn expiry(deadline: Option<Instant>) -> Error {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
    timed_out()
}

pub(crate) fn timed_out() -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        "the query took longer than the server allows: select less, or ask the operator for a \
         longer query timeout",
    )
}
