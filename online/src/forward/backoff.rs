//! Waits that grow and differ, so that those who failed together do not come again together.

use std::time::Duration;

use rand::Rng;

/// Before attempt `attempt` (from 1): a random part of `first`, doubled with every attempt, up to
/// `longest`; never less than half of it, so that a wait is one.
pub(super) fn wait(attempt: u32, first: Duration, longest: Duration) -> Duration {
    let doublings = attempt.saturating_sub(1).min(20);
    let full = first.saturating_mul(1 << doublings).min(longest);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}
