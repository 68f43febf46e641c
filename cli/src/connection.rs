//! One Flight SQL session: address, handshake, queries as streams of batches.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightEndpoint, FlightInfo, HandshakeRequest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::error::{CliError, innermost};

const DEFAULT_PORT: u16 = 50051;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The location that means "where you asked" (Flight's specification).
const REUSE_CONNECTION: &str = "arrow-flight-reuse-connection://?";

/// Where to connect and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// As the user typed it, for messages.
    url: String,
    endpoint: Endpoint,
    user: Option<String>,
    password: Option<String>,
    headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
}

impl Target {
    /// # Errors
    /// An address or a header that cannot be read.
    pub fn new(
        url: &str,
        user: Option<String>,
        password: Option<String>,
        headers: Vec<(String, String)>,
    ) -> Result<Self, CliError> {
        let endpoint = Endpoint::from_shared(http_url(url)?)
            .map_err(|_| bad_url(url))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let headers = headers
            .into_iter()
            .map(metadata)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            url: url.to_owned(),
            endpoint,
            user,
            password,
            headers,
        })
    }
}

/// A result: its schema and its batches, not yet read.
pub struct Rows {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch, CliError>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// One session on one server.
#[derive(Debug)]
pub struct Connection {
    target: Target,
    client: FlightSqlServiceClient<Channel>,
}

impl Connection {
    /// Connects and shakes hands. The handshake names the session by a bearer, so that a
    /// connection that is silently made anew cannot lose the session's clocks.
    ///
    /// # Errors
    /// No server there, or one that refuses the login.
    pub async fn open(target: Target) -> Result<Self, CliError> {
        let channel = target.endpoint.connect().await.map_err(|error| {
            CliError::Connection(format!(
                "cannot reach {}: {}; is `featureflight serve` running there?",
                target.url,
                innermost(&error)
            ))
        })?;
        let flight = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut connection = Self {
            target,
            client: FlightSqlServiceClient::new_from_inner(flight),
        };
        for (name, value) in &connection.target.headers {
            connection
                .client
                .set_header(name.as_str(), value.to_str().unwrap_or_default());
        }
        if !connection
            .target
            .headers
            .iter()
            .any(|(name, _)| name.as_str() == "authorization")
        {
            connection.handshake().await?;
        }
        Ok(connection)
    }

    /// The same server, a new session.
    pub(crate) async fn reopen(&mut self) -> Result<(), CliError> {
        *self = Self::open(self.target.clone()).await?;
        Ok(())
    }

    pub(crate) fn url(&self) -> &str {
        &self.target.url
    }

    async fn handshake(&mut self) -> Result<(), CliError> {
        let Target {
            user,
            password,
            headers,
            ..
        } = &self.target;
        let name = user.as_deref().unwrap_or("anonymous");
        let basic = BASE64_STANDARD.encode(format!(
            "{name}:{}",
            password.as_deref().unwrap_or_default()
        ));
        let mut request = Request::new(stream::iter([HandshakeRequest::default()]));
        let basic = format!("Basic {basic}")
            .parse()
            .map_err(|_| CliError::Usage("user and password do not fit a header".to_owned()))?;
        for (name, value) in headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request.metadata_mut().insert("authorization", basic);
        match self.client.inner_mut().handshake(request).await {
            Ok(response) => {
                let bearer = response
                    .metadata()
                    .get("authorization")
                    .and_then(|v| v.to_str().ok());
                let token = bearer
                    .and_then(|v| v.strip_prefix("Bearer "))
                    .map(str::to_owned);
                response.into_inner().try_collect::<Vec<_>>().await?;
                if let Some(token) = token {
                    self.client.set_token(token);
                }
                Ok(())
            }
            // A server without logins; its session is the connection.
            Err(status) if status.code() == Code::Unimplemented && user.is_none() => Ok(()),
            Err(status) => Err(status.into()),
        }
    }

    /// Runs one statement.
    ///
    /// # Errors
    /// The server's, or a broken connection. Errors after the first rows are in the stream.
    pub async fn query(&mut self, sql: &str) -> Result<Rows, CliError> {
        let info = self.client.execute(sql.to_owned(), None).await?;
        self.fetch(info).await
    }

