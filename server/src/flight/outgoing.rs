//! The last steps of a result, at its client's pace: one message is made when the one before it has
//! been handed over. A client that takes nothing for too long loses the result, and one that goes
//! away ends it at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::{Poll, ready};
use std::time::Duration;

use featureflight_catalog::{Error, Kind};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::encode::Messages;
use crate::task::AbortOnDrop;

/// Streams that were given up keep their last message in the buffers of their connection, and
/// HTTP/2 has no way to take it back: with more of them than this, the connection of the one given
/// up first is broken off.
const MOST_GIVEN_UP: usize = 64;

/// The connections of streams that were given up and are still open, by when that was.
#[derive(Debug, Default)]
pub(super) struct GivenUp(Mutex<(u64, BTreeMap<u64, CancellationToken>)>);

impl GivenUp {
    fn add(self: &Arc<Self>, connection: CancellationToken) -> Entry {
        let (number, first) = {
            let (next, entries) = &mut *self.0.lock();
            *next += 1;
            entries.insert(*next, connection);
            let full = entries.len() > MOST_GIVEN_UP;
            (*next, full.then(|| entries.pop_first()).flatten())
        };
        if let Some((_, connection)) = first {
            tracing::info!("a connection was cut: its client reads nothing");
            connection.cancel();
        }
        Entry(Arc::clone(self), number)
    }
}

/// One stream in [`GivenUp`], until it is closed.
struct Entry(Arc<GivenUp>, u64);

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.0.lock().1.remove(&self.1);
    }
}

/// When and where a stream is given up.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub(super) stall_timeout: Duration,
    pub(super) given_up: Arc<GivenUp>,
    pub(super) connection: CancellationToken,
}

/// A stream under the eyes of [`give_up_unread`].
struct Reading {
    state: State,
    /// When the last message was taken, unless more was asked for since.
    unread_since: Option<Instant>,
}

enum State {
    Open(Messages),
    GivenUp { _entry: Entry },
}

/// `messages`, which are let go when nobody has asked for the next one for too long. Who asks later
/// gets an error.
pub(super) fn paced(messages: Messages, patience: Patience) -> Messages {
    let stall_timeout = patience.stall_timeout;
    let reading = Arc::new(Mutex::new(Reading {
        state: State::Open(messages),
        unread_since: None,
    }));
    let watch = give_up_unread(Arc::downgrade(&reading), patience);
    // Owned by the stream, so that dropping the stream ends the task.
    let task = AbortOnDrop(tokio::spawn(watch.in_current_span()));
    futures::stream::poll_fn(move |cx| {
        let _ = &task;
        let mut reading = reading.lock();
        reading.unread_since = None;
        let State::Open(messages) = &mut reading.state else {
            return Poll::Ready(Some(Err(given_up(stall_timeout))));
        };
        let message = ready!(messages.poll_next_unpin(cx));
        reading.unread_since = Some(Instant::now());
        Poll::Ready(message)
    })
    .boxed()
}

/// Ends when the stream does, or has been given up. An HTTP/2 stream may stay open, unread, for as
/// long as its client likes; what is behind it must not.
async fn give_up_unread(reading: Weak<Mutex<Reading>>, patience: Patience) {
    let Patience {
        stall_timeout,
        given_up,
        connection,
    } = patience;
    loop {
        tokio::time::sleep(stall_timeout / 4).await;
        let Some(reading) = reading.upgrade() else {
            return;
        };
        let mut reading = reading.lock();
        if reading
            .unread_since
            .is_some_and(|since| since.elapsed() >= stall_timeout)
        {
            tracing::info!(?stall_timeout, "the client stopped reading its result");
            reading.state = State::GivenUp {
                _entry: given_up.add(connection),
            };
            return;
        }
    }
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

fn given_up(stall_timeout: Duration) -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        format!(
            "the result was given up because nothing was read from it for {} seconds",
            stall_timeout.as_secs()
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow_flight::FlightData;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    const SHORT: Duration = Duration::from_millis(20);

    fn patience(stall_timeout: Duration) -> Patience {
        Patience {
            stall_timeout,
            given_up: Arc::default(),
            connection: CancellationToken::new(),
        }
    }

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
            paced(messages, patience(LONG))
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
        let got: Vec<_> = paced(messages, patience(LONG)).collect().await;
        assert_eq!(got.len(), 2);
        assert!(matches!(&got[1], Err(error) if error.kind == Kind::DataLoss));
    }

    #[tokio::test]
    async fn a_client_that_stops_reading_loses_the_result() {
        let made = Arc::new(AtomicUsize::new(0));
        let mut stalled = paced(endless(&made), patience(SHORT));
        assert!(matches!(stalled.next().await, Some(Ok(_))));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(Arc::strong_count(&made), 1, "what nobody reads is let go");
        let late = stalled.next().await;
        assert!(matches!(late, Some(Err(error)) if error.kind == Kind::DeadlineExceeded));
    }

    #[tokio::test]
    async fn a_client_that_waits_for_a_message_does_not() {
        let slow = futures::stream::unfold(0, |number| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (number < 2).then(|| (Ok(FlightData::new()), number + 1))
        });
        let got: Vec<_> = paced(slow.boxed(), patience(SHORT)).collect().await;
        assert!(got.len() == 2 && got.iter().all(Result::is_ok), "{got:?}");
    }

    #[tokio::test]
    async fn the_client_sets_the_pace_and_leaving_ends_the_work() {
        let made = Arc::new(AtomicUsize::new(0));
        let mut messages = paced(endless(&made), patience(LONG));
        messages.next().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        drop(messages);
        assert_eq!(Arc::strong_count(&made), 1, "the work is gone");
    }

    #[tokio::test]
    async fn too_many_that_were_given_up_cost_the_oldest_its_connection() {
        let given_up = Arc::new(GivenUp::default());
        let stalled: Vec<_> = (0..=MOST_GIVEN_UP)
            .map(|_| {
                let connection = CancellationToken::new();
                let entry = given_up.add(connection.clone());
                (connection, entry)
            })
            .collect();
        let cut: Vec<_> = stalled.iter().map(|(c, _)| c.is_cancelled()).collect();
        assert!(cut[0] && !cut[1..].contains(&true), "{cut:?}");
        drop(stalled);
        assert!(given_up.0.lock().1.is_empty());
    }
}
