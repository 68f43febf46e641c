//! Runs through many files: opens some ahead while one is decoded, and counts.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, try_unfold};
use futures::{FutureExt, StreamExt};
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::{Error, Kind, Result};
use crate::listing::{DataFile, FileList};
use crate::table::FeatureTable;

use super::history::ScanContext;
use super::versions::{Columns, OpenFile, ReadRequest, VersionBatch};

/// Files opened ahead of the one that is decoded, and their bytes; one is always opened ahead.
const AHEAD_FILES: usize = 16;
const AHEAD_BYTES: u64 = 32 * 1024 * 1024;

/// What a scan counts, for `EXPLAIN ANALYZE`.
#[derive(Debug, Clone)]
pub struct ScanMetrics {
    /// Data objects seen by the listing, and left out by their hour folder.
    pub files_listed: Count,
    pub files_pruned: Count,
    /// Files opened.
    pub files_read: Count,
    /// Bytes fetched from the store, footers among them.
    pub bytes_scanned: Count,
}

impl ScanMetrics {
    /// The counters of one partition of an operator.
    pub fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            files_listed: counter("files_listed"),
            files_pruned: counter("files_pruned"),
            files_read: counter("files_read"),
            bytes_scanned: counter("bytes_scanned"),
        }
    }

    /// Counters nobody reads.
    pub fn unobserved() -> Self {
        Self::new(&ExecutionPlanMetricsSet::new(), 0)
    }

    /// Counts a listing; once per listing, not per partition.
    pub fn count_list(&self, list: &FileList) {
        self.files_listed.add(list.listed);
        self.files_pruned.add(list.pruned);
    }
}

impl ScanContext {
    /// All rows of `files`, file by file in the order given, each with its file; per file as
    /// [`super::versions::FileReader::read`] without a selection, so `(file, first_row + i)` is
    /// the position of row `i`. The next files are fetched while one is decoded. Must be polled
    /// inside a Tokio runtime.
    pub fn read_files(
        &self,
        table: &Arc<FeatureTable>,
        files: Vec<Arc<DataFile>>,
        columns: &Columns,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<(Arc<DataFile>, VersionBatch)>> {
        let context = self.clone();
        let (table, columns, counters) = (Arc::clone(table), columns.clone(), metrics.clone());
        run_through(files, metrics, move |file| {
            let request = context.request(&table, file, &columns, None, &counters);
            request
                .open()
                .map(|opened| opened.map(OpenFile::into_stream))
                .boxed()
        })
    }

    /// The selected rows of one file, as [`super::versions::FileReader::read`], counted.
    pub fn read_rows(
        &self,
        table: &Arc<FeatureTable>,
        file: &Arc<DataFile>,
        columns: &Columns,
        selection: RowSelection,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<VersionBatch>> {
        metrics.files_read.add(1);
        self.request(table, file, columns, Some(selection), metrics)
            .into_stream()
    }

    fn request(
        &self,
        table: &Arc<FeatureTable>,
        file: &Arc<DataFile>,
        columns: &Columns,
        selection: Option<RowSelection>,
        metrics: &ScanMetrics,
    ) -> ReadRequest {
        ReadRequest {
            reader: Arc::clone(&self.reader),
            table: Arc::clone(table),
            file: Arc::clone(file),
            columns: columns.clone(),
            selection,
            fetched: metrics.bytes_scanned.clone(),
        }
    }
}

/// The rows of an opened file.
type Opened<T> = Result<BoxStream<'static, Result<T>>>;

/// All that the streams of `files` yield, in order, each with its file. `open` does what has to
/// wait for the store, in a task of its own that ends when the stream is dropped.
pub(crate) fn run_through<T: Send + 'static>(
    files: Vec<Arc<DataFile>>,
    metrics: &ScanMetrics,
    open: impl Fn(&Arc<DataFile>) -> BoxFuture<'static, Opened<T>> + Send + 'static,
) -> BoxStream<'static, Result<(Arc<DataFile>, T)>> {
    let run = Run {
        open,
        files: files.into_iter(),
        files_read: metrics.files_read.clone(),
        ahead: VecDeque::new(),
        ahead_bytes: 0,
        current: None,
    };
    try_unfold(run, |mut run| async move {
        Ok(run.next().await?.map(|item| (item, run)))
    })
    .boxed()
}

/// A run through files.
struct Run<T, F> {
    open: F,
    files: std::vec::IntoIter<Arc<DataFile>>,
    files_read: Count,
    ahead: VecDeque<(Arc<DataFile>, SpawnedTask<Opened<T>>)>,
    ahead_bytes: u64,
    current: Option<(Arc<DataFile>, BoxStream<'static, Result<T>>)>,
}

impl<T, F> Run<T, F>
where
    T: Send + 'static,
    F: Fn(&Arc<DataFile>) -> BoxFuture<'static, Opened<T>>,
{
    async fn next(&mut self) -> Result<Option<(Arc<DataFile>, T)>> {
        loop {
            // Everything may be in memory already: let other tasks have their turn.
            tokio::task::coop::consume_budget().await;
            if let Some((file, stream)) = &mut self.current {
                match stream.next().await {
                    Some(item) => return Ok(Some((Arc::clone(file), item?))),
                    None => self.current = None,
                }
            }
            self.open_ahead();
            let Some((file, opening)) = self.ahead.pop_front() else {
                return Ok(None);
            };
            let opened = opening.await.map_err(interrupted)??;
            self.ahead_bytes = self.ahead_bytes.saturating_sub(file.meta.size);
            self.open_ahead();
            self.current = Some((file, opened));
        }
    }

    fn open_ahead(&mut self) {
        while self.ahead.is_empty()
            || (self.ahead.len() < AHEAD_FILES && self.ahead_bytes < AHEAD_BYTES)
        {
            let Some(file) = self.files.next() else {
                return;
            };
            self.files_read.add(1);
            self.ahead_bytes += file.meta.size;
            let opening = SpawnedTask::spawn((self.open)(&file));
            self.ahead.push_back((file, opening));
        }
    }
}

fn interrupted(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        Error::internal("a task that opens files ended unexpectedly").with_source(error)
    } else {
        Error::new(Kind::Cancelled, "the statement was cancelled")
    }
}
