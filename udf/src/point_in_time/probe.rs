//! Phase one of a point-in-time join: versions enter the cells of the spine's index, from many
//! tasks at once, and the best of each slot is settled at the end.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::Array;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::Count;
use featureflight_catalog::scan::versions::VersionBatch;
use featureflight_catalog::{Error, Instant};
use parking_lot::Mutex;

use crate::point_in_time::index::SpineIndex;
use crate::point_in_time::kept::{Keeper, Kept};
use crate::point_in_time::node::KnownBy;
use crate::ranking::cuts::Cuts;
use crate::ranking::keys::{Found, Keys, TOGETHER};
use crate::ranking::pass::Visit;
use crate::ranking::rank::{Rank, Ranks};

type Cell = Option<Rank>;

/// How far the keys are settled, in their order.
#[derive(Debug, Default)]
struct Progress {
    /// The first key that was not.
    key: usize,
    /// The earliest bound asked about. The keys before `key` are settled for it, and so for any
    /// that is earlier still.
    bound: Option<Instant>,
}

/// The best version per cell, in stripes with a lock each, so that tasks share one copy of the
/// cells whatever their number.
#[derive(Debug)]
struct Cells {
    stripe: usize,
    stripes: Vec<Mutex<Vec<Cell>>>,
}

impl Cells {
    fn new(cells: usize, tasks: usize) -> Self {
        let wanted = if tasks == 1 { 1 } else { tasks * 4 };
        let stripe = cells.div_ceil(wanted).max(1);
        let stripes = (0..cells).step_by(stripe).map(|start| {
            let length = stripe.min(cells - start);
            Mutex::new(vec![None; length])
        });
        Self {
            stripe,
            stripes: stripes.collect(),
        }
    }
}

/// Cells that no other task holds any more.
struct Settled {
    stripe: usize,
    stripes: Vec<Vec<Cell>>,
}

impl Settled {
    fn get(&self, cell: usize) -> Cell {
        self.stripes[cell / self.stripe][cell % self.stripe]
    }

    fn improve(&mut self, cell: usize, other: Cell) {
        let best = &mut self.stripes[cell / self.stripe][cell % self.stripe];
        *best = (*best).max(other);
    }
}

/// Bytes that the cells of an index take.
pub(crate) fn cells_memory(cells: usize) -> usize {
    cells * size_of::<Cell>()
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) index: Arc<SpineIndex>,
    cuts: Cuts,
    known_by: KnownBy,
    cells: Cells,
    progress: Mutex<Progress>,
    /// Versions that entered a cell.
    matched: Count,
    /// Keeps their features, which come behind the key.
    keeper: Option<Keeper>,
}

/// A version that may enter a slot.
#[derive(Debug)]
struct Candidate {
    row: usize,
    /// The only one that the version may have.
    key: Found,
    /// The first of the key's that has reached its event time.
    slot: usize,
}

fn numbers(found: &[Candidate]) -> impl Iterator<Item = u32> + Clone {
    found.iter().map(|version| version.key.number)
}

/// What one task keeps between its batches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    hashes: Vec<u64>,
    found: Vec<Candidate>,
    /// Versions and the cells they enter, per stripe.
    entering: Vec<Vec<(usize, Rank)>>,
    /// Rows of the versions that became the best of a cell.
    entered: Vec<u32>,
}

impl Probe {
    /// `index` must be clear.
    pub(crate) fn new(
        index: Arc<SpineIndex>,
        cuts: Cuts,
        known_by: KnownBy,
        tasks: usize,
        matched: Count,
        keeper: Option<Keeper>,
    ) -> Self {
        let cells = Cells::new(index.cells(), tasks);
        Self {
            index,
            cuts,
            known_by,
            cells,
            progress: Mutex::default(),
            matched,
            keeper,
        }
    }

    /// The features that were kept.
    pub(crate) fn kept(&self) -> Option<Kept> {
        self.keeper.as_ref().map(Keeper::take)
    }

    /// Calls `winner` with every slot that any version reaches and the best one, tombstone or not.
    pub(crate) fn settle(&self, mut winner: impl FnMut(usize, &Rank) -> Result<()>) -> Result<()> {
        let take = |stripe: &Mutex<Vec<Cell>>| std::mem::take(&mut *stripe.lock());
        let stripes = self.cells.stripes.iter().map(take).collect();
        let mut cells = Settled {
            stripe: self.cells.stripe,
            stripes,
        };
        for key in 0..self.index.key_count() {
            let (slots, tree) = self.index.key(key);
            if let Some((first, tree)) = tree {
                tree.settle(|from, to| cells.improve(first + to, cells.get(first + from)));
            }
            let mut best = None;
            for slot in slots.clone() {
                best = match tree {
                    None => best.max(cells.get(slot)),
                    Some((first, tree)) => {
                        tree.best(slot - slots.start, self.index.cut(slot), |cell| {
                            cells.get(first + cell)
                        })
                    }
                };
                if let Some(best) = &best {
                    winner(slot, best)?;
                }
            }
        }
        Ok(())
    }

