//! The last step of a result: made in a task of its own, a few messages ahead of the client, so
//! that computing and sending overlap. The client's pace holds the task back; a client that takes
//! nothing for too long loses the result, and one that goes away ends the task at once.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use arrow_flight::FlightData;
use featureflight_catalog::{Error, Kind};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tracing::Instrument;

use super::encode::Messages;

/// Messages of about 2 MiB each.
const MESSAGES_AHEAD: usize = 2;

enum Step {
    Message(Result<FlightData, Error>),
    /// Said aloud: a channel that merely closes may be a task that died, and must not look like
    /// the end of the rows.
    End,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub(super) struct AbortOnDrop(pub(super) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// See the module.
pub(super) fn paced(mut messages: Messages, stall_timeout: Duration) -> Messages {
    let (sender, receiver) = mpsc::channel(MESSAGES_AHEAD);
    let receiver = Arc::new(Mutex::new(receiver));
    let waiting = Arc::clone(&receiver);
    let work = async move {
        loop {
            let step = messages.next().await.map_or(Step::End, Step::Message);
            let last = !matches!(step, Step::Message(Ok(_)));
            match tokio::time::timeout(stall_timeout, sender.send(step)).await {
                Ok(Ok(())) if !last => {}
                Ok(_) => return,
                Err(_) => {
                    tracing::info!(?stall_timeout, "the client stopped reading its result");
                    // The stream may stay open for as long as the client likes.
                    while waiting.lock().try_recv().is_ok() {}
                    return;
                }
            }
        }
    };
    // Owned by the stream, so that dropping the stream ends the task.
    let mut task = AbortOnDrop(tokio::spawn(work.in_current_span()));
    let mut ended = false;
    futures::stream::poll_fn(move |cx| {
        if ended {
            return Poll::Ready(None);
        }
        let item = match ready!(receiver.lock().poll_recv(cx)) {
            Some(Step::Message(message)) => Some(message),
            Some(Step::End) => None,
            None => Some(Err(broken_off(
                &ready!(task.0.poll_unpin(cx)),
                stall_timeout,
            ))),
        };
        ended = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    })
    .boxed()
}

/// `messages` until the client's deadline, which ends them with an error.
pub(super) fn until(mut messages: Messages, deadline: Option<Instant>) -> Messages {
    let Some(deadline) = deadline else {
        return messages;
    };
    let mut expiry = Box::pin(tokio::time::sleep_until(deadline).fuse());
    futures::stream::poll_fn(move |cx| {
        if let Poll::Ready(message) = messages.poll_next_unpin(cx) {
            return Poll::Ready(message);
        }
        ready!(expiry.as_mut().poll(cx));
        // Lets go of the work behind it.
        messages = futures::stream::empty().boxed();
        Poll::Ready(Some(Err(Error::new(
            Kind::DeadlineExceeded,
            "the call's deadline has passed before its result was complete: allow the driver a \
             longer timeout, or select less",
        ))))
    })
    .boxed()
}

fn broken_off(outcome: &Result<(), JoinError>, stall_timeout: Duration) -> Error {
    match outcome {
        Ok(()) => Error::new(
            Kind::DeadlineExceeded,
            format!(
                "the result was given up because nothing was read from it for {} seconds",
                stall_timeout.as_secs()
            ),
        ),
        Err(error) => Error::internal(format!("the task of a result died: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn endless(made: &Arc<AtomicUsize>) -> Messages {
        let made = Arc::clone(made);
        futures::stream::repeat_with(move || {
            made.fetch_add(1, Ordering::Relaxed);
            Ok(FlightData::new())
        })
        .boxed()
    }

    #[tokio::test]
    async fn a_deadline_ends_it_with_an_error_and_lets_go_of_the_work() {
        let made = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&made);
        let silent = futures::stream::poll_fn(move |_| {
            held.fetch_add(1, Ordering::Relaxed);
            Poll::Pending
        });
        let soon = Instant::now() + Duration::from_millis(20);
        let mut ended = until(silent.boxed(), Some(soon));
        let last = ended.next().await;
        assert!(matches!(last, Some(Err(error)) if error.kind == Kind::DeadlineExceeded));
        assert_eq!(Arc::strong_count(&made), 1, "the work is gone");
        assert!(ended.next().await.is_none());
    }

    #[tokio::test]
    async fn the_end_is_the_end() {
        let messages = futures::stream::iter(vec![Ok(FlightData::new()); 5]).boxed();
        assert_eq!(
            paced(messages, LONG)
                .filter_map(async |m| m.ok())
                .count()
                .await,
            5
        );
    }

    #[tokio::test]
    async fn an_error_comes_through_and_ends_it() {
        let failure = Err(Error::data_loss("damaged"));
        let messages = futures::stream::iter([Ok(FlightData::new()), failure]).boxed();
        let got: Vec<_> = paced(messages, LONG).collect().await;
        assert_eq!(got.len(), 2);
        assert!(matches!(&got[1], Err(error) if error.kind == Kind::DataLoss));
    }

    #[tokio::test]
    async fn a_task_that_dies_is_an_error_not_an_end() {
        let messages = futures::stream::iter([0, 1])
            .map(|n| {
                if n == 0 {
                    Ok(FlightData::new())
                } else {
                    panic!("operator")
                }
            })
            .boxed();
        let got: Vec<_> = paced(messages, LONG).collect().await;
        assert!(matches!(got.last(), Some(Err(error)) if error.kind == Kind::Internal));
    }

    #[tokio::test]
    async fn a_client_that_stops_reading_loses_the_result() {
        let made = Arc::new(AtomicUsize::new(0));
        let stalled = paced(endless(&made), Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let got: Vec<_> = stalled.collect().await;
        assert_eq!(got.len(), 1, "what nobody reads is let go");
        assert!(matches!(got.last(), Some(Err(error)) if error.kind == Kind::DeadlineExceeded));
    }

    #[tokio::test]
    async fn the_client_sets_the_pace_and_leaving_ends_the_work() {
        let made = Arc::new(AtomicUsize::new(0));
        let mut messages = paced(endless(&made), LONG);
        messages.next().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(made.load(Ordering::Relaxed) <= MESSAGES_AHEAD + 3);
        drop(messages);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(Arc::strong_count(&made), 1, "the work is gone");
    }
}
