//! One group's way from the outbox to its store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use featureflight_catalog::{Error, Result};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{OwnedRwLockReadGuard, watch};
use tokio::time::Instant;

use super::pace::{Answer, Pace, Permit};
use super::{ForwardOptions, LaneStatus, Lanes, backoff, until};
use crate::outbox::{Outbox, PendingBlock, Position, Stage};
use crate::record::Record;
use crate::store::{OnlineStore, Outcome, Trouble};
use crate::turns::Turn;

/// Blocks looked up at once.
const BLOCKS: usize = 4;
/// From this attempt on a record is sent by itself, so that it cannot fail others.
const ALONE: u32 = 3;

/// A row on its way.
struct Item {
    pending: Arc<PendingBlock>,
    record: Record,
    identifier: String,
    bytes: usize,
    attempts: u32,
    /// Attempts on which the store failed, throttling left out.
    failures: u32,
    /// How many records the store had taken when this one failed first.
    taken_before: u64,
}

impl Item {
    /// It was erased since it was taken into memory.
    fn is_settled(&self) -> bool {
        self.pending.is_settled(Stage::Online, self.record.row)
    }
}

struct Sent {
    items: Vec<Item>,
    outcomes: Vec<Outcome>,
    _permit: Permit,
    /// Until the outcomes are marked nobody takes rows away.
    _turn: OwnedRwLockReadGuard<()>,
}

/// Where a row went after its answer.
enum Went {
    /// To the store.
    There(Item),
    /// Into quarantine; its identifier.
    Aside(String),
    /// Back: it waits to be sent again.
    Back,
}

/// Why a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything is settled, or it was stopped.
    Done,
    /// Pending rows cannot be read.
    Broken,
}

pub(super) struct Lane {
    group: String,
    outbox: Arc<Outbox>,
    store: Arc<dyn OnlineStore>,
    pace: Arc<Pace>,
    options: ForwardOptions,
    statuses: Lanes,
    turn: Turn,
    /// Blocks up to here are in memory or settled.
    cursor: Option<Position>,
    held: usize,
    /// For every identifier under way the rows that follow.
    following: HashMap<String, VecDeque<Item>>,
    ready: VecDeque<Item>,
    /// By the time at which they are ready again; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), Item>,
    delays: u64,
    calls: FuturesUnordered<BoxFuture<'static, Sent>>,
}

impl Lane {
    pub(super) fn new(
        group: &str,
        outbox: Arc<Outbox>,
        store: Arc<dyn OnlineStore>,
        pace: Arc<Pace>,
        options: ForwardOptions,
        statuses: Lanes,
    ) -> Self {
        let lane = Self {
            group: group.to_owned(),
            turn: outbox.turns().of(group),
            outbox,
            store,
            pace,
            options,
            statuses,
            cursor: None,
            held: 0,
            following: HashMap::new(),
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            delays: 0,
            calls: FuturesUnordered::new(),
        };
        lane.update(|status| lane.store.name().clone_into(&mut status.store));
        lane
    }

