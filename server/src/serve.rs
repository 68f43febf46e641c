//! Puts an engine on the wire: binds, serves, and ends cleanly when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Engine;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tower::util::MapResponseLayer;

use crate::calls::Calls;
use crate::config::{Config, ServerConfig};
use crate::flight::{FlightServer, descriptor, status};
use crate::listen;
use crate::monitor::{Monitor, Watched};
use crate::progress::ProgressLayer;
use crate::sessions::Sessions;
use crate::start::{self, Background};

/// HTTP/2 pings find peers that are gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Request metadata; drivers send their unknown URL properties as headers.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// A running server. Dropping the handle tells it to stop.
#[derive(Debug)]
pub struct ServerHandle {
    pub local_addr: SocketAddr,
    /// Of the port for metrics and health, if there is one.
    pub http_addr: Option<SocketAddr>,
    pub engine: Arc<Engine>,
    stop: StopOnDrop,
    task: JoinHandle<Result<()>>,
}

#[derive(Debug)]
struct StopOnDrop(watch::Sender<bool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(true);
    }
}

impl ServerHandle {
    /// Waits until the server has ended: after its shutdown future, or [`ServerHandle::stop`].
    ///
    /// # Errors
    /// `Internal` when serving failed.
    pub async fn finished(self) -> Result<()> {
        let Self { task, stop, .. } = self;
        let outcome = task.await;
        drop(stop);
        match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                Err(Error::internal(format!("the server task failed: {error}")).with_source(error))
            }
        }
    }

    /// Tells the server to stop, gives running calls their grace, and waits for the end.
    ///
    /// # Errors
    /// Those of [`ServerHandle::finished`].
    pub async fn stop(self) -> Result<()> {
        let _ = self.stop.0.send(true);
        self.finished().await
    }
}

/// Opens the configured catalog and serves it until `shutdown` resolves.
///
/// # Errors
/// `InvalidArgument` for a configuration that cannot be served, `Unavailable` when the address or
/// the catalog cannot be had; each a sentence for the operator.
pub async fn serve(
    config: &Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ServerHandle> {
    config.check()?;
    let listener = bind(&config.server).await?;
    let monitor = match &config.http.listen {
        Some(listen) => Some(Monitor::start(listen).await?),
        None => None,
    };
    let (engine, background) = start::engine(config).await?;
    let beside = Beside {
        monitor,
        background: Some(background),
    };
    serve_on(listener, engine, &config.server, shutdown.boxed(), beside)
}

/// Serves an engine that exists already.
///
/// # Errors
/// Those of [`serve`], the catalog's excepted.
pub async fn serve_engine(
    engine: Arc<Engine>,
    config: &ServerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<ServerHandle> {
    let listener = bind(config).await?;
    let beside = Beside::default();
    serve_on(listener, engine, config, shutdown.boxed(), beside)
}

/// Resolves on Ctrl-C or SIGTERM.
///
/// # Errors
/// `Internal` when the handler cannot be installed.
pub fn interrupted() -> Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let install = |kind| {
        signal(kind).map_err(|error| Error::internal(format!("cannot handle signals: {error}")))
    };
    let mut interrupt = install(SignalKind::interrupt())?;
    let mut terminate = install(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    })
}

async fn bind(config: &ServerConfig) -> Result<TcpListener> {
    let unusable = |error: std::io::Error| {
        Error::unavailable(format!("cannot listen on {}: {error}", config.listen))
            .with_source(error)
    };
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(&config.listen)
        .await
        .map_err(unusable)?
        .collect();
    let beyond = addresses.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), false) = (beyond, config.insecure) {
        return Err(Error::invalid(format!(
            "refusing to listen on {address}: nothing authenticates clients yet, so anyone who \
             can connect may read everything; listen on 127.0.0.1, or pass --insecure"
        )));
    }
    TcpListener::bind(&addresses[..]).await.map_err(unusable)
}

/// What runs beside the server until it has ended.
#[derive(Default)]
struct Beside {
    monitor: Option<Monitor>,
    background: Option<Background>,
}

fn serve_on(
    listener: TcpListener,
    engine: Arc<Engine>,
    config: &ServerConfig,
    shutdown: BoxFuture<'static, ()>,
    beside: Beside,
) -> Result<ServerHandle> {
    let local_addr = listener
        .local_addr()
        .map_err(|error| Error::unavailable(format!("the listener has no address: {error}")))?;
    let idle = engine.options.idle_session_timeout;
    let sessions = Sessions::new(idle, config.max_sessions);
    let calls = Calls::default();
    let flight = FlightServer::new(
        Arc::clone(&engine),
        Arc::clone(&sessions),
        calls.clone(),
        config,
    )?;
    let kept = flight.clone();
    let flight = FlightServiceServer::new(flight)
        .max_decoding_message_size(usize::try_from(config.max_message.0).unwrap_or(usize::MAX));
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(descriptor::files())
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Error::internal(format!("the services cannot be described: {error}")))?;

    let (stop, _) = watch::channel(false);
    // Ends accepting and then idle connections, when what was begun is done.
    let close = CancellationToken::new();
    let cut = CancellationToken::new();
    let connections = Arc::new(Semaphore::new(config.max_connections));
    let incoming = listen::incoming(
        listener,
        Arc::clone(&sessions),
        Arc::clone(&connections),
        listen::Limits {
            of_one_address: config.max_connections_per_address,
            opening: config.handshake_timeout.0,
        },
        cut.clone(),
    );
    let server = Server::builder()
        .max_concurrent_streams(config.max_streams)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .layer(ProgressLayer::new(
            config.stall_timeout.0,
            config.request_timeout.0,
            &engine,
        ))
        .layer(MapResponseLayer::new(status::of_unread))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(flight)
        .serve_with_incoming_shutdown(incoming, close.clone().cancelled_owned());

    let Beside {
        monitor,
        background,
    } = beside;
    let http_addr = monitor.as_ref().map(|monitor| monitor.address);
    if let Some(monitor) = &monitor {
        monitor.watch(Watched {
            engine: Arc::clone(&engine),
            calls: calls.clone(),
            sessions: Arc::clone(&sessions),
            connections,
            max_connections: config.max_connections,
        });
    }

    let mut stopped_by_handle = stop.subscribe();
    let grace = config.shutdown_grace.0;
    let task = tokio::spawn(async move {
        health
            .set_serving::<FlightServiceServer<FlightServer>>()
            .await;
        let end = async {
            tokio::select! {
                () = shutdown => {}
                () = sessions.sweep_for_ever() => {}
                () = kept.sweep_for_ever() => {}
                _ = stopped_by_handle.wait_for(|stop| *stop) => {}
            }
            let until = tokio::time::Instant::now() + grace;
            health
                .set_not_serving::<FlightServiceServer<FlightServer>>()
                .await;
            health
                .set_service_status("", ServingStatus::NotServing)
                .await;
            calls.drain();
            let _ = tokio::time::timeout_at(until, calls.quiet()).await;
            close.cancel();
            tokio::time::sleep_until(until).await;
        };
        let outcome = tokio::select! {
            outcome = server => outcome.map_err(|error| {
                Error::internal(format!("serving failed: {error}")).with_source(error)
            }),
            () = end => {
                tracing::warn!("cut off calls that outlasted the grace period");
                Ok(())
            }
        };
        cut.cancel();
        if let Some(background) = background {
            background.stop(grace).await;
        }
        drop(monitor);
        outcome
    });
    tracing::info!("listening on grpc://{local_addr}");
    Ok(ServerHandle {
        local_addr,
        http_addr,
        engine,
        stop: StopOnDrop(stop),
        task,
    })
}
