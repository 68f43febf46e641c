//! One parallel pass over the files of a history.

use std::cmp::Reverse;
use std::sync::Arc;

use datafusion::common::runtime::JoinSet;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::Count;
use featureflight_catalog::listing::DataFile;
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::scan::versions::{Columns, FileReader, VersionBatch};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant};
use futures::stream::TryStreamExt;
use tokio::task::{JoinError, coop};

/// Files that one task of phase two opens ahead of the one it decodes.
pub(crate) const AHEAD: usize = 8;

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

    /// Whether versions that lie before `bound` can change the answer no more, given those that
    /// were shown. Asked before a file whose event times all lie before `bound` is opened, and
    /// again before it is shown; when the answer is yes, it never is.
    fn is_settled(&self, bound: Instant) -> bool;
}

/// Counts of a pass.
#[derive(Debug, Clone)]
pub(crate) struct PassMetrics {
    pub(crate) files: ScanMetrics,
    /// Files that were not read since nothing before them could change the answer any more.
    pub(crate) files_settled: Count,
    pub(crate) versions_probed: Count,
}

impl History {
    /// The positions of the files, those with the latest event times first: most versions of the
    /// others are beaten before they come.
    fn newest_first(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0_u32..).take(self.files.len()).collect();
        order.sort_by_key(|position| {
            let file = &self.files[*position as usize];
            let before = file.event_times_before();
            Reverse((before.is_none(), before, *position))
        });
        order
    }
}

/// Shows every batch of every file to `visitor`, the newest files first, but for those it does not
/// want any more and row groups that `prune` rules out. Files are opened ahead and dealt to `tasks`
/// tasks. Ends with the first error; dropping the future ends the tasks.
///
/// # Errors
/// Those of the reader and the visitor.
pub(crate) async fn pass<V: Visit>(
    history: &History,
    columns: &Columns,
    prune: Prune,
    tasks: usize,
    visitor: &Arc<V>,
    metrics: &PassMetrics,
) -> Result<()> {
    if u32::try_from(history.files.len()).is_err() {
        return Err(Error::internal("more than four billion files").into());
    }
    let all = Arc::clone(&history.files);
    let files = history.newest_first().into_iter().map(move |position| {
        let position = position as usize;
        (position, Arc::clone(&all[position]))
    });
    let wants = {
        let (visitor, all) = (Arc::clone(visitor), Arc::clone(&history.files));
        let left_out = metrics.files_settled.clone();
        move |position: usize| {
            let before = all[position].event_times_before();
            let settled = before.is_some_and(|before| visitor.is_settled(before));
            // Whoever was told so does not ask again.
            left_out.add(usize::from(settled));
            !settled
        }
    };
    let streams = history
        .reader
        .open_many(&history.table, files, columns, &metrics.files)
        .pruning(prune)
        .wanted(wants)
        .streams(tasks.clamp(1, history.files.len().max(1)));
    let mut running = JoinSet::new();
    for mut batches in streams {
        let (visitor, probed) = (Arc::clone(visitor), metrics.versions_probed.clone());
        running.spawn(async move {
            let mut scratch = V::Scratch::default();
            while let Some((position, batch)) = batches.try_next().await? {
                probed.add(batch.rows);
                visitor.visit(position as u32, &batch, &mut scratch)?;
                // Files in memory never make a task wait: without this it could not be ended.
                coop::consume_budget().await;
            }
            Ok(())
        });
    }
    join(running).await.map(|_| ())
}

/// The results of every task, or the first error once all have ended: whoever tries again with less
/// must find the memory that they held.
pub(crate) async fn join<T: 'static>(mut running: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::with_capacity(running.len());
    while let Some(result) = running.join_next().await {
        match result.map_err(|error| lost(&error).into()).flatten() {
            Ok(result) => results.push(result),
            Err(error) => {
                running.shutdown().await;
                return Err(error);
            }
        }
    }
    Ok(results)
}

/// A task that did not end by itself: it was cancelled with the runtime, or has a bug.
pub(crate) fn lost(error: &JoinError) -> Error {
    Error::internal(format!("a task of a scan was lost: {error}"))
}
