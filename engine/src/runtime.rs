//! What queries run in: one spill directory with a quota, no object store that SQL could name, and a
//! session state that every statement starts from. Memory is granted to each run, see
//! [`memory`](crate::memory).

use std::path::Path;
use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::object_store::ObjectStore;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::SessionConfig;
use featureflight_catalog::Result;
use url::Url;

use crate::engine::EngineOptions;
use crate::interruption::InterruptAmplifiers;
use crate::metadata::CATALOG;
use crate::online::{MAX_KEYS, ProbeOnline};
use crate::optimizer::{
    CompareIntervals, ConstantBetween, CountCopies, DropIdleOrder, OrderIntervals,
    RefuseUnknownMembership, logical_rules,
};
use crate::session::DEFAULT_SCHEMA;
use crate::small_batches::JoinInSmallBatches;
use crate::wide_rows::RefuseWideRows;

/// The state every statement starts from, which spills to `spill`.
///
/// # Errors
/// `Unavailable` when the spill directory cannot be used.
pub(crate) fn base_state(options: &EngineOptions, spill: &Path) -> Result<SessionState> {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // The engine brings its own, which shows no engine settings.
        .with_information_schema(false)
        .with_target_partitions(options.target_partitions.max(1));
    let settings = config.options_mut();
    settings.execution.time_zone = Some("+00:00".to_owned());
    settings.sql_parser.enable_ident_normalization = true;
    settings.execution.collect_statistics = false;
    // It compares what both plans know of nulls, and a `CASE` knows less in the physical one.
    settings.execution.skip_physical_aggregate_schema_check = true;
    // A join that names its keys lets the state of a group end early, and an online store look them
    // up: a list of so many costs little beside the files and calls it saves.
    settings
        .optimizer
        .hash_join_inlist_pushdown_max_distinct_values = MAX_KEYS;
    settings.optimizer.hash_join_inlist_pushdown_max_size = 8 << 20;
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime_env(options, spill)?))
        .with_default_features()
        .with_optimizer_rules(logical_rules())
        .with_physical_optimizer_rules(physical_rules());
    // The first that knows an expression plans it.
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(crate::functions::StructLiterals::new()));
    let builder = featureflight_udf::planner::extend(builder)
        .with_analyzer_rule(Arc::new(RefuseUnknownMembership))
        .with_analyzer_rule(Arc::new(CountCopies))
        .with_analyzer_rule(Arc::new(OrderIntervals))
        .with_analyzer_rule(Arc::new(crate::functions::MeasureListCasts))
        .with_optimizer_rule(Arc::new(crate::functions::BoundedConstants));
    let mut state = builder.build();
    for rewrite in [
        Arc::new(CompareIntervals) as Arc<dyn FunctionRewrite + Send + Sync>,
        Arc::new(ConstantBetween),
        Arc::new(DropIdleOrder),
    ] {
        state
            .register_function_rewrite(rewrite)
            .map_err(crate::error::classify)?;
    }
    crate::functions::guard(&mut state)?;
    Ok(state)
}

/// `DataFusion`'s rules and ours.
fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = crate::optimizer::physical_rules();
    let sides_are_chosen = rules
        .iter()
        .position(|rule| rule.name() == "join_selection");
    let behind = sides_are_chosen.map_or(0, |at| at + 1);
    rules.insert(behind, Arc::new(ProbeOnline));
    rules.push(Arc::new(InterruptAmplifiers));
    rules.push(Arc::new(RefuseWideRows));
    rules.push(Arc::new(JoinInSmallBatches));
    rules
}

fn runtime_env(options: &EngineOptions, spill: &Path) -> Result<RuntimeEnv> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_path_buf()]))
        .with_max_temp_directory_size(options.spill_limit_bytes);
    RuntimeEnvBuilder::new()
        .with_disk_manager_builder(disk)
        .with_object_store_registry(Arc::new(NoStores))
        .build()
        .map_err(crate::error::classify)
}

/// Files are read by the catalog's own scans, each from its own store; no URL opens anything.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(
        &self,
        _url: &Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> PlanResult<Arc<dyn ObjectStore>> {
        Err(DataFusionError::Plan(format!(
            "{url} cannot be read: only tables can"
        )))
    }
}
