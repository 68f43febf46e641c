//! What is accepted and not settled everywhere yet: blocks on disk, with marks in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant as Clock};

use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::{Error, Instant, Result};
use parking_lot::Mutex;

use super::GroupProgress;
use super::entry::{self, RowsHead};
use super::rows::RowSet;
use super::segment::Segment;
use super::stage::{Position, Stage};
use super::summary::Summary;
use crate::group::Layout;
use crate::record::{Block, Operation};

/// A block of accepted rows. Its rows are read from disk when they are asked for; they stay
/// readable as long as this value lives.
#[derive(Debug)]
pub struct PendingBlock {
    pub position: Position,
    /// When its request was acknowledged: later for every later request.
    pub accepted_at: Instant,
    pub layout: Arc<Layout>,
    /// True when it was accepted by a process before this one, which may have sent any of it.
    pub recovered: bool,
    pub(super) head: RowsHead,
    pub(super) place: Place,
    settled: Mutex<[RowSet; 2]>,
    /// The offline files its rows go into, noted before the files are there.
    landings: Mutex<Vec<Landing>>,
    summary: OnceLock<Summary>,
    sends: Mutex<Sends>,
    event_times: OnceLock<EventRange>,
}

/// When rows of a block went to their online store.
#[derive(Debug)]
struct Sends {
    /// The first time of each row, in microseconds; [`NEVER`] for one that did not. Empty before the
    /// first of all.
    first: Vec<i64>,
    /// When the store took the last of them; at first, since when this process knows them.
    taken: Clock,
}

const NEVER: i64 = i64::MAX;

/// Rows of a block that go into one file.
#[derive(Debug)]
struct Landing {
    file: Arc<str>,
    rows: RowSet,
}

/// Where a rows entry is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

impl PendingBlock {
    pub(super) fn new(
        position: Position,
        accepted_at: Instant,
        layout: Arc<Layout>,
        head: RowsHead,
        place: Place,
        recovered: bool,
    ) -> Self {
        let rows = |stage| {
            if head.stages.has(stage) {
                RowSet::none(head.rows)
            } else {
                RowSet::all(head.rows)
            }
        };
        Self {
            settled: Mutex::new(Stage::ALL.map(rows)),
            landings: Mutex::default(),
            summary: OnceLock::new(),
            sends: Mutex::new(Sends {
                first: Vec::new(),
                taken: Clock::now(),
            }),
            event_times: OnceLock::new(),
            position,
            accepted_at,
            layout,
            recovered,
            head,
            place,
        }
    }

    pub fn group(&self) -> &str {
        &self.layout.group
    }

    pub fn operation(&self) -> Operation {
        self.head.operation
    }

    /// Rows, settled ones included.
    pub fn rows(&self) -> usize {
        self.head.rows
    }

    /// How many rows have not been through `stage`.
    pub fn remaining(&self, stage: Stage) -> usize {
        self.settled.lock()[stage.index()].missing()
    }

    pub fn is_settled(&self, stage: Stage, row: usize) -> bool {
        self.settled.lock()[stage.index()].contains(row)
    }

    /// The rows that have not been through `stage`, in order.
    pub fn unsettled(&self, stage: Stage) -> Vec<usize> {
        let settled = self.settled.lock();
        let settled = &settled[stage.index()];
        (0..self.head.rows)
            .filter(|row| !settled.contains(*row))
            .collect()
    }

    /// Notes that these rows will be in the offline file at `file`. Must come before the file is
    /// there.
    pub fn land(&self, file: &Arc<str>, rows: &[usize]) {
        let mut set = RowSet::none(self.head.rows);
        for row in rows {
            set.insert(*row);
        }
        let file = Arc::clone(file);
        self.landings.lock().push(Landing { file, rows: set });
    }

    /// Forgets a landing: the file did not come to be.
    pub fn unland(&self, file: &str) {
        self.landings
            .lock()
            .retain(|landing| *landing.file != *file);
    }

    /// Of `rows` those whose offline file, if they have one, `is_listed` does not know.
    pub fn not_landed(&self, mut rows: Vec<usize>, is_listed: impl Fn(&str) -> bool) -> Vec<usize> {
        for landing in self.landings.lock().iter() {
            if is_listed(&landing.file) {
                rows.retain(|row| !landing.rows.contains(*row));
            }
        }
        rows
    }

    /// Notes that a row is about to be sent.
    pub(crate) fn note_sent(&self, row: usize) {
        let mut sends = self.sends.lock();
        if sends.first.is_empty() {
            sends.first = vec![NEVER; self.head.rows];
        }
        if let Some(first) = sends.first.get_mut(row) {
            *first = (*first).min(Instant::now().micros);
        }
    }

