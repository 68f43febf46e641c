//! The versions of one history, dealt to partitions on disk: with all that ranks them and with the
//! features that are wanted, so that the store is read once however many parts the spine has.
//!
//! A rank ends with the place of its version. Here that is a place on disk, in the same order: each
//! task deals a stretch of the files, and lies behind the tasks with earlier ones.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt16Type};
use datafusion::common::runtime::JoinSet;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::SpillMetrics;
use featureflight_catalog::Error;
use featureflight_catalog::listing::DataFile;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::scan::versions::{Columns, InstantColumn, VersionBatch};
use featureflight_catalog::table::FeatureTable;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use tokio::task::coop;

use super::deal::{Dealer, Disk, PARTITIONS, Seen, SpilledRows, known};
use crate::ranking::fetch::{Place, taken};
use crate::ranking::pass::{History, PassMetrics, Visit, join};

/// See the module. The record identifier comes first among the features.
#[derive(Debug, Clone)]
pub(crate) struct SpilledVersions {
    disk: Disk,
    /// By partition, then by task.
    files: Vec<SpilledRows>,
    /// Where the files of each partition begin, and the end of the last.
    starts: Vec<usize>,
}

impl SpilledVersions {
    /// Reads `columns` of `history`, but for what `prune` leaves out and versions of keys that were
    /// not `seen`, and deals them to partitions.
    ///
    /// # Errors
    /// Those of the reader, and `ResourcesExhausted` beyond the disk quota.
    pub(super) async fn deal(
        history: &History,
        columns: &Columns,
        prune: &Prune,
        seen: &Arc<Seen>,
        tasks: usize,
        (env, spilling, memory): (&Arc<RuntimeEnv>, SpillMetrics, &MemoryReservation),
        metrics: &PassMetrics,
    ) -> Result<Self> {
        let schema = schema(&history.table, &columns.features);
        let disk = Disk::new(schema, env, spilling);
        let mut running = JoinSet::new();
        for (task, stretch) in stretches(&history.files, tasks).into_iter().enumerate() {
            let files = stretch.map(|at| (at, Arc::clone(&history.files[at])));
            let files: Vec<_> = files.collect();
            let run = history
                .reader
                .open_many(&history.table, files, columns, &metrics.files)
                .pruning(prune.clone());
            let mut dealer = Dealer::new(&disk, tasks, memory.new_empty());
            let (disk, seen) = (disk.clone(), Arc::clone(seen));
            let probed = metrics.versions_probed.clone();
            running.spawn(async move {
                for mut batches in run.streams(1) {
                    while let Some((_, batch)) = batches.try_next().await? {
                        probed.add(batch.rows);
                        let partitions = known(key(&batch)?, &seen)?;
                        dealer.deal(&record(&disk.schema, batch)?, &partitions)?;
                        coop::consume_budget().await;
                    }
                }
                Ok((task, dealer.finish()?))
            });
        }
        let mut dealt = join(running).await?;
        // They end in any order.
        dealt.sort_unstable_by_key(|(task, _)| *task);
        let mut files = Vec::new();
        let mut starts = vec![0];
        for partition in 0..PARTITIONS {
            files.extend(
                dealt
                    .iter_mut()
                    .filter_map(|(_, files)| files[partition].take()),
            );
            starts.push(files.len());
        }
        Ok(Self {
            disk,
            files,
            starts,
        })
    }

    /// The versions in these partitions.
    pub(super) fn of(&self, partitions: Range<usize>) -> Self {
        let files = self.starts[partitions.start]..self.starts[partitions.end];
        Self {
            disk: self.disk.clone(),
            files: self.files[files].to_vec(),
            starts: Vec::new(),
        }
    }

    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    fn read(&self, file: usize) -> BoxStream<'static, Result<VersionBatch>> {
        let mut first_row = 0;
        self.disk
            .read(self.files[file].clone())
            .and_then(move |rows| {
                let batch = versions(&rows, first_row);
                first_row += rows.num_rows() as u64;
                async { batch }
            })
            .boxed()
    }

    /// As [`pass`](crate::ranking::pass::pass): shows every batch to `visitor`.
    ///
    /// # Errors
    /// Those of reading and of the visitor.
    pub(crate) async fn pass<V: Visit>(&self, tasks: usize, visitor: &Arc<V>) -> Result<()> {
        let tasks = tasks.clamp(1, self.files.len().max(1));
        let mut running = JoinSet::new();
        for first in 0..tasks {
            let (spilled, visitor) = (self.clone(), Arc::clone(visitor));
            running.spawn(async move {
                let mut scratch = V::Scratch::default();
                for file in (first..spilled.files.len()).step_by(tasks) {
                    let mut batches = spilled.read(file);
                    while let Some(batch) = batches.try_next().await? {
                        visitor.visit(file as u32, &batch, &mut scratch)?;
                        coop::consume_budget().await;
                    }
                }
                Ok(())
            });
        }
        join(running).await.map(|_| ())
    }

    /// The features, without the record identifier, of the places in `runs`, each with the position
    /// of its first row among `places`: those are sorted and distinct, and a run holds all of one
    /// file.
    pub(crate) fn fetch(
        self,
        places: Arc<[Place]>,
        runs: Vec<Range<usize>>,
    ) -> BoxStream<'static, Result<(usize, Vec<ArrayRef>)>> {
        stream::iter(runs)
            .map(move |run| {
                let file = places[run.start].file as usize;
                let (places, mut next) = (Arc::clone(&places), run.start);
                let found = self.read(file).try_filter_map(move |batch| {
                    let end = batch.first_row + batch.rows as u64;
                    let left = &places[next..run.end];
                    let here = left.partition_point(|place| u64::from(place.row) < end);
                    let columns = rows_of(&batch, &left[..here]);
                    let start = next;
                    next += here;
                    async move { Ok((here > 0).then_some((start, columns?))) }
                });
                Ok::<_, datafusion::error::DataFusionError>(found)
            })
            .try_flatten()
            .boxed()
    }
}

