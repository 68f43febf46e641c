//! Phase one of a point-in-time join: versions enter the cells of the spine's index, from many
//! tasks at once, and the best of each slot is settled at the end.

use arrow::array::Array;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::Count;
use featureflight_catalog::Error;
use featureflight_catalog::scan::versions::VersionBatch;
use parking_lot::Mutex;

use crate::point_in_time::index::SpineIndex;
use crate::point_in_time::node::KnownBy;
use crate::ranking::cuts::Cuts;
use crate::ranking::keys::Keys;
use crate::ranking::pass::Visit;
use crate::ranking::rank::{Rank, Ranks};

type Cell = Option<Rank>;

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
    pub(crate) index: SpineIndex,
    cuts: Cuts,
    known_by: KnownBy,
    cells: Cells,
    /// Versions that entered a cell.
    matched: Count,
}

impl Probe {
    pub(crate) fn new(
        index: SpineIndex,
        cuts: Cuts,
        known_by: KnownBy,
        tasks: usize,
        matched: Count,
    ) -> Self {
        let cells = Cells::new(index.cells(), tasks);
        Self {
            index,
            cuts,
            known_by,
            cells,
            matched,
        }
    }

    /// Calls `winner` with every slot that any version reaches and the best one, tombstone or not.
    pub(crate) fn settle(&self, mut winner: impl FnMut(usize, &Rank) -> Result<()>) -> Result<()> {
        let take = |stripe: &Mutex<Vec<Cell>>| std::mem::take(&mut *stripe.lock());
        let stripes = self.cells.stripes.iter().map(take).collect();
        let mut cells = Settled {
            stripe: self.cells.stripe,
            stripes,
        };
        for (slots, tree) in self.index.by_key() {
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
}

impl Visit for Probe {
    /// Versions and the cells they enter, per stripe.
    type Scratch = Vec<Vec<(usize, Rank)>>;

    fn visit(&self, file: u32, batch: &VersionBatch, entering: &mut Self::Scratch) -> Result<()> {
        let column = batch.features.first();
        let column = column.ok_or_else(|| Error::internal("a batch of versions lacks its keys"))?;
        let keys = Keys::try_new(column.as_ref() as &dyn Array)?;
        let ranks = Ranks::try_new(file, batch)?;
        entering.resize_with(self.cells.stripes.len(), Vec::new);
        let stripe = self.cells.stripe;
        for row in 0..batch.rows {
            let rank = ranks.get(row);
            if !self.cuts.admit(&rank) {
                continue;
            }
            let Some(key) = self.index.find(&keys, row) else {
                continue;
            };
            let known = match self.known_by {
                KnownBy::WriteTime => rank.write_time(),
                KnownBy::ApiInvocationTime => rank.api_invocation_time(),
            };
            self.index.enter(key, rank.event_time(), known, |cell| {
                entering[cell / stripe].push((cell % stripe, rank));
            });
        }
        for (entering, cells) in entering.iter_mut().zip(&self.cells.stripes) {
            if entering.is_empty() {
                continue;
            }
            self.matched.add(entering.len());
            let mut cells = cells.lock();
            for (cell, rank) in entering.drain(..) {
                cells[cell] = cells[cell].max(Some(rank));
            }
        }
        Ok(())
    }
}
