//! A server in this process and one connection to it, for targets, which are called without a
//! runtime.

use std::sync::Arc;

use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandStatementQuery, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use featureflight_catalog::Error;
use featureflight_engine::session::Session;
use featureflight_server::config::Config;
use featureflight_server::serve::ServerHandle;
use futures::TryStreamExt;
use prost::Message;
use prost::bytes::Bytes;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

use crate::serve_configured;
use crate::warehouse::write_examples;

pub(super) struct Served {
    runtime: Runtime,
    handle: ServerHandle,
    flight: FlightServiceClient<Channel>,
    _directory: tempfile::TempDir,
}

impl Served {
    /// A server over the examples.
    pub(super) fn start(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_examples(directory.path());
        let runtime = Runtime::new().unwrap();
        let handle = runtime.block_on(serve_configured(directory.path(), change));
        let flight = runtime.block_on(connect(&handle));
        Self {
            runtime,
            handle,
            flight,
            _directory: directory,
        }
    }

    /// Goes on with a connection of its own, which is a session of its own.
    pub(super) fn reconnect(&mut self) {
        self.flight = self.runtime.block_on(connect(&self.handle));
    }

    /// Plans `sql`, without the wire, in a session of its own.
    pub(super) fn prepare_in_process(&self, sql: &str) -> Result<(), Error> {
        let session = Arc::new(Session::new("fuzz"));
        let engine = &self.handle.engine;
        self.runtime
            .block_on(engine.prepare(&session, sql))
            .map(drop)
    }

    pub(super) fn execute(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        self.info(&CommandStatementQuery {
            query: sql.into(),
            transaction_id: None,
        })
    }

    pub(super) fn info(&mut self, command: &impl ProstMessageExt) -> Result<FlightInfo, Status> {
        self.describe(command.as_any().encode_to_vec())
    }

    pub(super) fn describe(&mut self, command: Vec<u8>) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command);
        let info = self.flight.get_flight_info(descriptor);
        Ok(self.runtime.block_on(info)?.into_inner())
    }

    /// Reads all that a ticket is for, and that it is a stream of Arrow.
    pub(super) fn fetch(&mut self, ticket: Ticket) -> Result<(), Status> {
        self.runtime.block_on(async {
            let messages = self.flight.do_get(ticket).await?.into_inner();
            let messages = messages.map_err(|status| FlightError::Tonic(Box::new(status)));
            let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
            loop {
                match batches.try_next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(()),
                    Err(FlightError::Tonic(status)) => return Err(*status),
                    Err(error) => panic!("not a Flight stream: {error}"),
                }
            }
        })
    }

    /// The handle of a prepared statement.
    pub(super) fn prepare(&mut self, sql: &str) -> Bytes {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.into(),
            transaction_id: None,
        };
        let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
        let result = self.runtime.block_on(async {
            let results = self.flight.do_action(action).await.unwrap().into_inner();
            let results: Vec<_> = results.try_collect().await.unwrap();
            Any::decode(results[0].body.clone()).unwrap()
        });
        let prepared: ActionCreatePreparedStatementResult = result.unpack().unwrap().unwrap();
        prepared.prepared_statement_handle
    }

    pub(super) fn put(&mut self, messages: Vec<FlightData>) -> Result<(), Status> {
        self.runtime.block_on(async {
            let messages = futures::stream::iter(messages);
            let answers = self.flight.do_put(messages).await?.into_inner();
            answers.try_collect::<Vec<_>>().await.map(drop)
        })
    }
}

async fn connect(handle: &ServerHandle) -> FlightServiceClient<Channel> {
    let url = format!("http://{}", handle.local_addr);
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    FlightServiceClient::new(channel)
}
