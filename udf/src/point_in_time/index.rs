//! The spine as slots: per key the distinct (time, cut) pairs, in order.
//!
//! A version goes into the first slot of its key that has reached its event time; later slots
//! inherit it by a prefix maximum at the end. Where the rows bring their own cuts and these grow
//! with time (most often they are the same column) it goes into the first slot that has reached
//! both; keys whose cuts do not grow have a [`CutsTree`] instead.

use std::collections::HashMap;
use std::ops::Range;

use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use featureflight_catalog::Instant;

use crate::point_in_time::cuts_tree::CutsTree;
use crate::ranking::keys::{KeyIndex, Keys, NONE};

/// A spine row that can match: key and time (and cut, if rows have one) are not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) key: u32,
    pub(crate) time: Instant,
    /// What must have been known by; the same for all where rows bring no cut.
    pub(crate) cut: Instant,
    pub(crate) row: u32,
}

/// Slots of all keys, key after key. A cell holds the best version that entered there: one per
/// slot, then those of the trees.
#[derive(Debug)]
pub(crate) struct SpineIndex {
    keys: KeyIndex,
    /// Where the slots of each key begin, and the end of the last.
    starts: Vec<u32>,
    times: Vec<Instant>,
    /// Per slot; empty where rows bring no cut.
    cuts: Vec<Instant>,
    /// By key, with the first cell of each.
    trees: HashMap<u32, (usize, CutsTree)>,
    cells: usize,
}

impl SpineIndex {
    /// The index, and per spine row its slot or [`NONE`]. What the index adds to keys and entries
    /// is reserved in `memory`.
    ///
    /// # Errors
    /// `ResourcesExhausted` when it does not fit.
    pub(crate) fn new(
        keys: KeyIndex,
        mut entries: Vec<Entry>,
        rows: usize,
        rows_have_cuts: bool,
        memory: &MemoryReservation,
    ) -> Result<(Self, Vec<u32>)> {
        let slot = if rows_have_cuts { 2 } else { 1 } * size_of::<Instant>();
        memory.try_grow(entries.len() * slot + keys.len() * size_of::<u32>())?;
        entries.sort_unstable();
        let mut slot_of_row = vec![NONE; rows];
        let mut index = Self {
            starts: Vec::with_capacity(keys.len() + 1),
            keys,
            times: Vec::new(),
            cuts: Vec::new(),
            trees: HashMap::new(),
            cells: 0,
        };
        let mut slot = 0_u32;
        for key in entries.chunk_by(|a, b| a.key == b.key) {
            index.starts.push(slot);
            for same in key.chunk_by(|a, b| (a.time, a.cut) == (b.time, b.cut)) {
                index.times.push(same[0].time);
                if rows_have_cuts {
                    index.cuts.push(same[0].cut);
                }
                for entry in same {
                    slot_of_row[entry.row as usize] = slot;
                }
                slot += 1;
            }
        }
        index.starts.push(slot);
        index.cells = index.times.len();
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
        self.times.len()
    }

    pub(crate) fn cells(&self) -> usize {
        self.cells
    }

    pub(crate) fn time(&self, slot: usize) -> Instant {
        self.times[slot]
    }

    pub(crate) fn cut(&self, slot: usize) -> Instant {
        self.cuts[slot]
    }

    /// Whether rows bring their own cuts, so that [`Self::enter`] looks at what was known when.
    pub(crate) fn rows_have_cuts(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// The slots of each key, in order, and its tree if it has one.
    pub(crate) fn by_key(
        &self,
    ) -> impl Iterator<Item = (Range<usize>, Option<&(usize, CutsTree)>)> {
        (0_u32..)
            .zip(self.starts.windows(2))
            .map(|(key, range)| (range[0] as usize..range[1] as usize, self.trees.get(&key)))
    }

    /// The key of a row of a history, if the spine has it.
    pub(crate) fn find(&self, keys: &Keys<'_>, row: usize) -> Option<u32> {
        if keys.is_null(row) {
            return None;
        }
        self.keys.find(keys.hash(self.keys.state(), row), keys, row)
    }

    /// The cells that a version of `key` enters.
    pub(crate) fn enter(
        &self,
        key: u32,
        event_time: Instant,
        known: Instant,
        mut enter: impl FnMut(usize),
    ) {
        let range = self.starts[key as usize] as usize..self.starts[key as usize + 1] as usize;
        let first = self.times[range.clone()].partition_point(|time| *time < event_time);
        if !self.rows_have_cuts() {
            if first < range.len() {
                enter(range.start + first);
            }
            return;
        }
        if let Some((cell, tree)) = self.trees.get(&key) {
            return tree.enter(first, known, |place| enter(cell + place));
        }
        let first = first.max(self.cuts[range.clone()].partition_point(|cut| *cut < known));
        if first < range.len() {
            enter(range.start + first);
        }
    }
}
