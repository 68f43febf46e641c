//! `OnlineExec`: records of a group that no predicate names: those that a join turns out to want,
//! else all of them.
//!
//! Contract
//! - Output: one row per record of the online store, in the columns of the group's state. No order.
//!   One partition.
//! - Records that operators above do not want, as far as they know it when this starts, may be left
//!   out. Where they name the records, only those are asked for, otherwise all are listed;
//!   `FailedPrecondition` from a store that cannot list them.
//! - Memory: what was looked up, reserved in the pool; a list is read page by page.
//! - Ends when its stream is dropped; can be executed again, and finds the same.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee, collect_columns};
use datafusion::physical_expr_common::physical_expr::{
    snapshot_generation, snapshot_physical_expr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning,
    PhysicalExpr, PlanProperties, ReplaceChildrenOptions, apply_expression_roots,
};
use featureflight_catalog::Error;
use featureflight_online::store::{Records, StoredRecord};
use featureflight_online::writes::state_rows;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::found::{Found, MAX_KEYS};
use super::{Online, identifier_text};

/// Records of one batch of a list.
const PAGE: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub(super) struct OnlineExec {
    found: Arc<Found>,
    /// All records, where the store can list them.
    records: Option<Arc<dyn Records>>,
    /// Positions in the columns of the state.
    projection: Vec<usize>,
    /// What joins turn out to want: known when this runs.
    wanted: Vec<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl OnlineExec {
    pub(super) fn try_new(
        found: Arc<Found>,
        records: Option<Arc<dyn Records>>,
        projection: Vec<usize>,
    ) -> Result<Self> {
        let schema = Arc::new(found.online.schema().project(&projection)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            found,
            records,
            projection,
            wanted: Vec::new(),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    fn wanting(&self, wanted: Vec<Arc<dyn PhysicalExpr>>) -> Self {
        Self {
            found: Arc::clone(&self.found),
            records: self.records.clone(),
            projection: self.projection.clone(),
            wanted,
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Whether a predicate that is known only when the plan runs says something of the record
    /// identifier.
    fn learns_from(&self, filter: &Arc<dyn PhysicalExpr>) -> bool {
        let identifier = self.found.online.group.shape.record_identifier;
        snapshot_generation(filter) > 0
            && collect_columns(filter)
                .iter()
                .any(|column| self.projection.get(column.index()) == Some(&identifier))
    }
}

/// The identifiers that can pass all of `wanted`, and perhaps others, by what is known of them now;
/// `None` when none of them says.
fn named(wanted: &[Arc<dyn PhysicalExpr>], identifier: &str) -> Result<Option<Vec<String>>> {
    let mut fewest: Option<Vec<String>> = None;
    // Each by itself: two that exclude each other would say nothing together.
    for wanted in wanted {
        let known = snapshot_physical_expr(Arc::clone(wanted))?;
        if let Some(named) = named_by(&known, identifier)
            && fewest
                .as_ref()
                .is_none_or(|fewest| named.len() < fewest.len())
        {
            fewest = Some(named);
        }
    }
    Ok(fewest)
}

fn named_by(known: &Arc<dyn PhysicalExpr>, identifier: &str) -> Option<Vec<String>> {
    let named = LiteralGuarantee::analyze(known)
        .into_iter()
        .find(|one| one.guarantee == Guarantee::In && one.column.name() == identifier)?;
    // What is equal to null is nothing.
    let literals = named.literals.iter().filter(|value| !value.is_null());
    literals.map(identifier_text).collect()
}

/// Records that were looked up, for as long as the pool has room for them.
async fn looked_up(
    found: Arc<Found>,
    keys: Vec<String>,
    memory: MemoryReservation,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let records = found.look_up(keys).await?;
    for batch in &records {
        memory.try_grow(batch.get_array_memory_size())?;
    }
    let batches = records.into_iter().map(move |batch| {
        let _held = &memory;
        Ok(batch)
    });
    Ok(stream::iter(batches).boxed())
}

/// All records, page by page.
fn listed(online: Online, records: Arc<dyn Records>) -> BoxStream<'static, Result<RecordBatch>> {
    let pages = stream::try_unfold((online, records, None), |(online, records, after)| async {
        let found = page(&records, after).await?;
        let Some(last) = found.last() else {
            return Ok::<_, DataFusionError>(None);
        };
        let after = Some(last.identifier.clone());
        let rows = state_rows(&online.group, &found)?;
        Ok(Some((rows, (online, records, after))))
    });
    pages.boxed()
}

/// The records behind `after`.
pub(super) async fn page(
    records: &Arc<dyn Records>,
    after: Option<String>,
) -> featureflight_catalog::Result<Vec<StoredRecord>> {
    let records = Arc::clone(records);
    let page = move || records.page(after.as_deref(), PAGE);
    let found = tokio::task::spawn_blocking(page).await;
    found.map_err(|error| Error::internal("listing records broke off").with_source(error))?
}

fn unlisted(online: &Online) -> Error {
    let (name, store) = (online.group.name(), online.store.name());
    let identifier = online.identifier();
    Error::precondition(format!(
        "the online store of '{name}' ({store}) looks up records and does not list them: add WHERE \
         \"{identifier}\" = ... or IN (...), or join it by \"{identifier}\" alone with at most \
         {MAX_KEYS} values of its type"
    ))
}

impl DisplayAs for OnlineExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let names: Vec<&str> = names.collect();
        let group = self.found.online.group.name();
        write!(f, "OnlineExec: {group}, projection=[{}]", names.join(", "))?;
        for wanted in &self.wanted {
            write!(f, ", wanted={wanted}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for OnlineExec {
    fn name(&self) -> &'static str {
        "OnlineExec"
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
        apply_expression_roots(&self.wanted, f)
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
        let (found, records) = (Arc::clone(&self.found), self.records.clone());
        let (wanted, projection) = (self.wanted.clone(), self.projection.clone());
        let memory = MemoryConsumer::new("OnlineExec").register(context.memory_pool());
        let batches = stream::once(async move {
            let online = &found.online;
            match (named(&wanted, online.identifier())?, records) {
                (Some(keys), _) => looked_up(found, keys, memory).await,
                (None, Some(records)) => Ok(listed(online.clone(), records)),
                (None, None) => Err(unlisted(online).into()),
            }
        });
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let batches = batches.try_flatten().map(move |batch| {
            let batch = batch?.project(&projection)?;
            metrics.record_output(batch.num_rows());
            Ok(batch)
        });
        let schema: SchemaRef = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    /// Takes what operators above learn of the records they want while they run: the keys of a hash
    /// join's other side. They still look themselves.
    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        above: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let mut wanted = self.wanted.clone();
        if phase == FilterPushdownPhase::Post {
            let filters = above.parent_filters.iter().map(|above| &above.filter);
            wanted.extend(filters.filter(|filter| self.learns_from(filter)).cloned());
        }
        let refused = vec![PushedDown::No; above.parent_filters.len()];
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(refused);
        if wanted.len() == self.wanted.len() {
            return Ok(answer);
        }
        Ok(answer.with_updated_node(Arc::new(self.wanting(wanted))))
    }
}
