//! The spine in memory, whole or in parts, and its times as instants.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use datafusion::common::runtime::JoinSet;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use featureflight_catalog::{Error, Instant};
use futures::stream::{BoxStream, StreamExt, TryStreamExt, once, try_unfold};
use tokio::sync::mpsc;

use crate::ranking::fetch::compacted;
use crate::ranking::pass::lost;

const SECONDS_PER_DAY: i64 = 86_400;

/// A batch and the partition it comes from.
pub(crate) type Piece = (usize, RecordBatch);

/// Rows of the spine that are joined together.
#[derive(Debug)]
pub(crate) struct Spine {
    pub(crate) batches: Vec<RecordBatch>,
    /// The partition of each batch; ascending.
    partitions: Vec<usize>,
    pub(crate) rows: usize,
    /// What the batches hold.
    memory: Arc<MemoryReservation>,
}

impl Spine {
    fn new(pieces: Vec<Piece>, memory: Arc<MemoryReservation>) -> Self {
        let rows = pieces.iter().map(|(_, batch)| batch.num_rows()).sum();
        let (partitions, batches) = pieces.into_iter().unzip();
        Self {
            batches,
            partitions,
            rows,
            memory,
        }
    }

    /// The partitions that rows come from, and those between.
    pub(crate) fn partitions(&self) -> Range<usize> {
        match (self.partitions.first(), self.partitions.last()) {
            (Some(first), Some(last)) => *first..last + 1,
            _ => 0..0,
        }
    }

    /// The batches, which are no longer accounted for.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Piece> {
        self.partitions.into_iter().zip(self.batches)
    }

    /// The first half of the rows and the second.
    pub(crate) fn halves(self) -> (Self, Self) {
        let half = self.rows / 2;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut before = 0;
        for (partition, batch) in self.partitions.into_iter().zip(self.batches) {
            let rows = batch.num_rows();
            let cut = half.saturating_sub(before).min(rows);
            if cut > 0 {
                first.push((partition, batch.slice(0, cut)));
            }
            if cut < rows {
                second.push((partition, batch.slice(cut, rows - cut)));
            }
            before += rows;
        }
        let memory = Arc::clone(&self.memory);
        (Self::new(first, memory), Self::new(second, self.memory))
    }
}

