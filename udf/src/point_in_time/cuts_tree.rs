//! Slots of one key whose cuts do not grow with their times.
//!
//! A version belongs to every slot with time >= its event time and cut >= the time it was known:
//! a quarter-plane, which no single place in the order by time can stand for. The slots are put
//! into a binary indexed tree over that order: node `p` covers the slots from `p` on, as many as
//! `p`'s lowest set bit (node 0 all), and keeps its own order by cut. A version enters at most
//! one cell in each of log n nodes that together cover the suffix of slots it is old enough for;
//! a slot's best is the greatest prefix maximum over the log n nodes that cover it. Memory is
//! n log n cells at worst, and the history is still streamed once in any order.

use featureflight_catalog::Instant;

use crate::ranking::rank::Rank;

#[derive(Debug)]
pub(crate) struct CutsTree {
    /// Where each node's cells begin in `cuts`, and the end of the last.
    starts: Vec<usize>,
    /// Per node the distinct cuts of its slots, sorted. One cell each.
    cuts: Vec<Instant>,
}

fn lowest_bit(node: usize) -> usize {
    node & node.wrapping_neg()
}

/// How many of `slots` slots a node covers.
fn covered(node: usize, slots: usize) -> usize {
    if node == 0 {
        slots
    } else {
        lowest_bit(node).min(slots - node)
    }
}

impl CutsTree {
    /// Bytes that a tree over `slots` slots takes at most.
    pub(crate) fn most_memory(slots: usize) -> usize {
        let cells: usize = (0..slots).map(|node| covered(node, slots)).sum();
        cells * size_of::<Instant>() + (slots + 1) * size_of::<usize>()
    }

    /// `cuts` of the slots, in the order of their times.
    pub(crate) fn new(cuts: &[Instant]) -> Self {
        let mut tree = Self {
            starts: vec![0],
            cuts: Vec::new(),
        };
        for node in 0..cuts.len() {
            let mut own = cuts[node..node + covered(node, cuts.len())].to_vec();
            own.sort_unstable();
            own.dedup();
            tree.cuts.append(&mut own);
            tree.starts.push(tree.cuts.len());
        }
        tree
    }

    /// How many cells it needs.
    pub(crate) fn cells(&self) -> usize {
        self.cuts.len()
    }

    fn node(&self, node: usize) -> (usize, &[Instant]) {
        let start = self.starts[node];
        (start, &self.cuts[start..self.starts[node + 1]])
    }

    /// The cells a version enters that is old enough for the slots from `slot` on.
    pub(crate) fn enter(&self, slot: usize, known: Instant, mut enter: impl FnMut(usize)) {
        let slots = self.starts.len() - 1;
        let mut node = slot;
        while node < slots {
            let (start, cuts) = self.node(node);
            let place = cuts.partition_point(|cut| *cut < known);
            if place < cuts.len() {
                enter(start + place);
            }
            if node == 0 {
                break;
            }
            node += lowest_bit(node);
        }
    }

    /// Turns every cell into the best of its node up to it.
    pub(crate) fn settle(&self, mut best: impl FnMut(usize, usize)) {
        for node in self.starts.windows(2) {
            for cell in node[0] + 1..node[1] {
                best(cell - 1, cell);
            }
        }
    }

    /// The best version for a slot, from settled cells.
    pub(crate) fn best(
        &self,
        slot: usize,
        cut: Instant,
        cell: impl Fn(usize) -> Option<Rank>,
    ) -> Option<Rank> {
        let mut best = None;
        let mut node = slot;
        loop {
            let (start, cuts) = self.node(node);
            let within = cuts.partition_point(|other| *other <= cut);
            if within > 0 {
                best = best.max(cell(start + within - 1));
            }
            if node == 0 {
                return best;
            }
            node -= lowest_bit(node);
        }
    }
}
