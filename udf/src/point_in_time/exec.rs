//! `PointInTimeExec`: the point-in-time join by an index of the spine.
//!
//! Contract
//! - Output: the spine's columns, then each group's features, nullable. Exactly one row per spine
//!   row, whatever the groups hold. No order. One partition.
//! - Input: the spine in any number of partitions and any order; all of it is collected first, or
//!   as much as fits into memory. An empty spine ends the join without opening a file.
//! - A match is the top-ranked version with event time <= the row's time (inclusive), not older
//!   than `max_age` (inclusive), known by the cut (inclusive) and admitted by the clocks. A
//!   tombstone, no version, or a null key, time or cut gives nulls. All cuts come before ranking.
//! - Each history is read once, the newest hours first, in parallel, until every row is settled;
//!   then the features of the winners alone.
//! - Memory: in proportion to the spine (rows, index, one rank per slot; n log n ranks for keys
//!   whose per-row cuts do not grow with time) and to the distinct winners' features; reserved in
//!   the pool. A spine that does not fit is joined part by part, each part reading the histories
//!   anew: nothing is written to disk. `ResourcesExhausted` when not even one row fits.
//! - Ends when its stream is dropped; can be executed again.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::execution_plan::{Boundedness, CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning,
    PhysicalExpr, PlanProperties, ReplaceChildrenOptions, StatisticsArgs, apply_expression_roots,
};
use featureflight_catalog::Error;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::point_in_time::group::{Group, IndexedSpine, KnownAt, Matches};
use crate::point_in_time::index::INDEX_PER_ROW;
use crate::point_in_time::spine::{Spine, SpineReader};
use crate::statistics::of_left_join;

