//! The calls under way, and how a server that was told to stop comes to its end: nothing new begins,
//! what is planned may still be fetched, and when nothing was under way for a moment it is quiet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use featureflight_catalog::{Error, Result};
use tokio::sync::watch;

/// Time between two calls of one client: its statement is planned, and it fetches the result.
const BETWEEN_CALLS: Duration = Duration::from_millis(300);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    draining: AtomicBool,
    under_way: watch::Sender<usize>,
}

/// One call, until its last byte is sent.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Inner>);

impl Default for Calls {
    fn default() -> Self {
        let (under_way, _) = watch::channel(0);
        Self(Arc::new(Inner {
            draining: AtomicBool::new(false),
            under_way,
        }))
    }
}

impl Calls {
    pub(crate) fn enter(&self) -> UnderWay {
        self.0.under_way.send_modify(|count| *count += 1);
        UnderWay(Arc::clone(&self.0))
    }

    /// From now on nothing new begins.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// # Errors
    /// `Unavailable` once the server was told to stop.
    pub(crate) fn may_begin(&self) -> Result<()> {
        if self.0.draining.load(Ordering::Acquire) {
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
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
