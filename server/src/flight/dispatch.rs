//! Finds the Flight SQL command in a request and its handler. No logic of its own.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::sql::{Any, Command, DoPutUpdateResult};
use arrow_flight::{
    FlightData, FlightDescriptor, FlightInfo, IpcMessage, PutResult, SchemaAsIpc, SchemaResult,
    Ticket,
};
use featureflight_catalog::{Error, Result};
use featureflight_engine::session::Session;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;

use super::encode::{self, Messages};
use super::status::Fault;
use super::{
    Service, catalogs, db_schemas, foreign_keys, prepared_statement, primary_keys, sql_info,
    statement_query, statement_update, table_types, tables, xdbc_type_info,
};

pub(super) async fn get_flight_info(
    service: &Service,
    session: &Arc<Session>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Fault> {
    match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            Ok(statement_query::get_flight_info(service, session, query, descriptor).await?)
        }
        Command::CommandPreparedStatementQuery(query) => {
            Ok(prepared_statement::get_flight_info(service, session, &query, descriptor).await?)
        }
        command => {
            let schema = catalog_schema(service, &command)?;
            // The command is small and answers are made when they are fetched: it is the ticket.
            let ticket = Ticket::new(descriptor.cmd.clone());
            Ok(encode::info(&schema, ticket, descriptor, "")?)
        }
    }
}

pub(super) async fn get_schema(
    service: &Service,
    session: &Arc<Session>,
    descriptor: FlightDescriptor,
) -> Result<SchemaResult, Fault> {
    let schema = match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            statement_query::schema(service, session, &query).await?
        }
        Command::CommandPreparedStatementQuery(query) => {
            prepared_statement::schema(service, session, &query).await?
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
    session: &Arc<Session>,
    ticket: Ticket,
) -> Result<Messages, Fault> {
    let batch = match command(&ticket.ticket)? {
        Command::TicketStatementQuery(ticket) => {
            return Ok(statement_query::do_get(service, &ticket).await?);
        }
        Command::CommandGetCatalogs(_) => catalogs::batch()?,
        Command::CommandGetDbSchemas(command) => db_schemas::batch(service, session, &command)?,
        Command::CommandGetTables(command) => tables::batch(service, session, &command).await?,
        Command::CommandGetTableTypes(_) => table_types::batch()?,
        Command::CommandGetPrimaryKeys(command) => {
            primary_keys::batch(service, session, &command).await?
        }
        Command::CommandGetExportedKeys(_)
        | Command::CommandGetImportedKeys(_)
        | Command::CommandGetCrossReference(_) => foreign_keys::batch(),
        Command::CommandGetSqlInfo(command) => sql_info::batch(service, command)?,
        Command::CommandGetXdbcTypeInfo(command) => xdbc_type_info::batch(service, &command)?,
        command => return Err(absent(&command)),
    };
    Ok(encode::single(batch)?)
}

pub(super) async fn do_put(
    service: &Service,
    session: &Arc<Session>,
    mut messages: BoxStream<'static, Result<FlightData>>,
) -> Result<PutResult, Fault> {
    let first = messages
        .next()
        .await
        .ok_or_else(|| Error::invalid("DoPut without a message"))??;
    let descriptor = first
        .flight_descriptor
        .clone()
        .ok_or_else(|| Error::invalid("DoPut's first message has no descriptor"))?;
    let messages = futures::stream::iter([Ok(first)]).chain(messages).boxed();
    let app_metadata = match command(&descriptor.cmd)? {
        Command::CommandStatementUpdate(update) => {
            statement_update::do_put(service, session, update).await?;
            no_rows_changed()
        }
        Command::CommandPreparedStatementUpdate(update) => {
            prepared_statement::do_put_update(service, session, &update, messages).await?;
            no_rows_changed()
        }
        Command::CommandPreparedStatementQuery(query) => {
            prepared_statement::do_put_query(service, &query, messages)
                .await?
                .encode_to_vec()
        }
        command => return Err(absent(&command)),
    };
    Ok(PutResult {
        app_metadata: app_metadata.into(),
    })
}

/// Statements with an effect change the session, never rows.
fn no_rows_changed() -> Vec<u8> {
    DoPutUpdateResult { record_count: 0 }.encode_to_vec()
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
        Command::CommandStatementIngest(_) => {
            Fault::Unimplemented("this server does not take uploads".into())
        }
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
