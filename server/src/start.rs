//! From a configuration to an engine: which catalog, which storage, which limits.

use std::sync::Arc;

use featureflight_catalog::scan::versions::ReadSettings;
use featureflight_catalog::snapshot::{Catalog, RefreshTask};
use featureflight_catalog::source::CatalogSource;
use featureflight_catalog::source::aws::{AwsOptions, AwsSource, load_config};
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::{AwsStorage, Storage, WarehouseStorage};
use featureflight_catalog::{Error, Result};
use featureflight_engine::{Engine, EngineOptions};

use crate::config::{CatalogKind, Config, EngineConfig, StorageKind};

/// What runs beside the server and ends with it.
#[derive(Debug)]
pub(crate) struct Background {
    _refresh: Option<RefreshTask>,
}

/// Opens the catalog and makes the engine.
///
/// # Errors
/// Those of the catalog's source and storage.
pub(crate) async fn engine(config: &Config) -> Result<(Arc<Engine>, Background)> {
    let options = options(&config.engine)?;
    let (source, storage) = sources(config).await?;
    let catalog = Catalog::open(source, storage).await?;
    let every = config.catalog.refresh.0;
    let refresh = (!every.is_zero()).then(|| catalog.keep_fresh(every));
    let feature_groups = catalog.snapshot().groups.len();
    tracing::info!(feature_groups, "read the catalog");
    Ok((
        Engine::new(catalog, options)?,
        Background { _refresh: refresh },
    ))
}

/// Both sides of AWS share one look at credentials, region and endpoints.
async fn sources(config: &Config) -> Result<(Arc<dyn CatalogSource>, Arc<dyn Storage>)> {
    let Config {
        catalog, storage, ..
    } = config;
    let options = AwsOptions {
        databases: catalog.databases.clone(),
        ..AwsOptions::default()
    };
    let needs_aws =
        catalog.kind == Some(CatalogKind::Aws) || storage.kind == Some(StorageKind::Aws);
    let aws = if needs_aws {
        Some(load_config(&options).await?)
    } else {
        None
    };
    let source: Arc<dyn CatalogSource> = match (catalog.kind, &catalog.directory, &aws) {
        (Some(CatalogKind::Files), Some(directory), _) => Arc::new(FilesSource::new(directory)),
        (Some(CatalogKind::Aws), _, Some(aws)) => Arc::new(AwsSource::new(aws, &options)),
        _ => return Err(incomplete("catalog")),
    };
    let storage: Arc<dyn Storage> = match (storage.kind, &storage.directory, &aws) {
        (Some(StorageKind::Warehouse), Some(directory), _) => {
            Arc::new(WarehouseStorage::open(directory)?)
        }
        (Some(StorageKind::Aws), _, Some(aws)) => Arc::new(AwsStorage::new(aws)?),
        _ => return Err(incomplete("storage")),
    };
    Ok((source, storage))
}

/// `Config::check` has refused it before.
fn incomplete(section: &str) -> Error {
    Error::invalid(format!(
        "bad configuration: the section [{section}] is incomplete"
    ))
}

fn options(config: &EngineConfig) -> Result<EngineOptions> {
    let EngineConfig {
        list_cache_ttl,
        footer_cache,
        requests_in_flight,
        read_ahead,
        memory_limit,
        process_memory_limit,
        spill_directory,
        spill_limit,
        target_partitions,
        max_sql,
        max_running_queries,
        max_queued_queries,
        max_upload,
        max_upload_rows,
        planning_timeout,
        query_timeout,
        settling_time,
        idle_session_timeout,
    } = config;
    let size = |bytes: u64| {
        usize::try_from(bytes).map_err(|_| Error::invalid("a size is beyond this machine"))
    };
    Ok(EngineOptions {
        list_cache_ttl: list_cache_ttl.0,
        footer_cache_bytes: size(footer_cache.0)?,
        read: ReadSettings {
            requests_in_flight: *requests_in_flight,
            bytes_ahead: read_ahead.0,
        },
        memory_limit_bytes: size(memory_limit.0)?,
        process_memory_limit_bytes: process_memory_limit.0,
        spill_directory: spill_directory.clone(),
        spill_limit_bytes: spill_limit.0,
        target_partitions: *target_partitions,
        max_sql_bytes: size(max_sql.0)?,
        max_running_queries: *max_running_queries,
        max_queued_queries: *max_queued_queries,
        max_upload_rows: *max_upload_rows,
        max_upload_bytes: max_upload.0,
        planning_timeout: planning_timeout.0,
        query_timeout: Some(query_timeout.0).filter(|timeout| !timeout.is_zero()),
        settling_time: settling_time.0,
        idle_session_timeout: idle_session_timeout.0,
    })
}
