//! `PollFlightInfo`: the statement is planned and begun behind the scenes, and each poll says how far
//! it is. It is ready when its first rows are, or when it has failed; the ticket then continues the
//! run that has begun. What writes is ready when it has written, and a poll whose answer was lost
//! gets the same answer again. A statement nobody asks about any more is given up.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo, Ticket};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::query::{PinnedQuery, QueryStatus, Watch};
use featureflight_engine::session::Session;
use featureflight_engine::{Caller, Engine};
use parking_lot::Mutex;
use prost::Message;
use rand::RngCore;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use super::bounded::Bounded;
use super::ticket::{Executed, statement_ticket};
use super::{Service, column_metadata, encode, statement_query};
use crate::signing::{Purpose, Signer};
use crate::task::AbortOnDrop;

/// A poll answers after this time even when nothing is ready.
const ANSWER_AFTER: Duration = Duration::from_secs(1);

const HANDLE_BYTES: usize = 16;
type Handle = [u8; HANDLE_BYTES];

/// The statements that are polled for.
#[derive(Debug)]
pub(super) struct Polls {
    known: Arc<Known>,
    /// A statement that is not asked about for this time is given up, or its answer forgotten.
    /// Rows that are ready wait as long to be fetched before they are let go and computed again.
    patience: Duration,
}

type Known = Mutex<Bounded<Handle, Arc<Polled>>>;

#[derive(Debug)]
struct Polled {
    session: Arc<Session>,
    descriptor: FlightDescriptor,
    watch: Watch,
    stage: watch::Receiver<Stage>,
    asked: Arc<Mutex<Instant>>,
    /// The answer, once it was given.
    answered: Mutex<Option<FlightInfo>>,
    _work: AbortOnDrop,
}

#[derive(Debug, Clone)]
enum Stage {
    /// It is planned, or writes.
    Begun,
    Running(Arc<PinnedQuery>),
    Ready(Arc<Executed>),
    Failed(Error),
}

impl Polls {
    /// At most `capacity` statements, each given up when nobody asks for it during `patience`.
    pub(super) fn new(capacity: usize, patience: Duration) -> Self {
        let known = Bounded::new(capacity, Duration::from_hours(24));
        Self {
            known: Arc::new(Mutex::new(known)),
            // A poll that waits for its answer is asking.
            patience: patience.max(ANSWER_AFTER * 2),
        }
    }

    fn find(&self, handle: &Handle) -> Result<Arc<Polled>> {
        self.known
            .lock()
            .get(handle)
            .map(Arc::clone)
            .ok_or_else(gone)
    }

    /// Gives up what a session polls for, which ends.
    pub(super) fn close(&self, session: &Arc<Session>) {
        let of_session = |polled: &Arc<Polled>| Arc::ptr_eq(&polled.session, session);
        let closed = self.known.lock().take(of_session);
        for polled in closed {
            polled.watch.cancel();
        }
    }

    /// The statement that is polled for, to cancel it.
    ///
    /// # Errors
    /// `InvalidArgument` for a descriptor that is not of a poll, `Aborted` for a forgotten one.
    pub(super) fn watch(&self, signer: &Signer, poll: &Ticket) -> Result<Watch> {
        let handle = open(signer, &statement_ticket(poll)?)?;
        Ok(self.find(&handle)?.watch.clone())
    }
}

/// Begins a statement and answers as [`again`] does.
pub(super) async fn begin(
    service: &Service,
    caller: &Caller,
    sql: String,
    parameters: Vec<Vec<ScalarValue>>,
    descriptor: FlightDescriptor,
) -> Result<PollInfo> {
    service.calls.may_begin()?;
    let (sender, stage) = watch::channel(Stage::Begun);
    let asked = Arc::new(Mutex::new(Instant::now()));
    let mut handle = [0; HANDLE_BYTES];
    rand::rng().fill_bytes(&mut handle);
    let mut background = caller.clone();
    // A poll's deadline is the poll's, not the query's.
    background.deadline = None;
    let engine = Arc::clone(&service.engine);
    let (watch, pinned) = engine.begin(background, &sql, parameters);
    let Polls { known, patience } = &service.polls;
    let work = compute(engine, pinned, sender, *patience);
    let forgotten = forgotten(Arc::clone(&asked), *patience);
    let work = until_forgotten(work, forgotten, Arc::downgrade(known), handle);
    let polled = Arc::new(Polled {
        session: Arc::clone(&caller.session),
        descriptor,
        watch,
        stage,
        asked,
        answered: Mutex::default(),
        _work: AbortOnDrop(tokio::spawn(work.in_current_span())),
    });
    known.lock().insert(handle, Arc::clone(&polled), 1);
    answer(service, caller, handle, &polled).await
}

/// # Errors
/// `Aborted` for a poll this server does not know, and why the query failed.
pub(super) async fn again(
    service: &Service,
    caller: &Caller,
    poll: &TicketStatementQuery,
) -> Result<PollInfo> {
    let handle = open(&service.signer, poll)?;
    let polled = service.polls.find(&handle)?;
    *polled.asked.lock() = Instant::now();
    answer(service, caller, handle, &polled).await
}

