//! `CommandStatementQuery`: GetFlightInfo executes the planning half and pins it, DoGet streams it.
//!
//! Statements with an effect come this way too, from drivers that know no other; they have it when
//! they are pinned, once, however often the ticket is fetched.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_flight::sql::{CommandStatementQuery, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightInfo};
use featureflight_catalog::{Error, Result};
use featureflight_engine::query::PinnedQuery;
use featureflight_engine::session::Session;

use super::encode::{self, Messages};
use super::{Service, column_metadata, outgoing};

pub(super) async fn get_flight_info(
    service: &Service,
    session: &Arc<Session>,
    command: CommandStatementQuery,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    no_transaction(command.transaction_id.as_deref())?;
    let query = service.engine.pin(session, &command.query, None).await?;
    pinned(service, query, descriptor)
}

/// # Errors
/// Those of planning; nothing is executed.
pub(super) async fn schema(
    service: &Service,
    session: &Session,
    command: &CommandStatementQuery,
) -> Result<SchemaRef> {
    no_transaction(command.transaction_id.as_deref())?;
    let prepared = service.engine.prepare(session, &command.query).await?;
    Ok(column_metadata::describe(&prepared.schema))
}

/// The answer for a statement that was just pinned.
pub(super) fn pinned(
    service: &Service,
    query: Arc<PinnedQuery>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    let schema = column_metadata::describe(&query.schema);
    let about = about(&query);
    let ticket = service.statements.issue(&service.signer, query);
    encode::info(&schema, ticket, descriptor, about)
}

pub(super) async fn do_get(service: &Service, ticket: &TicketStatementQuery) -> Result<Messages> {
    let query = service.statements.redeem(&service.signer, ticket)?;
    let schema = column_metadata::describe(&query.schema);
    let batches = service.engine.run(&query).await?;
    let messages = encode::messages(schema, batches)?;
    Ok(outgoing::paced(messages, service.stall_timeout))
}

/// What a result says about itself beside its schema: JSON, for people and tools that look.
fn about(query: &PinnedQuery) -> String {
    serde_json::json!({ "query_id": query.id, "unsettled": query.unsettled }).to_string()
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