/// Every partition of `input`, run at once.
///
/// # Errors
/// Those of starting the input.
pub(crate) fn run(
    input: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
) -> Result<BoxStream<'static, Result<Piece>>> {
    let partitions = input.output_partitioning().partition_count();
    let (sender, pieces) = mpsc::channel(2 * partitions.max(1));
    let mut running = JoinSet::new();
    for partition in 0..partitions {
        let mut stream = input.execute(partition, Arc::clone(context))?;
        let sender = sender.clone();
        running.spawn(async move {
            while let Some(batch) = stream.next().await {
                let piece = batch.map(|batch| (partition, batch));
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
    }
    let pieces = try_unfold((pieces, running), async |(mut pieces, mut running)| {
        if let Some(piece) = pieces.recv().await {
            return Ok(Some((piece?, (pieces, running))));
        }
        while let Some(ended) = running.join_next().await {
            ended.map_err(|error| lost(&error))?;
        }
        Ok(None)
    });
    Ok(pieces.boxed())
}

/// Hands the rows of a spine out in parts that fit into memory.
pub(crate) struct SpineReader {
    pieces: BoxStream<'static, Result<Piece>>,
    memory: MemoryReservation,
    /// Bytes that a part may take.
    most: usize,
    /// Bytes that joining takes per row, beside the row.
    per_row: usize,
    /// Did not fit into the part before.
    left_over: Option<Piece>,
}

/// Rows of one part. More could not be numbered.
const LONGEST: usize = 1 << 31;

impl SpineReader {
    pub(crate) fn new(
        pieces: BoxStream<'static, Result<Piece>>,
        memory: MemoryReservation,
        most: usize,
        per_row: usize,
    ) -> Self {
        Self {
            pieces,
            memory,
            most,
            per_row,
            left_over: None,
        }
    }

    /// The next rows: all that are left if they fit, else as many as do. `None` at the end of the
    /// input.
    ///
    /// # Errors
    /// Those of the input, and `ResourcesExhausted` when not even one batch fits.
    pub(crate) async fn next(&mut self) -> Result<Option<Spine>> {
        let held = self.memory.new_empty();
        // Given back when the part is joined, which takes it then.
        let ahead = self.memory.new_empty();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rows = 0;
        while let Some((partition, batch)) = self.piece().await? {
            let needs = get_record_batch_memory_size(&batch);
            let then = batch.num_rows() * self.per_row;
            let full = held.size() + ahead.size() + needs + then > self.most
                || rows + batch.num_rows() > LONGEST;
            let grown = if full && rows > 0 {
                Err(None)
            } else {
                let grown = held.try_grow(needs).and_then(|()| ahead.try_grow(then));
                grown.map_err(Some)
            };
            match grown {
                Ok(()) => {
                    rows += batch.num_rows();
                    pieces.push((partition, batch));
                }
                Err(Some(error)) if rows == 0 => return Err(error),
                Err(_) => {
                    self.left_over = Some((partition, batch));
                    break;
                }
            }
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        // In the order of the partitions, not of their ends: a limit above keeps the same rows.
        pieces.sort_by_key(|(partition, _)| *partition);
        Ok(Some(Spine::new(pieces, Arc::new(held))))
    }

    /// What is left; nothing, where the last part was the whole.
    pub(crate) fn rest(self) -> Option<BoxStream<'static, Result<Piece>>> {
        let next = self.left_over?;
        Some(once(async { Ok(next) }).chain(self.pieces).boxed())
    }

    /// The next batch that is not empty, holding nothing but its rows.
    async fn piece(&mut self) -> Result<Option<Piece>> {
        if let Some(piece) = self.left_over.take() {
            return Ok(Some(piece));
        }
        while let Some((partition, batch)) = self.pieces.try_next().await? {
            if batch.num_rows() > 0 {
                return Ok(Some((partition, compacted(&batch)?)));
            }
        }
        Ok(None)
    }
}

/// Whether [`instants`] reads `data_type`.
pub(crate) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    )
}

/// A column of timestamps (without a zone: UTC) or dates (midnight UTC) as instants, nulls kept.
///
/// # Errors
/// `InvalidArgument` for a time beyond what an [`Instant`] holds, `Internal` for other types.
pub(crate) fn instants(column: &ArrayRef) -> Result<Vec<Option<Instant>>> {
    Ok(match column.data_type() {
        DataType::Timestamp(unit @ TimeUnit::Second, _) => {
            scaled(column.as_primitive::<TimestampSecondType>(), *unit, 1)?
        }
        DataType::Timestamp(unit @ TimeUnit::Millisecond, _) => {
            scaled(column.as_primitive::<TimestampMillisecondType>(), *unit, 1)?
        }
        DataType::Timestamp(unit @ TimeUnit::Microsecond, _) => {
            scaled(column.as_primitive::<TimestampMicrosecondType>(), *unit, 1)?
        }
        DataType::Timestamp(unit @ TimeUnit::Nanosecond, _) => {
            scaled(column.as_primitive::<TimestampNanosecondType>(), *unit, 1)?
        }
        DataType::Date32 => scaled(
            column.as_primitive::<Date32Type>(),
            TimeUnit::Second,
            SECONDS_PER_DAY,
        )?,
        DataType::Date64 => scaled(
            column.as_primitive::<Date64Type>(),
            TimeUnit::Millisecond,
            1,
        )?,
        other => {
            let message = format!("a point-in-time join cannot read times of type {other}");
            return Err(Error::internal(message).into());
        }
    })
}

fn scaled<T: ArrowPrimitiveType<Native: Into<i64>>>(
    column: &PrimitiveArray<T>,
    unit: TimeUnit,
    factor: i64,
) -> Result<Vec<Option<Instant>>> {
    let instant = |value: T::Native| {
        let value: i64 = value.into();
        value
            .checked_mul(factor)
            .and_then(|value| Instant::from_unit(value, unit))
            .ok_or_else(|| {
                let message =
                    "a time of the spine lies too far away to be compared with event times";
                Error::invalid(message).into()
            })
    };
    column
        .iter()
        .map(|value| value.map(instant).transpose())
        .collect()
}
