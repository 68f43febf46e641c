//! A result over Flight SQL against arrow-flight's own `DoGet` of the same batches from memory,
//! over loopback, the two in turn, read by the same client without decoding.
//!
//! Ours has to compute what it sends: `compute_seconds` says how long that takes alone. To compare
//! the wire, choose a statement that is cheap to compute; what is cheapest is a table that was
//! uploaded, as ours has it in memory too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, SqlInfo, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption, TicketStatementQuery,
};
use arrow_flight::{FlightData, Ticket};
use featureflight_engine::session::Session;
use featureflight_server::{Config, ServerHandle, serve};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

use crate::Result;
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

/// A server of ours, as `featureflight serve` starts it.
pub(crate) async fn serve_warehouse(warehouse: &Path, threads: usize) -> Result<ServerHandle> {
    let mut config = Config::for_warehouse(warehouse);
    "127.0.0.1:0".clone_into(&mut config.server.listen);
    config.engine.target_partitions = threads;
    Ok(serve(&config, std::future::pending()).await?)
}

pub(crate) async fn run(arguments: Arguments, threads: usize) -> Result<Value> {
    let Arguments {
        warehouse,
        upload,
        sql,
        rounds,
    } = arguments;
    let server = serve_warehouse(&warehouse, threads).await?;
    let mut ours = Client::connect(server.local_addr.port()).await?;
    if let Some(file) = upload {
        ours.upload(&file).await?;
    }
    let ticket = ours.ticket(&sql).await?;
    let (schema, batches) = ours.decoded(ticket).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut floor = Client::connect(from_memory(schema, batches).await?).await?;

    let mut seconds = [Vec::new(), Vec::new()];
    let mut first = [Vec::new(), Vec::new()];
    let mut compute = Vec::new();
    let mut bytes = [0, 0];
    for _ in 0..rounds {
        let ticket = ours.ticket(&sql).await?;
        for (at, client, ticket) in [(0, &mut ours, ticket), (1, &mut floor, any_ticket())] {
            let drained = client.drained(ticket).await?;
            bytes[at] = drained.bytes;
            seconds[at].push(drained.seconds);
            first[at].push(drained.first_batch);
        }
        if let Some(seconds) = computed(&server, &sql).await? {
            compute.push(seconds);
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
        "compute_seconds": (!compute.is_empty()).then(|| rounded(median(compute))),
        "ours_of_floor": rounded(rate(bytes[0], ours) / rate(bytes[1], floor)),
    }))
}

pub(crate) fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or_default()
}

/// Seconds that the statement takes on the server's engine without the wire; none where it wants
/// what only the client's session has.
async fn computed(server: &ServerHandle, sql: &str) -> Result<Option<f64>> {
    let session = Arc::new(Session::new("bench"));
    let started = Instant::now();
    let Ok(query) = server.engine.pin(&session, sql, None).await else {
        return Ok(None);
    };
    let mut batches = server.engine.run(&query).await?;
    while batches.try_next().await?.is_some() {}
    Ok(Some(started.elapsed().as_secs_f64()))
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

/// Serves `batches` for every ticket, on the returned port.
async fn from_memory(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let service = FlightServiceServer::new(FromMemory { schema, batches });
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::spawn(serving);
    Ok(port)
}

struct FromMemory {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

fn any_ticket() -> Ticket {
    let any = TicketStatementQuery::default().as_any();
    Ticket::new(any.encode_to_vec())
}

#[tonic::async_trait]
impl FlightSqlService for FromMemory {
    type FlightService = Self;

    async fn do_get_statement(
        &self,
        _ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<<Self as FlightService>::DoGetStream>, Status> {
        let batches: Vec<_> = self.batches.iter().cloned().map(Ok).collect();
        let data = FlightDataEncoderBuilder::new()
            .with_schema(SchemaRef::clone(&self.schema))
            .build(futures::stream::iter(batches))
            .map_err(Status::from);
        Ok(Response::new(data.boxed()))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
