//! Runs through many files: one stream of rows or several, with the next files opened ahead of
//! those that are decoded, and counts.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::Result;
use crate::listing::{DataFile, FileList};
use crate::table::FeatureTable;

use super::deal::{Ahead, Deal, Opened, Wanted};
use super::fetch::Origin;
use super::history::ScanContext;
use super::prune::Prune;
use super::versions::{Columns, FileReader, ReadRequest, ReadSettings, VersionBatch};

/// What one partition of an operator opens ahead at most: the others do so too.
const PARTITION_FILES: usize = 16;
const PARTITION_BYTES: u64 = 32 * 1024 * 1024;

/// What a scan counts, for `EXPLAIN ANALYZE`.
#[derive(Debug, Clone)]
pub struct ScanMetrics {
    /// Data objects seen by the listing, and left out by their hour folder.
    pub files_listed: Count,
    pub files_pruned: Count,
    /// Files of which rows were read.
    pub files_read: Count,
    /// Bytes fetched from the store, footers among them.
    pub bytes_scanned: Count,
    /// Row groups left out for what their statistics prove.
    pub row_groups_pruned: Count,
    /// Files left out whole for it: nothing but the footer was read.
    pub files_pruned_by_statistics: Count,
    /// Row groups, and whole files, that statistics left and bloom filters ruled out.
    pub row_groups_pruned_by_bloom_filter: Count,
    pub files_pruned_by_bloom_filter: Count,
}

impl ScanMetrics {
    /// The counters of one partition of an operator.
    pub fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        Self::from_counters(|name| MetricBuilder::new(metrics).counter(name, partition))
    }

    /// Counters made by name.
    pub fn from_counters(counter: impl Fn(&'static str) -> Count) -> Self {
        Self {
            files_listed: counter("files_listed"),
            files_pruned: counter("files_pruned"),
            files_read: counter("files_read"),
            bytes_scanned: counter("bytes_scanned"),
            row_groups_pruned: counter("row_groups_pruned"),
            files_pruned_by_statistics: counter("files_pruned_by_statistics"),
            row_groups_pruned_by_bloom_filter: counter("row_groups_pruned_by_bloom_filter"),
            files_pruned_by_bloom_filter: counter("files_pruned_by_bloom_filter"),
        }
    }

    /// Counters nobody reads.
    pub fn unobserved() -> Self {
        Self::from_counters(|_| Count::new())
    }

    /// Counts a listing; once per listing, not per partition.
    pub fn count_list(&self, list: &FileList) {
        self.files_listed.add(list.listed);
        self.files_pruned.add(list.pruned);
    }
}

impl ScanContext {
    /// The rows of `files` but for what `prune` leaves out, file by file in the order given, each
    /// with its file; per file as [`FileReader::read`] without a selection, so
    /// `(file, first_row + i)` is the position of row `i`. The next files are fetched while one is
    /// decoded. Must be polled inside a Tokio runtime.
    pub fn read_files(
        &self,
        table: &Arc<FeatureTable>,
        files: Vec<Arc<DataFile>>,
        columns: &Columns,
        prune: &Prune,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<(Arc<DataFile>, VersionBatch)>> {
        let settings = self.reader.settings();
        let requests = Some(settings.requests_in_flight);
        let read = ManyFiles {
            origin: self.reader.origin(&table.files, requests),
            reader: Arc::clone(&self.reader),
            table: Arc::clone(table),
            columns: columns.clone(),
            prune: prune.clone(),
            metrics: metrics.clone(),
        };
        run_through(files, settings.into(), move |_, file| read.open(file, None))
            .map_ok(|(_, file, batch)| (file, batch))
            .boxed()
    }
}

impl FileReader {
    /// A run through `files`, in this order, for one or more streams: see [`FileRun`]. Each file
    /// comes with a number of the caller's choice, which its rows carry.
    pub fn open_many(
        self: &Arc<Self>,
        table: &Arc<FeatureTable>,
        files: impl IntoIterator<Item = (usize, Arc<DataFile>), IntoIter: Send + 'static>,
        columns: &Columns,
        metrics: &ScanMetrics,
    ) -> FileRun {
        let read = ManyFiles {
            origin: self.origin(&table.files, Some(self.settings().requests_in_flight)),
            reader: Arc::clone(self),
            table: Arc::clone(table),
            columns: columns.clone(),
            prune: Prune::default(),
            metrics: metrics.clone(),
        };
        FileRun {
            read,
            files: Box::new(files.into_iter()),
            wanted: Box::new(|_| true),
        }
    }

