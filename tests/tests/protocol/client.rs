//! A Flight client that hides nothing: every call is made by hand, so that tests see what drivers
//! get.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, Any, CommandStatementQuery, CommandStatementUpdate,
    DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightData, FlightDescriptor, FlightInfo, Ticket};
use featureflight_server::Config;
use featureflight_server::serve::ServerHandle;
use featureflight_tests::serve_configured;
use featureflight_tests::warehouse::write_examples;
use futures::TryStreamExt;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// A server over the examples; the directory lives as long as it.
pub(crate) struct Server {
    pub handle: ServerHandle,
    pub directory: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    pub(crate) async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_examples(directory.path());
        let handle = serve_configured(directory.path(), change).await;
        Self { handle, directory }
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Client {
        let url = format!("http://{}", self.handle.local_addr);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(64 << 20);
        Client {
            flight,
            headers: Vec::new(),
            cookies: None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Client {
    pub flight: FlightServiceClient<Channel>,
    pub headers: Vec<(&'static str, String)>,
    /// What the server offered last, as it is sent back.
    pub cookies: Option<Arc<Mutex<Option<String>>>>,
}

impl Client {
    #[must_use]
    pub(crate) fn with_header(&self, name: &'static str, value: impl Into<String>) -> Self {
        let mut client = self.clone();
        client.headers.push((name, value.into()));
        client
    }

    /// Cookies that are offered come back, as drivers with a jar for them do.
    #[must_use]
    pub(crate) fn with_cookies(&self) -> Self {
        let cookies = Some(Arc::default());
        Self {
            cookies,
            ..self.clone()
        }
    }

    /// The cookie that every further call carries.
    pub(crate) fn cookie(&self) -> Option<String> {
        self.cookies.as_ref()?.lock().unwrap().clone()
    }

    pub(crate) fn opened<T>(&self, response: Response<T>) -> T {
        if let Some(jar) = &self.cookies
            && let Some(offered) = response.metadata().get("set-cookie")
        {
            let pair = offered.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            // Apache's C++ puts values into quotes.
            *jar.lock().unwrap() = Some(format!("{name}=\"{value}\""));
        }
        response.into_inner()
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(cookie) = self.cookie() {
            let cookie = MetadataValue::try_from(cookie).unwrap();
            request.metadata_mut().append("cookie", cookie);
        }
        for (name, value) in &self.headers {
            request
                .metadata_mut()
                .append(*name, MetadataValue::try_from(value).unwrap());
        }
        request
    }

    pub(crate) async fn info(
        &mut self,
        command: &impl ProstMessageExt,
    ) -> Result<FlightInfo, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.request(descriptor);
        let response = self.flight.get_flight_info(request).await?;
        Ok(self.opened(response))
    }

    pub(crate) async fn schema(
        &mut self,
        command: &impl ProstMessageExt,
    ) -> Result<Schema, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
        let request = self.request(descriptor);
        let response = self.flight.get_schema(request).await?;
        let result = self.opened(response);
        Ok(try_schema_from_ipc_buffer(&result.schema).unwrap())
    }

    pub(crate) async fn execute(&mut self, sql: &str) -> Result<FlightInfo, Status> {
        let query = CommandStatementQuery {
            query: sql.into(),
            transaction_id: None,
        };
        self.info(&query).await
    }

    pub(crate) async fn fetch(&mut self, ticket: &Ticket) -> Result<Answer, Status> {
        let request = self.request(ticket.clone());
        let response = self.flight.do_get(request).await?;
        let messages = self.opened(response);
        let mut stream = FlightRecordBatchStream::new_from_flight_data(
            messages.map_err(|status| FlightError::Tonic(Box::new(status))),
        );
        let mut batches = Vec::new();
        loop {
            match stream.try_next().await {
                Ok(Some(batch)) => batches.push(batch),
                Ok(None) => break,
                Err(FlightError::Tonic(status)) => return Err(*status),
                Err(error) => panic!("not a Flight stream: {error}"),
            }
        }
        let schema = Arc::clone(stream.schema().expect("every result carries its schema"));
        Ok(Answer { schema, batches })
    }

    /// The whole answer of a command.
    pub(crate) async fn ask(&mut self, command: &impl ProstMessageExt) -> Result<Answer, Status> {
        let info = self.info(command).await?;
        let answer = self.fetch(&only_ticket(&info)).await?;
        let announced = announced(&info);
        assert_eq!(announced, *answer.schema, "announced and sent");
        Ok(answer)
    }

    pub(crate) async fn query(&mut self, sql: &str) -> Result<Answer, Status> {
        let query = CommandStatementQuery {
            query: sql.into(),
            transaction_id: None,
        };
        self.ask(&query).await
    }

    /// The rows as text, one line each, cells joined by `|`.
    pub(crate) async fn rows(&mut self, sql: &str) -> Vec<String> {
        self.query(sql).await.unwrap().lines()
    }

    pub(crate) async fn put(&mut self, messages: Vec<FlightData>) -> Result<Vec<u8>, Status> {
        let request = self.request(futures::stream::iter(messages));
        let response = self.flight.do_put(request).await?;
        let mut results = self.opened(response);
        let first = results.message().await?.expect("one result");
        assert!(results.message().await?.is_none(), "only one result");
        Ok(first.app_metadata.to_vec())
    }

    pub(crate) async fn update(&mut self, sql: &str) -> Result<i64, Status> {
        let command = CommandStatementUpdate {
            query: sql.into(),
            transaction_id: None,
        };
        let result = self.put(vec![alone(&command)]).await?;
        Ok(DoPutUpdateResult::decode(result.as_slice())
            .unwrap()
            .record_count)
    }

    pub(crate) async fn action(
        &mut self,
        name: &str,
        body: Vec<u8>,
    ) -> Result<Vec<Vec<u8>>, Status> {
        let request = self.request(Action::new(name, body));
        let response = self.flight.do_action(request).await?;
        let results = self.opened(response);
        let results: Vec<_> = results.try_collect().await?;
        Ok(results
            .into_iter()
            .map(|result| result.body.to_vec())
            .collect())
    }

    pub(crate) async fn prepare(&mut self, sql: &str) -> Result<Prepared, Status> {
        let request = ActionCreatePreparedStatementRequest {
            query: sql.into(),
            transaction_id: None,
        };
        let body = request.as_any().encode_to_vec();
        let results = self.action("CreatePreparedStatement", body).await?;
        assert_eq!(results.len(), 1);
        let any = Any::decode(results[0].as_slice()).unwrap();
        let url =
            "type.googleapis.com/arrow.flight.protocol.sql.ActionCreatePreparedStatementResult";
        assert_eq!(any.type_url, url);
        Ok(Prepared::decode(any.value.as_ref()).unwrap())
    }
}

/// `ActionCreatePreparedStatementResult` as newer drivers read it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Prepared {
    #[prost(bytes = "bytes", tag = "1")]
    pub handle: prost::bytes::Bytes,
    #[prost(bytes = "vec", tag = "2")]
    pub dataset_schema: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub parameter_schema: Vec<u8>,
    #[prost(bool, optional, tag = "4")]
    pub is_update: Option<bool>,
}

impl Prepared {
    pub(crate) fn dataset(&self) -> Schema {
        try_schema_from_ipc_buffer(&self.dataset_schema).unwrap()
    }

    pub(crate) fn parameters(&self) -> Schema {
        try_schema_from_ipc_buffer(&self.parameter_schema).unwrap()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

impl Answer {
    pub(crate) fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let table = pretty_format_batches(&self.batches).unwrap().to_string();
        let cells = |line: &str| {
            let inner = line.trim_matches('|');
            inner
                .split('|')
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("|")
        };
        table
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(1)
            .map(cells)
            .collect()
    }
}

pub(crate) fn announced(info: &FlightInfo) -> Schema {
    info.clone().try_decode_schema().unwrap()
}

/// One endpoint without a location: the only form every driver fetches in order and from here.
pub(crate) fn only_ticket(info: &FlightInfo) -> Ticket {
    assert_eq!(info.endpoint.len(), 1);
    assert!(info.endpoint[0].location.is_empty());
    assert!(info.ordered);
    info.endpoint[0].ticket.clone().expect("a ticket")
}

/// A message that is a command and nothing else.
pub(crate) fn alone(command: &impl ProstMessageExt) -> FlightData {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    FlightData::new().with_descriptor(descriptor)
}

pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, Status>) -> tonic::Code {
    outcome.expect_err("must fail").code()
}
