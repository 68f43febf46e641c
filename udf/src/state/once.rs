//! A step that all output partitions of one execution share.
//!
//! The first partition to be executed starts it, the others wait for the same result. It ends
//! early when every partition that waits for it is dropped. A partition that is executed again
//! begins a new round, so that a plan can run more than once.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use datafusion::error::{DataFusionError, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

type Outcome<T> = Result<Arc<T>, Arc<DataFusionError>>;
type Step<T> = Shared<BoxFuture<'static, Outcome<T>>>;

#[derive(Debug)]
struct Round<T> {
    number: u64,
    step: Step<T>,
    executed: HashSet<usize>,
    waiting: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Once<T> {
    partitions: usize,
    rounds: Mutex<(u64, Option<Round<T>>)>,
}

impl<T: Send + Sync + 'static> Once<T> {
    pub(crate) fn new(partitions: usize) -> Arc<Self> {
        Arc::new(Self {
            partitions,
            rounds: Mutex::new((0, None)),
        })
    }

    /// The outcome of the step for `partition`; `start` makes the step if a round begins.
    pub(crate) fn join<F>(
        self: &Arc<Self>,
        partition: usize,
        start: impl FnOnce() -> F,
    ) -> Waiting<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut rounds = self.rounds.lock();
        let (last, current) = &mut *rounds;
        let round = match current {
            Some(round) if !round.executed.contains(&partition) => round,
            _ => {
                *last += 1;
                let step = start().map(|outcome| outcome.map(Arc::new).map_err(Arc::new));
                let step = step.boxed().shared();
                current.insert(Round {
                    number: *last,
                    step,
                    executed: HashSet::new(),
                    waiting: 0,
                })
            }
        };
        round.executed.insert(partition);
        round.waiting += 1;
        let (number, step) = (round.number, round.step.clone());
        Waiting {
            once: Arc::clone(self),
            number,
            step,
        }
    }

    /// Forgets the round when nobody can join it any more, or nobody waits for what has not ended:
    /// with the last handle its tasks and its memory go.
    fn leave(&self, number: u64) {
        let mut rounds = self.rounds.lock();
        let Some(round) = rounds.1.as_mut().filter(|round| round.number == number) else {
            return;
        };
        round.waiting -= 1;
        let complete = round.executed.len() == self.partitions;
        if round.waiting == 0 && (complete || round.step.peek().is_none()) {
            rounds.1 = None;
        }
    }
}

/// One partition's share of a step; a future of its outcome.
#[derive(Debug)]
pub(crate) struct Waiting<T: Send + Sync + 'static> {
    once: Arc<Once<T>>,
    number: u64,
    step: Step<T>,
}

impl<T: Send + Sync + 'static> Future for Waiting<T> {
    type Output = Result<Arc<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.step.poll_unpin(cx).map_err(DataFusionError::Shared)
    }
}

impl<T: Send + Sync + 'static> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.once.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn counted(started: &Arc<AtomicUsize>) -> impl Future<Output = Result<usize>> + use<> {
        let started = Arc::clone(started);
        async move { Ok(started.fetch_add(1, Ordering::SeqCst)) }
    }

    #[tokio::test]
    async fn one_round_serves_every_partition_once() {
        let (once, started) = (Once::new(2), Arc::new(AtomicUsize::new(0)));
        let join = |partition| once.join(partition, || counted(&started));
        // The first may be done before the second is executed.
        assert_eq!(*join(0).await.unwrap(), 0);
        assert_eq!(*join(1).await.unwrap(), 0);
        assert!(
            once.rounds.lock().1.is_none(),
            "the outcome outlived its round"
        );
        assert_eq!(*join(1).await.unwrap(), 1);
        assert_eq!(*join(1).await.unwrap(), 2);
        assert_eq!(*join(0).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_dropped() {
        let once = Once::<()>::new(3);
        let alive = Arc::new(());
        let inside = Arc::clone(&alive);
        let start = move || async move {
            futures::future::pending::<()>().await;
            drop(inside);
            Ok(())
        };
        let first = once.join(0, start);
        let second = once.join(1, || async { Ok(()) });
        drop(first);
        assert_eq!(Arc::strong_count(&alive), 2);
        drop(second);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[tokio::test]
    async fn one_failure_fails_all() {
        let once = Once::<()>::new(2);
        let fail = || async { Err(featureflight_catalog::Error::unavailable("away").into()) };
        let waiting = [once.join(0, fail), once.join(1, fail)];
        for waiting in waiting {
            let error = waiting.await.unwrap_err();
            let found = featureflight_catalog::Error::find(&error).unwrap();
            assert_eq!(found.kind, featureflight_catalog::Kind::Unavailable);
        }
    }
}
