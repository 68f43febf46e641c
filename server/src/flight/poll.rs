//! `PollFlightInfo`: the query is planned and begun behind the scenes, and each poll says how far it
//! is. It is ready when its first rows are, or when it has failed; the ticket then continues the run
//! that has begun. A query nobody asks about any more is given up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo, PollInfo, Ticket};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::query::PinnedQuery;
use featureflight_engine::{Caller, Engine};
use parking_lot::Mutex;
use prost::Message;
use rand::RngCore;
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
/// A query that is not asked about for this time is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// Rows that are ready wait this long to be fetched before they are let go and computed again.
const KEEP_BEGUN: Duration = Duration::from_secs(60);

const HANDLE_BYTES: usize = 16;
type Handle = [u8; HANDLE_BYTES];

/// The queries that are polled for.
#[derive(Debug)]
pub(super) struct Polls(Mutex<Bounded<Handle, Arc<Polled>>>);

#[derive(Debug)]
struct Polled {
    descriptor: FlightDescriptor,
    stage: watch::Receiver<Stage>,
    asked: Arc<Mutex<Instant>>,
    _work: AbortOnDrop,
}

#[derive(Debug, Clone)]
enum Stage {
    Planning,
    Running(Arc<PinnedQuery>),
    Ready(Arc<Executed>),
    Failed(Error),
}

impl Polls {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Mutex::new(Bounded::new(capacity, Duration::from_hours(24))))
    }

    fn find(&self, handle: &Handle) -> Result<Arc<Polled>> {
        self.0.lock().get(handle).map(Arc::clone).ok_or_else(gone)
    }

    /// Gives a query up; what there is of it to cancel.
    ///
    /// # Errors
    /// `InvalidArgument` for a descriptor that is not of a poll, `Aborted` for a forgotten one.
    pub(super) fn cancel(
        &self,
        signer: &Signer,
        poll: &Ticket,
    ) -> Result<Option<Arc<PinnedQuery>>> {
        let handle = open(signer, &statement_ticket(poll)?)?;
        let polled = self.0.lock().remove(&handle).ok_or_else(gone)?;
        let stage = polled.stage.borrow().clone();
        Ok(match stage {
            Stage::Planning | Stage::Failed(_) => None,
            Stage::Running(query) => Some(query),
            Stage::Ready(executed) => Some(Arc::clone(&executed.query)),
        })
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
    let (sender, stage) = watch::channel(Stage::Planning);
    let asked = Arc::new(Mutex::new(Instant::now()));
    let mut background = caller.clone();
    // A poll's deadline is the poll's, not the query's.
    background.deadline = None;
    let engine = Arc::clone(&service.engine);
    let work = compute(engine, background, sql, parameters, sender);
    let last = Arc::clone(&asked);
    let work = async move {
        tokio::select! {
            () = work => {}
            () = forgotten(&last) => tracing::info!("a polled query was given up: nobody asks for it"),
        }
    };
    let polled = Polled {
        descriptor,
        stage,
        asked,
        _work: AbortOnDrop(tokio::spawn(work.in_current_span())),
    };
    let mut handle = [0; HANDLE_BYTES];
    rand::rng().fill_bytes(&mut handle);
    let polled = Arc::new(polled);
    service
        .polls
        .0
        .lock()
        .insert(handle, Arc::clone(&polled), 1);
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
    caller: Caller,
    sql: String,
    parameters: Vec<Vec<ScalarValue>>,
    stage: watch::Sender<Stage>,
) {
    let outcome = async {
        let query = engine.pin(&caller, &sql, parameters).await?;
        stage.send_replace(Stage::Running(Arc::clone(&query)));
        let executed = Executed::new(Arc::clone(&query));
        if query.slices == 1 {
            let mut run = engine.run(&query).await?;
            run.begun().await?;
            executed.begun(run, KEEP_BEGUN);
        }
        Ok(executed)
    };
    stage.send_replace(match outcome.await {
        Ok(executed) => Stage::Ready(executed),
        Err(error) => Stage::Failed(error),
    });
}

async fn forgotten(asked: &Mutex<Instant>) {
    loop {
        let until = *asked.lock() + GIVE_UP_AFTER;
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
        Stage::Ready(executed) => {
            let descriptor = polled.descriptor.clone();
            service.polls.0.lock().remove(&handle);
            Ok(complete(statement_query::pinned(
                service, executed, descriptor,
            )?))
        }
        Stage::Failed(error) => {
            service.polls.0.lock().remove(&handle);
            Err(error)
        }
        Stage::Planning => Ok(under_way(service, handle, None)?),
        Stage::Running(query) => Ok(under_way(service, handle, Some(&query))?),
    }
}

/// The info has no endpoint yet; its descriptor is what cancels the query.
fn under_way(
    service: &Service,
    handle: Handle,
    query: Option<&Arc<PinnedQuery>>,
) -> Result<PollInfo> {
    let descriptor = FlightDescriptor::new_cmd(seal(&service.signer, handle));
    let info = match query {
        Some(query) => encode::info(
            &column_metadata::describe(&query.schema),
            Vec::new(),
            descriptor.clone(),
            statement_query::about(query).to_string(),
        )?,
        None => FlightInfo::new().with_descriptor(descriptor.clone()),
    };
    Ok(PollInfo {
        info: Some(info),
        flight_descriptor: Some(descriptor),
        progress: query.and_then(|query| query.status().progress),
        expiration_time: Some(encode::timestamp(SystemTime::now() + GIVE_UP_AFTER)),
    })
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
        "this query is no longer polled for: it has been answered, cancelled or given up; run it \
         again",
    )
}