    fn update(&self, change: impl FnOnce(&mut LaneStatus)) {
        let mut statuses = self.statuses.lock();
        if !statuses.contains_key(&self.group) {
            statuses.insert(self.group.clone(), LaneStatus::default());
        }
        statuses.get_mut(&self.group).map(change);
    }

    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) -> End {
        let mut changes = self.outbox.changes();
        let turn = Arc::clone(&self.turn.sending);
        while !*stopped.borrow() {
            changes.mark_unchanged();
            if let Err(error) = self.fill().await {
                tracing::error!(group = self.group, %error, "accepted rows cannot be forwarded");
                self.update(|status| status.trouble = Some(error.message));
                return End::Broken;
            }
            self.wake();
            let has_turn = self.send();
            if self.calls.is_empty() && self.ready.is_empty() && self.delayed.is_empty() {
                return End::Done;
            }
            let next = self.delayed.keys().next().map(|(at, _)| *at);
            let room = self.held < self.options.window;
            let has_ready = !self.ready.is_empty();
            tokio::select! {
                Some(sent) = self.calls.next() => self.settle(sent),
                () = until(next) => {}
                () = self.pace.wait(), if has_ready && has_turn => {}
                _ = turn.read(), if has_ready && !has_turn => {}
                _ = changes.changed(), if room => {}
                _ = stopped.changed() => {}
            }
        }
        while let Some(sent) = self.calls.next().await {
            self.settle(sent);
        }
        End::Done
    }

    /// Takes pending rows into memory, in order.
    async fn fill(&mut self) -> Result<()> {
        while self.held < self.options.window {
            let blocks = self
                .outbox
                .pending_after(&self.group, Stage::Online, self.cursor, BLOCKS);
            if blocks.is_empty() {
                return Ok(());
            }
            for pending in blocks {
                let source = Arc::clone(&pending);
                let block = tokio::task::spawn_blocking(move || source.read()).await;
                let block = block.map_err(|error| {
                    Error::internal("reading the outbox broke off").with_source(error)
                })??;
                let block = Arc::new(block);
                let bytes = block.bytes() / block.len().max(1);
                self.cursor = Some(pending.position);
                for row in pending.unsettled(Stage::Online) {
                    let record = Record {
                        block: Arc::clone(&block),
                        row,
                    };
                    self.held += 1;
                    self.admit(Item {
                        identifier: record.identifier(),
                        pending: Arc::clone(&pending),
                        record,
                        bytes,
                        attempts: 0,
                        failures: 0,
                        taken_before: 0,
                    });
                }
            }
        }
        Ok(())
    }

    fn admit(&mut self, item: Item) {
        if let Some(following) = self.following.get_mut(&item.identifier) {
            following.push_back(item);
        } else {
            self.following
                .insert(item.identifier.clone(), VecDeque::new());
            self.ready.push_back(item);
        }
    }

    /// A row is settled: the next one of its identifier may go.
    fn release(&mut self, identifier: &str) {
        self.held -= 1;
        let Some(following) = self.following.get_mut(identifier) else {
            return;
        };
        match following.pop_front() {
            Some(next) => self.ready.push_back(next),
            None => drop(self.following.remove(identifier)),
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            self.ready.push_back(entry.remove());
        }
    }

    /// False while rows of the group are taken away: nothing is sent then.
    fn send(&mut self) -> bool {
        while !self.ready.is_empty() {
            let Ok(turn) = Arc::clone(&self.turn.sending).try_read_owned() else {
                return false;
            };
            let Some(permit) = self.pace.permit() else {
                break;
            };
            let items = self.batch();
            if items.is_empty() {
                break;
            }
            for item in &items {
                item.pending.note_sent(item.record.row);
            }
            let store = Arc::clone(&self.store);
            let outbox = Arc::clone(&self.outbox);
            self.calls.push(Box::pin(async move {
                let records: Vec<Record> = items.iter().map(|item| item.record.clone()).collect();
                outbox.step("send");
                let outcomes = store.write(&records).await;
                outbox.step("sent");
                Sent {
                    items,
                    outcomes,
                    _permit: permit,
                    _turn: turn,
                }
            }));
        }
        true
    }

    /// What goes into the next call: rows of different identifiers.
    fn batch(&mut self) -> Vec<Item> {
        let limit = self.store.limit();
        let mut batch: Vec<Item> = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.ready.front() {
            if item.is_settled() {
                if let Some(erased) = self.ready.pop_front() {
                    self.release(&erased.identifier);
                }
                continue;
            }
            let alone = item.attempts >= ALONE;
            let full = batch.len() >= limit.records || bytes + item.bytes > limit.bytes;
            if !batch.is_empty() && (alone || full) {
                break;
            }
            bytes += item.bytes;
            batch.extend(self.ready.pop_front());
            if alone {
                break;
            }
        }
        batch
    }

    fn settle(&mut self, sent: Sent) {
        let Sent {
            items,
            mut outcomes,
            _permit,
            _turn,
        } = sent;
        let missing = || {
            Outcome::Retry(
                Trouble::Away,
                "the store left it without an answer".to_owned(),
            )
        };
        outcomes.resize_with(items.len(), missing);
        self.report(&outcomes);
        let mut done: HashMap<Position, Vec<usize>> = HashMap::new();
        let mut released = Vec::new();
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match self.outcome(item, outcome) {
                Went::There(item) => {
                    let rows = done.entry(item.pending.position).or_default();
                    rows.push(item.record.row);
                    released.push(item.identifier);
                }
                Went::Aside(identifier) => released.push(identifier),
                Went::Back => {}
            }
        }
        self.outbox.step("mark");
        for (position, rows) in done {
            self.outbox.settle(position, Stage::Online, &rows);
            self.update(|status| status.sent += rows.len() as u64);
        }
        // Only now may rows that follow be sent: marks are saved in their order.
        for identifier in released {
            self.release(&identifier);
        }
    }

    /// What the outcomes say about the store, and about what keeps rows from being sent.
    fn report(&self, outcomes: &[Outcome]) {
        let mut taken = 0;
        let mut answer = None;
        let mut trouble = None;
        for outcome in outcomes {
            let (this, reason) = match outcome {
                Outcome::Retry(Trouble::Denied, reason) => (Answer::Denied, reason),
                Outcome::Retry(Trouble::Throttled, reason) => (Answer::Throttled, reason),
                Outcome::Retry(Trouble::Away, reason) => (Answer::Away, reason),
                Outcome::Done | Outcome::Stale(_) | Outcome::Refused(_) => {
                    taken += 1;
                    continue;
                }
            };
            let worse = match answer {
                None => true,
                Some(Answer::Away) => this != Answer::Away,
                Some(_) => this == Answer::Denied,
            };
            if worse {
                answer = Some(this);
                trouble = Some(reason.clone());
            }
        }
        match answer {
            // It answers for others: the failure is this record's.
            Some(Answer::Away) if taken > 0 => self.pace.report(Answer::Good(taken)),
            Some(answer) => self.pace.report(answer),
            None => self.pace.report(Answer::Good(taken)),
        }
        self.update(|status| status.trouble = trouble);
    }

    fn outcome(&mut self, item: Item, outcome: Outcome) -> Went {
        match outcome {
            Outcome::Done => Went::There(item),
            // It may be our own earlier attempt that was carried out and then overtaken.
            Outcome::Stale(_) if item.attempts > 0 || item.pending.recovered => Went::There(item),
            Outcome::Stale(reason) | Outcome::Refused(reason) => self.give_up(item, &reason),
            Outcome::Retry(trouble, reason) => self.again(item, trouble, &reason),
        }
    }

    fn again(&mut self, mut item: Item, trouble: Trouble, reason: &str) -> Went {
        item.attempts = item.attempts.saturating_add(1);
        if trouble == Trouble::Away {
            if item.failures == 0 {
                item.taken_before = self.pace.taken();
            }
            item.failures = item.failures.saturating_add(1);
        }
        let most = self.options.poison_attempts;
        let others = self.pace.taken().saturating_sub(item.taken_before);
        if trouble == Trouble::Away && item.failures >= most && others >= u64::from(most) {
            let reason = format!(
                "the store failed {} times on this record while it took others: {reason}",
                item.failures
            );
            return self.give_up(item, &reason);
        }
        let wait = match trouble {
            Trouble::Denied => self.options.denied_wait,
            Trouble::Throttled | Trouble::Away => backoff::wait(
                item.attempts,
                self.options.backoff,
                self.options.max_backoff,
            ),
        };
        self.update(|status| {
            status.retried += 1;
            status.throttled += u64::from(trouble == Trouble::Throttled);
        });
        self.delay(item, wait);
        Went::Back
    }

    fn delay(&mut self, item: Item, wait: std::time::Duration) {
        self.delays += 1;
        self.delayed
            .insert((Instant::now() + wait, self.delays), item);
    }

    fn give_up(&mut self, item: Item, reason: &str) -> Went {
        let attempts = item.attempts.saturating_add(1);
        let writes_offline = self.store.writes_offline();
        let Item {
            pending, record, ..
        } = &item;
        match self
            .outbox
            .quarantine(pending, record, reason, attempts, writes_offline)
        {
            Ok(()) => {
                tracing::warn!(group = self.group, reason, "a record went into quarantine");
                self.update(|status| status.quarantined += 1);
                Went::Aside(item.identifier)
            }
            Err(error) => {
                self.update(|status| status.trouble = Some(error.message));
                self.delay(item, self.options.denied_wait);
                Went::Back
            }
        }
    }
}
