//! Requests that stop coming, or never come to an end: a body of which nothing arrives for too long
//! ends its call, whether the client sends one message or many, and so does one that drips for
//! longer than a request may take. One that its client breaks off is no complete one. A client that
//! died is found by pings; this is for one that lives and says nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::flight::status;

/// Watches the bodies of all requests.
#[derive(Debug, Clone)]
pub(crate) struct ProgressLayer {
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    pause: Duration,
    whole: Duration,
}

impl ProgressLayer {
    /// `pause` is the longest between two pieces of a body, `whole` what all of it may take.
    pub(crate) fn new(pause: Duration, whole: Duration) -> Self {
        Self {
            limits: Limits { pause, whole },
        }
    }
}

impl<S> Layer<S> for ProgressLayer {
    type Service = Progress<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Progress {
            inner,
            limits: self.limits,
        }
    }
}

/// See [`ProgressLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Progress<S> {
    inner: S,
    limits: Limits,
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
        let began = Instant::now();
        self.inner.call(request.map(|body| {
            Body::new(Watched {
                body,
                limits,
                began,
                pause: None,
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
            return Poll::Ready(frame.map(|frame| frame.map_err(status::of_body)));
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
