//! The calls under way, and how a server that was told to stop comes to its end: nothing new begins,
//! what is planned may still be fetched, and when nothing was under way for a moment it is quiet.
//! How calls ended is counted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use featureflight_catalog::{Error, Result};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::watch;
use tonic::Code;

/// Time between two calls of one client: its statement is planned, and it fetches the result.
const BETWEEN_CALLS: Duration = Duration::from_millis(300);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    draining: AtomicBool,
    under_way: watch::Sender<usize>,
    ended: Family<Ended, Counter>,
}

/// The labels of a count of calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Ended {
    rpc: &'static str,
    /// gRPC's, as documentation writes it.
    code: &'static str,
}

/// One call, until its last byte is sent.
#[derive(Debug)]
pub(crate) struct UnderWay {
    calls: Arc<Inner>,
    rpc: &'static str,
    /// None as long as it goes on: dropped then, its client went away.
    code: Mutex<Option<Code>>,
}

impl UnderWay {
    /// It came to its end, or goes on with `None`.
    pub(crate) fn comes_to(&self, code: Option<Code>) {
        *self.code.lock() = code;
    }
}

impl Default for Calls {
    fn default() -> Self {
        let (under_way, _) = watch::channel(0);
        Self(Arc::new(Inner {
            draining: AtomicBool::new(false),
            under_way,
            ended: Family::default(),
        }))
    }
}

impl Calls {
    pub(crate) fn enter(&self, rpc: &'static str) -> UnderWay {
        self.0.under_way.send_modify(|count| *count += 1);
        UnderWay {
            calls: Arc::clone(&self.0),
            rpc,
            code: Mutex::default(),
        }
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        *self.0.under_way.borrow()
    }

    pub(crate) fn ended(&self) -> &Family<Ended, Counter> {
        &self.0.ended
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// From now on nothing new begins.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// # Errors
    /// `Unavailable` once the server was told to stop.
    pub(crate) fn may_begin(&self) -> Result<()> {
        if self.is_draining() {
            return Err(Error::unavailable(
                "this server is stopping: connect again, and run the statement there",
            ));
        }
        Ok(())
    }

    /// Waits until no call was under way for a moment.
    pub(crate) async fn quiet(&self) {
        let mut under_way = self.0.under_way.subscribe();
        loop {
            // The sender is ours, so that waiting cannot fail.
            let _ = under_way.wait_for(|count| *count == 0).await;
            under_way.mark_unchanged();
            let more = tokio::time::timeout(BETWEEN_CALLS, under_way.changed()).await;
            if more.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let code = name(self.code.lock().unwrap_or(Code::Cancelled));
        let rpc = self.rpc;
        self.calls.ended.get_or_create(&Ended { rpc, code }).inc();
        self.calls.under_way.send_modify(|count| *count -= 1);
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