/// An answer that is complete at once.
pub(super) fn complete(info: FlightInfo) -> PollInfo {
    PollInfo {
        info: Some(info),
        flight_descriptor: None,
        progress: Some(1.0),
        expiration_time: None,
    }
}

async fn compute(
    engine: Arc<Engine>,
    pinned: impl Future<Output = Result<Arc<PinnedQuery>>>,
    stage: watch::Sender<Stage>,
    patience: Duration,
) {
    let outcome = async {
        let query = pinned.await?;
        stage.send_replace(Stage::Running(Arc::clone(&query)));
        let executed = Executed::new(Arc::clone(&query));
        if query.slices == 1 {
            let mut run = engine.run(&query).await?;
            run.begun().await?;
            executed.begun(run, patience);
        }
        Ok(executed)
    };
    stage.send_replace(match outcome.await {
        Ok(executed) => Stage::Ready(executed),
        Err(error) => Stage::Failed(error),
    });
}

/// Does the work, and keeps what came of it, for as long as somebody asks.
async fn until_forgotten(
    work: impl Future<Output = ()>,
    forgotten: impl Future<Output = ()>,
    known: Weak<Known>,
    handle: Handle,
) {
    let mut forgotten = std::pin::pin!(forgotten);
    tokio::select! {
        () = work => forgotten.await,
        () = &mut forgotten => {
            tracing::info!("a polled statement was given up: nobody asks for it");
        }
    }
    if let Some(known) = known.upgrade() {
        let polled = known.lock().remove(&handle);
        drop(polled);
    }
}

async fn forgotten(asked: Arc<Mutex<Instant>>, patience: Duration) {
    loop {
        let until = *asked.lock() + patience;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

async fn answer(
    service: &Service,
    caller: &Caller,
    handle: Handle,
    polled: &Polled,
) -> Result<PollInfo> {
    let mut stage = polled.stage.clone();
    let until = Instant::now() + ANSWER_AFTER;
    let until = caller
        .deadline
        .map_or(until, |deadline| until.min(deadline));
    let done = stage.wait_for(|stage| matches!(stage, Stage::Ready(_) | Stage::Failed(_)));
    let _ = tokio::time::timeout_at(until, done).await;
    let stage = polled.stage.borrow().clone();
    match stage {
        Stage::Ready(executed) => polled.answer(service, executed),
        Stage::Failed(error) => Err(error),
        Stage::Begun => Ok(under_way(service, handle, &polled.watch, None)?),
        Stage::Running(query) => Ok(under_way(service, handle, &polled.watch, Some(&query))?),
    }
}

impl Polled {
    /// The one answer, however often it is asked for.
    fn answer(&self, service: &Service, executed: Arc<Executed>) -> Result<PollInfo> {
        let mut answered = self.answered.lock();
        if let Some(info) = &*answered {
            return Ok(complete(info.clone()));
        }
        let descriptor = self.descriptor.clone();
        let info = statement_query::pinned(service, executed, descriptor)?;
        Ok(complete(answered.insert(info).clone()))
    }
}

/// The info has no endpoint yet; its descriptor is what cancels the query.
fn under_way(
    service: &Service,
    handle: Handle,
    watch: &Watch,
    query: Option<&Arc<PinnedQuery>>,
) -> Result<PollInfo> {
    let status = watch.status();
    let descriptor = FlightDescriptor::new_cmd(seal(&service.signer, handle));
    let info = match query {
        Some(query) => encode::info(
            &column_metadata::describe(&query.schema),
            Vec::new(),
            descriptor.clone(),
            statement_query::about(query).to_string(),
        )?,
        None => FlightInfo::new()
            .with_descriptor(descriptor.clone())
            .with_app_metadata(so_far(&status)),
    };
    Ok(PollInfo {
        info: Some(info),
        flight_descriptor: Some(descriptor),
        progress: status.progress,
        expiration_time: Some(encode::timestamp(
            SystemTime::now() + service.polls.patience,
        )),
    })
}

/// What there is to say of a statement before it is pinned: JSON, as in a result's info.
fn so_far(status: &QueryStatus) -> String {
    json!({
        "query_id": status.id,
        "state": status.state.name(),
        "rows": status.rows,
        "bytes": status.bytes,
    })
    .to_string()
}

fn seal(signer: &Signer, handle: Handle) -> Vec<u8> {
    let statement_handle = signer.seal(Purpose::Poll, &handle).into();
    TicketStatementQuery { statement_handle }
        .as_any()
        .encode_to_vec()
}

fn open(signer: &Signer, poll: &TicketStatementQuery) -> Result<Handle> {
    let payload = signer.open(Purpose::Poll, &poll.statement_handle);
    let handle = payload.ok().and_then(|payload| payload.try_into().ok());
    handle.ok_or_else(|| {
        Error::invalid("this is not the descriptor of a poll that this server has under way")
    })
}

fn gone() -> Error {
    Error::new(
        Kind::Aborted,
        "this statement is no longer polled for: nobody asked for too long, and it was given up if it \
         had not ended; run it again, a write under its idempotency key",
    )
}
