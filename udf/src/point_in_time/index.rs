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
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use featureflight_catalog::Instant;
use foldhash::fast::RandomState;

use crate::point_in_time::cuts_tree::CutsTree;
use crate::ranking::keys::{KeyIndex, Keys, NONE};

/// Stands where a row that cannot match has no time.
const EPOCH: Instant = Instant::from_micros(0);

/// What of each spine row is matched: collected batch by batch.
#[derive(Debug)]
pub(crate) struct SpineRows {
    keys: KeyIndex<Slots>,
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
        column.hash(self.keys.state(), 0..times.len(), &mut self.hashes);
        self.keys.warm(&self.hashes);
        for (row, (time, hash)) in times.iter().zip(&self.hashes).enumerate() {
            let cut = cuts.map(|cuts| cuts[row]);
            let matches = time.is_some() && cut != Some(None) && !column.is_null(row);
            self.key.push(if matches {
                self.keys.insert(*hash, &column, row)?
            } else {
                NONE
            });
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

/// The slots of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    first: u32,
    count: u32,
}

impl Slots {
    fn range(self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.count as usize
    }
}

/// One time of one key.
#[derive(Debug)]
struct Slot {
    micros: i64,
    /// The event time, in microseconds, of the best version that entered so far. Beside the time,
    /// because whoever looks at one looks at the other; it only ever grows.
    newest: AtomicI64,
}

/// Bytes that the index of a spine takes per row, while it is made and after; about, and without
/// trees.
pub(crate) const INDEX_PER_ROW: usize = size_of::<Slot>() + 64;

/// No version entered.
const NEVER: i64 = i64::MIN;

/// Slots of all keys, key after key. A cell holds the best version that entered there: one per
/// slot, then those of the trees.
#[derive(Debug)]
pub(crate) struct SpineIndex {
    pub(crate) keys: KeyIndex<Slots>,
    /// Where the slots of each key begin, and the end of the last.
    starts: Vec<u32>,
    slots: Vec<Slot>,
    /// Beyond the microseconds of each slot; empty when all are zero.
    nanos: Vec<u16>,
    /// Per slot; empty where rows bring no cut.
    cuts: Vec<Instant>,
    /// By key, with the first cell of each.
    trees: HashMap<u32, (usize, CutsTree)>,
    cells: usize,
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
            + size_of::<Slot>()
            + usize::from(!rows.nanos.is_empty()) * size_of::<u16>()
            + usize::from(!rows.cuts.is_empty()) * size_of::<Instant>();
        memory.try_grow(rows.key.len() * per_row + rows.keys.len() * 3 * size_of::<u32>())?;
        let (mut order, bounds) = rows.by_key();
        let mut slots: Vec<Slot> = Vec::with_capacity(order.len());
        let mut nanos = Vec::new();
        let mut cuts = Vec::new();
        let mut starts = Vec::with_capacity(bounds.len());
        let mut slot_of_row = vec![NONE; rows.key.len()];
        for range in bounds.windows(2) {
            starts.push(slots.len() as u32);
            let order = &mut order[range[0] as usize..range[1] as usize];
            order.sort_unstable_by(|a, b| rows.compare(*a, *b));
            for same in order.chunk_by(|a, b| rows.compare(*a, *b).is_eq()) {
                let time = rows.time(same[0]);
                for row in same {
                    slot_of_row[*row as usize] = slots.len() as u32;
                }
                slots.push(Slot {
                    micros: time.micros,
                    newest: AtomicI64::new(NEVER),
                });
                if !rows.nanos.is_empty() {
                    nanos.push(time.nanos);
                }
                cuts.extend(rows.cut(same[0]));
            }
        }
        starts.push(slots.len() as u32);
        let mut keys = rows.keys;
        keys.attach(|key| {
            let (first, end) = (starts[key as usize], starts[key as usize + 1]);
            let count = end - first;
            Slots { first, count }
        });
        let mut index = Self {
            keys,
            starts,
            cells: slots.len(),
            slots,
            nanos,
            cuts,
            trees: HashMap::new(),
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
        self.slots.len()
    }

    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    pub(crate) fn time(&self, slot: usize) -> Instant {
        Instant {
            micros: self.slots[slot].micros,
            nanos: self.nanos.get(slot).copied().unwrap_or(0),
        }
    }

    pub(crate) fn cut(&self, slot: usize) -> Instant {
        self.cuts[slot]
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
        for slot in &self.slots {
            slot.newest.store(NEVER, Relaxed);
        }
    }

    /// Brings the first slots of several keys near.
    pub(crate) fn warm(&self, keys: impl Iterator<Item = Slots>) {
        let read = |sum, slots: Slots| sum ^ self.slots[slots.first as usize].micros;
        black_box(keys.fold(0, read));
    }

    /// The first slot of a key that has reached `event_time`.
    pub(crate) fn first(&self, slots: Slots, event_time: Instant) -> Option<usize> {
        let range = slots.range();
        let slots = &self.slots[range.clone()];
        let mut first = if let [one] = slots {
            usize::from(one.micros < event_time.micros)
        } else {
            slots.partition_point(|slot| slot.micros < event_time.micros)
        };
        if event_time.nanos > 0 || !self.nanos.is_empty() {
            while first < slots.len() && self.time(range.start + first) < event_time {
                first += 1;
            }
        }
        (first < slots.len()).then_some(range.start + first)
    }

    /// Whether a version with this event time cannot be the best of the slot any more. Only a
    /// short cut: `false` says nothing.
    pub(crate) fn is_beaten(&self, slot: usize, event_time: Instant) -> bool {
        self.slots[slot].newest.load(Relaxed) > event_time.micros
    }

    /// A version with this event time is the best of a cell now.
    pub(crate) fn entered(&self, cell: usize, event_time: Instant) {
        if let Some(slot) = self.slots.get(cell) {
            slot.newest.fetch_max(event_time.micros, Relaxed);
        }
    }

    /// The cells that a version enters whose key has `slots` and that belongs into `slot` by its
    /// event time alone; only where rows have cuts.
    pub(crate) fn enter(
        &self,
        key: u32,
        slots: Slots,
        slot: usize,
        known: Instant,
        mut enter: impl FnMut(usize),
    ) {
        let range = slots.range();
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
        let newest = self.slots[slots.start].newest.load(Relaxed);
        tree.is_none() && Instant::from_micros(newest) >= bound
    }
}
