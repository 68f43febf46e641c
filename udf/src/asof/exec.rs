//! `AsofExec`: the as-of join of two sorted inputs.
//!
//! Contract
//! - Output: the left columns, then the right ones, nullable. Exactly one row per left row, in the
//!   left order of the partition.
//! - A match has equal keys and the nearest right time that the operator admits; of several right
//!   rows with that time, the one whose other columns, in order, are greatest (nulls first).
//! - Null keys and times match nothing. Keys and times of both sides have one type; doubles come
//!   canonical (`-0.0` as `0.0`, one NaN), as the planner makes them.
//! - Inputs: partitioned alike by the keys (one partition without keys), sorted by the keys and
//!   then by time, ascending for `>=` and `>`, descending for `<=` and `<`. The optimizer provides
//!   both; its sorts spill.
//! - Memory: one left batch with its matches, one right batch, one more right row.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{CardinalityEffect, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
    ExecutionPlanProperties, InputDistributionRequirements, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions, StatisticsArgs, apply_expression_roots,
};
use featureflight_catalog::Error;
use futures::TryStreamExt;
use futures::stream;

use crate::asof::merge::Merge;
use crate::asof::node::AsofOperator;
use crate::asof::right::{Right, Side};
use crate::statistics::of_left_join;

/// See the module.
#[derive(Debug)]
pub(crate) struct AsofExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    left_side: Side,
    right_side: Side,
    operator: AsofOperator,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsofExec {
    /// `schema` is that of the logical node.
    pub(crate) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        left_side: Side,
        right_side: Side,
        operator: AsofOperator,
        schema: SchemaRef,
    ) -> Self {
        let mut equivalence = EquivalenceProperties::new(schema);
        // Left columns keep their positions, so the left side's order is the output's.
        if let Some(ordering) = left.output_ordering() {
            equivalence.add_ordering(ordering.clone());
        }
        let properties = PlanProperties::new(
            equivalence,
            left.output_partitioning().clone(),
            EmissionType::Incremental,
            left.boundedness(),
        );
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        Self {
            left,
            right,
            left_side,
            right_side,
            operator,
            properties,
            metrics,
        }
    }

    fn ordering(&self, side: &Side) -> Option<OrderingRequirements> {
        let keys = SortOptions {
            descending: false,
            nulls_first: true,
        };
        let time = SortOptions {
            descending: !self.operator.looks_back(),
            nulls_first: true,
        };
        let keys = side
            .keys
            .iter()
            .map(|key| PhysicalSortExpr::new(Arc::clone(key), keys));
        let time = PhysicalSortExpr::new(Arc::clone(&side.time), time);
        LexOrdering::new(keys.chain([time])).map(OrderingRequirements::from)
    }

    /// The right columns in the order in which they decide among rows of one key and time: those
    /// that are not a key or the time themselves first.
    fn rest_columns(&self) -> Vec<usize> {
        use datafusion::physical_expr::expressions::Column;
        let known = |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().map(Column::index);
        let side = &self.right_side;
        let known: Vec<usize> = side
            .keys
            .iter()
            .chain([&side.time])
            .filter_map(known)
            .collect();
        let columns = 0..self.right.schema().fields().len();
        let (last, mut first): (Vec<_>, Vec<_>) = columns.partition(|c| known.contains(c));
        first.extend(last);
        first
    }
}

impl DisplayAs for AsofExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            left_side,
            right_side,
            operator,
            ..
        } = self;
        write!(
            f,
            "AsofExec: {} {operator} {}",
            left_side.time, right_side.time
        )?;
        for (left, right) in left_side.keys.iter().zip(&right_side.keys) {
            write!(f, ", {left} = {right}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for AsofExec {
    fn name(&self) -> &'static str {
        "AsofExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.left_side.keys.is_empty() {
            return InputDistributionRequirements::new(vec![Distribution::SinglePartition; 2]);
        }
        InputDistributionRequirements::co_partitioned(vec![
            Distribution::KeyPartitioned(self.left_side.keys.clone()),
            Distribution::KeyPartitioned(self.right_side.keys.clone()),
        ])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![
            self.ordering(&self.left_side),
            self.ordering(&self.right_side),
        ]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let sides = [&self.left_side, &self.right_side];
        let expressions = sides
            .into_iter()
            .flat_map(|side| side.keys.iter().chain([&side.time]));
        apply_expression_roots(expressions, f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let [left, right] = <[_; 2]>::try_from(children)
            .map_err(|_| Error::internal("an as-of join has two inputs"))?;
        let (left_side, right_side) = (self.left_side.clone(), self.right_side.clone());
        let schema = self.schema();
        Ok(Arc::new(Self::new(
            left,
            right,
            left_side,
            right_side,
            self.operator,
            schema,
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
        let partitions =
            [&self.left, &self.right].map(|side| side.output_partitioning().partition_count());
        if partitions[0] != partitions[1] {
            let message = "the sides of an as-of join are not partitioned alike";
            return Err(Error::internal(message).into());
        }
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = self.right.execute(partition, context)?;
        let right = Right::try_new(right, self.right_side.clone(), self.rest_columns())?;
        let merge = Merge::try_new(
            left,
            self.left_side.clone(),
            right,
            self.right.schema(),
            self.operator,
            self.schema(),
        )?;
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = stream::try_unfold(merge, |mut merge| async move {
            Ok(merge.next().await?.map(|batch| (batch, merge)))
        });
        let batches = batches.inspect_ok(move |batch: &arrow::array::RecordBatch| {
            metrics.record_output(batch.num_rows());
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            batches,
        )))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition), ChildStats::Skip]
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let left = input_stats.first().map(AsRef::as_ref);
        Ok(Arc::new(of_left_join(&self.schema(), left)))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Unknown
    }
}
