//! Prepared statements: create, close, bind (`DoPut`), execute as a query (`GetFlightInfo`) or as
//! an update (`DoPut`). The server keeps nothing of them but what was bound last, see [`handle`].
//!
//! [`handle`]: super::handle

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, DoPutPreparedStatementResult,
};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use futures::stream::BoxStream;
use prost::Message;
use prost::bytes::Bytes;

use super::handle::Statement;
use super::statement_update::Put;
use super::ticket::Executed;
use super::{Service, column_metadata, encode, parameters, statement_query, statement_update};

/// `ActionCreatePreparedStatementResult` with the field that tells drivers which way to execute;
/// arrow-flight does not have it yet.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateResult {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prepared_statement_handle: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) dataset_schema: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) parameter_schema: Bytes,
    #[prost(bool, optional, tag = "4")]
    pub(super) is_update: Option<bool>,
}

pub(super) const CREATE_RESULT_URL: &str =
    "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult";

pub(super) async fn create(
    service: &Service,
    caller: &Caller,
    request: ActionCreatePreparedStatementRequest,
) -> Result<CreateResult> {
    statement_query::no_transaction(request.transaction_id.as_deref())?;
    service.calls.may_begin()?;
    let prepared = service.engine.prepare(caller, &request.query).await?;
    // Drivers from before `is_update` take what has columns for a query.
    let dataset = if prepared.is_update {
        SchemaRef::new(Schema::empty())
    } else {
        column_metadata::describe(&prepared.schema)
    };
    Ok(CreateResult {
        prepared_statement_handle: Statement::new(request.query).seal(&service.signer)?,
        dataset_schema: encode::schema_message(&dataset)?,
        parameter_schema: encode::schema_message(&column_metadata::describe(&prepared.parameters))?,
        is_update: Some(prepared.is_update),
    })
}

/// Closing what is closed already is no error: the wish is fulfilled.
pub(super) fn close(service: &Service, request: &ActionClosePreparedStatementRequest) {
    service.bindings.forget(&request.prepared_statement_handle);
}

pub(super) async fn get_flight_info(
    service: &Service,
    caller: &Caller,
    command: &CommandPreparedStatementQuery,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo> {
    let (sql, bound) = bound_statement(service, command)?;
    service.calls.may_begin()?;
    let query = service.engine.pin(caller, &sql, bound).await?;
    statement_query::pinned(service, Executed::new(query), descriptor)
}

pub(super) async fn schema(
    service: &Service,
    caller: &Caller,
    command: &CommandPreparedStatementQuery,
) -> Result<SchemaRef> {
    let statement = Statement::open(&service.signer, &command.prepared_statement_handle)?;
    let prepared = service.engine.prepare(caller, &statement.sql).await?;
    Ok(column_metadata::describe(&prepared.schema))
}

/// Binds rows of parameters. The new handle holds them; the old one has them too, for clients that
/// keep it.
pub(super) async fn do_put_query(
    service: &Service,
    command: &CommandPreparedStatementQuery,
    messages: BoxStream<'static, Result<FlightData>>,
) -> Result<DoPutPreparedStatementResult> {
    let handle = &command.prepared_statement_handle;
    let mut statement = Statement::open(&service.signer, handle)?;
    let kept = service.engine.keep("bound parameters");
    let rows = parameters::receive(messages, &kept).await?;
    if !rows.is_empty() {
        let rows = parameters::write(&rows)?;
        service.bindings.remember(handle, rows.clone());
        statement.parameters = Some(rows);
    }
    let bound = statement.seal(&service.signer)?;
    Ok(DoPutPreparedStatementResult {
        prepared_statement_handle: Some(bound),
    })
}

pub(super) async fn do_put_update(
    service: &Service,
    caller: &Caller,
    command: &CommandPreparedStatementUpdate,
    messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Put> {
    let handle = &command.prepared_statement_handle;
    let statement = Statement::open(&service.signer, handle)?;
    // For as long as the statement is at work on them.
    let kept = service.engine.keep("bound parameters");
    let bound = async {
        let mut rows = parameters::receive_rows(messages, &kept).await?;
        if rows.is_empty() {
            let bound = service.bindings.of(handle);
            let bound = bound.or_else(|| statement.parameters.clone());
            rows.extend(
                bound
                    .map(|rows| parameters::read(&rows))
                    .transpose()?
                    .into_iter()
                    .flatten(),
            );
        }
        Ok(rows)
    };
    statement_update::execute(service, caller, &statement.sql, bound).await
}

/// The text and the parameters a handle stands for.
///
/// # Errors
/// Those of [`Statement::open`].
pub(super) fn bound_statement(
    service: &Service,
    command: &CommandPreparedStatementQuery,
) -> Result<(String, Vec<Vec<ScalarValue>>)> {
    let handle = &command.prepared_statement_handle;
    let statement = Statement::open(&service.signer, handle)?;
    let bound = bound(service, handle, &statement)?;
    Ok((statement.sql, bound))
}

/// What was bound last to exactly this handle, else what the handle itself holds.
fn bound(service: &Service, handle: &[u8], statement: &Statement) -> Result<Vec<Vec<ScalarValue>>> {
    let rows = service
        .bindings
        .of(handle)
        .or_else(|| statement.parameters.clone());
    let rows = rows.map(|rows| parameters::read(&rows)).transpose()?;
    let rows = rows.unwrap_or_default();
    let values = featureflight_engine::parameters::values(&rows)?;
    if values.is_empty() && !rows.is_empty() {
        return Err(Error::invalid(
            "no rows of parameters are bound, so that the query would run for none: bind one or more",
        ));
    }
    Ok(values)
}
