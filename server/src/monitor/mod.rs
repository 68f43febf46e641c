//! The port for those who watch the server: `/metrics`, `/healthz` and `/readyz` over HTTP/1.1.
//!
//! It speaks before the engine is open, so that a long start can be watched, and until everything is
//! drained. A connection has one request, a bounded header and a time limit; there are few of them,
//! and no request has an effect.

mod metrics;
mod ready;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Engine;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::calls::Calls;
use crate::sessions::Sessions;
use crate::task::AbortOnDrop;
use metrics::Metrics;

/// Connections at a time; further ones wait for their turn in the kernel's queue.
const CONNECTIONS: usize = 128;

const HEADER_BYTES: usize = 16 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// From the first byte of a request to the last of its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) engine: Arc<Engine>,
    pub(crate) calls: Calls,
    pub(crate) sessions: Arc<Sessions>,
    /// A permit for every connection that may still come.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) max_connections: usize,
}

/// The port, open until it is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) address: SocketAddr,
    watched: Arc<OnceLock<Serving>>,
    _task: AbortOnDrop,
}

#[derive(Debug)]
struct Serving {
    watched: Watched,
    metrics: Metrics,
}

impl Monitor {
    /// # Errors
    /// `Unavailable` when the address cannot be had.
    pub(crate) async fn start(listen: &str) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            Error::unavailable(format!("cannot listen on {listen} (http.listen): {error}"))
                .with_source(error)
        };
        let listener = TcpListener::bind(listen).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        tracing::info!("metrics and health on http://{address}");
        let watched = Arc::default();
        Ok(Self {
            address,
            watched: Arc::clone(&watched),
            _task: AbortOnDrop(tokio::spawn(accept(listener, watched))),
        })
    }

    /// The server is open: from here on there is something to watch.
    pub(crate) fn watch(&self, watched: Watched) {
        let metrics = Metrics::new(&watched);
        // Once: a server opens once.
        let _ = self.watched.set(Serving { watched, metrics });
    }
}

async fn accept(listener: TcpListener, watched: Arc<OnceLock<Serving>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics and health");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let watched = Arc::clone(&watched);
        tokio::spawn(async move {
            converse(stream, watched).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, watched: Arc<OnceLock<Serving>>) {
    let service = service_fn(|request| {
        let watched = Arc::clone(&watched);
        async move { Ok::<_, Infallible>(answer(&request, watched).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request for metrics or health broke off"),
        Err(_) => tracing::debug!("a request for metrics or health took too long"),
    }
}

async fn answer(request: &Request<Incoming>, watched: Arc<OnceLock<Serving>>) -> Answer {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        let what = "there are /metrics, /healthz and /readyz\n";
        return text(StatusCode::NOT_FOUND, what.to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return answer;
    }
    match path {
        "/metrics" => metrics::answer(watched).await,
        "/readyz" => ready::answer(watched.get()),
        _ => text(StatusCode::OK, "alive\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    typed(status, TEXT, body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
