//! Empty batches while a query computes, so that proxies which cut silent streams leave it alone.
//! HTTP/2's own pings do not pass them, and some drivers fail on messages without a batch.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use arrow_flight::FlightData;
use futures::StreamExt;
use tokio::time::{Instant, Sleep};

use super::encode::Messages;

/// `messages`, whose first is the schema, with `empty` between any two that are further apart than
/// `interval`; zero sends none.
pub(super) fn kept(mut messages: Messages, interval: Duration, empty: FlightData) -> Messages {
    if interval.is_zero() {
        return messages;
    }
    let mut silence: Option<Pin<Box<Sleep>>> = None;
    futures::stream::poll_fn(move |cx| {
        if let Poll::Ready(message) = messages.poll_next_unpin(cx) {
            // From the schema on.
            silence
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)))
                .as_mut()
                .reset(Instant::now() + interval);
            return Poll::Ready(message);
        }
        let Some(silence) = &mut silence else {
            return Poll::Pending;
        };
        if silence.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        silence.as_mut().reset(Instant::now() + interval);
        Poll::Ready(Some(Ok(empty.clone())))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &'static str) -> FlightData {
        FlightData::new().with_app_metadata(text)
    }

    #[tokio::test]
    async fn silence_is_broken_after_the_schema_and_not_before() {
        let slow = futures::stream::unfold(0, |step| async move {
            tokio::time::sleep(Duration::from_millis(350)).await;
            (step < 2).then(|| (Ok(message(["schema", "rows"][step])), step + 1))
        });
        let kept = kept(slow.boxed(), Duration::from_millis(100), message("empty"));
        let got: Vec<_> = kept
            .map(|m| m.expect("no error").app_metadata)
            .collect()
            .await;
        assert_eq!(got.first().map(AsRef::as_ref), Some(&b"schema"[..]));
        let rows = got.iter().position(|m| m == "rows").expect("the rows");
        assert!(rows >= 3 && got.len() > rows + 2, "{got:?}");
        assert_eq!(got.iter().filter(|m| *m == "empty").count(), got.len() - 2);
    }

    #[tokio::test]
    async fn zero_sends_none() {
        let slow = futures::stream::once(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(message("schema"))
        });
        let kept = kept(slow.boxed(), Duration::ZERO, message("empty"));
        assert_eq!(kept.count().await, 1);
    }
}
