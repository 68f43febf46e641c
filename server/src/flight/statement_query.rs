//! `CommandStatementQuery`: GetFlightInfo executes the planning half and pins it, DoGet streams it.
//!
//! Statements with an effect come this way too, from drivers that know no other; they have it when
//! they are pinned, once, however often the ticket is fetched.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{CommandStatementQuery, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo};
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use featureflight_engine::query::{PinnedQuery, ResultStream, RunStats};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use super::encode::{self, Messages};
use super::ticket::{Executed, Issued, Redeemed};
use super::{Service, column_metadata, keep_alive, outgoing};

pub(super) async fn get_flight_info(
    service: &Service,
    caller: &Caller,
    command: CommandStatementQuery,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    no_transaction(command.transaction_id.as_deref())?;
    service.calls.may_begin()?;
    let query = service
        .engine
        .pin(caller, &command.query, Vec::new())
        .await?;
    pinned(service, Executed::new(query), descriptor)
}

/// # Errors
/// Those of planning; nothing is executed.
pub(super) async fn schema(
    service: &Service,
    caller: &Caller,
    command: &CommandStatementQuery,
) -> Result<SchemaRef> {
    no_transaction(command.transaction_id.as_deref())?;
    let prepared = service.engine.prepare(caller, &command.query).await?;
    Ok(column_metadata::describe(&prepared.schema))
}

/// The answer for a statement that was just pinned.
pub(super) fn pinned(
    service: &Service,
    executed: Arc<Executed>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    let query = Arc::clone(&executed.query);
    let schema = column_metadata::describe(&query.schema);
    let issued = service.statements.issue(&service.signer, executed);
    let endpoints = issued
        .into_iter()
        .map(|one| endpoint(service, query.repeatable, one));
    encode::info(
        &schema,
        endpoints.collect(),
        descriptor,
        about(&query).to_string(),
    )
}

/// Where a ticket is fetched: at an advertised address, else on the connection it came by. One that
/// is good once has no time until which it can be fetched again.
pub(super) fn endpoint(service: &Service, repeatable: bool, issued: Issued) -> FlightEndpoint {
    let mut endpoint = FlightEndpoint::new().with_ticket(issued.ticket);
    if repeatable {
        endpoint = endpoint.with_expiration_time(encode::timestamp(issued.expires));
    }
    match &service.advertised_address {
        Some(address) => endpoint.with_location(address),
        None => endpoint,
    }
}

/// An answer, and what to say of it once it is complete.
pub(super) struct Rows {
    pub(super) messages: Messages,
    pub(super) said_at_end: Box<dyn Fn() -> Vec<(&'static str, String)> + Send>,
}

pub(super) fn do_get(
    service: &Service,
    caller: &Caller,
    ticket: &TicketStatementQuery,
) -> Result<Rows> {
    let (executed, slice) = match service.statements.redeem(&service.signer, ticket)? {
        Redeemed::Pinned(executed, slice) => (executed, slice),
        Redeemed::Answer(answer) => return answered(&answer),
    };
    let query = Arc::clone(&executed.query);
    let schema = column_metadata::describe(&query.schema);
    let started: Arc<OnceLock<Arc<RunStats>>> = Arc::default();

    let (engine, deadline) = (Arc::clone(&service.engine), caller.deadline);
    let (note, of) = (Arc::clone(&started), Arc::clone(&query));
    // Waiting for a place is part of the stream, so that it is kept alive too.
    let batches = async move {
        let begun = if slice.is_none() {
            executed.take()
        } else {
            None
        };
        let run: ResultStream = match begun {
            Some(run) => run,
            None => engine.run_slice(&of, slice, deadline).await?,
        };
        let _ = note.set(Arc::clone(&run.stats));
        Ok::<_, Error>(run)
    }
    .into_stream()
    .try_flatten();

    let (counted, of) = (Arc::clone(&started), Arc::clone(&query));
    let messages = encode::messages(SchemaRef::clone(&schema), batches)?
        .map_ok(move |message| match counted.get() {
            Some(stats) => message.with_app_metadata(SoFar::of(&of, stats).json()),
            None => message,
        })
        .boxed();
    let empty = encode::empty_batch(&schema)?;
    let kept = keep_alive::kept(messages, service.keep_alive, empty);
    Ok(Rows {
        messages: outgoing::until(kept, deadline),
        said_at_end: Box::new(move || {
            let said = started
                .get()
                .map(|stats| SoFar::of(&query, stats).trailers());
            said.unwrap_or_default()
        }),
    })
}

/// The answer a ticket holds, when there are no figures of it any more.
fn answered(answer: &RecordBatch) -> Result<Rows> {
    let schema = column_metadata::describe(&answer.schema());
    let answer = RecordBatch::try_new(schema, answer.columns().to_vec())
        .map_err(|error| Error::internal(format!("a ticket's answer: {error}")))?;
    Ok(Rows {
        messages: encode::single(answer)?,
        said_at_end: Box::new(Vec::new),
    })
}

/// What a result says about itself beside its schema: JSON, for people and tools that look.
pub(super) fn about(query: &PinnedQuery) -> Value {
    let mut about = json!({
        "query_id": query.id,
        "unsettled": query.unsettled,
        "files": query.files,
        "planned_ms": query.planned_ms,
        "endpoints": query.slices,
    });
    if let Some(why) = query.whole_because {
        about["one_endpoint_because"] = json!(why);
    }
    about
}

/// What each message of a result says: how much there was up to it. The last one says it all.
#[derive(Debug, Serialize)]
struct SoFar<'a> {
    query_id: &'a str,
    rows: u64,
    bytes: u64,
    files: u64,
    queued_ms: u64,
    planned_ms: u64,
    executed_ms: u64,
}

impl<'a> SoFar<'a> {
    fn of(query: &'a PinnedQuery, stats: &RunStats) -> Self {
        Self {
            query_id: &query.id,
            rows: stats.rows(),
            bytes: stats.bytes(),
            files: query.files,
            queued_ms: stats.queued_ms,
            planned_ms: query.planned_ms,
            executed_ms: stats.executed_ms(),
        }
    }

    fn json(&self) -> Vec<u8> {
        // It has no map and no number without a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn trailers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("featureflight-query-id", self.query_id.to_owned()),
            ("featureflight-rows", self.rows.to_string()),
            ("featureflight-bytes", self.bytes.to_string()),
            ("featureflight-files", self.files.to_string()),
            ("featureflight-queued-ms", self.queued_ms.to_string()),
            ("featureflight-planned-ms", self.planned_ms.to_string()),
            ("featureflight-executed-ms", self.executed_ms.to_string()),
        ]
    }
}

/// # Errors
/// `InvalidArgument` when a statement names a transaction: there are none.
pub(super) fn no_transaction(id: Option<&[u8]>) -> Result<()> {
    match id {
        None | Some([]) => Ok(()),
        Some(_) => Err(Error::invalid(
            "this server has no transactions; every statement stands alone",
        )),
    }
}
