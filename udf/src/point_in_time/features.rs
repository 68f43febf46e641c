//! Phase two of a point-in-time join: the features of the distinct winners, in memory.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::concat;
use datafusion::common::runtime::JoinSet;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::ranking::fetch::{Place, by_file, compact, fetch};
use crate::ranking::pass::{History, OPEN_FILES, join};

/// Winners of one file that are fetched in one go.
const LONGEST_RUN: usize = 1 << 16;

/// A stretch of winners, by the position of the first: a column per feature.
type Chunk = (usize, Vec<ArrayRef>);

/// `features` (positions in the definitions) of `places`, which are sorted and distinct: a column
/// each, in the order of the places. `memory` grows by what the columns hold.
///
/// # Errors
/// Those of the reader, and `ResourcesExhausted` when the columns do not fit into the pool.
pub(crate) async fn features(
    history: &History,
    places: Vec<Place>,
    features: &[usize],
    tasks: usize,
    memory: &Arc<MemoryReservation>,
) -> Result<Vec<ArrayRef>> {
    // A feature may be asked for twice: it is decoded once.
    let mut distinct = features.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.is_empty() {
        return Ok(Vec::new());
    }
    let scratch = memory.new_empty();
    scratch.try_grow(places.len() * size_of::<Place>())?;
    let runs = by_file(&places, LONGEST_RUN);
    let share = runs.len().div_ceil(tasks.max(1)).max(1);
    let places: Arc<[Place]> = places.into();
    let mut running = JoinSet::new();
    for runs in runs.chunks(share) {
        let (history, places) = (history.clone(), Arc::clone(&places));
        let (runs, features) = (runs.to_vec(), distinct.clone());
        let memory = Arc::clone(memory);
        running.spawn(async move {
            let fetched = runs.into_iter().map(move |run| {
                let batches = fetch(&history, &places[run.clone()], &features);
                batches.map_ok(move |(position, batch)| (run.start + position, batch.features))
            });
            let mut fetched = stream::iter(fetched).flatten_unordered(OPEN_FILES);
            let mut chunks: Vec<Chunk> = Vec::new();
            while let Some((start, columns)) = fetched.try_next().await? {
                let columns: Vec<_> = columns.into_iter().map(compact).collect();
                let held = columns
                    .iter()
                    .map(arrow::array::Array::get_array_memory_size);
                memory.try_grow(held.sum())?;
                chunks.push((start, columns));
            }
            Ok(chunks)
        });
    }
    let mut chunks = join(running).await?.concat();
    chunks.sort_unstable_by_key(|(start, _)| *start);
    let mut columns = HashMap::new();
    // From the last to the first, so that the parts of each go before the next is made.
    while let Some(feature) = distinct.pop() {
        let parts: Vec<_> = chunks
            .iter_mut()
            .filter_map(|(_, columns)| columns.pop())
            .collect();
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let column = if parts.is_empty() {
            new_empty_array(history.table.state_schema.field(feature).data_type())
        } else {
            concat(&parts)?
        };
        columns.insert(feature, column);
    }
    Ok(features
        .iter()
        .filter_map(|feature| columns.get(feature).cloned())
        .collect())
}
