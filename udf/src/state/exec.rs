//! `StateExec`: the state of a feature group.
//!
//! Contract
//! - Output: one row per record identifier whose top-ranked version, among those the clocks admit
//!   and whose identifier passes the predicate, is not a tombstone. No order. With a limit at
//!   least that many rows, if there are as many; the same ones every time.
//! - Partitions: slices of the winners, in runs of one file. All share one phase one.
//! - Memory: the rank and identifier of every record seen (phase one), then the place of every
//!   winner; reserved in the pool, `ResourcesExhausted` when it does not fit. Nothing spills.
//! - Records that operators above do not want, as far as they know it when this starts, may be
//!   left out.
//! - Nulls: a version without a record identifier is an error that names the group.
//! - Ends when its streams are dropped; can be executed again.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning,
    PhysicalExpr, PlanProperties, ReplaceChildrenOptions, apply_expression_roots,
};
use featureflight_catalog::Error;
use featureflight_catalog::listing::FileList;
use featureflight_catalog::scan::estimate::estimated;
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::scan::versions::VersionBatch;
use featureflight_catalog::table::FeatureTable;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use crate::clock::Clocks;
use crate::ranking::cuts::Cuts;
use crate::ranking::fetch::{Place, by_file, fetch};
use crate::ranking::pass::{AHEAD, History, PassMetrics, pass};
use crate::ranking::rank;
use crate::state::best::{Best, KeyFilter};
use crate::state::filters;
use crate::state::once::Once;

/// Winners of one file that one partition fetches in one go.
const LONGEST_RUN: usize = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(crate) struct StateExec {
    history: History,
    clocks: Clocks,
    /// Data objects seen, and those left out by their hour folder.
    listed: usize,
    pruned: usize,
    filter: Option<KeyFilter>,
    /// Positions in the group's definitions.
    projection: Vec<usize>,
    limit: Option<usize>,
    /// What joins and others above turn out to want: known when this runs.
    wanted: Vec<Arc<dyn PhysicalExpr>>,
    statistics: Arc<Statistics>,
    properties: Arc<PlanProperties>,
    winners: Arc<Once<Winners>>,
    metrics: ExecutionPlanMetricsSet,
}

/// What phase one hands to every partition.
#[derive(Debug)]
struct Winners {
    places: Arc<[Place]>,
    _memory: MemoryReservation,
}

