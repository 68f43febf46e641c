//! How many queries run at once and how many may wait; the rest are refused at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use featureflight_catalog::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    permits: Arc<Semaphore>,
    running: usize,
    waiting: AtomicUsize,
    queue: usize,
}

impl Admission {
    pub(crate) fn new(running: usize, queue: usize) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(running)),
            running,
            waiting: AtomicUsize::new(0),
            queue,
        }
    }

    /// Waits for a permit, first come, first served.
    ///
    /// # Errors
    /// `ResourceExhausted` when the queue is full.
    pub(crate) async fn admit(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue).ok_or_else(|| {
            Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the server runs {} queries and {} wait: try again later",
                    self.running, self.queue
                ),
            )
        })?;
        Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(crate::error::internal)
    }

    /// Permits not in use.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

/// A place in the queue, given back when its holder is admitted or gives up.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, queue: usize) -> Option<Self> {
        waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < queue).then_some(n + 1)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn the_queue_is_bounded_and_places_come_back() {
        let admission = Admission::new(1, 1);
        let first = admission.admit().await.unwrap();
        let mut second = Box::pin(admission.admit());
        assert!(second.as_mut().now_or_never().is_none());
        let third = admission.admit().await.unwrap_err();
        assert_eq!(third.kind, Kind::ResourceExhausted);
        drop(second);
        let mut fourth = Box::pin(admission.admit());
        assert!(
            fourth.as_mut().now_or_never().is_none(),
            "a place given up is free again"
        );
        drop(first);
        assert!(fourth.await.is_ok());
    }
}
