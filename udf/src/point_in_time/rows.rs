//! Rows of the spine that fit into memory, joined with every group, and put together batch by batch.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use futures::stream::{self, BoxStream, StreamExt};

use crate::point_in_time::group::{Group, IndexedSpine, Matches};
use crate::point_in_time::index::INDEX_PER_ROW;
use crate::point_in_time::spill::versions::SpilledVersions;
use crate::point_in_time::spine::{Piece, Spine, SpineReader};

/// Joins rows of a spine with the versions of some groups.
#[derive(Debug, Clone)]
pub(crate) struct Joiner {
    pub(crate) groups: Arc<[Group]>,
    /// The spine's columns, and the features of the groups.
    pub(crate) schema: SchemaRef,
    pub(crate) tasks: usize,
    pub(crate) env: Arc<RuntimeEnv>,
    pub(crate) metrics: ExecutionPlanMetricsSet,
    pool: Arc<dyn MemoryPool>,
    batch_size: usize,
    spine_rows: Count,
    spine_parts: Count,
}

impl Joiner {
    pub(crate) fn new(
        groups: Arc<[Group]>,
        schema: SchemaRef,
        context: &TaskContext,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Self {
        let counter = |name| MetricBuilder::new(metrics).global_counter(name);
        Self {
            groups,
            schema,
            tasks: context.session_config().target_partitions(),
            env: context.runtime_env(),
            pool: Arc::clone(context.memory_pool()),
            batch_size: context.session_config().batch_size().max(1),
            spine_rows: counter("spine_rows"),
            spine_parts: counter("spine_parts"),
            metrics: metrics.clone(),
        }
    }

    /// The same for other groups.
    pub(crate) fn of(&self, groups: Arc<[Group]>, schema: SchemaRef) -> Self {
        Self {
            groups,
            schema,
            ..self.clone()
        }
    }

    pub(crate) fn reserve(&self) -> MemoryReservation {
        MemoryConsumer::new("PointInTimeExec").register(&self.pool)
    }

    /// Hands `pieces` out in parts that take half of the memory pool to join at most: others work
    /// too.
    pub(crate) fn read(&self, pieces: BoxStream<'static, Result<Piece>>) -> SpineReader {
        // Groups are joined one after the other; what they matched stays.
        let memory_per_row = || self.groups.iter().map(Group::memory_per_row);
        let found: usize = memory_per_row().map(|(found, _)| found).sum();
        let beside = memory_per_row().map(|(_, beside)| beside).max();
        let per_row = INDEX_PER_ROW + found + beside.unwrap_or_default();
        let most = match self.pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit / 2,
            MemoryLimit::Infinite | MemoryLimit::Unknown => usize::MAX,
        };
        SpineReader::new(pieces, self.reserve(), most, per_row)
    }

    /// The rows of `spine` with their matches, which lie in the store or in `spilled`: by group.
    /// Gives the spine back where the memory is not enough.
    pub(crate) async fn join(
        &self,
        spine: Spine,
        spilled: Option<Vec<SpilledVersions>>,
    ) -> Result<std::result::Result<Joined, (Spine, DataFusionError)>> {
        match self.matches(&spine, spilled).await {
            Ok((groups, memory)) => {
                self.spine_rows.add(spine.rows);
                self.spine_parts.add(1);
                Ok(Ok(Joined {
                    spine,
                    groups,
                    schema: Arc::clone(&self.schema),
                    batch_size: self.batch_size,
                    _memory: memory,
                }))
            }
            Err(error) if is_exhausted(&error) => Ok(Err((spine, error))),
            Err(error) => Err(error),
        }
    }

    async fn matches(
        &self,
        spine: &Spine,
        spilled: Option<Vec<SpilledVersions>>,
    ) -> Result<(Vec<Matches>, Arc<MemoryReservation>)> {
        let memory = Arc::new(self.reserve());
        let mut spilled = spilled.map(Vec::into_iter);
        let mut matches = Vec::with_capacity(self.groups.len());
        let mut indexed: Option<(&Group, IndexedSpine)> = None;
        for group in self.groups.iter() {
            let spilled = spilled.as_mut().and_then(Iterator::next);
            let shared = indexed
                .take()
                .filter(|(other, _)| group.shares_index(other));
            let (_, indexed) = match shared {
                Some(shared) => indexed.insert(shared),
                None => indexed.insert((group, group.index(spine, &memory)?)),
            };
            let found = group.matches(indexed, spilled, self.tasks, &memory, &self.metrics);
            matches.push(found.await?);
        }
        Ok((matches, memory))
    }
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// A join whose matches are known: what is left is to put rows together.
#[derive(Debug)]
pub(crate) struct Joined {
    spine: Spine,
    groups: Vec<Matches>,
    schema: SchemaRef,
    batch_size: usize,
    /// What the matches hold.
    _memory: Arc<MemoryReservation>,
}

/// Rows of one batch of the output.
struct Stretch {
    /// The batch of the spine, and its rows.
    batch: usize,
    start: usize,
    length: usize,
    /// Rows in the batches before.
    before: usize,
}

impl Joined {
    /// All rows, in the order of the spine.
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        let stretches = self.stretches();
        let batches = stream::iter(stretches).map(move |stretch| self.rows(&stretch));
        batches.boxed()
    }

    fn rows(&self, stretch: &Stretch) -> Result<RecordBatch> {
        let Stretch {
            batch,
            start,
            length,
            before,
        } = *stretch;
        let mut columns = self.spine.batches[batch]
            .slice(start, length)
            .columns()
            .to_vec();
        for group in &self.groups {
            columns.append(&mut group.take(before + start, length)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        let schema = Arc::clone(&self.schema);
        Ok(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?)
    }

    fn stretches(&self) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut before = 0;
        for (batch, rows) in self.spine.batches.iter().enumerate() {
            let rows = rows.num_rows();
            for start in (0..rows).step_by(self.batch_size) {
                stretches.push(Stretch {
                    batch,
                    start,
                    length: self.batch_size.min(rows - start),
                    before,
                });
            }
            before += rows;
        }
        stretches
    }
}