    /// Of the files, one by one in this order, the rows that `select` says of the file at a
    /// position, as [`Self::read`] gives them, each batch with that position. At most `ahead` files
    /// are opened ahead. Only the bytes are counted. Must be polled inside a Tokio runtime.
    pub fn read_selected(
        self: &Arc<Self>,
        table: &Arc<FeatureTable>,
        files: Vec<Arc<DataFile>>,
        select: impl Fn(usize) -> RowSelection + Send + 'static,
        columns: &Columns,
        ahead: usize,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<(usize, VersionBatch)>> {
        let settings = self.settings();
        let read = ManyFiles {
            origin: self.origin(&table.files, Some(settings.requests_in_flight)),
            reader: Arc::clone(self),
            table: Arc::clone(table),
            columns: columns.clone(),
            prune: Prune::default(),
            metrics: ScanMetrics {
                bytes_scanned: metrics.bytes_scanned.clone(),
                ..ScanMetrics::unobserved()
            },
        };
        let limit = Ahead {
            files: ahead,
            ..Ahead::from(settings)
        };
        run_through(files, limit, move |position, file| {
            read.open(file, Some(select(position)))
        })
        .map_ok(|(position, _, batch)| (position, batch))
        .boxed()
    }
}

/// A run through many files of one table, to be shared by several tasks.
///
/// Files are dealt in the order given, each to the stream that is free first; the next ones are
/// opened ahead within [`ReadSettings`], which bound the run as a whole. Dropping all streams
/// stops all work.
pub struct FileRun {
    read: ManyFiles,
    files: Box<dyn Iterator<Item = (usize, Arc<DataFile>)> + Send>,
    wanted: Wanted,
}

impl fmt::Debug for FileRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileRun")
            .field("read", &self.read)
            .finish_non_exhaustive()
    }
}

impl FileRun {
    /// Leaves out files that `wanted` does not want any more, by their number. It is asked before
    /// a file is opened ahead and again before it is dealt to a stream; having said no once, it
    /// must not say yes later. A file that a stream has been dealt is read to its end.
    #[must_use]
    pub fn wanted(mut self, wanted: impl Fn(usize) -> bool + Send + 'static) -> Self {
        self.wanted = Box::new(wanted);
        self
    }

    /// Leaves out row groups, and files, in which `prune` finds that nothing matters.
    #[must_use]
    pub fn pruning(mut self, prune: Prune) -> Self {
        self.read.prune = prune;
        self
    }

    /// The streams, which together give all other rows of all wanted files: per file as
    /// [`FileReader::read`] without a selection, so `(number, first_row + i)` is the position of
    /// row `i`. Each file's rows come from one stream, consecutively. Must be polled inside a
    /// Tokio runtime.
    pub fn streams(self, streams: usize) -> Vec<BoxStream<'static, Result<(usize, VersionBatch)>>> {
        let Self {
            read,
            files,
            wanted,
        } = self;
        let ReadSettings {
            requests_in_flight,
            bytes_ahead,
        } = read.reader.settings();
        let ahead = Ahead {
            files: requests_in_flight,
            bytes: bytes_ahead,
        };
        let deal = Deal::new(files, ahead, wanted, move |_, file| read.open(file, None));
        let stream = |_| {
            deal.stream()
                .map_ok(|(number, _, batch)| (number, batch))
                .boxed()
        };
        (0..streams.max(1)).map(stream).collect()
    }
}

/// What is asked of every file of a run.
#[derive(Debug)]
struct ManyFiles {
    reader: Arc<FileReader>,
    origin: Arc<Origin>,
    table: Arc<FeatureTable>,
    columns: Columns,
    prune: Prune,
    metrics: ScanMetrics,
}

impl ManyFiles {
    fn open(
        &self,
        file: &Arc<DataFile>,
        selection: Option<RowSelection>,
    ) -> BoxFuture<'static, Result<Opened<VersionBatch>>> {
        let request = ReadRequest {
            reader: Arc::clone(&self.reader),
            origin: Arc::clone(&self.origin),
            table: Arc::clone(&self.table),
            file: Arc::clone(file),
            columns: self.columns.clone(),
            selection,
            prune: self.prune.clone(),
            metrics: self.metrics.clone(),
        };
        async move {
            let open = request.open().await?;
            Ok(Opened {
                held: open.held(),
                items: open.into_stream(),
            })
        }
        .boxed()
    }
}

/// What one partition of an operator opens ahead.
impl From<ReadSettings> for Ahead {
    fn from(settings: ReadSettings) -> Self {
        Self {
            files: settings.requests_in_flight.min(PARTITION_FILES),
            bytes: settings.bytes_ahead.min(PARTITION_BYTES),
        }
    }
}

/// All that the streams of `files` yield, in order, each with its file and the file's position:
/// the run of one partition of an operator. `open` does what has to wait for the store, in a task
/// of its own that ends when the stream is dropped.
pub(crate) fn run_through<T: Send + 'static>(
    files: Vec<Arc<DataFile>>,
    ahead: Ahead,
    open: impl Fn(usize, &Arc<DataFile>) -> BoxFuture<'static, Result<Opened<T>>> + Send + 'static,
) -> BoxStream<'static, Result<(usize, Arc<DataFile>, T)>> {
    let files = files.into_iter().enumerate();
    Deal::new(files, ahead, Box::new(|_| true), open).stream()
}
