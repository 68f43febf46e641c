//! The leaf operator of every relation made of pinned files.
//!
//! Output: the relation's rows in no promised order. Files are dealt over the partitions by size.
//! Memory: a few files opened ahead per partition and one batch. Each partition may stop at the
//! limit. Nothing is known about the rows in advance.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use futures::stream::{BoxStream, try_unfold};
use futures::{StreamExt, TryStreamExt};

use crate::error::Error;
use crate::listing::{DataFile, FileList};

use super::estimate::estimated;
use super::files::ScanMetrics;

/// A relation whose rows come from files, one independent of the other.
pub(crate) trait Relation: fmt::Debug + Send + Sync {
    /// As `EXPLAIN` calls the operator.
    fn operator(&self) -> &'static str;

    /// The table, for `EXPLAIN`.
    fn table(&self) -> &str;

    /// What else `EXPLAIN` shows, each as `, key=value`.
    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// The columns of the rows.
    fn schema(&self) -> &SchemaRef;

    /// All rows of these files; no batch is empty.
    fn read(
        &self,
        files: Vec<Arc<DataFile>>,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, crate::error::Result<RecordBatch>>;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FilesExec {
    relation: Arc<dyn Relation>,
    list: Arc<FileList>,
    /// Files of each partition.
    groups: Vec<Vec<Arc<DataFile>>>,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FilesExec {
    pub(crate) fn new(
        relation: Arc<dyn Relation>,
        list: Arc<FileList>,
        limit: Option<usize>,
        target_partitions: usize,
    ) -> Self {
        let groups = list.split(target_partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(relation.schema())),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            relation,
            list,
            groups,
            limit,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }
}

impl DisplayAs for FilesExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (table, files) = (self.relation.table(), self.list.files.len());
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let fields = self.relation.schema().fields().iter();
                let columns: Vec<_> = fields.map(|field| field.name().as_str()).collect();
                let (operator, pruned) = (self.relation.operator(), self.list.pruned);
                write!(
                    f,
                    "{operator}: table={table}, files={files}, pruned={pruned}"
                )?;
                write!(f, ", columns=[{}]", columns.join(", "))?;
                self.relation.details(f)?;
                match self.limit {
                    Some(limit) => write!(f, ", limit={limit}"),
                    None => Ok(()),
                }
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={table}")?;
                writeln!(f, "files={files}")
            }
        }
    }
}

impl ExecutionPlan for FilesExec {
    fn name(&self) -> &str {
        self.relation.operator()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::new(estimated(&self.list, self.relation.schema())))
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let files = self.groups.get(partition).cloned().ok_or_else(|| {
            DataFusionError::from(Error::internal(format!(
                "there is no partition {partition}"
            )))
        })?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let metrics = ScanMetrics::new(&self.metrics, partition);
        if partition == 0 {
            metrics.count_list(&self.list);
        }
        let batches = self
            .relation
            .read(files, &metrics)
            .map_err(DataFusionError::from)
            .inspect_ok(move |batch| baseline.record_output(batch.num_rows()))
            .boxed();
        // The batch that reaches the limit goes out whole, the plan above cuts it, and nothing
        // after it is read.
        let state = (batches, self.limit.unwrap_or(usize::MAX));
        let limited = try_unfold(state, |(mut batches, left)| async move {
            let next = if left > 0 {
                batches.try_next().await?
            } else {
                None
            };
            Ok::<_, DataFusionError>(next.map(|batch| {
                let left = left.saturating_sub(batch.num_rows());
                (batch, (batches, left))
            }))
        });
        let schema = Arc::clone(self.relation.schema());
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, limited)))
    }
}
