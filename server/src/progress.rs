//! Requests that stop coming: a body of which nothing arrives for too long ends its call, whether
//! the client sends one message or many, and one that its client breaks off is no complete one. A
//! client that died is found by pings; this is for one that lives and says nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use http_body::{Frame, SizeHint};
use prost::bytes::Bytes;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::flight::status;

/// Watches the bodies of all requests.
#[derive(Debug, Clone)]
pub(crate) struct ProgressLayer {
    limit: Duration,
}

impl ProgressLayer {
    /// `limit` is the longest pause between two pieces of a body.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> Layer<S> for ProgressLayer {
    type Service = Progress<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Progress {
            inner,
            limit: self.limit,
        }
    }
}

/// See [`ProgressLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Progress<S> {
    inner: S,
    limit: Duration,
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Progress<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limit = self.limit;
        self.inner.call(request.map(|body| {
            Body::new(Watched {
                body,
                limit,
                pause: None,
            })
        }))
    }
}

struct Watched {
    body: Body,
    limit: Duration,
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
            return Poll::Ready(frame.map(|frame| frame.map_err(status::of_body)));
        }
        let limit = self.limit;
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match pause.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(status::stalled(limit)))),
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