/// See the module.
#[derive(Debug)]
pub(crate) struct PointInTimeExec {
    spine: Arc<dyn ExecutionPlan>,
    groups: Arc<[Group]>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PointInTimeExec {
    /// `schema` is that of the logical node.
    pub(crate) fn new(
        spine: Arc<dyn ExecutionPlan>,
        groups: Arc<[Group]>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let properties = Arc::new(properties);
        Self {
            spine,
            groups,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// This join without the features that are not among the `used` output columns, and where each
    /// old output column is now; `None` when all are used.
    fn without_unused(&self, used: &HashSet<usize>) -> Result<Option<(Self, Vec<usize>)>> {
        let spine = self.spine.schema().fields().len();
        let columns = self.schema().fields().len();
        let kept = |column: &usize| *column < spine || used.contains(column);
        if (0..columns).all(|column| kept(&column)) {
            return Ok(None);
        }
        let mut next = spine;
        let mut groups = self.groups.to_vec();
        for group in &mut groups {
            let features = group.features.iter().zip(next..);
            next += group.features.len();
            let features = features.filter(|(_, column)| kept(column));
            group.features = features.map(|(feature, _)| *feature).collect();
        }
        let fields: Vec<usize> = (0..columns).filter(kept).collect();
        let schema = Arc::new(self.schema().project(&fields)?);
        let position = |column| fields.partition_point(|field| *field < column);
        let position = (0..columns).map(position).collect();
        let narrow = Self::new(Arc::clone(&self.spine), groups.into(), schema);
        Ok(Some((narrow, position)))
    }
}

/// A join whose matches are known: what is left is to put rows together.
struct Joined {
    spine: Spine,
    groups: Vec<Matches>,
    schema: SchemaRef,
    /// What the matches hold.
    _memory: Arc<MemoryReservation>,
}

impl Joined {
    /// `length` rows of one batch, of which the spine has `before` rows in earlier batches.
    fn rows(
        &self,
        batch: usize,
        before: usize,
        start: usize,
        length: usize,
    ) -> Result<RecordBatch> {
        let mut columns = self.spine.batches[batch]
            .slice(start, length)
            .columns()
            .to_vec();
        for group in &self.groups {
            columns.append(&mut group.take(before + start, length)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(length));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns,
            &options,
        )?)
    }

    /// (batch, rows in earlier batches, start, length) of every output batch.
    fn plan(&self, size: usize) -> Vec<(usize, usize, usize, usize)> {
        let mut plan = Vec::new();
        let mut before = 0;
        for (position, batch) in self.spine.batches.iter().enumerate() {
            let rows = batch.num_rows();
            for start in (0..rows).step_by(size.max(1)) {
                plan.push((position, before, start, size.min(rows - start)));
            }
            before += rows;
        }
        plan
    }
}

/// Joins the spine part by part.
struct Parts {
    reader: SpineReader,
    /// Parts that are still to be joined; the next one last.
    ahead: Vec<Spine>,
    groups: Arc<[Group]>,
    schema: SchemaRef,
    memory: MemoryReservation,
    tasks: usize,
    metrics: ExecutionPlanMetricsSet,
    spine_rows: Count,
    spine_parts: Count,
}

impl Parts {
    fn new(
        spine: &Arc<dyn ExecutionPlan>,
        groups: Arc<[Group]>,
        schema: SchemaRef,
        context: &Arc<TaskContext>,
        metrics: ExecutionPlanMetricsSet,
    ) -> Result<Self> {
        let memory = MemoryConsumer::new("PointInTimeExec").register(context.memory_pool());
        // Groups are joined one after the other; what they matched stays.
        let memory_per_row = || groups.iter().map(Group::memory_per_row);
        let found: usize = memory_per_row().map(|(found, _)| found).sum();
        let beside = memory_per_row().map(|(_, beside)| beside).max();
        let per_row = INDEX_PER_ROW + found + beside.unwrap_or_default();
        let counter = |name| MetricBuilder::new(&metrics).global_counter(name);
        Ok(Self {
            reader: SpineReader::new(spine, context, memory.new_empty(), per_row)?,
            ahead: Vec::new(),
            groups,
            schema,
            memory,
            tasks: context.session_config().target_partitions(),
            spine_rows: counter("spine_rows"),
            spine_parts: counter("spine_parts"),
            metrics,
        })
    }

    /// The next part, joined; half a part where a whole one does not fit after all.
    async fn next(&mut self) -> Result<Option<Joined>> {
        loop {
            let spine = match self.ahead.pop() {
                Some(spine) => spine,
                None => match self.reader.next().await? {
                    Some(spine) => spine,
                    None => return Ok(None),
                },
            };
            match self.join(&spine).await {
                Ok((groups, memory)) => {
                    self.spine_rows.add(spine.rows);
                    self.spine_parts.add(1);
                    return Ok(Some(Joined {
                        spine,
                        groups,
                        schema: Arc::clone(&self.schema),
                        _memory: memory,
                    }));
                }
                Err(error) if spine.rows > 1 && is_exhausted(&error) => {
                    let (first, second) = spine.halves();
                    self.ahead.extend([second, first]);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn join(&self, spine: &Spine) -> Result<(Vec<Matches>, Arc<MemoryReservation>)> {
        let memory = Arc::new(self.memory.new_empty());
        let mut matches = Vec::with_capacity(self.groups.len());
        let mut indexed: Option<(&Group, IndexedSpine)> = None;
        for group in self.groups.iter() {
            let shared = indexed
                .take()
                .filter(|(other, _)| group.shares_index(other));
            let (_, indexed) = match shared {
                Some(shared) => indexed.insert(shared),
                None => indexed.insert((group, group.index(spine, &memory)?)),
            };
            let found = group.matches(indexed, self.tasks, &memory, &self.metrics);
            matches.push(found.await?);
        }
        Ok((matches, memory))
    }
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl DisplayAs for PointInTimeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PointInTimeExec: ")?;
        for (position, group) in self.groups.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{group}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for PointInTimeExec {
    fn name(&self) -> &'static str {
        "PointInTimeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.spine]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let expressions = self.groups.iter().flat_map(|group| {
            let cut = match &group.known_at {
                KnownAt::Spine(cut) => Some(cut),
                KnownAt::Always | KnownAt::Constant(_) => None,
            };
            [&group.key, &group.time].into_iter().chain(cut)
        });
        apply_expression_roots(expressions, f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [spine] = <[_; 1]>::try_from(children)
            .map_err(|_| Error::internal("a point-in-time join has one input"))?;
        Ok(Arc::new(Self::new(
            spine,
            Arc::clone(&self.groups),
            self.schema(),
        )))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(Error::internal("a partition that does not exist was executed").into());
        }
        let schema = self.schema();
        let size = context.session_config().batch_size();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let parts = Parts::new(
            &self.spine,
            Arc::clone(&self.groups),
            Arc::clone(&schema),
            &context,
            self.metrics.clone(),
        )?;
        let joined = stream::try_unfold(parts, |mut parts: Parts| async move {
            let joined = parts.next().await?;
            Ok::<_, DataFusionError>(joined.map(|joined| (joined, parts)))
        });
        let batches = joined
            .map_ok(move |joined| {
                let plan = joined.plan(size);
                stream::iter(plan).map(move |(batch, before, start, length)| {
                    joined.rows(batch, before, start, length)
                })
            })
            .try_flatten()
            .inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None)]
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let spine = input_stats.first().map(AsRef::as_ref);
        Ok(Arc::new(of_left_join(&self.schema(), spine)))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    /// Leaves out the features that `projection` does not use, so that they are not decoded.
    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let used: HashSet<usize> = projection
            .expr()
            .iter()
            .flat_map(|projected| collect_columns(&projected.expr))
            .map(|column| column.index())
            .collect();
        let Some((narrow, position)) = self.without_unused(&used)? else {
            return Ok(None);
        };
        let moved = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let column = Column::new(column.name(), position[column.index()]);
            Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
        };
        let expressions = projection.expr().iter().map(|projected| {
            let expr = Arc::clone(&projected.expr).transform_up(moved)?.data;
            Ok(ProjectionExpr {
                expr,
                alias: projected.alias.clone(),
            })
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(ProjectionExec::try_new(
            expressions,
            Arc::new(narrow),
        )?)))
    }
}
