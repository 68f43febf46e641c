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
//!   the pool. A spine that does not fit goes to disk in partitions, and so do the versions that
//!   may match: `ResourcesExhausted` beyond the disk quota, or when not even one row fits.
//! - Ends when its stream is dropped; can be executed again.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::execution_plan::{Boundedness, CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
    ExecutionPlanProperties, Partitioning, PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
    StatisticsArgs, apply_expression_roots,
};
use featureflight_catalog::Error;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::point_in_time::group::{Group, KnownAt};
use crate::point_in_time::rows::Joiner;
use crate::point_in_time::spill;
use crate::point_in_time::spine::{self, Piece};
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

/// The joined rows: all of the spine at once where that fits into memory.
async fn join(
    joiner: Joiner,
    schema: SchemaRef,
    sources: usize,
    pieces: BoxStream<'static, Result<Piece>>,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let mut reader = joiner.read(pieces);
    let Some(spine) = reader.next().await? else {
        return Ok(stream::empty().boxed());
    };
    let (spine, rest) = match reader.rest() {
        Some(rest) => (spine, rest),
        None => match joiner.join(spine, None).await? {
            Ok(joined) => return Ok(joined.into_stream()),
            Err((spine, _)) => (spine, stream::empty().boxed()),
        },
    };
    let pieces = stream::iter(spine.into_pieces()).map(Ok).chain(rest);
    Ok(spill::join(&joiner, &schema, sources, pieces.boxed()))
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
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let groups = Arc::clone(&self.groups);
        let joiner = Joiner::new(groups, Arc::clone(&schema), &context, &self.metrics);
        let pieces = spine::run(&self.spine, &context)?;
        let sources = self.spine.output_partitioning().partition_count();
        let batches = join(joiner, self.spine.schema(), sources, pieces);
        let batches = stream::once(batches)
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
