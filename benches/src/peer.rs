//! Servers in processes of their own, as they are in life: one that shares its threads with its
//! client is measured with hand-overs that nobody has.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow_flight::Ticket;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::server::FlightSqlService;
use arrow_flight::sql::{SqlInfo, TicketStatementQuery};
use featureflight_server::{Config, serve};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::Result;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GatewayArguments {
    #[arg(long)]
    warehouse: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MemoryArguments {
    /// An Arrow file
    file: PathBuf,
}

/// A running server, which ends with this.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    _said: BufReader<ChildStdout>,
    pub(crate) port: u16,
}

impl Peer {
    /// A server of ours.
    pub(crate) fn gateway(warehouse: &Path, threads: usize) -> Result<Self> {
        let threads = threads.to_string();
        Self::start(&[
            "gateway".as_ref(),
            "--threads".as_ref(),
            threads.as_ref(),
            "--warehouse".as_ref(),
            warehouse.as_ref(),
        ])
    }

    /// A server of arrow-flight's own, with the batches of an Arrow file.
    pub(crate) fn memory(file: &Path, threads: usize) -> Result<Self> {
        let threads = threads.to_string();
        Self::start(&[
            "memory".as_ref(),
            "--threads".as_ref(),
            threads.as_ref(),
            file.as_ref(),
        ])
    }

    fn start(arguments: &[&OsStr]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().ok_or("no standard output")?;
        let (mut said, mut line) = (BufReader::new(said), String::new());
        said.read_line(&mut line)?;
        let port = line.trim().parse();
        let port = port.map_err(|_| format!("a server said {line:?} instead of its port"))?;
        Ok(Self {
            child,
            _said: said,
            port,
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Serves as `featureflight serve` does.
pub(crate) async fn gateway(arguments: GatewayArguments, threads: usize) -> Result<Value> {
    let mut config = Config::for_warehouse(&arguments.warehouse);
    "127.0.0.1:0".clone_into(&mut config.server.listen);
    config.engine.target_partitions = threads;
    let server = serve(&config, std::future::pending()).await?;
    until_left(server.local_addr.port()).await
}

/// Serves a file's batches for every ticket.
pub(crate) async fn memory(arguments: MemoryArguments) -> Result<Value> {
    let reader = FileReader::try_new(File::open(arguments.file)?, None)?;
    let service = FlightServiceServer::new(FromMemory {
        schema: reader.schema(),
        batches: reader.collect::<Result<_, _>>()?,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let serving = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::spawn(serving);
    until_left(port).await
}

/// Says the port and waits for the end of standard input, which is that of the process that
/// started this one.
async fn until_left(port: u16) -> Result<Value> {
    println!("{port}");
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await??;
    Ok(json!({}))
}

struct FromMemory {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
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
            // A batch that was read from a file is one allocation, which the encoder counts for
            // every column: it would cut messages of a megabyte into twenty.
            .with_max_flight_data_size(usize::MAX)
            .build(futures::stream::iter(batches))
            .map_err(Status::from);
        Ok(Response::new(data.boxed()))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