    /// When a row was sent for the first time, or before that; `None` when it was not sent.
    pub(crate) fn first_sent(&self, row: usize) -> Option<Instant> {
        if self.recovered {
            // Whether and when the process before this one did is not known.
            return Some(self.accepted_at);
        }
        let first = self.sends.lock().first.get(row).copied();
        first.filter(|at| *at != NEVER).map(Instant::from_micros)
    }

    /// Of `rows` those that may have been sent.
    pub(crate) fn keep_sent(&self, rows: &mut Vec<usize>) {
        if !self.recovered {
            let sends = self.sends.lock();
            rows.retain(|row| sends.first.get(*row).is_some_and(|at| *at != NEVER));
        }
    }

    /// Rows that are online and not offline although the store took the last one `wait` ago.
    pub(crate) fn overdue(&self, wait: Duration) -> Vec<usize> {
        if self.sends.lock().taken.elapsed() < wait {
            return Vec::new();
        }
        let settled = self.settled.lock();
        let [online, offline] = &*settled;
        let rows = 0..self.head.rows;
        rows.filter(|row| online.contains(*row) && !offline.contains(*row))
            .collect()
    }

    /// The event times of its rows. Blocks the thread the first time.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn event_times(&self) -> Result<EventRange> {
        if let Some(known) = self.event_times.get() {
            return Ok(*known);
        }
        let block = self.read()?;
        let range = EventRange {
            from: block.instants().iter().min().copied(),
            to: block.instants().iter().max().copied(),
        };
        Ok(*self.event_times.get_or_init(|| range))
    }

    /// Bytes of it on disk.
    pub fn bytes(&self) -> u64 {
        self.place.length as u64
    }

    /// All rows, from disk. Blocks the thread.
    ///
    /// # Errors
    /// `DataLoss` when they are not there any more as they were written; `Unavailable` when the
    /// disk fails.
    pub fn read(&self) -> Result<Block> {
        let payload = self
            .place
            .segment
            .payload(self.place.offset, self.place.length)?;
        entry::decode_rows(&payload, &self.layout)
    }

    /// Remembers what its rows, as they were read, are about.
    pub(crate) fn summarize(&self, rows: &Block) {
        self.summary.get_or_init(|| Summary::of(rows));
    }

    /// False when every row is known to lack something that `prune` asks for.
    pub(crate) fn may_pass(&self, prune: &Prune) -> bool {
        let summary = self.summary.get();
        summary.is_none_or(|summary| summary.may_pass(prune))
    }

    fn is_done(&self) -> bool {
        self.settled.lock().iter().all(RowSet::is_full)
    }

    pub(super) fn marks(&self, stage: Stage) -> Vec<u8> {
        self.settled.lock()[stage.index()].to_bytes()
    }

    pub(super) fn restore(&self, stage: Stage, marks: &[u8]) -> Result<()> {
        let set = RowSet::from_bytes(marks, self.head.rows).ok_or_else(|| {
            Error::data_loss(format!(
                "the outbox's index has marks of another length for block {:?}",
                self.position
            ))
        })?;
        self.settled.lock()[stage.index()] = set;
        Ok(())
    }

    /// How many rows were not settled before.
    fn settle(&self, stage: Stage, rows: &[usize]) -> usize {
        let mut settled = self.settled.lock();
        let set = &mut settled[stage.index()];
        if stage == Stage::Online {
            self.sends.lock().taken = Clock::now();
        }
        rows.iter().filter(|row| set.insert(**row)).count()
    }
}

/// What a segment still holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) segment: Arc<Segment>,
    pub(super) bytes: u64,
    /// Blocks that are not settled, or not committed yet.
    pub(super) live: usize,
    /// Blocks that have marks in the index, or will have.
    pub(super) positions: Vec<Position>,
}

/// The blocks of one group.
#[derive(Debug, Default)]
struct Group {
    positions: BTreeSet<Position>,
    /// How many requests they are of.
    requests: u64,
    /// Rows before each stage.
    remaining: [usize; 2],
}

impl Group {
    fn insert(&mut self, position: Position) {
        self.requests += u64::from(!self.has_request(position.sequence));
        self.positions.insert(position);
    }

    fn remove(&mut self, position: &Position) {
        self.positions.remove(position);
        self.requests -= u64::from(!self.has_request(position.sequence));
    }

    fn has_request(&self, sequence: u64) -> bool {
        let first = Position { sequence, part: 0 };
        let mut from_it = self.positions.range(first..);
        from_it.next().is_some_and(|next| next.sequence == sequence)
    }
}

