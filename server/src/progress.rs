//! Requests that stop coming, or never come to an end: a body of which nothing arrives for too long
//! ends its call, whether the client sends one message or many, and so does one that drips for
//! longer than a request may take. One that its client breaks off is no complete one. A client that
//! died is found by pings; this is for one that lives and says nothing.
//!
//! A message of which the end has not come is in memory all the same, where tonic gathers it: what is
//! there of it counts against the memory that all share.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use featureflight_engine::{Engine, Kept};
use http::Request;
use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::flight::status;

/// In front of each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Watches the bodies of all requests.
#[derive(Debug, Clone)]
pub(crate) struct ProgressLayer {
    limits: Limits,
    /// A connection that lingers does not keep the stores of a server that has stopped.
    engine: Weak<Engine>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    pause: Duration,
    whole: Duration,
}

impl ProgressLayer {
    /// `pause` is the longest between two pieces of a body, `whole` what all of it may take.
    pub(crate) fn new(pause: Duration, whole: Duration, engine: &Arc<Engine>) -> Self {
        Self {
            limits: Limits { pause, whole },
            engine: Arc::downgrade(engine),
        }
    }
}

impl<S> Layer<S> for ProgressLayer {
    type Service = Progress<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Progress {
            inner,
            limits: self.limits,
            engine: Weak::clone(&self.engine),
        }
    }
}

/// See [`ProgressLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Progress<S> {
    inner: S,
    limits: Limits,
    engine: Weak<Engine>,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Progress<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limits = self.limits;
        let engine = Weak::clone(&self.engine);
        let began = Instant::now();
        self.inner.call(request.map(|body| {
            Body::new(Watched {
                body,
                limits,
                began,
                pause: None,
                arriving: Arriving::default(),
                engine,
                kept: None,
            })
        }))
    }
}

struct Watched {
    body: Body,
    limits: Limits,
    began: Instant,
    /// Runs while nothing arrives.
    pause: Option<Pin<Box<Sleep>>>,
    arriving: Arriving,
    engine: Weak<Engine>,
    kept: Option<Kept>,
}

impl Watched {
    /// Accounts for what `frame` brings.
    fn keep(&mut self, frame: &Frame<Bytes>) -> Result<(), Status> {
        let Some(data) = frame.data_ref() else {
            return Ok(());
        };
        self.arriving.take(data);
        let here = self.arriving.here;
        if here == 0 {
            self.kept = None;
            return Ok(());
        }
        if self.kept.is_none() {
            self.kept = self.engine.upgrade().map(|engine| engine.keep("a message"));
        }
        match &self.kept {
            Some(kept) => kept.resize(here).map_err(|error| status::no_room(&error)),
            None => Ok(()),
        }
    }
}

/// Follows the messages of a body through the pieces it comes in.
#[derive(Debug, Default)]
struct Arriving {
    prefix: [u8; PREFIX_BYTES],
    of_prefix: usize,
    missing: usize,
    /// Bytes that have come of a message that is not complete.
    here: usize,
}

impl Arriving {
    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.missing == 0 {
                let wanted = (PREFIX_BYTES - self.of_prefix).min(data.len());
                let (taken, rest) = data.split_at(wanted);
                self.prefix[self.of_prefix..][..wanted].copy_from_slice(taken);
                self.of_prefix += wanted;
                data = rest;
                if self.of_prefix == PREFIX_BYTES {
                    let [_, length @ ..] = self.prefix;
                    self.missing = u32::from_be_bytes(length) as usize;
                    self.of_prefix = 0;
                }
                continue;
            }
            let taken = self.missing.min(data.len());
            data = &data[taken..];
            self.missing -= taken;
            self.here = if self.missing == 0 {
                0
            } else {
                self.here + taken
            };
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.pause = None;
            // A byte now and then is no pause, and keeps a call open all the same.
            if matches!(frame, Some(Ok(_))) && self.began.elapsed() >= self.limits.whole {
                return Poll::Ready(Some(Err(status::dripping(self.limits.whole))));
            }
            return Poll::Ready(frame.map(|frame| {
                let frame = frame.map_err(status::of_body)?;
                self.keep(&frame)?;
                Ok(frame)
            }));
        }
        let Limits { pause, whole } = self.limits;
        let left = whole.saturating_sub(self.began.elapsed());
        let sleep = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause.min(left))));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) if self.began.elapsed() >= whole => {
                Poll::Ready(Some(Err(status::dripping(whole))))
            }
            Poll::Ready(()) => Poll::Ready(Some(Err(status::stalled(pause)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_of_a_message_is_known_however_it_is_cut() {
        let message = |length: u32| {
            let mut message = vec![0];
            message.extend(length.to_be_bytes());
            message.resize(PREFIX_BYTES + length as usize, 7);
            message
        };
        let mut sent = [message(3), message(0), message(1_000)].concat();
        sent.truncate(sent.len() - 1);
        for piece in [1, 2, 5, 7, 100, 5_000] {
            let mut arriving = Arriving::default();
            sent.chunks(piece).for_each(|data| arriving.take(data));
            assert_eq!((arriving.here, arriving.missing), (999, 1), "{piece}");
            arriving.take(&[7]);
            assert_eq!((arriving.here, arriving.missing), (0, 0), "{piece}");
        }
    }
}
