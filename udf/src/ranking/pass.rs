//! One parallel pass over the files of a history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use datafusion::common::runtime::JoinSet;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::Count;
use featureflight_catalog::Error;
use featureflight_catalog::listing::DataFile;
use featureflight_catalog::scan::versions::{Columns, FileReader, VersionBatch};
use featureflight_catalog::table::FeatureTable;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::task::{JoinError, coop};

/// Files that one task reads at once, so that it decodes one while it waits for another.
pub(crate) const OPEN_FILES: usize = 4;

/// The files one operator reads, in the order of their object keys.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) table: Arc<FeatureTable>,
    pub(crate) reader: Arc<FileReader>,
    pub(crate) files: Arc<[Arc<DataFile>]>,
}

/// Takes the batches of a pass, from several tasks at once.
pub(crate) trait Visit: Send + Sync + 'static {
    /// What one task keeps between its batches.
    type Scratch: Default + Send;

    /// `file` is the position in [`History::files`].
    fn visit(&self, file: u32, batch: &VersionBatch, scratch: &mut Self::Scratch) -> Result<()>;
}

/// Counts of a pass.
#[derive(Debug, Clone)]
pub(crate) struct PassMetrics {
    pub(crate) files_read: Count,
    pub(crate) versions_probed: Count,
}

/// Shows every batch of every file to `visitor`, with `tasks` tasks that take the next few
/// files each. Ends with the first error; dropping the future ends the tasks.
///
/// # Errors
/// Those of the reader and the visitor.
pub(crate) async fn pass<V: Visit>(
    history: &History,
    columns: Columns,
    tasks: usize,
    visitor: &Arc<V>,
    metrics: &PassMetrics,
) -> Result<()> {
    if u32::try_from(history.files.len()).is_err() {
        return Err(Error::internal("more than four billion files").into());
    }
    let tasks = tasks.clamp(1, history.files.len().max(1));
    // A task takes no more files than leave some for the others.
    let open = (history.files.len() / (2 * tasks)).clamp(1, OPEN_FILES);
    let next = Arc::new(AtomicU32::new(0));
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let mut batches = batches(history, &columns, &next, &metrics.files_read, open);
        let (visitor, metrics) = (Arc::clone(visitor), metrics.clone());
        running.spawn(async move {
            let mut scratch = V::Scratch::default();
            while let Some((file, batch)) = batches.try_next().await? {
                metrics.versions_probed.add(batch.rows);
                visitor.visit(file, &batch, &mut scratch)?;
                // Files in memory never make a task wait: without this it could not be ended.
                coop::consume_budget().await;
            }
            Ok(())
        });
    }
    join(running).await.map(|_| ())
}

/// The batches of the files that `next` deals out, `open` files at once.
fn batches(
    history: &History,
    columns: &Columns,
    next: &Arc<AtomicU32>,
    files_read: &Count,
    open: usize,
) -> BoxStream<'static, Result<(u32, VersionBatch), Error>> {
    let (history, columns, next) = (history.clone(), columns.clone(), Arc::clone(next));
    let files_read = files_read.clone();
    let opened = std::iter::from_fn(move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let file = history.files.get(number as usize)?;
        files_read.add(1);
        let batches = history.reader.read(&history.table, file, &columns, None);
        Some(batches.map_ok(move |batch| (number, batch)))
    });
    stream::iter(opened).flatten_unordered(open).boxed()
}

/// The results of every task, or the first error.
pub(crate) async fn join<T: 'static>(mut running: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(running.len());
    while let Some(result) = running.join_next().await {
        results.push(result.map_err(|error| lost(&error))??);
    }
    Ok(results)
}

/// A task that did not end by itself: it was cancelled with the runtime, or has a bug.
pub(crate) fn lost(error: &JoinError) -> Error {
    Error::internal(format!("a task of a scan was lost: {error}"))
}
