//! The accept loop. Every connection has a number of its own, since a client without bearer or
//! cookie is known by its connection; the session named by it ends when the connection closes.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::sessions::Sessions;

/// After a failed accept (no file descriptors left, for one) the loop rests before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that open an HTTP/2 connection. Until they came nothing else watches the client.
const PREFACE_BYTES: usize = 24;

/// What the accept loop allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at a time of clients at one address.
    pub(crate) of_one_address: usize,
    /// How long a client may take to open HTTP/2 on its connection.
    pub(crate) opening: Duration,
}

/// What handlers know of the connection a call came by.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionInfo {
    /// Never used twice in a process.
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    /// Breaks the connection off.
    pub(crate) cut: CancellationToken,
}

/// An accepted connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Until the client has spoken.
    opening: Option<Opening>,
    /// Breaks the connection off: when the server's grace period is over, or for cause.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    end: ConnectionEnd,
}

/// What is still missing of a client's first words, and when they are due.
struct Opening {
    missing: usize,
    due: Pin<Box<Sleep>>,
}

/// Runs when the connection's last byte was read or written.
struct ConnectionEnd {
    info: ConnectionInfo,
    sessions: Arc<Sessions>,
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// How many connections there are from each address.
type Addresses = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection's place among those of its address.
struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Place {
    /// None when `most` others have one already.
    fn take(addresses: &Addresses, address: IpAddr, most: usize) -> Option<Self> {
        let mut counts = addresses.lock();
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self {
            addresses: Arc::clone(addresses),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

impl Drop for ConnectionEnd {
    fn drop(&mut self) {
        self.sessions.connection_closed(self.info.id);
    }
}

/// The connections of `listener`, one for every permit. One more than allowed is closed at once,
/// which a client sees as unavailable, rather than left waiting.
pub(crate) fn incoming(
    listener: TcpListener,
    sessions: Arc<Sessions>,
    permits: Arc<Semaphore>,
    limits: Limits,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let addresses = Addresses::default();
    async_stream::stream! {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                tracing::warn!(%peer, "too many connections; closed the newest");
                continue;
            };
            let most = limits.of_one_address;
            let Some(place) = Place::take(&addresses, peer.ip(), most) else {
                tracing::warn!(%peer, most, "too many connections from one address; closed the newest");
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%peer, %error, "the connection is already gone");
                continue;
            }
            let cut = cut.child_token();
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            let info = ConnectionInfo { id, peer, cut: cut.clone() };
            yield Ok(Connection {
                stream,
                opening: Some(Opening {
                    missing: PREFACE_BYTES,
                    due: Box::pin(tokio::time::sleep(limits.opening)),
                }),
                cut: Box::pin(cut.cancelled_owned()),
                end: ConnectionEnd {
                    info,
                    sessions: Arc::clone(&sessions),
                    _permit: permit,
                    _place: place,
                },
            });
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.end.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let this = &mut *self;
        if let Some(opening) = &mut this.opening {
            opening.missing = opening
                .missing
                .saturating_sub(buffer.filled().len() - before);
            if opening.missing == 0 {
                this.opening = None;
            } else if read.is_pending() && opening.due.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
