//! A result over Flight SQL against arrow-flight's own `DoGet` of the same batches from memory,
//! over loopback, the two in turn, read by the same client without decoding.
//!
//! Ours has to compute what it sends: `compute_seconds` says how long that takes alone, so choose
//! a statement that is cheap to compute to compare the wire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{ProstMessageExt, SqlInfo, TicketStatementQuery};
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
    #[arg(long)]
    pub(crate) sql: String,
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

pub(crate) async fn run(arguments: Arguments, threads: usize) -> Result<Value> {
    let Arguments {
        warehouse,
        sql,
        rounds,
    } = arguments;
    let mut config = Config::for_warehouse(&warehouse);
    "127.0.0.1:0".clone_into(&mut config.server.listen);
    config.engine.target_partitions = threads;
    let server = serve(&config, std::future::pending()).await?;
    let mut ours = Client::connect(server.local_addr.port()).await?;
    let ticket = ours.ticket(&sql).await?;
    let (schema, batches) = ours.decoded(ticket).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut floor = Client::connect(from_memory(schema, batches).await?).await?;

    let mut seconds = [Vec::new(), Vec::new(), Vec::new()];
    let mut bytes = [0, 0];
    for _ in 0..rounds {
        let ticket = ours.ticket(&sql).await?;
        bytes[0] = timed(&mut seconds[0], ours.drained(ticket)).await?;
        bytes[1] = timed(&mut seconds[1], floor.drained(any_ticket())).await?;
        timed(&mut seconds[2], computed(&server, &sql)).await?;
    }
    let [ours, floor, compute] = seconds.map(median);
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let rate = |bytes: usize, seconds: f64| rounded(bytes as f64 / 1e6 / seconds);
    Ok(json!({
        "engine": "flight", "rows": rows, "bytes": bytes[0],
        "ours_seconds": rounded(ours), "ours_mb_per_s": rate(bytes[0], ours),
        "floor_seconds": rounded(floor), "floor_mb_per_s": rate(bytes[1], floor),
        "compute_seconds": rounded(compute),
        "ours_of_floor": rounded(rate(bytes[0], ours) / rate(bytes[1], floor)),
    }))
}

async fn timed<T>(seconds: &mut Vec<f64>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    let done = work.await?;
    seconds.push(started.elapsed().as_secs_f64());
    Ok(done)
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or_default()
}

/// The statement on the server's engine, without the wire.
async fn computed(server: &ServerHandle, sql: &str) -> Result<()> {
    let session = Arc::new(Session::new("bench"));
    let query = server.engine.pin(&session, sql, None).await?;
    let mut batches = server.engine.run(&query).await?;
    while batches.try_next().await?.is_some() {}
    Ok(())
}

struct Client(FlightServiceClient<Channel>);

impl Client {
    async fn connect(port: u16) -> Result<Self> {
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}"))?;
        let client = FlightServiceClient::new(channel.connect().await?);
        Ok(Self(client.max_decoding_message_size(usize::MAX)))
    }

    /// Plans the statement.
    async fn ticket(&self, sql: &str) -> Result<Ticket> {
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

    /// Reads a result to its end and counts its bytes.
    async fn drained(&mut self, ticket: Ticket) -> Result<usize> {
        let mut data = self.0.do_get(ticket).await?.into_inner();
        let mut bytes = 0;
        while let Some(FlightData {
            data_header,
            data_body,
            ..
        }) = data.try_next().await?
        {
            bytes += data_header.len() + data_body.len();
        }
        Ok(bytes)
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
