//! Rows dealt to partitions on disk by the hash of their key: rows with equal keys meet in one
//! partition, whatever side of the join they come from.

use std::fmt;
use std::io::{BufWriter, IntoInnerError};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::SpillMetrics;
use featureflight_catalog::Error;
use foldhash::fast::FixedState;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::ranking::fetch::compacted;
use crate::ranking::keys::Keys;

/// Enough that one of them fits into memory where the whole is some fifty times as large; several
/// are joined together where they fit.
pub(super) const PARTITIONS: usize = 64;

/// The partition of rows that are left out.
const NOWHERE: u8 = u8::MAX;

/// The same in every run, so that rows leave in the same order.
const SEED: u64 = 0x5eed;

/// Bytes that wait for their files at most, in all dealers of one side together.
const WAITING: usize = 16 << 20;

/// Bytes that wait for one file at most.
const BUFFER: usize = 64 << 10;

/// Rows written together at most, so that whoever reads them can take few.
const BATCH: usize = 8_192;

/// Bits of [`Seen`]: two megabytes.
const SEEN: usize = 1 << 24;

/// Which hashes there were: of a key that was not seen, most are not in it.
#[derive(Debug)]
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn new() -> Self {
        Self(vec![0; SEEN / 64])
    }

    fn add(&mut self, hash: u64) {
        let bit = hash as usize % SEEN;
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    fn has(&self, hash: u64) -> bool {
        let bit = hash as usize % SEEN;
        self.0[bit / 64] & 1 << (bit % 64) != 0
    }
}

fn hashes(keys: &dyn Array) -> Result<Vec<u64>> {
    let mut hashes = Vec::with_capacity(keys.len());
    let state = FixedState::with_seed(SEED);
    Keys::try_new(keys)?.hash(&state, 0..keys.len(), &mut hashes);
    Ok(hashes)
}

fn partition(hash: u64) -> u8 {
    (hash >> (u64::BITS - PARTITIONS.ilog2())) as u8
}

/// The partition of every row by its key, which is noted in `seen`; that of nulls is the first.
///
/// # Errors
/// `Internal` for keys of a type that no record identifier has.
pub(super) fn noted(keys: &dyn Array, seen: &mut Seen) -> Result<Vec<u8>> {
    let mut partitions = Vec::with_capacity(keys.len());
    for (row, hash) in hashes(keys)?.into_iter().enumerate() {
        partitions.push(if keys.is_null(row) {
            0
        } else {
            seen.add(hash);
            partition(hash)
        });
    }
    Ok(partitions)
}

/// The partition of every row by its key; none for keys that were not seen.
///
/// # Errors
/// As [`noted`].
pub(super) fn known(keys: &dyn Array, seen: &Seen) -> Result<Vec<u8>> {
    let place = |hash| {
        if seen.has(hash) {
            partition(hash)
        } else {
            NOWHERE
        }
    };
    Ok(hashes(keys)?.into_iter().map(place).collect())
}

/// Rows in the order of their partitions.
#[derive(Debug)]
struct Dealt {
    batch: RecordBatch,
    /// Where each partition begins, and the end of the last.
    starts: Vec<usize>,
}

impl Dealt {
    fn new(batch: &RecordBatch, partitions: &[u8]) -> Result<Self> {
        let mut starts = vec![0_usize; PARTITIONS + 1];
        for partition in partitions.iter().filter(|partition| **partition != NOWHERE) {
            starts[usize::from(*partition) + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut order = vec![0_u32; sum];
        for (row, partition) in (0_u32..).zip(partitions) {
            if *partition != NOWHERE {
                let place = &mut next[usize::from(*partition)];
                order[*place] = row;
                *place += 1;
            }
        }
        let batch = take_record_batch(batch, &UInt32Array::from(order))?;
        Ok(Self { batch, starts })
    }

    fn of(&self, partition: usize) -> RecordBatch {
        let (start, end) = (self.starts[partition], self.starts[partition + 1]);
        self.batch.slice(start, end - start)
    }
}

/// Rows of one schema on disk, within the quota.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) schema: SchemaRef,
    env: Arc<RuntimeEnv>,
    metrics: SpillMetrics,
}

impl Disk {
    pub(super) fn new(schema: SchemaRef, env: &Arc<RuntimeEnv>, metrics: SpillMetrics) -> Self {
        Self {
            schema,
            env: Arc::clone(env),
            metrics,
        }
    }

    fn create(&self) -> Result<Writing> {
        let doing = "joining a spine that does not fit into memory";
        let file = self.env.disk_manager.create_tmp_file(doing)?;
        let options = IpcWriteOptions::default();
        let options = options.try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let buffered = BufWriter::with_capacity(BUFFER, file.open_writer()?);
        let writer = StreamWriter::try_new_with_options(buffered, &self.schema, options)?;
        self.metrics.spill_file_count.add(1);
        Ok(Writing {
            file,
            writer,
            rows: 0,
        })
    }

