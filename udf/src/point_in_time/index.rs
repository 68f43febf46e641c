//! The spine as slots: per key the distinct (time, cut) pairs, in order.
//!
//! A version goes into the first slot of its key that has reached its event time; later slots
//! inherit it by a prefix maximum at the end. Where the rows bring their own cuts and these grow
//! with time (most often they are the same column) it goes into the first slot that has reached
//! both; keys whose cuts do not grow have a [`CutsTree`] instead.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use featureflight_catalog::Instant;
use foldhash::fast::RandomState;

use crate::point_in_time::cuts_tree::CutsTree;
use crate::ranking::keys::{Found, KeyIndex, Keys, NONE, TOGETHER};

/// Stands where a row that cannot match has no time.
const EPOCH: Instant = Instant::from_micros(0);

/// What of each spine row is matched: collected batch by batch.
#[derive(Debug)]
pub(crate) struct SpineRows {
    keys: KeyIndex<Beaten>,
    /// Per row, [`NONE`] for a row that cannot match: its key, time or cut is null.
    key: Vec<u32>,
    micros: Vec<i64>,
    /// Beyond the microseconds; empty as long as all are zero.
    nanos: Vec<u16>,
    /// What must have been known by; empty where rows bring no cut.
    cuts: Vec<Instant>,
    hashes: Vec<u64>,
}

impl SpineRows {
    /// # Errors
    /// `Internal` for a type that no record identifier has.
    pub(crate) fn try_new(key_type: &DataType) -> Result<Self> {
        Ok(Self {
            keys: KeyIndex::try_new(key_type, RandomState::default())?,
            key: Vec::new(),
            micros: Vec::new(),
            nanos: Vec::new(),
            cuts: Vec::new(),
            hashes: Vec::new(),
        })
    }

    /// The next rows; either all calls bring cuts or none does.
    ///
    /// # Errors
    /// `Internal` for keys of another type, `ResourceExhausted` for too many.
    pub(crate) fn push(
        &mut self,
        keys: &dyn Array,
        times: &[Option<Instant>],
        cuts: Option<&[Option<Instant>]>,
    ) -> Result<()> {
        let column = Keys::try_new(keys)?;
        let before = self.key.len();
        for start in (0..times.len()).step_by(TOGETHER) {
            let rows = start..times.len().min(start + TOGETHER);
            column.hash(self.keys.state(), rows.clone(), &mut self.hashes);
            self.keys.warm_inserts(&column, start, &self.hashes);
            for (row, hash) in rows.zip(&self.hashes) {
                let cut = cuts.map(|cuts| cuts[row]);
                let matches = times[row].is_some() && cut != Some(None) && !column.is_null(row);
                self.key.push(if matches {
                    self.keys.insert(*hash, &column, row)?
                } else {
                    NONE
                });
            }
        }
        for (row, time) in times.iter().enumerate() {
            let cut = cuts.map(|cuts| cuts[row]);
            let time = time.unwrap_or(EPOCH);
            self.micros.push(time.micros);
            if time.nanos > 0 {
                self.nanos.resize(before + row, 0);
                self.nanos.push(time.nanos);
            }
            self.cuts.extend(cut.map(|cut| cut.unwrap_or(EPOCH)));
        }
        Ok(())
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        self.keys.memory()
            + self.key.capacity() * size_of::<u32>()
            + self.micros.capacity() * size_of::<i64>()
            + self.nanos.capacity() * size_of::<u16>()
            + self.cuts.capacity() * size_of::<Instant>()
    }

    fn time(&self, row: u32) -> Instant {
        Instant {
            micros: self.micros[row as usize],
            nanos: self.nanos.get(row as usize).copied().unwrap_or(0),
        }
    }

    fn cut(&self, row: u32) -> Option<Instant> {
        self.cuts.get(row as usize).copied()
    }

    fn compare(&self, a: u32, b: u32) -> Ordering {
        (self.time(a), self.cut(a)).cmp(&(self.time(b), self.cut(b)))
    }