/// The features of rows of `batch`, without the record identifier.
fn rows_of(batch: &VersionBatch, places: &[Place]) -> Result<Vec<ArrayRef>> {
    let rows = places
        .iter()
        .map(|place| (u64::from(place.row) - batch.first_row) as u32);
    let rows = UInt32Array::from_iter_values(rows);
    Ok(taken(&batch.features[1..], &rows)?)
}

/// `files` in as many stretches as there are tasks, of about the same size.
fn stretches(files: &[Arc<DataFile>], tasks: usize) -> Vec<Range<usize>> {
    let all: u64 = files.iter().map(|file| file.meta.size).sum();
    let share = (all / tasks.max(1) as u64).max(1);
    let mut stretches = Vec::with_capacity(tasks);
    let (mut start, mut size) = (0, 0);
    for (at, file) in files.iter().enumerate() {
        size += file.meta.size;
        if size >= share && stretches.len() + 1 < tasks {
            stretches.push(start..at + 1);
            (start, size) = (at + 1, 0);
        }
    }
    stretches.push(start..files.len());
    stretches
}

fn key(batch: &VersionBatch) -> Result<&dyn Array> {
    let missing = || Error::internal("a batch of versions lacks its keys");
    Ok(batch.features.first().ok_or_else(missing)?.as_ref())
}

/// Columns before the features.
const SYSTEM: usize = 7;

fn schema(table: &FeatureTable, features: &[usize]) -> SchemaRef {
    let times = ["event_time", "write_time", "api_invocation_time"];
    let times = times.into_iter().flat_map(|name| {
        [
            Field::new(name, DataType::Int64, false),
            Field::new(format!("{name}_nanos"), DataType::UInt16, false),
        ]
    });
    let deleted = Field::new("is_deleted", DataType::Boolean, false);
    let features = features.iter().map(|feature| {
        let field = table.state_schema.field(*feature);
        Field::new(
            format!("feature_{feature}"),
            field.data_type().clone(),
            true,
        )
    });
    let fields: Vec<_> = times.chain([deleted]).chain(features).collect();
    Arc::new(Schema::new(fields))
}

fn record(schema: &SchemaRef, batch: VersionBatch) -> Result<RecordBatch> {
    let VersionBatch {
        rows,
        features,
        event_time,
        write_time,
        api_invocation_time,
        is_deleted,
        ..
    } = batch;
    let missing = || Error::internal("a batch of versions lacks the columns to rank them by");
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(SYSTEM + features.len());
    for time in [event_time, write_time, api_invocation_time] {
        let InstantColumn { micros, nanos } = time.ok_or_else(missing)?;
        columns.push(Arc::new(Int64Array::new(micros, None)));
        let nanos = nanos.unwrap_or_else(|| vec![0; rows]);
        columns.push(Arc::new(UInt16Array::from(nanos)));
    }
    columns.push(Arc::new(is_deleted.ok_or_else(missing)?));
    columns.extend(features);
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn versions(batch: &RecordBatch, first_row: u64) -> Result<VersionBatch> {
    let columns = batch.columns();
    let time = |at: usize| {
        let nanos = columns[at + 1].as_primitive::<UInt16Type>().values();
        InstantColumn {
            micros: columns[at].as_primitive::<Int64Type>().values().clone(),
            nanos: nanos.iter().any(|nanos| *nanos > 0).then(|| nanos.to_vec()),
        }
    };
    Ok(VersionBatch {
        first_row,
        rows: batch.num_rows(),
        event_time: Some(time(0)),
        write_time: Some(time(2)),
        api_invocation_time: Some(time(4)),
        is_deleted: Some(columns[6].as_boolean().clone()),
        features: columns[SYSTEM..].to_vec(),
    })
}
