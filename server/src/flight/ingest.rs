//! `CommandStatementIngest`: rows uploaded into a temporary table of the session, or appended to a
//! feature group.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::temp_tables::{IfExists, Target};
use featureflight_engine::{Caller, Kept};
use futures::stream::{BoxStream, try_unfold};
use futures::{Stream, StreamExt};
use tokio::time::Instant;

use super::Service;
use super::ipc_check::{Decoded, Decoder};
use super::statement_query::no_transaction;
use super::statement_update::{Put, changed, written_rows};

/// Names the upload, so that a repeat of it has one effect.
const IDEMPOTENCY_KEY: &str = "featureflight.idempotency_key";

/// Receives the rows and makes them visible together, or writes them; how many they were.
///
/// # Errors
/// Those of the engine's upload and of writes; `InvalidArgument` for data that cannot be read,
/// `DeadlineExceeded` when the client stops sending.
pub(super) async fn do_put(
    service: &Service,
    caller: &Caller,
    mut command: CommandStatementIngest,
    messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Put> {
    no_transaction(command.transaction_id.as_deref())?;
    service.calls.may_begin()?;
    let mut caller = caller.clone();
    if let Some(key) = command.options.remove(IDEMPOTENCY_KEY) {
        caller.idempotency_key = Some(key);
    }
    let target = target(command)?;
    let mut rows = Rows {
        decoder: Decoder::new("the uploaded rows"),
        messages,
        deadline: caller.deadline,
        stall_timeout: service.stall_timeout,
        kept: service.engine.keep("uploaded rows"),
    };
    let schema = rows.schema().await?;
    if !target.temporary {
        let written = service
            .engine
            .append(&caller, &target, &schema, rows.batches());
        return Ok(written_rows(&written.await?));
    }
    let mut upload = service.engine.upload(&caller, target, schema)?;
    let mut batches = std::pin::pin!(rows.batches());
    while let Some(batch) = batches.next().await {
        upload.push(batch?)?;
    }
    Ok(changed(upload.finish()?))
}

/// What a client uploads, as it comes in.
struct Rows {
    decoder: Decoder,
    messages: BoxStream<'static, Result<FlightData>>,
    deadline: Option<Instant>,
    stall_timeout: Duration,
    /// For the message that is read.
    kept: Kept,
}

impl Rows {
    async fn schema(&mut self) -> Result<SchemaRef> {
        while let Some(message) = self.next().await? {
            if let Decoded::Schema(schema) = self.decoder.decode(&message)? {
                return Ok(schema);
            }
        }
        Err(Error::invalid("the upload has no schema"))
    }

    fn batches(self) -> impl Stream<Item = Result<RecordBatch>> {
        try_unfold(self, |mut rows| async move {
            while let Some(message) = rows.next().await? {
                if let Decoded::Batch(batch) = rows.decoder.decode(&message)? {
                    return Ok(Some((batch, rows)));
                }
            }
            Ok(None)
        })
    }

    async fn next(&mut self) -> Result<Option<FlightData>> {
        let stalled = Instant::now() + self.stall_timeout;
        let until = self.deadline.map_or(stalled, |at| at.min(stalled));
        let message = tokio::time::timeout_at(until, self.messages.next()).await;
        let message = message.map_err(|_| {
            Error::new(
                Kind::DeadlineExceeded,
                "the upload was given up: its deadline has passed, or nothing came for too long",
            )
        })?;
        let message = message.transpose()?;
        let bytes = message
            .as_ref()
            .map_or(0, |message| message.data_body.len());
        self.kept.resize(bytes)?;
        Ok(message)
    }
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
            "the upload's option `{option}` is unknown: the option there is, is `{IDEMPOTENCY_KEY}`"
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
