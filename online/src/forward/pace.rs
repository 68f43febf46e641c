//! How many calls at once a store takes: more while it answers well, fewer when it throttles, one
//! at a time with growing waits while it fails, none while it does not let us in.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ForwardOptions;
use super::backoff;

/// Calls at once in the beginning.
const FIRST_LIMIT: f64 = 4.0;
/// What throttling leaves of the limit.
const CUT: f64 = 0.7;
/// Answers to calls of the same moment cut the limit once.
const CUT_INTERVAL: Duration = Duration::from_millis(200);
/// So many failures in a row mean that the store is away, not that some record is bad.
const FAILURES: u32 = 3;

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What an answer says about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It took so many records.
    Good(u64),
    Throttled,
    Away,
    Denied,
}

#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
    freed: Notify,
    most: f64,
    backoff: Duration,
    max_backoff: Duration,
    denied_wait: Duration,
}

#[derive(Debug)]
struct State {
    limit: f64,
    /// Below it the limit grows fast.
    threshold: f64,
    in_flight: usize,
    failures: u32,
    taken: u64,
    closed_until: Option<Instant>,
    last_cut: Option<Instant>,
}

impl Pace {
    pub(super) fn new(most: usize, options: &ForwardOptions) -> Self {
        let most = most.max(1) as f64;
        Self {
            state: Mutex::new(State {
                limit: FIRST_LIMIT.min(most),
                threshold: most,
                in_flight: 0,
                failures: 0,
                taken: 0,
                closed_until: None,
                last_cut: None,
            }),
            freed: Notify::new(),
            most,
            backoff: options.backoff,
            max_backoff: options.max_backoff,
            denied_wait: options.denied_wait,
        }
    }

    /// The right to make one call, if there is one now.
    pub(super) fn permit(self: &Arc<Self>) -> Option<Permit> {
        let mut state = self.state.lock();
        if state
            .closed_until
            .is_some_and(|until| Instant::now() < until)
        {
            return None;
        }
        let allowed = if state.failures >= FAILURES || state.closed_until.is_some() {
            1
        } else {
            state.limit as usize
        };
        if state.in_flight >= allowed.max(1) {
            return None;
        }
        state.in_flight += 1;
        Some(Permit(Arc::clone(self)))
    }

    /// Until there may be a permit again.
    pub(super) async fn wait(&self) {
        let freed = self.freed.notified();
        let until = self
            .state
            .lock()
            .closed_until
            .filter(|until| *until > Instant::now());
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            // A permit may have been freed just before: look again soon in any case.
            None => drop(tokio::time::timeout(LOOK_AGAIN, freed).await),
        }
    }

    pub(super) fn report(&self, answer: Answer) {
        let now = Instant::now();
        let mut state = self.state.lock();
        match answer {
            Answer::Good(taken) => {
                state.taken += taken;
                state.failures = 0;
                state.closed_until = None;
                let growth = if state.limit < state.threshold {
                    1.0
                } else {
                    1.0 / state.limit
                };
                state.limit = (state.limit + growth).min(self.most);
            }
            Answer::Throttled => {
                state.failures = 0;
                state.closed_until = None;
                if state.last_cut.is_none_or(|last| now - last >= CUT_INTERVAL) {
                    state.limit = (state.limit * CUT).max(1.0);
                    state.threshold = state.limit;
                    state.last_cut = Some(now);
                }
            }
            Answer::Away => {
                state.failures += 1;
                if state.failures >= FAILURES {
                    let attempt = state.failures - FAILURES + 1;
                    let wait = backoff::wait(attempt, self.backoff, self.max_backoff);
                    state.closed_until = Some(now + wait);
                    state.threshold = (state.limit * CUT).max(1.0);
                    state.limit = 1.0;
                }
            }
            Answer::Denied => state.closed_until = Some(now + self.denied_wait),
        }
    }

    /// Records taken so far: tells a store that works from one that does not.
    pub(super) fn taken(&self) -> u64 {
        self.state.lock().taken
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> f64 {
        self.state.lock().limit
    }
}

/// The right to one call, until dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Pace>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state.lock().in_flight -= 1;
        self.0.freed.notify_waiters();
    }
}