    /// The rows that can match, key by key, and where each key's begin and the last's end.
    fn by_key(&self) -> (Vec<u32>, Vec<u32>) {
        let mut starts = vec![0_u32; self.keys.len() + 1];
        for key in self.key.iter().filter(|key| **key != NONE) {
            starts[*key as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut rows = vec![0_u32; sum as usize];
        for (row, key) in (0_u32..).zip(&self.key) {
            if *key != NONE {
                let place = &mut next[*key as usize];
                rows[*place as usize] = row;
                *place += 1;
            }
        }
        (rows, starts)
    }
}

/// Event times as a few bits, in order: about seconds, of the 71 years on either side of the first
/// time of a spine. What lies further away is put at the ends.
#[derive(Debug, Clone, Copy)]
struct Coarse {
    base: i64,
}

impl Coarse {
    fn around(first: i64) -> Self {
        Self {
            base: first.saturating_sub(1 << 51),
        }
    }

    fn of(self, micros: i64) -> u32 {
        let units = micros.saturating_sub(self.base) >> 20;
        u32::try_from(units.max(0)).unwrap_or(u32::MAX)
    }
}

/// A stretch of event times, ends excluded, in which no version of one key can be the best of any
/// slot any more: after the slot before one, before the best version that entered that one. Found
/// beside the key, so that most versions need no other look. At first it lies after the last slot;
/// as files come newest first, it moves towards the first. A stretch stays true for ever, so that
/// tasks may overwrite each other's.
#[derive(Debug, Default)]
pub(crate) struct Beaten(AtomicU64);

impl Beaten {
    fn set(&self, after: u32, before: u32) {
        self.0
            .store(u64::from(after) << 32 | u64::from(before), Relaxed);
    }

    fn get(&self) -> (u32, u32) {
        let ends = self.0.load(Relaxed);
        ((ends >> 32) as u32, ends as u32)
    }

    /// Takes the other stretch when it lies earlier, or ends later.
    fn or(&self, after: u32, before: u32) {
        let (now_after, now_before) = self.get();
        if after < now_after || (after == now_after && before > now_before) {
            self.set(after, before);
        }
    }
}

/// Bytes of one slot: its time and the newest version.
const SLOT: usize = 2 * size_of::<i64>();

/// Bytes that the index of a spine takes per row, while it is made and after; about, and without
/// trees.
pub(crate) const INDEX_PER_ROW: usize = SLOT + 64;

/// No version entered.
const NEVER: i64 = i64::MIN;

/// Slots of all keys, key after key. A cell holds the best version that entered there: one per
/// slot, then those of the trees.
#[derive(Debug)]
pub(crate) struct SpineIndex {
    pub(crate) keys: KeyIndex<Beaten>,
    /// Where the slots of each key begin, and the end of the last.
    starts: Vec<u32>,
    /// The time of each slot. Apart from what follows, so that a key's times lie close together.
    micros: Vec<i64>,
    /// The event time, in microseconds, of the best version that entered each slot so far; it only
    /// ever grows.
    newest: Vec<AtomicI64>,
    /// Beyond the microseconds of each slot; empty when all are zero.
    nanos: Vec<u16>,
    /// Per slot; empty where rows bring no cut.
    cuts: Vec<Instant>,
    /// By key, with the first cell of each.
    trees: HashMap<u32, (usize, CutsTree)>,
    cells: usize,
    coarse: Coarse,
}

impl SpineIndex {
    /// The index, and per spine row its slot or [`NONE`]. What the index adds to the rows is
    /// reserved in `memory`.
    ///
    /// # Errors
    /// `ResourcesExhausted` when it does not fit.
    pub(crate) fn new(rows: SpineRows, memory: &MemoryReservation) -> Result<(Self, Vec<u32>)> {
        // The order of the rows, the bounds of the keys, and the slots.
        let per_row = size_of::<u32>()
            + SLOT
            + usize::from(!rows.nanos.is_empty()) * size_of::<u16>()
            + usize::from(!rows.cuts.is_empty()) * size_of::<Instant>();
        memory.try_grow(rows.key.len() * per_row + rows.keys.len() * 3 * size_of::<u32>())?;
        let (mut order, bounds) = rows.by_key();
        let mut micros: Vec<i64> = Vec::with_capacity(order.len());
        let mut nanos = Vec::new();
        let mut cuts = Vec::new();
        let mut starts = Vec::with_capacity(bounds.len());
        let mut slot_of_row = vec![NONE; rows.key.len()];
        for range in bounds.windows(2) {
            starts.push(micros.len() as u32);
            let order = &mut order[range[0] as usize..range[1] as usize];
            order.sort_unstable_by(|a, b| rows.compare(*a, *b));
            for same in order.chunk_by(|a, b| rows.compare(*a, *b).is_eq()) {
                let time = rows.time(same[0]);
                for row in same {
                    slot_of_row[*row as usize] = micros.len() as u32;
                }
                micros.push(time.micros);
                if !rows.nanos.is_empty() {
                    nanos.push(time.nanos);
                }
                cuts.extend(rows.cut(same[0]));
            }
        }
        starts.push(micros.len() as u32);
        let newest = micros.iter().map(|_| AtomicI64::new(NEVER)).collect();
        let first = micros.iter().min().copied().unwrap_or_default();
        let mut index = Self {
            keys: rows.keys,
            starts,
            cells: micros.len(),
            micros,
            newest,
            nanos,
            cuts,
            trees: HashMap::new(),
            coarse: Coarse::around(first),
        };
        index.plant_trees(memory)?;
        Ok((index, slot_of_row))
    }

    fn plant_trees(&mut self, memory: &MemoryReservation) -> Result<()> {
        if self.cuts.is_empty() {
            return Ok(());
        }
        for (key, range) in (0_u32..).zip(self.starts.windows(2)) {
            let cuts = &self.cuts[range[0] as usize..range[1] as usize];
            if !cuts.is_sorted() {
                memory.try_grow(CutsTree::most_memory(cuts.len()))?;
                let tree = CutsTree::new(cuts);
                let first = self.cells;
                self.cells += tree.cells();
                self.trees.insert(key, (first, tree));
            }
        }
        Ok(())
    }

    pub(crate) fn slots(&self) -> usize {
        self.micros.len()
    }

    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    pub(crate) fn time(&self, slot: usize) -> Instant {
        Instant {
            micros: self.micros[slot],
            nanos: self.nanos.get(slot).copied().unwrap_or(0),
        }
    }

    pub(crate) fn cut(&self, slot: usize) -> Instant {
        self.cuts[slot]
    }

    /// The first time of all slots and the last.
    pub(crate) fn times(&self) -> Option<(Instant, Instant)> {
        let times = (0..self.slots()).map(|slot| self.time(slot));
        times.clone().min().zip(times.max())
    }

    /// The latest of the rows' own cuts.
    pub(crate) fn last_cut(&self) -> Option<Instant> {
        self.cuts.iter().copied().max()
    }

    /// Whether rows bring their own cuts, so that [`Self::enter`] looks at what was known when.
    pub(crate) fn rows_have_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// How many keys there are, numbered from 0.
    pub(crate) fn key_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The slots of a key, in order, and its tree if it has one.
    pub(crate) fn key(&self, key: usize) -> (Range<usize>, Option<&(usize, CutsTree)>) {
        let range = self.starts[key] as usize..self.starts[key + 1] as usize;
        let tree = u32::try_from(key).ok().and_then(|key| self.trees.get(&key));
        (range, tree)
    }

    /// Forgets which versions entered.
    pub(crate) fn clear(&self) {
        for newest in &self.newest {
            newest.store(NEVER, Relaxed);
        }
        for found in self.keys.all() {
            let last = self.slots_of(found.number).end - 1;
            let after = self.coarse.of(self.micros[last]);
            self.keys.payload(found).set(after, u32::MAX);
        }
    }

    /// The slots of a key, in order.
    pub(crate) fn slots_of(&self, key: u32) -> Range<usize> {
        self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize
    }

    /// Brings near where the slots of several keys are.
    pub(crate) fn warm_keys(&self, keys: impl Iterator<Item = u32>) {
        black_box(keys.fold(0, |sum, key| sum ^ self.starts[key as usize]));
    }

    /// Brings the times of several keys near: all that are few.
    pub(crate) fn warm_slots(&self, keys: impl Iterator<Item = u32>) {
        let read = |sum, key| {
            let Range { start, end } = self.slots_of(key);
            sum ^ self.micros[start]
                ^ self.micros[usize::midpoint(start, end)]
                ^ self.micros[end - 1]
        };
        black_box(keys.fold(0, read));
    }

    /// Whether a version at `micros` cannot be the best of any slot of `key`. Only a short cut:
    /// `false` says nothing.
    pub(crate) fn is_out(&self, key: Found, micros: i64) -> bool {
        let (after, before) = self.keys.payload(key).get();
        let at = self.coarse.of(micros);
        after < at && at < before
    }

    /// Notes that a version at `micros` enters `slot` of `key`; not where rows have cuts.
    pub(crate) fn enters(&self, key: Found, slot: usize, micros: i64) {
        let after = if slot > self.slots_of(key.number).start {
            self.coarse.of(self.micros[slot - 1])
        } else {
            0
        };
        self.keys.payload(key).or(after, self.coarse.of(micros));
    }

    /// Brings near what [`Self::is_beaten`] looks at.
    pub(crate) fn warm_newest(&self, slots: impl Iterator<Item = usize>) {
        let read = |sum, slot: usize| sum ^ self.newest[slot].load(Relaxed);
        black_box(slots.fold(0, read));
    }

    /// The first slot of a key that has reached `event_time`.
    pub(crate) fn first(&self, key: u32, event_time: Instant) -> Option<usize> {
        let range = self.slots_of(key);
        let micros = &self.micros[range.clone()];
        let mut first = if let [one] = micros {
            usize::from(*one < event_time.micros)
        } else {
            micros.partition_point(|micros| *micros < event_time.micros)
        };
        if event_time.nanos > 0 || !self.nanos.is_empty() {
            while first < micros.len() && self.time(range.start + first) < event_time {
                first += 1;
            }
        }
        (first < micros.len()).then_some(range.start + first)
    }

    /// Whether a version with this event time cannot be the best of the slot any more. Only a
    /// short cut: `false` says nothing.
    pub(crate) fn is_beaten(&self, slot: usize, event_time: Instant) -> bool {
        self.newest[slot].load(Relaxed) > event_time.micros
    }

    /// A version with this event time is the best of a cell now.
    pub(crate) fn entered(&self, cell: usize, event_time: Instant) {
        if let Some(newest) = self.newest.get(cell) {
            newest.fetch_max(event_time.micros, Relaxed);
        }
    }

    /// The cells that a version of `key` enters that belongs into `slot` by its event time alone;
    /// only where rows have cuts.
    pub(crate) fn enter(
        &self,
        key: u32,
        slot: usize,
        known: Instant,
        mut enter: impl FnMut(usize),
    ) {
        let range = self.slots_of(key);
        if let Some((cell, tree)) = self.trees.get(&key) {
            return tree.enter(slot - range.start, known, |place| enter(cell + place));
        }
        let known = self.cuts[range.clone()].partition_point(|cut| *cut < known);
        let slot = slot.max(range.start + known);
        if slot < range.end {
            enter(slot);
        }
    }

    /// Whether no version before `bound` can be the best of any slot of `key`, given those that
    /// entered.
    pub(crate) fn is_settled(&self, key: usize, bound: Instant) -> bool {
        let (slots, tree) = self.key(key);
        // Later slots inherit what the first has.
        let newest = self.newest[slots.start].load(Relaxed);
        tree.is_none() && Instant::from_micros(newest) >= bound
    }
}