    /// Sorts the versions of `scratch.hashes`, whose first row is `start`, into stripes. Each step
    /// runs over all rows before the next, so that what they wait for overlaps.
    fn probe(&self, keys: &Keys<'_>, ranks: &Ranks<'_>, start: usize, scratch: &mut Scratch) {
        let Scratch {
            hashes,
            found,
            entering,
            ..
        } = scratch;
        let index = &self.index;
        index.keys.warm(hashes);
        found.clear();
        found.extend(hashes.iter().enumerate().filter_map(|(at, hash)| {
            let row = start + at;
            let key = index.keys.candidate(*hash, keys, row)?;
            let slot = 0;
            (!index.is_out(key, ranks.event_micros(row))).then_some(Candidate { row, key, slot })
        }));
        index.warm_keys(numbers(found));
        index.warm_slots(numbers(found));
        found.retain_mut(|version| {
            let slot = index.first(version.key.number, ranks.event_time(version.row));
            version.slot = slot.unwrap_or_default();
            slot.is_some()
        });
        let rows_have_cuts = index.rows_have_cuts();
        if !rows_have_cuts {
            index.warm_newest(found.iter().map(|version| version.slot));
            found.retain(|version| !index.is_beaten(version.slot, ranks.event_time(version.row)));
        }
        index.keys.warm_keys(numbers(found));
        let stripe = self.cells.stripe;
        for Candidate { row, key, slot } in found {
            let rank = ranks.get(*row);
            if !self.cuts.admit(&rank) || !index.keys.is(key.number, keys, *row) {
                continue;
            }
            let mut enter = |cell: usize| entering[cell / stripe].push((cell % stripe, rank));
            if rows_have_cuts {
                let known = match self.known_by {
                    KnownBy::WriteTime => rank.write_time(),
                    KnownBy::ApiInvocationTime => rank.api_invocation_time(),
                };
                index.enter(key.number, *slot, known, enter);
            } else {
                index.enters(*key, *slot, ranks.event_micros(*row));
                enter(*slot);
            }
        }
    }
}

impl Visit for Probe {
    type Scratch = Scratch;

    fn is_settled(&self, bound: Instant) -> bool {
        let mut progress = self.progress.lock();
        if progress.bound.is_some_and(|earliest| earliest < bound) {
            // Files are asked about from the newest to the oldest, but for those opened ahead.
            return false;
        }
        progress.bound = Some(bound);
        while progress.key < self.index.key_count() && self.index.is_settled(progress.key, bound) {
            progress.key += 1;
        }
        progress.key == self.index.key_count()
    }

    fn visit(&self, file: u32, batch: &VersionBatch, scratch: &mut Scratch) -> Result<()> {
        let column = batch.features.first();
        let column = column.ok_or_else(|| Error::internal("a batch of versions lacks its keys"))?;
        let keys = Keys::try_new(column.as_ref() as &dyn Array)?;
        if keys.null_count() > 0 {
            return Err(Error::internal("a batch of versions has a null key").into());
        }
        let ranks = Ranks::try_new(file, batch)?;
        let stripes = &self.cells.stripes;
        scratch.entered.clear();
        scratch.entering.resize_with(stripes.len(), Vec::new);
        for start in (0..batch.rows).step_by(TOGETHER) {
            let rows = start..batch.rows.min(start + TOGETHER);
            keys.hash(self.index.keys.state(), rows, &mut scratch.hashes);
            self.probe(&keys, &ranks, start, scratch);
        }
        for (stripe, entering) in scratch.entering.iter_mut().enumerate() {
            if entering.is_empty() {
                continue;
            }
            self.matched.add(entering.len());
            let mut cells = stripes[stripe].lock();
            let taken = |taken, (cell, _): &(usize, Rank)| taken ^ cells[*cell].is_some();
            black_box(entering.iter().fold(false, taken));
            for (cell, rank) in entering.drain(..) {
                if cells[cell] < Some(rank) {
                    cells[cell] = Some(rank);
                    let cell = stripe * self.cells.stripe + cell;
                    self.index.entered(cell, rank.event_time());
                    scratch.entered.push(rank.row);
                }
            }
        }
        if let Some(keeper) = &self.keeper
            && !scratch.entered.is_empty()
        {
            scratch.entered.sort_unstable();
            scratch.entered.dedup();
            let features = &batch.features[1..];
            keeper.keep(file, batch.first_row, &scratch.entered, features)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;
    use arrow::datatypes::DataType;
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};

    use super::*;
    use crate::point_in_time::index::SpineRows;

    #[test]
    fn what_is_settled_for_an_earlier_bound_is_not_for_a_later_one() {
        let at = Instant::from_micros;
        let mut rows = SpineRows::try_new(&DataType::Utf8View).unwrap();
        let keys = StringViewArray::from(vec!["a", "b"]);
        rows.push(&keys, &[Some(at(1_000)), Some(at(1_000))], None)
            .unwrap();
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("test").register(&pool);
        let (index, _) = SpineIndex::new(rows, &memory).unwrap();
        let index = Arc::new(index);
        let entered = Count::new();
        let probe = Probe::new(
            Arc::clone(&index),
            Cuts::default(),
            KnownBy::WriteTime,
            1,
            entered,
            None,
        );
        index.entered(0, at(500));
        assert!(!probe.is_settled(at(400)), "b has no version");
        index.entered(1, at(700));
        assert!(
            !probe.is_settled(at(600)),
            "files opened ahead are asked about again"
        );
        assert!(probe.is_settled(at(400)));
        assert!(!probe.is_settled(at(600)));
    }
}