    /// The rows of an answer, endpoint after endpoint.
    pub(crate) async fn fetch(&self, info: FlightInfo) -> Result<Rows, CliError> {
        let endpoints = info.endpoint.clone();
        let announced = if info.schema.is_empty() {
            None
        } else {
            Some(Arc::new(info.try_decode_schema().map_err(|error| {
                CliError::Protocol(format!("the announced schema: {error}"))
            })?))
        };
        let client = self.client.clone();
        let mut batches = stream::iter(endpoints)
            .map(Ok::<_, CliError>)
            .and_then(move |endpoint| get(client.clone(), endpoint))
            .try_flatten()
            .boxed();
        let Some(schema) = announced else {
            let first = batches.try_next().await?;
            let schema = first
                .as_ref()
                .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
            return Ok(Rows {
                schema,
                batches: stream::iter(first.map(Ok)).chain(batches).boxed(),
            });
        };
        Ok(Rows { schema, batches })
    }

    /// The client, for metadata calls.
    pub(crate) fn client(&mut self) -> &mut FlightSqlServiceClient<Channel> {
        &mut self.client
    }
}

/// The batches of one endpoint.
async fn get(
    mut client: FlightSqlServiceClient<Channel>,
    endpoint: FlightEndpoint,
) -> Result<BoxStream<'static, Result<RecordBatch, CliError>>, CliError> {
    let here = endpoint.location.is_empty()
        || endpoint
            .location
            .iter()
            .any(|l| l.uri.is_empty() || l.uri.starts_with(REUSE_CONNECTION));
    if !here {
        let elsewhere = endpoint.location.first().map_or("", |l| l.uri.as_str());
        return Err(CliError::Protocol(format!(
            "part of the result is at {elsewhere}, and this shell reads from one server only"
        )));
    }
    let ticket = endpoint
        .ticket
        .ok_or_else(|| CliError::Protocol("an endpoint without a ticket".to_owned()))?;
    Ok(client.do_get(ticket).await?.map_err(CliError::from).boxed())
}

fn metadata(
    (name, value): (String, String),
) -> Result<(AsciiMetadataKey, AsciiMetadataValue), CliError> {
    let bad = |what| CliError::Usage(format!("`{name}={value}`: {what} is not valid in a header"));
    let key = name.parse().map_err(|_| bad("the name"))?;
    let text = value.parse().map_err(|_| bad("the value"))?;
    Ok((key, text))
}

/// The URL tonic understands. The scheme may be absent, and the port.
fn http_url(url: &str) -> Result<String, CliError> {
    let authority = match url.split_once("://") {
        Some(("grpc" | "grpc+tcp" | "http" | "flightsql", rest)) => rest,
        Some(("grpc+tls" | "grpcs" | "https", _)) => {
            return Err(CliError::Usage(format!(
                "{url}: this shell does not speak TLS yet"
            )));
        }
        Some(_) => return Err(bad_url(url)),
        None => url,
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let host_end = authority.rfind(']').unwrap_or(0);
    let port = authority[host_end..].rsplit_once(':').map(|(_, port)| port);
    let plain = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', ' ']);
    match port {
        _ if !plain => Err(bad_url(url)),
        None => Ok(format!("http://{authority}:{DEFAULT_PORT}")),
        Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
            Ok(format!("http://{authority}"))
        }
        Some(_) => Err(bad_url(url)),
    }
}

fn bad_url(url: &str) -> CliError {
    CliError::Usage(format!(
        "`{url}` is not an address; expected grpc://HOST:PORT"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let ok = |url| http_url(url).unwrap();
        assert_eq!(ok("grpc://127.0.0.1:50051"), "http://127.0.0.1:50051");
        assert_eq!(ok("grpc+tcp://host:1/"), "http://host:1");
        assert_eq!(ok("host"), "http://host:50051");
        assert_eq!(ok("localhost:99"), "http://localhost:99");
        assert_eq!(ok("grpc://[::1]"), "http://[::1]:50051");
        assert_eq!(ok("grpc://[::1]:7"), "http://[::1]:7");
        for bad in [
            "ftp://x",
            "grpc://",
            "grpc://h:port",
            "grpc://h:0",
            "grpc://u@h",
            "a b",
            "",
        ] {
            assert!(http_url(bad).is_err(), "{bad}");
        }
        assert!(
            http_url("grpc+tls://h")
                .unwrap_err()
                .to_string()
                .contains("TLS")
        );
    }

    #[test]
    fn headers_must_fit_the_wire() {
        let new = |name: &str, value: &str| {
            Target::new("h", None, None, vec![(name.to_owned(), value.to_owned())])
        };
        assert!(new("featureflight-system-time", "2026-01-01T00:00:00Z").is_ok());
        assert!(new("two words", "x").is_err());
        assert!(new("name", "line\nbreak").is_err());
    }
}