impl StateExec {
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, from the provider's scan"
    )]
    pub(crate) fn try_new(
        table: Arc<FeatureTable>,
        clocks: Clocks,
        scan: &ScanContext,
        files: Arc<FileList>,
        filter: Option<KeyFilter>,
        projection: Vec<usize>,
        limit: Option<usize>,
        target_partitions: usize,
    ) -> Result<Self> {
        let schema = Arc::new(table.state_schema.project(&projection)?);
        let statistics = Arc::new(estimated(&files, &schema));
        // A limit reads little, and one partition finds the same rows again.
        let most = if limit.is_some() {
            1
        } else {
            target_partitions
        };
        let partitions = most.clamp(1, files.files.len().max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let reader = Arc::clone(&scan.reader);
        Ok(Self {
            history: History {
                table,
                reader,
                files: files.files.clone().into(),
            },
            clocks,
            listed: files.listed,
            pruned: files.pruned,
            filter,
            projection,
            limit,
            wanted: Vec::new(),
            statistics,
            properties: Arc::new(properties),
            winners: Once::new(partitions),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same state, not yet computed, of records that operators above want.
    fn wanting(&self, wanted: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self {
            history: self.history.clone(),
            clocks: self.clocks,
            listed: self.listed,
            pruned: self.pruned,
            filter: self.filter.clone(),
            projection: self.projection.clone(),
            limit: self.limit,
            wanted,
            statistics: Arc::clone(&self.statistics),
            properties: Arc::clone(&self.properties),
            winners: Once::new(self.partitions()),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    fn read_metrics(&self) -> ScanMetrics {
        ScanMetrics::from_counters(|name| MetricBuilder::new(&self.metrics).global_counter(name))
    }

    /// Phase one, as a future that owns all it needs.
    fn rank(
        &self,
        context: &Arc<TaskContext>,
    ) -> impl Future<Output = Result<Winners>> + Send + 'static {
        let reservation = MemoryConsumer::new(format!("StateExec[{}]", self.history.table.name()))
            .register(context.memory_pool());
        let counter = |name| MetricBuilder::new(&self.metrics).global_counter(name);
        let metrics = PassMetrics {
            files: self.read_metrics(),
            files_settled: counter("files_settled"),
            versions_probed: counter("versions_probed"),
        };
        metrics.files.files_listed.add(self.listed);
        metrics.files.files_pruned.add(self.pruned);
        let records = counter("records");
        let tasks = context.session_config().target_partitions();
        let (history, filter) = (self.history.clone(), self.filter.clone());
        let wanted = self.wanted.clone();
        let cuts = Cuts::from(self.clocks);
        async move {
            let table = Arc::clone(&history.table);
            let filter = filters::narrowed(&table, filter, &wanted)?;
            let keys = filter.as_ref().and_then(|filter| filter.keys.clone());
            let prune = Prune {
                keys: keys.map(|keys| keys as _),
                ..cuts.prune()
            };
            let best = Arc::new(Best::try_new(&table, cuts, filter, tasks, reservation)?);
            let columns = rank::columns(table.record_identifier);
            pass(&history, &columns, prune, tasks, &best, &metrics).await?;
            let (places, memory) = best.winners()?;
            records.add(places.len());
            Ok(Winners {
                places: places.into(),
                _memory: memory,
            })
        }
    }
}

/// Phase two of one partition: the features of its slice of the winners.
fn features(
    history: &History,
    projection: &[usize],
    schema: SchemaRef,
    winners: Arc<Winners>,
    runs: Vec<Range<usize>>,
    ahead: usize,
    metrics: &ScanMetrics,
) -> BoxStream<'static, Result<RecordBatch>> {
    if projection.is_empty() {
        // Only the number of rows is asked for: no file has to be opened.
        let counts = runs.into_iter();
        let counts = counts.map(move |run| rows(&schema, Vec::new(), run.len()));
        return stream::iter(counts).boxed();
    }
    fetch(history, &winners.places, runs, projection, ahead, metrics)
        .map(move |batch| {
            let _held = &winners;
            let (_, batch) = batch.map_err(DataFusionError::from)?;
            let VersionBatch {
                features,
                rows: count,
                ..
            } = batch;
            rows(&schema, features, count)
        })
        .boxed()
}

fn rows(
    schema: &SchemaRef,
    columns: Vec<arrow::array::ArrayRef>,
    count: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

/// Batches of about `size` rows: the winners of a small file are few, and its text is copied out
/// of the pages that held it.
fn coalesced(
    schema: &SchemaRef,
    size: usize,
    batches: BoxStream<'static, Result<RecordBatch>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let state = (
        batches,
        BatchCoalescer::new(Arc::clone(schema), size),
        false,
    );
    stream::try_unfold(
        state,
        |(mut batches, mut coalescer, mut ended)| async move {
            loop {
                if let Some(batch) = coalescer.next_completed_batch() {
                    return Ok(Some((batch, (batches, coalescer, ended))));
                }
                if ended {
                    return Ok(None);
                }
                if let Some(batch) = batches.next().await.transpose()? {
                    coalescer.push_batch(batch)?;
                } else {
                    coalescer.finish_buffered_batch()?;
                    ended = true;
                }
            }
        },
    )
    .boxed()
}

/// At most `limit` rows.
fn limited(
    limit: Option<usize>,
    batches: BoxStream<'static, Result<RecordBatch>>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let Some(limit) = limit else { return batches };
    stream::try_unfold((batches, limit), |(mut batches, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let Some(batch) = batches.next().await.transpose()? else {
            return Ok(None);
        };
        let batch = batch.slice(0, batch.num_rows().min(left));
        let left = left - batch.num_rows();
        Ok(Some((batch, (batches, left))))
    })
    .boxed()
}

impl DisplayAs for StateExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let History { table, files, .. } = &self.history;
        let names: Vec<_> = self
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        write!(
            f,
            "StateExec: {}, projection=[{}]",
            table.name(),
            names.join(", ")
        )?;
        self.clocks.explain(f)?;
        if let Some(filter) = &self.filter {
            write!(f, ", predicate={}", filter.predicate)?;
        }
        for wanted in &self.wanted {
            write!(f, ", wanted={wanted}")?;
        }
        if let Some(limit) = self.limit {
            write!(f, ", limit={limit}")?;
        }
        write!(f, ", files={}", files.len())
    }
}

impl ExecutionPlan for StateExec {
    fn name(&self) -> &'static str {
        "StateExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let filter = self.filter.iter().map(|filter| &filter.predicate);
        apply_expression_roots(filter.chain(&self.wanted), f)
    }

    fn replace_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // Also called to run a plan again, when what operators above want may have changed.
        Ok(Arc::new(self.wanting(Vec::new())))
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
        let partitions = self.partitions();
        if partition >= partitions {
            return Err(Error::internal("a partition that does not exist was executed").into());
        }
        let winners = self.winners.join(partition, || self.rank(&context));
        let (history, projection) = (self.history.clone(), self.projection.clone());
        let schema = self.schema();
        let ahead = if self.limit.is_some() { 1 } else { AHEAD };
        let read = self.read_metrics();
        let batches = stream::once(winners).map_ok({
            let schema = Arc::clone(&schema);
            move |winners| {
                let runs = by_file(&winners.places, LONGEST_RUN);
                let slice = runs.into_iter().skip(partition).step_by(partitions);
                let (schema, slice) = (Arc::clone(&schema), slice.collect());
                features(&history, &projection, schema, winners, slice, ahead, &read)
            }
        });
        let batches = batches.try_flatten().boxed();
        let size = context.session_config().batch_size();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = limited(self.limit, coalesced(&schema, size, batches))
            .inspect_ok(move |batch| metrics.record_output(batch.num_rows()));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&self.statistics))
    }

    /// Takes what operators above learn of the records they want while they run: the keys of a
    /// hash join's other side. They still look themselves.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        above: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut wanted = self.wanted.clone();
        if phase == FilterPushdownPhase::Post && self.limit.is_none() {
            let filters = above.parent_filters.iter().map(|above| &above.filter);
            wanted.extend(filters.filter_map(|filter| {
                filters::learnt_of_record_identifier(&self.history.table, &self.projection, filter)
            }));
        }
        let refused = vec![PushedDown::No; above.parent_filters.len()];
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(refused);
        if wanted.len() == self.wanted.len() {
            return Ok(answer);
        }
        Ok(answer.with_updated_node(Arc::new(self.wanting(wanted))))
    }
}
