//! The features of versions that entered a slot, kept while the only pass shows them.
//!
//! What is kept is a cache: of a file that lacks a winner, the winners are fetched.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, UInt32Array};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use parking_lot::Mutex;

use crate::ranking::fetch::{Place, taken};

/// Some versions of one file, in order, and a column per feature.
#[derive(Debug)]
struct Rows {
    rows: Vec<u32>,
    columns: Vec<ArrayRef>,
}

impl Rows {
    fn memory(&self) -> usize {
        let columns = self.columns.iter().map(Array::get_array_memory_size);
        columns.sum::<usize>() + size_of_val(self.rows.as_slice())
    }
}

/// Per file what was kept of its batches, in their order.
type Files = HashMap<u32, Vec<Rows>>;

/// Takes features of many tasks, and nothing more once there is no room.
#[derive(Debug)]
pub(crate) struct Keeper {
    files: Mutex<Files>,
    memory: MemoryReservation,
}

impl Keeper {
    pub(crate) fn new(memory: MemoryReservation) -> Self {
        Self {
            files: Mutex::default(),
            memory,
        }
    }

    /// Keeps what `columns` hold of `rows` of a file: ascending, `first_row` is the first of the
    /// columns.
    pub(crate) fn keep(
        &self,
        file: u32,
        first_row: u64,
        rows: &[u32],
        columns: &[ArrayRef],
    ) -> Result<()> {
        let indices = rows.iter().map(|row| (u64::from(*row) - first_row) as u32);
        let indices = UInt32Array::from_iter_values(indices);
        let kept = Rows {
            rows: rows.to_vec(),
            columns: taken(columns, &indices)?,
        };
        if self.memory.try_grow(kept.memory()).is_ok() {
            self.files.lock().entry(file).or_default().push(kept);
        }
        Ok(())
    }

    /// What was kept.
    pub(crate) fn take(&self) -> Kept {
        Kept {
            files: Mutex::new(std::mem::take(&mut *self.files.lock())),
            memory: self.memory.split(self.memory.size()),
        }
    }
}

/// What a [`Keeper`] kept.
#[derive(Debug)]
pub(crate) struct Kept {
    files: Mutex<Files>,
    memory: MemoryReservation,
}

impl Kept {
    /// The features of `places`, which are sorted, distinct, and of one file that was not asked for
    /// before: columns of consecutive stretches. `None` unless all were kept.
    pub(crate) fn features(&self, places: &[Place]) -> Result<Option<Vec<Vec<ArrayRef>>>> {
        let first = places.first();
        let kept = first.and_then(|first| self.files.lock().remove(&first.file));
        let Some(kept) = kept else {
            return Ok(None);
        };
        self.memory.shrink(kept.iter().map(Rows::memory).sum());
        let mut found = Vec::new();
        let mut left = places;
        for Rows { rows, columns } in kept {
            let here = left.partition_point(|place| Some(&place.row) <= rows.last());
            let (wanted, rest) = left.split_at(here);
            left = rest;
            if wanted.is_empty() {
                continue;
            }
            // Nearly always: few versions that entered are beaten later.
            if wanted
                .iter()
                .map(|place| place.row)
                .eq(rows.iter().copied())
            {
                found.push(columns);
                continue;
            }
            let indices = wanted
                .iter()
                .map(|place| rows.binary_search(&place.row).ok());
            let Some(indices) = indices.map(|at| Some(at? as u32)).collect() else {
                return Ok(None);
            };
            let indices = UInt32Array::new(indices, None);
            found.push(taken(&columns, &indices)?);
        }
        Ok(left.is_empty().then_some(found))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use super::*;

    fn places(rows: &[u32]) -> Vec<Place> {
        let place = |row: &u32| Place { file: 3, row: *row };
        rows.iter().map(place).collect()
    }

    fn values(found: Option<Vec<Vec<ArrayRef>>>) -> Option<Vec<i64>> {
        let columns = found?.into_iter().map(|columns| columns[0].clone());
        let values = columns.flat_map(|c| c.as_primitive::<Int64Type>().values().to_vec());
        Some(values.collect())
    }

    #[test]
    fn what_found_no_room_is_not_there() {
        check(&[1, 4, 10, 11], Some(&[1, 4, 10, 11]));
        check(&[4, 11], Some(&[4, 11]));
        // Between rows that were kept, and behind them.
        check(&[4, 5], None);
        check(&[4, 12], None);
        check(&[4, 25], None);
    }

    fn check(wanted: &[u32], found: Option<&[i64]>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1_000));
        let keeper = Keeper::new(MemoryConsumer::new("test").register(&pool));
        let column = |values: std::ops::Range<i64>| -> [ArrayRef; 1] {
            [Arc::new(Int64Array::from_iter_values(values))]
        };
        keeper.keep(3, 0, &[1, 4], &column(0..10)).unwrap();
        keeper.keep(3, 10, &[10, 11], &column(10..20)).unwrap();
        let many: Vec<u32> = (20..1_000).collect();
        keeper.keep(3, 20, &many, &column(20..1_000)).unwrap();
        assert!(pool.reserved() > 0);
        let kept = keeper.take();
        let find = |rows: &[u32]| values(kept.features(&places(rows)).unwrap());
        assert_eq!(find(wanted).as_deref(), found, "{wanted:?}");
        assert_eq!(pool.reserved(), 0, "a file is given once");
        assert_eq!(find(wanted), None);
    }
}
