//! How many statements are at work at once and how many may wait; the rest are refused at once, with
//! a guess when to come back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use featureflight_catalog::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The guess is of this order.
const LEAST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Admission {
    /// What those admitted do: `runs`, `plans`.
    does: &'static str,
    permits: Arc<Semaphore>,
    running: usize,
    waiting: AtomicUsize,
    queue: usize,
    pace: Arc<Pace>,
}

/// How long a permit was held lately, in milliseconds; the newest count most.
#[derive(Debug, Default)]
struct Pace(AtomicU64);

impl Pace {
    fn ended(&self, held: Duration) {
        let held = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let mix = |mean: u64| Some(mean - mean / 8 + held / 8);
        // Never fails: the closure always has a value.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, mix);
    }

    fn mean(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// What one session has of the permits: all but one, so that it cannot keep all others waiting.
#[derive(Debug, Default)]
pub(crate) struct Share(OnceLock<Arc<Semaphore>>);

/// The right to be at work; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _permit: OwnedSemaphorePermit,
    _of_share: OwnedSemaphorePermit,
    since: Instant,
    pace: Arc<Pace>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pace.ended(self.since.elapsed());
    }
}

impl Admission {
    pub(crate) fn new(does: &'static str, running: usize, queue: usize) -> Self {
        let running = running.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            does,
            permits: Arc::new(Semaphore::new(running)),
            running,
            waiting: AtomicUsize::new(0),
            queue,
            pace: Arc::default(),
        }
    }

    /// Waits for a permit within what a session has of them, first come, first served.
    ///
    /// # Errors
    /// `ResourceExhausted` when the queue is full.
    pub(crate) async fn admit_within(&self, share: &Share) -> Result<Permit> {
        let most = self.running.max(2) - 1;
        let share = share.0.get_or_init(|| Arc::new(Semaphore::new(most)));
        let mut place = None;
        let of_share = self.acquire(share, &mut place).await?;
        Ok(Permit {
            _permit: self.acquire(&self.permits, &mut place).await?,
            _of_share: of_share,
            since: Instant::now(),
            pace: Arc::clone(&self.pace),
        })
    }

    /// Who has to wait takes a place in the queue, and keeps it.
    async fn acquire<'a>(
        &'a self,
        permits: &Arc<Semaphore>,
        place: &mut Option<Place<'a>>,
    ) -> Result<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(permit);
        }
        if place.is_none() {
            let taken = Place::take(&self.waiting, self.queue);
            *place = Some(taken.ok_or_else(|| self.full())?);
        }
        let permit = Arc::clone(permits).acquire_owned().await;
        permit.map_err(crate::error::internal)
    }

    fn full(&self) -> Error {
        let turns = u32::try_from(self.queue / self.running).unwrap_or(u32::MAX);
        let wait = self.pace.mean().saturating_mul(turns.saturating_add(1));
        let wait = wait.clamp(LEAST_WAIT, LONGEST_WAIT).as_secs();
        Error::new(
            Kind::ResourceExhausted,
            format!(
                "the server {} {} statements and {} wait: try again in {wait} s",
                self.does, self.running, self.queue
            ),
        )
    }

    /// How many are at work and how many wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        let free = self.permits.available_permits().min(self.running);
        (self.running - free, self.waiting.load(Ordering::Acquire))
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
        let admission = Admission::new("runs", 1, 1);
        let others: [Share; 4] = Default::default();
        let first = admission.admit_within(&others[0]).await.unwrap();
        let mut second = Box::pin(admission.admit_within(&others[1]));
        assert!(second.as_mut().now_or_never().is_none());
        let third = admission.admit_within(&others[2]).await.unwrap_err();
        assert_eq!(third.kind, Kind::ResourceExhausted);
        assert!(third.message.ends_with("try again in 1 s"), "{third}");
        drop(second);
        let mut fourth = Box::pin(admission.admit_within(&others[3]));
        assert!(
            fourth.as_mut().now_or_never().is_none(),
            "a place given up is free again"
        );
        drop(first);
        assert!(fourth.await.is_ok());
    }

    #[tokio::test]
    async fn one_session_leaves_a_permit_to_the_others() {
        let admission = Admission::new("runs", 3, 1);
        let (one, other) = (Share::default(), Share::default());
        let first = admission.admit_within(&one).await.unwrap();
        let second = admission.admit_within(&one).await.unwrap();
        let mut third = Box::pin(admission.admit_within(&one));
        assert!(third.as_mut().now_or_never().is_none());
        let refused = admission.admit_within(&one).await.unwrap_err();
        assert_eq!(refused.kind, Kind::ResourceExhausted, "the queue is full");
        let others = admission.admit_within(&other).now_or_never();
        others.expect("at once").unwrap();
        drop(first);
        third.await.unwrap();
        assert_eq!(admission.load(), (1, 0));
        drop(second);
        let alone = Admission::new("runs", 1, 0);
        assert!(alone.admit_within(&Share::default()).await.is_ok());
    }

    #[test]
    fn the_guess_follows_how_long_work_takes() {
        let admission = Admission::new("runs", 2, 4);
        for _ in 0..100 {
            admission.pace.ended(Duration::from_secs(20));
        }
        let message = admission.full().message;
        let seconds = message.split_whitespace().rev().nth(1).unwrap();
        let seconds: u64 = seconds.parse().unwrap();
        assert!((50..=60).contains(&seconds), "{message}");
    }
}
