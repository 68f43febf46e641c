//! Where statements are planned: each on a thread of its own with a large stack, at most so many
//! at once, and one fewer of one session.
//!
//! Planning recurses over expressions and plans, and a runtime's worker thread has two megabytes of
//! stack: a flat chain of some thousand operators, four kilobytes of text, would end the process.
//! The caller stops waiting when its time is over or it is dropped, while the thread ends at its next
//! await or before the optimizer's next rule; it keeps its permit until then.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use featureflight_catalog::{Error, Kind, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::interruption::Over;
use crate::query::admission::{Admission, Share};

/// Frames of unoptimized builds are several times larger. Only pages that are touched are real.
const STACK_BYTES: usize = if cfg!(debug_assertions) {
    256 << 20
} else {
    64 << 20
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Planning {
    admission: Admission,
}

impl Planning {
    /// At most `threads` statements are planned at once; `queue` more wait.
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        Self {
            admission: Admission::new("plans", threads, queue),
        }
    }

    /// How many statements are planned and how many wait.
    pub(crate) fn load(&self) -> (usize, usize) {
        self.admission.load()
    }

    /// Runs the future that `work` makes on a planning thread, within the share of a session.
    ///
    /// # Errors
    /// Those of the future; `ResourceExhausted` when too many wait already; `DeadlineExceeded` after
    /// `limit`, waiting for a thread included; `Internal` when it panicked.
    pub(crate) async fn run<T, F, Fut>(
        &self,
        limit: Option<Duration>,
        share: &Share,
        work: F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>>,
    {
        let Some(limit) = limit else {
            return self.run_unlimited(share, work).await;
        };
        tokio::time::timeout(limit, self.run_unlimited(share, work))
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    Kind::DeadlineExceeded,
                    format!(
                        "planning took longer than {} s, which is its limit or what the call's deadline left: \
                         make the statement simpler, or allow the driver a longer timeout",
                        limit.as_secs_f32()
                    ),
                ))
            })
    }

    async fn run_unlimited<T, F, Fut>(&self, share: &Share, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>>,
    {
        let permit = self.admission.admit_within(share).await?;
        let runtime = Handle::current();
        let (sender, receiver) = oneshot::channel();
        let cancelled = CancellationToken::new();
        let abandoned = cancelled.clone().drop_guard();
        let span = tracing::Span::current();
        std::thread::Builder::new()
            .name("planning".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _permit = permit;
                let _span = span.enter();
                let _scope = Over(cancelled.clone()).enter();
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    runtime.block_on(cancelled.run_until_cancelled(async { work().await }))
                }));
                let outcome = match outcome {
                    Ok(Some(result)) => result,
                    Ok(None) => Err(Error::new(Kind::Cancelled, "the query was cancelled")),
                    Err(panic) => Err(panicked(panic.as_ref())),
                };
                // What nobody waits for is dropped here, where the stack is large enough.
                drop(sender.send(outcome));
            })
            .map_err(|error| {
                Error::new(
                    Kind::ResourceExhausted,
                    "the server has no thread left: try again later",
                )
                .with_source(error)
            })?;
        let outcome = receiver.await.map_err(crate::error::internal)?;
        drop(abandoned.disarm());
        outcome
    }
}

/// A panic as the bug it is; its text is for the log.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    // Arrow's offsets have 32 bits, and it has no error for more of them.
    if ["offset overflow", "length overflow", "capacity overflow"].contains(&text.as_str()) {
        return Error::new(
            Kind::ResourceExhausted,
            "the values of one batch are larger than 2 GB together: select fewer or smaller ones",
        );
    }
    Error::internal(format!("panic: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn depth(n: u32) -> u32 {
        let pad = std::hint::black_box([0_u8; 4_096]);
        if n == 0 {
            u32::from(pad[0])
        } else {
            depth(n - 1) + 1
        }
    }

    #[tokio::test]
    async fn recursion_has_room() {
        let planning = Planning::new(1, 8);
        let deep = planning
            .run(None, &Share::default(), || async { Ok(depth(5_000)) })
            .await
            .unwrap();
        assert_eq!(deep, 5_000);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let planning = Planning::new(1, 8);
        let error = planning
            .run::<(), _, _>(None, &Share::default(), || async { panic!("boom") })
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Internal);
        assert!(
            planning
                .run(None, &Share::default(), || async { Ok(1) })
                .await
                .is_ok(),
            "the permit came back"
        );
    }

    #[tokio::test]
    async fn a_caller_stops_waiting_and_the_work_ends_at_its_next_await() {
        let planning = Planning::new(1, 8);
        let reached = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&reached);
        let error = planning
            .run(
                Some(Duration::from_millis(20)),
                &Share::default(),
                move || async move {
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    flag.store(true, Ordering::SeqCst);
                    Ok(())
                },
            )
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::DeadlineExceeded);
        let next = planning
            .run(Some(Duration::from_secs(10)), &Share::default(), || async {
                Ok(())
            })
            .await;
        assert!(next.is_ok(), "the abandoned plan gave its permit back");
        assert!(!reached.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn what_does_not_await_sees_that_its_caller_is_gone() {
        let planning = Planning::new(1, 8);
        let work = || async {
            while crate::interruption::check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        let soon = Some(Duration::from_millis(20));
        let error = planning
            .run(soon, &Share::default(), work)
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::DeadlineExceeded);
        let (soon, share) = (Some(Duration::from_secs(10)), Share::default());
        let next = planning.run(soon, &share, || async { Ok(()) });
        next.await.expect("the abandoned plan gave its permit back");
        assert!(crate::interruption::check().is_ok(), "of its thread alone");
    }

    #[tokio::test]
    async fn one_session_leaves_a_thread_to_the_others() {
        let planning = Planning::new(3, 8);
        let (one, other) = (Share::default(), Share::default());
        let busy = || async {
            tokio::time::sleep(Duration::from_mins(1)).await;
            Ok(())
        };
        let all_it_may = futures::future::join_all((0..5).map(|_| planning.run(None, &one, busy)));
        let mut all_it_may = std::pin::pin!(all_it_may);
        let others = planning.run(Some(Duration::from_secs(10)), &other, || async { Ok(1) });
        tokio::select! {
            biased;
            _ = &mut all_it_may => panic!("it takes a minute"),
            planned = others => assert_eq!(planned.expect("a thread is left"), 1),
        }
        // The other's thread ends after its answer.
        while planning.load().0 > 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(planning.load().0, 2);
    }
}
