//! Finds the Flight SQL command in a request and its handler. No logic of its own.

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, PollInfo, SchemaAsIpc,
    SchemaResult, Ticket,
};
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;

use super::encode;
use super::statement_query::{Rows, no_transaction};
use super::statement_update::Put;
use super::status::Fault;
use super::{
    Service, catalogs, db_schemas, foreign_keys, ingest, poll, prepared_statement, primary_keys,
    sql_info, statement_query, statement_update, table_types, tables, xdbc_type_info,
};

pub(super) async fn get_flight_info(
    service: &Service,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Fault> {
    match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            Ok(statement_query::get_flight_info(service, caller, query, descriptor).await?)
        }
        Command::CommandPreparedStatementQuery(query) => {
            Ok(prepared_statement::get_flight_info(service, caller, &query, descriptor).await?)
        }
        command => {
            let schema = catalog_schema(service, &command)?;
            // The command is small and answers are made when they are fetched: it is the ticket.
            let ticket = Ticket::new(descriptor.cmd.clone());
            let endpoints = vec![FlightEndpoint::new().with_ticket(ticket)];
            Ok(encode::info(&schema, endpoints, descriptor, "")?)
        }
    }
}

/// What can be had at once is complete at once; statements are begun.
pub(super) async fn poll_flight_info(
    service: &Service,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<PollInfo, Fault> {
    match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            no_transaction(query.transaction_id.as_deref())?;
            Ok(poll::begin(service, caller, query.query, Vec::new(), descriptor).await?)
        }
        Command::CommandPreparedStatementQuery(query) => {
            let (sql, bound) = prepared_statement::bound_statement(service, &query)?;
            Ok(poll::begin(service, caller, sql, bound, descriptor).await?)
        }
        Command::TicketStatementQuery(poll) => Ok(poll::again(service, caller, &poll).await?),
        _ => {
            let info = get_flight_info(service, caller, descriptor).await?;
            Ok(poll::complete(info))
        }
    }
}

pub(super) async fn get_schema(
    service: &Service,
    caller: &Caller,
    descriptor: FlightDescriptor,
) -> Result<SchemaResult, Fault> {
    let schema = match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            statement_query::schema(service, caller, &query).await?
        }
        Command::CommandPreparedStatementQuery(query) => {
            prepared_statement::schema(service, caller, &query).await?
        }
        command => catalog_schema(service, &command)?,
    };
    let options = IpcWriteOptions::default();
    let IpcMessage(schema) = SchemaAsIpc::new(&schema, &options)
        .try_into()
        .map_err(|error| Error::internal(format!("cannot write a schema: {error}")))?;
    Ok(SchemaResult { schema })
}

pub(super) async fn do_get(
    service: &Service,
    caller: &Caller,
    ticket: Ticket,
) -> Result<Rows, Fault> {
    let batch = match command(&ticket.ticket)? {
        Command::TicketStatementQuery(ticket) => {
            return Ok(statement_query::do_get(service, caller, &ticket)?);
        }
        Command::CommandGetCatalogs(_) => catalogs::batch()?,
        Command::CommandGetDbSchemas(command) => {
            db_schemas::batch(service, &caller.session, &command)?
        }
        Command::CommandGetTables(command) => {
            let messages = tables::messages(service, caller, command).await?;
            return Ok(Rows {
                messages,
                said_at_end: Box::new(Vec::new),
            });
        }
        Command::CommandGetTableTypes(_) => table_types::batch()?,
        Command::CommandGetPrimaryKeys(command) => {
            primary_keys::batch(service, caller, &command).await?
        }
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys::batch(),
        Command::CommandGetSqlInfo(command) => sql_info::batch(service, command)?,
        Command::CommandGetXdbcTypeInfo(command) => xdbc_type_info::batch(service, &command)?,
        command => return Err(absent(&command)),
    };
    Ok(Rows {
        messages: encode::single(batch)?,
        said_at_end: Box::new(Vec::new),
    })
}

pub(super) async fn do_put(
    service: &Service,
    caller: &Caller,
    mut messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Put, Fault> {
    let first = messages.next().await.ok_or_else(|| {
        Error::invalid(
            "DoPut without a message: send a command, and for an upload at least one record \
                 batch, which may have no rows",
        )
    })??;
    let descriptor = first
        .flight_descriptor
        .clone()
        .ok_or_else(|| Error::invalid("DoPut's first message has no descriptor"))?;
    // It waits until its statement is planned.
    let kept = service.engine.keep("a request");
    kept.grow(first.data_body.len())?;
    let messages = futures::stream::iter([Ok(first)]).chain(messages).boxed();
    Ok(match command(&descriptor.cmd)? {
        Command::CommandStatementUpdate(update) => {
            statement_update::do_put(service, caller, update).await?
        }
        Command::CommandStatementIngest(ingest) => {
            ingest::do_put(service, caller, ingest, messages).await?
        }
        Command::CommandPreparedStatementUpdate(update) => {
            prepared_statement::do_put_update(service, caller, &update, messages).await?
        }
        Command::CommandPreparedStatementQuery(query) => {
            let bound = prepared_statement::do_put_query(service, &query, messages).await?;
            Put {
                message: bound.encode_to_vec(),
                said_at_end: Vec::new(),
            }
        }
        command => return Err(absent(&command)),
    })
}

/// The schemas that FlightSql.proto fixes.
fn catalog_schema(service: &Service, command: &Command) -> Result<SchemaRef, Fault> {
    match command {
        Command::CommandGetCatalogs(_) => Ok(catalogs::schema()),
        Command::CommandGetDbSchemas(_) => Ok(db_schemas::schema()),
        Command::CommandGetTables(command) => Ok(tables::schema(command)),
        Command::CommandGetTableTypes(_) => Ok(table_types::schema()),
        Command::CommandGetPrimaryKeys(_) => Ok(primary_keys::schema()),
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => Ok(foreign_keys::schema()),
        Command::CommandGetSqlInfo(_) => Ok(service.sql_info.schema()),
        Command::CommandGetXdbcTypeInfo(_) => Ok(service.type_info.schema()),
        command => Err(absent(command)),
    }
}

/// # Errors
/// `InvalidArgument` for bytes that hold no Flight SQL message.
pub(super) fn command(bytes: &[u8]) -> Result<Command> {
    let malformed = || Error::invalid("the request holds no Flight SQL command");
    if bytes.is_empty() {
        return Err(malformed());
    }
    let any = Any::decode(bytes).map_err(|_| malformed())?;
    Command::try_from(any).map_err(|_| malformed())
}

fn absent(command: &Command) -> Fault {
    match command {
        Command::CommandStatementIngest(_) => Error::invalid("uploads are sent by DoPut").into(),
        Command::CommandStatementSubstraitPlan(_) => {
            Fault::Unimplemented("this server does not take Substrait plans; send SQL".into())
        }
        Command::CommandPreparedStatementQuery(_) | Command::CommandStatementQuery(_) => {
            Error::invalid("call GetFlightInfo first, then DoGet with its ticket").into()
        }
        command => Fault::Unimplemented(format!(
            "this RPC does not take the command {}",
            command.type_url().rsplit('.').next().unwrap_or_default()
        )),
    }
}
