//! The spine in memory: its batches, and its times as instants.

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
use featureflight_catalog::{Error, Instant, Kind};
use futures::StreamExt;

use crate::ranking::keys::NONE;
use crate::ranking::pass::join;

const SECONDS_PER_DAY: i64 = 86_400;

/// All rows of the spine.
#[derive(Debug)]
pub(crate) struct Spine {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rows: usize,
}

/// Runs every partition of `input` to its end, at once.
///
/// # Errors
/// Those of the input, and `ResourcesExhausted` when the rows do not fit into the pool.
pub(crate) async fn collect(
    input: &Arc<dyn ExecutionPlan>,
    context: &Arc<TaskContext>,
    memory: &Arc<MemoryReservation>,
) -> Result<Spine> {
    let mut running = JoinSet::new();
    for partition in 0..input.output_partitioning().partition_count() {
        let mut stream = input.execute(partition, Arc::clone(context))?;
        let memory = Arc::clone(memory);
        running.spawn(async move {
            let mut batches = Vec::new();
            while let Some(batch) = stream.next().await.transpose()? {
                if batch.num_rows() > 0 {
                    memory.try_grow(get_record_batch_memory_size(&batch))?;
                    batches.push(batch);
                }
            }
            Ok((partition, batches))
        });
    }
    let mut partitions = join(running).await?;
    // In the order of the partitions, not of their ends: a limit above keeps the same rows.
    partitions.sort_unstable_by_key(|(partition, _)| *partition);
    let batches: Vec<_> = partitions
        .into_iter()
        .flat_map(|(_, batches)| batches)
        .collect();
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    if rows >= NONE as usize {
        let message = "the spine of a point-in-time join has more than four billion rows";
        return Err(Error::new(Kind::ResourceExhausted, message).into());
    }
    Ok(Spine { batches, rows })
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
