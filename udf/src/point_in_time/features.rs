//! The features of the distinct winners of a point-in-time join, in memory: what the pass kept, and
//! of other files what phase two fetches.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::concat;
use datafusion::common::runtime::JoinSet;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::Count;
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::table::FeatureTable;
use futures::stream::{StreamExt, TryStreamExt};

use crate::point_in_time::kept::Kept;
use crate::point_in_time::spill::versions::SpilledVersions;
use crate::ranking::fetch::{Place, by_file, compact, fetch};
use crate::ranking::pass::{AHEAD, History, join};

/// Winners of one file that one task fetches, so that tasks share a large one.
const LONGEST_RUN: usize = 1 << 16;

/// A stretch of winners, by the position of the first: a column per feature.
type Chunk = (usize, Vec<ArrayRef>);

/// The features that are read: one may be asked for twice, and is decoded once.
pub(crate) fn distinct(features: &[usize]) -> Vec<usize> {
    let mut distinct = features.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Where the versions of one pass lie.
#[derive(Debug, Clone)]
pub(crate) enum Versions {
    /// Where they always do.
    Stored(History),
    /// Those that a part of the spine can match, with the [`distinct`] features.
    Spilled(SpilledVersions),
}

/// Where features come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) table: Arc<FeatureTable>,
    pub(crate) versions: Versions,
    /// Positions in the definitions, [`distinct`].
    pub(crate) features: Arc<[usize]>,
    pub(crate) kept: Option<Arc<Kept>>,
    pub(crate) metrics: ScanMetrics,
    pub(crate) files_fetched: Count,
}

impl Source {
    /// The features of `places`, which are sorted and distinct: a column each, in the order of the
    /// places. `memory` grows by what the columns hold.
    ///
    /// # Errors
    /// Those of the reader, and `ResourcesExhausted` when the columns do not fit into the pool.
    pub(crate) async fn columns(
        self,
        places: Vec<Place>,
        tasks: usize,
        memory: &Arc<MemoryReservation>,
    ) -> Result<HashMap<usize, ArrayRef>> {
        let mut features = self.features.to_vec();
        if features.is_empty() {
            return Ok(HashMap::new());
        }
        let scratch = memory.new_empty();
        scratch.try_grow(places.len() * size_of::<Place>())?;
        let longest = match (&self.kept, &self.versions) {
            (None, Versions::Stored(_)) => LONGEST_RUN,
            // What was kept, or spilled, of a file is given at once.
            _ => usize::MAX,
        };
        let runs = by_file(&places, longest);
        let share = runs.len().div_ceil(tasks.max(1)).max(1);
        let places: Arc<[Place]> = places.into();
        let state_schema = Arc::clone(&self.table.state_schema);
        let mut running = JoinSet::new();
        for runs in runs.chunks(share) {
            let (source, places) = (self.clone(), Arc::clone(&places));
            let (runs, memory) = (runs.to_vec(), Arc::clone(memory));
            running.spawn(async move { source.chunks(&places, runs, &memory).await });
        }
        drop(self);
        let mut chunks = join(running).await?.concat();
        chunks.sort_unstable_by_key(|(start, _)| *start);
        let mut columns = HashMap::new();
        // From the last to the first, so that the parts of each go before the next is made.
        while let Some(feature) = features.pop() {
            let parts: Vec<_> = chunks
                .iter_mut()
                .filter_map(|(_, columns)| columns.pop())
                .collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let column = if parts.is_empty() {
                new_empty_array(state_schema.field(feature).data_type())
            } else {
                concat(&parts)?
            };
            columns.insert(feature, column);
        }
        Ok(columns)
    }

    /// The features of the places in `runs`, in any order.
    async fn chunks(
        self,
        places: &Arc<[Place]>,
        runs: Vec<Range<usize>>,
        memory: &MemoryReservation,
    ) -> Result<Vec<Chunk>> {
        let hold = |chunk: &Chunk| {
            let held = chunk.1.iter().map(Array::get_array_memory_size);
            memory.try_grow(held.sum())
        };
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut missing = Vec::new();
        for run in runs {
            let kept = self
                .kept
                .as_ref()
                .map(|kept| kept.features(&places[run.clone()]));
            let Some(kept) = kept.transpose()?.flatten() else {
                missing.push(run);
                continue;
            };
            let mut start = run.start;
            for columns in kept {
                let rows = columns.first().map_or(0, Array::len);
                let chunk = (start, columns);
                hold(&chunk)?;
                chunks.push(chunk);
                start += rows;
            }
        }
        let Self {
            versions,
            features,
            kept,
            metrics,
            files_fetched,
            ..
        } = self;
        drop(kept);
        let mut fetched = match versions {
            Versions::Stored(history) => {
                let file = |run: &Range<usize>| places[run.start].file;
                files_fetched.add(missing.chunk_by(|a, b| file(a) == file(b)).count());
                fetch(&history, places, missing, &features, AHEAD, &metrics)
                    .map_ok(|(start, batch)| {
                        (start, batch.features.into_iter().map(compact).collect())
                    })
                    .map_err(Into::into)
                    .boxed()
            }
            Versions::Spilled(spilled) => spilled.fetch(Arc::clone(places), missing),
        };
        while let Some(chunk) = fetched.try_next().await? {
            hold(&chunk)?;
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}
