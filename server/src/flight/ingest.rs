//! `CommandStatementIngest`: rows uploaded into a temporary table of the session. Every other
//! destination is the engine's to refuse.

use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::Caller;
use featureflight_engine::temp_tables::{IfExists, Target, Upload};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Service;
use super::ipc_check::{Decoded, Decoder};
use super::statement_query::no_transaction;

/// Receives the rows and makes them visible together; how many they were.
///
/// # Errors
/// Those of the engine's upload; `InvalidArgument` for data that cannot be read,
/// `DeadlineExceeded` when the client stops sending.
pub(super) async fn do_put(
    service: &Service,
    caller: &Caller,
    command: CommandStatementIngest,
    mut messages: BoxStream<'static, Result<FlightData>>,
) -> Result<u64> {
    no_transaction(command.transaction_id.as_deref())?;
    service.calls.may_begin()?;
    let target = target(command)?;
    let mut decoder = Decoder::new("the uploaded rows");
    let mut upload: Option<Upload> = None;
    while let Some(message) = next(service, caller, &mut messages).await? {
        match (decoder.decode(&message?)?, &mut upload) {
            (Decoded::Schema(schema), _) => {
                upload = Some(service.engine.upload(caller, target.clone(), schema)?);
            }
            (Decoded::Batch(batch), Some(upload)) => upload.push(batch)?,
            (Decoded::Batch(_) | Decoded::Nothing, _) => {}
        }
    }
    let upload = upload.ok_or_else(|| Error::invalid("the upload has no schema"))?;
    upload.finish()
}

async fn next(
    service: &Service,
    caller: &Caller,
    messages: &mut BoxStream<'static, Result<FlightData>>,
) -> Result<Option<Result<FlightData>>> {
    let stalled = tokio::time::Instant::now() + service.stall_timeout;
    let until = caller.deadline.map_or(stalled, |at| at.min(stalled));
    let message = tokio::time::timeout_at(until, messages.next()).await;
    message.map_err(|_| {
        Error::new(
            Kind::DeadlineExceeded,
            "the upload was given up: its deadline has passed, or nothing came for too long",
        )
    })
}

fn target(command: CommandStatementIngest) -> Result<Target> {
    let options = command.table_definition_options.unwrap_or_default();
    let unknown = || Error::invalid("the upload's table definition options are unknown");
    let create = match TableNotExistOption::try_from(options.if_not_exist) {
        Ok(TableNotExistOption::Create | TableNotExistOption::Unspecified) => true,
        Ok(TableNotExistOption::Fail) => false,
        Err(_) => return Err(unknown()),
    };
    let if_exists = match TableExistsOption::try_from(options.if_exists) {
        Ok(TableExistsOption::Fail | TableExistsOption::Unspecified) => IfExists::Fail,
        Ok(TableExistsOption::Append) => IfExists::Append,
        Ok(TableExistsOption::Replace) => IfExists::Replace,
        Err(_) => return Err(unknown()),
    };
    if let Some(option) = command.options.keys().next() {
        return Err(Error::invalid(format!(
            "the upload's option `{option}` is unknown: this server has none"
        )));
    }
    Ok(Target {
        table: command.table,
        schema: command.schema,
        catalog: command.catalog,
        temporary: command.temporary,
        create,
        if_exists,
    })
}