/// Everything pending.
#[derive(Debug, Default)]
pub(super) struct Pending {
    blocks: BTreeMap<Position, Arc<PendingBlock>>,
    groups: HashMap<String, Group>,
    pub(super) segments: BTreeMap<u64, Held>,
    /// Blocks whose marks changed since the last checkpoint. They may be gone from `blocks`.
    pub(super) dirty: HashMap<Position, Arc<PendingBlock>>,
}

impl Pending {
    /// A block that is committed. Its segment counts it as live already.
    pub(super) fn insert(&mut self, block: PendingBlock) {
        let segment = block.place.segment.number;
        if let Some(held) = self.segments.get_mut(&segment) {
            held.positions.push(block.position);
        }
        if block.is_done() {
            self.release(segment);
            return;
        }
        let position = block.position;
        if !self.groups.contains_key(block.group()) {
            self.groups
                .insert(block.group().to_owned(), Group::default());
        }
        if let Some(group) = self.groups.get_mut(block.group()) {
            group.insert(position);
            for stage in Stage::ALL {
                group.remaining[stage.index()] += block.remaining(stage);
            }
        }
        self.blocks.insert(position, Arc::new(block));
    }

    pub(super) fn release(&mut self, segment: u64) {
        if let Some(held) = self.segments.get_mut(&segment) {
            held.live = held.live.saturating_sub(1);
        }
    }

    pub(super) fn settle(&mut self, position: Position, stage: Stage, rows: &[usize]) {
        let Some(block) = self.blocks.get(&position) else {
            return;
        };
        let block = Arc::clone(block);
        let settled = block.settle(stage, rows);
        if settled == 0 {
            return;
        }
        if let Some(group) = self.groups.get_mut(block.group()) {
            group.remaining[stage.index()] -= settled;
        }
        if block.is_done() {
            self.blocks.remove(&position);
            if let Some(group) = self.groups.get_mut(block.group()) {
                group.remove(&position);
                if group.positions.is_empty() {
                    self.groups.remove(block.group());
                }
            }
            self.release(block.place.segment.number);
        }
        self.dirty.insert(position, block);
    }

    /// Blocks of `group` with rows before `stage`, in order, after `after`.
    pub(super) fn of_group(
        &self,
        group: &str,
        stage: Stage,
        after: Option<Position>,
        limit: usize,
    ) -> Vec<Arc<PendingBlock>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let Some(group) = self.groups.get(group) else {
            return Vec::new();
        };
        if group.remaining[stage.index()] == 0 {
            return Vec::new();
        }
        let from = after.map_or(Unbounded, Excluded);
        let blocks = group
            .positions
            .range((from, Unbounded))
            .filter_map(|at| self.blocks.get(at));
        let blocks = blocks.filter(|block| block.remaining(stage) > 0);
        blocks.take(limit).cloned().collect()
    }

    /// Blocks of `group` accepted before this place in the order.
    pub(super) fn before(&self, group: &str, sequence: u64) -> Vec<Arc<PendingBlock>> {
        let positions = self.groups.get(group).map(|group| &group.positions);
        let positions = positions.into_iter().flatten();
        let blocks = positions.filter_map(|at| self.blocks.get(at));
        let blocks = blocks.take_while(|block| block.position.sequence < sequence);
        blocks.cloned().collect()
    }

    /// Groups with rows before `stage`.
    pub(super) fn groups(&self, stage: Stage) -> HashSet<String> {
        let groups = self.groups.iter();
        let groups = groups.filter(|(_, group)| group.remaining[stage.index()] > 0);
        groups.map(|(group, _)| group.clone()).collect()
    }

    /// What waits, by group.
    pub(super) fn progress(&self) -> BTreeMap<String, GroupProgress> {
        let groups = self.groups.iter();
        let groups = groups.map(|(name, group)| {
            let [online, offline] = group.remaining;
            let progress = GroupProgress {
                requests: group.requests,
                online_rows: online as u64,
                offline_rows: offline as u64,
                oldest_online: self.oldest(group, Stage::Online),
                oldest_offline: self.oldest(group, Stage::Offline),
            };
            (name.clone(), progress)
        });
        groups.collect()
    }

    fn oldest(&self, group: &Group, stage: Stage) -> Option<Instant> {
        if group.remaining[stage.index()] == 0 {
            return None;
        }
        let blocks = group.positions.iter().filter_map(|at| self.blocks.get(at));
        let mut waiting = blocks.filter(|block| block.remaining(stage) > 0);
        waiting.next().map(|block| block.accepted_at)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.values().map(|held| held.bytes).sum()
    }

    /// The oldest segments that hold nothing any more, `active` excepted.
    pub(super) fn spent(&self, active: u64) -> Vec<u64> {
        let segments = self.segments.iter();
        segments
            .take_while(|(number, held)| **number != active && held.live == 0)
            .map(|(number, _)| *number)
            .collect()
    }
}