    /// All that is in a file of this schema.
    pub(super) fn read(&self, spilled: SpilledRows) -> BoxStream<'static, Result<RecordBatch>> {
        let (env, metrics) = (Arc::clone(&self.env), self.metrics.clone());
        let manager = SpillManager::new(env, metrics, Arc::clone(&self.schema));
        let SpilledRows { file, rows } = spilled;
        let stream = manager.read_spill_as_stream_unbuffered(file, None);
        let batches = stream::once(async { stream }).try_flatten();
        let end = stream::once(async { Ok(None) });
        let mut left = rows;
        batches
            .map_ok(Some)
            .chain(end)
            .map(move |next| match next? {
                Some(batch) => {
                    left = left.checked_sub(batch.num_rows()).ok_or_else(cut)?;
                    Ok(Some(batch))
                }
                None if left == 0 => Ok(None),
                None => Err(cut().into()),
            })
            .try_filter_map(async |batch| Ok(batch))
            .boxed()
    }
}

fn cut() -> Error {
    Error::internal("a file of intermediate results does not hold what was written to it")
}

/// The rows of one partition that one dealer was given, in their order.
#[derive(Clone)]
pub(super) struct SpilledRows {
    /// Removed with the last of its holders.
    file: Arc<dyn SpillFile>,
    rows: usize,
}

impl fmt::Debug for SpilledRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpilledRows")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

struct Writing {
    file: Arc<dyn SpillFile>,
    writer: StreamWriter<BufWriter<Box<dyn SpillWriter>>>,
    rows: usize,
}

impl Writing {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(&compacted(batch)?)?;
        self.rows += batch.num_rows();
        Ok(())
    }

    fn finish(mut self, metrics: &SpillMetrics) -> Result<SpilledRows> {
        self.writer.finish()?;
        let buffered = self.writer.into_inner()?;
        let mut file = buffered.into_inner().map_err(IntoInnerError::into_error)?;
        file.finish()?;
        metrics.spilled_rows.add(self.rows);
        let bytes = self.file.size().unwrap_or_default();
        metrics.spilled_bytes.add(bytes as usize);
        Ok(SpilledRows {
            file: self.file,
            rows: self.rows,
        })
    }
}

/// Deals batches to the files of the partitions, in order. Rows wait in memory until there are
/// enough of them, or no more of it.
pub(super) struct Dealer {
    disk: Disk,
    /// One per partition, made with its first row.
    files: Vec<Option<Writing>>,
    waiting: Vec<Dealt>,
    /// Bytes that may wait.
    most: usize,
    memory: MemoryReservation,
}

impl Dealer {
    /// One of several dealers that share what may wait.
    pub(super) fn new(disk: &Disk, dealers: usize, memory: MemoryReservation) -> Self {
        Self {
            disk: disk.clone(),
            files: (0..PARTITIONS).map(|_| None).collect(),
            waiting: Vec::new(),
            most: WAITING / dealers.max(1),
            memory,
        }
    }

    /// Deals the rows of `batch`, as [`noted`] or [`known`] say.
    ///
    /// # Errors
    /// `ResourcesExhausted` when they exceed the disk quota, and those of writing.
    pub(super) fn deal(&mut self, batch: &RecordBatch, partitions: &[u8]) -> Result<()> {
        let dealt = Dealt::new(batch, partitions)?;
        let needs = get_record_batch_memory_size(&dealt.batch);
        let waits = self.memory.size() + needs <= self.most && self.memory.try_grow(needs).is_ok();
        self.waiting.push(dealt);
        if waits { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        for (partition, file) in self.files.iter_mut().enumerate() {
            let slices = self.waiting.iter().map(|dealt| dealt.of(partition));
            let slices: Vec<_> = slices.filter(|slice| slice.num_rows() > 0).collect();
            if slices.is_empty() {
                continue;
            }
            let rows = concat_batches(&self.disk.schema, &slices)?;
            let file = match file {
                Some(file) => file,
                None => file.insert(self.disk.create()?),
            };
            for start in (0..rows.num_rows()).step_by(BATCH) {
                file.write(&rows.slice(start, BATCH.min(rows.num_rows() - start)))?;
            }
        }
        self.waiting.clear();
        self.memory.free();
        Ok(())
    }

    /// What was dealt to each partition.
    ///
    /// # Errors
    /// As [`Self::deal`].
    pub(super) fn finish(mut self) -> Result<Vec<Option<SpilledRows>>> {
        self.write()?;
        let metrics = &self.disk.metrics;
        let finish = |file: Option<Writing>| file.map(|file| file.finish(metrics)).transpose();
        self.files.into_iter().map(finish).collect()
    }
}
