use std::sync::Arc;
use std::time::Duration;

use super::pace::{Answer, Pace, Permit};
use super::{ForwardOptions, backoff};

fn pace(most: usize) -> Arc<Pace> {
    let options = ForwardOptions {
        backoff: Duration::from_millis(40),
        max_backoff: Duration::from_millis(80),
        denied_wait: Duration::from_millis(60),
        ..ForwardOptions::default()
    };
    Arc::new(Pace::new(most, &options))
}

fn permits(pace: &Arc<Pace>) -> Vec<Permit> {
    std::iter::from_fn(|| pace.permit()).collect()
}

#[test]
fn calls_grow_while_all_is_well_and_shrink_when_throttled() {
    let pace = pace(20);
    let first = permits(&pace).len();
    assert!(
        (1..20).contains(&first),
        "{first} calls at once in the beginning"
    );
    for _ in 0..100 {
        pace.report(Answer::Good(1));
    }
    assert_eq!(permits(&pace).len(), 20);
    // Answers to calls of one moment count once.
    for _ in 0..10 {
        pace.report(Answer::Throttled);
    }
    assert_eq!(permits(&pace).len(), 14);
    // From here on it grows slowly.
    pace.report(Answer::Good(1));
    assert!(pace.limit() < 14.2, "{}", pace.limit());
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(10));
        pace.report(Answer::Throttled);
    }
    assert!(!permits(&pace).is_empty(), "one call is always left");
}

#[tokio::test]
async fn a_store_that_is_away_is_asked_by_one_call_at_a_time() {
    let pace = pace(20);
    pace.report(Answer::Away);
    pace.report(Answer::Away);
    assert!(!permits(&pace).is_empty(), "two failures may be chance");
    pace.report(Answer::Away);
    assert!(permits(&pace).is_empty());
    tokio::time::timeout(Duration::from_millis(200), pace.wait())
        .await
        .expect("it opens by itself");
    let probe = permits(&pace);
    assert_eq!(probe.len(), 1);
    pace.report(Answer::Away);
    drop(probe);
    assert!(permits(&pace).is_empty(), "it waits again");
    pace.report(Answer::Good(1));
    assert!(!permits(&pace).is_empty());
}

#[tokio::test]
async fn refused_credentials_close_a_store_for_a_while() {
    let pace = pace(20);
    pace.report(Answer::Denied);
    assert!(permits(&pace).is_empty());
    tokio::time::sleep(Duration::from_millis(70)).await;
    assert_eq!(permits(&pace).len(), 1);
}

#[test]
fn waits_double_differ_and_end() {
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
    for (attempt, full) in [(1, 100), (2, 200), (3, 400), (6, 2_000), (4_000, 2_000)] {
        let waits: Vec<_> = (0..50)
            .map(|_| backoff::wait(attempt, first, longest))
            .collect();
        let full = Duration::from_millis(full);
        assert!(
            waits.iter().all(|wait| (full / 2..=full).contains(wait)),
            "{attempt}: {waits:?}"
        );
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
