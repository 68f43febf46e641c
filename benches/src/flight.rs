//! A result over Flight SQL against arrow-flight's own `DoGet` of the same batches from memory,
//! over loopback, the two in turn, read by the same client without decoding.
//!
//! Ours has to compute what it sends. To compare the wire, choose a statement that is cheap to
//! compute; what is cheapest is a table that was uploaded, as ours has it in memory too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption, TicketStatementQuery,
};
use arrow_flight::{FlightData, Ticket};
use futures::TryStreamExt;
use prost::Message;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tonic::transport::Channel;

use crate::Result;
use crate::peer::Peer;
use crate::report::rounded;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) warehouse: PathBuf,
    /// An Arrow file that is uploaded as the temporary table `uploaded` first.
    #[arg(long)]
    pub(crate) upload: Option<PathBuf>,
    #[arg(long)]
    pub(crate) sql: String,
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

pub(crate) async fn run(arguments: Arguments, threads: usize) -> Result<Value> {
    let Arguments {
        warehouse,
        upload,
        sql,
        rounds,
    } = arguments;
    let gateway = Peer::gateway(&warehouse, threads)?;
    let mut ours = Client::connect(gateway.port).await?;
    if let Some(file) = upload {
        ours.upload(&file).await?;
    }
    let ticket = ours.ticket(&sql).await?;
    let (schema, batches) = ours.decoded(ticket).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let file = NamedTempFile::new()?;
    let mut writer = FileWriter::try_new(file.as_file(), &schema)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    drop(batches);
    let memory = Peer::memory(file.path(), threads)?;
    let mut floor = Client::connect(memory.port).await?;

    let mut seconds = [Vec::new(), Vec::new()];
    let mut first = [Vec::new(), Vec::new()];
    let mut bytes = [0, 0];
    for _ in 0..rounds {
        let ticket = ours.ticket(&sql).await?;
        for (at, client, ticket) in [(0, &mut ours, ticket), (1, &mut floor, any_ticket())] {
            let drained = client.drained(ticket).await?;
            bytes[at] = drained.bytes;
            seconds[at].push(drained.seconds);
            first[at].push(drained.first_batch);
        }
    }
    let ([ours, floor], [first, floor_first]) = (seconds.map(median), first.map(median));
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let rate = |bytes: usize, seconds: f64| rounded(bytes as f64 / 1e6 / seconds);
    Ok(json!({
        "engine": "flight", "rows": rows, "bytes": bytes[0],
        "ours_seconds": rounded(ours), "ours_mb_per_s": rate(bytes[0], ours),
        "floor_seconds": rounded(floor), "floor_mb_per_s": rate(bytes[1], floor),
        "first_batch_ms": rounded(first * 1e3), "floor_first_batch_ms": rounded(floor_first * 1e3),
        "ours_of_floor": rounded(rate(bytes[0], ours) / rate(bytes[1], floor)),
    }))
}

pub(crate) fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or_default()
}

/// A result that was read to its end.
pub(crate) struct Drained {
    bytes: usize,
    /// From the call.
    seconds: f64,
    first_batch: f64,
}

/// One connection.
pub(crate) struct Client(FlightServiceClient<Channel>);

impl Client {
    pub(crate) async fn connect(port: u16) -> Result<Self> {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}"))?;
        let client = FlightServiceClient::new(channel.connect().await?);
        Ok(Self(client.max_decoding_message_size(usize::MAX)))
    }

    /// Uploads the batches of an Arrow file.
    async fn upload(&self, file: &Path) -> Result<()> {
        let batches = FileReader::try_new(File::open(file)?, None)?;
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let mut client = FlightSqlServiceClient::new_from_inner(self.0.clone());
        let command = CommandStatementIngest {
            table: "uploaded".to_owned(),
            temporary: true,
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Create.into(),
                if_exists: TableExistsOption::Fail.into(),
            }),
            ..CommandStatementIngest::default()
        };
        let batches = futures::stream::iter(batches.into_iter().map(Ok));
        client.execute_ingest(command, batches).await?;
        Ok(())
    }

    /// Plans the statement.
    pub(crate) async fn ticket(&self, sql: &str) -> Result<Ticket> {
        let mut client = FlightSqlServiceClient::new_from_inner(self.0.clone());
        let info = client.execute(sql.to_owned(), None).await?;
        let endpoint = info.endpoint.into_iter().next();
        Ok(endpoint.and_then(|e| e.ticket).ok_or("no ticket")?)
    }

    async fn decoded(&mut self, ticket: Ticket) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let data = self.0.do_get(ticket).await?.into_inner();
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data.err_into());
        let mut collected = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            collected.push(batch);
        }
        let schema = batches.schema().ok_or("a result without a schema")?;
        Ok((SchemaRef::clone(schema), collected))
    }

    /// Reads a result to its end.
    pub(crate) async fn drained(&mut self, ticket: Ticket) -> Result<Drained> {
        let started = Instant::now();
        let mut data = self.0.do_get(ticket).await?.into_inner();
        let (mut bytes, mut first_batch) = (0, None);
        while let Some(FlightData {
            data_header,
            data_body,
            ..
        }) = data.try_next().await?
        {
            bytes += data_header.len() + data_body.len();
            if !data_body.is_empty() {
                first_batch.get_or_insert_with(|| started.elapsed());
            }
        }
        Ok(Drained {
            bytes,
            seconds: started.elapsed().as_secs_f64(),
            first_batch: first_batch.ok_or("a result without rows")?.as_secs_f64(),
        })
    }
}

fn any_ticket() -> Ticket {
    let any = TicketStatementQuery::default().as_any();
    Ticket::new(any.encode_to_vec())
}
