//! From a configuration to an engine: which catalog, which storage, which limits.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use featureflight_catalog::scan::versions::ReadSettings;
use featureflight_catalog::snapshot::{Catalog, RefreshTask};
use featureflight_catalog::source::CatalogSource;
use featureflight_catalog::source::aws::{AwsOptions, AwsSource, CreateOptions, load_config};
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::{AwsStorage, Storage, WarehouseStorage};
use featureflight_catalog::{Error, Result};
use featureflight_engine::{Engine, EngineOptions};

use crate::config::{CatalogKind, Config, CreateConfig, EngineConfig, StorageKind};
use crate::writing::{self, Writing};

/// What runs beside the server and ends with it.
#[derive(Debug)]
pub(crate) struct Background {
    _refresh: Option<RefreshTask>,
    writing: Option<Writing>,
}

impl Background {
    /// Ends with what was accepted forwarded, as far as `grace` reaches.
    pub(crate) async fn stop(self, grace: Duration) {
        if let Some(writing) = self.writing {
            writing.stop(grace).await;
        }
    }
}

/// Opens the catalog and makes the engine.
///
/// # Errors
/// Those of the catalog's source and storage.
pub(crate) async fn engine(config: &Config) -> Result<(Arc<Engine>, Background)> {
    let options = options(&config.engine)?;
    let aws = if needs_aws(config) {
        Some(aws_config(config.catalog.databases.clone()).await?)
    } else {
        None
    };
    let (source, storage) = sources(config, aws.as_ref())?;
    let catalog = Catalog::open(source, storage).await?;
    let every = config.catalog.refresh.0;
    let refresh = (!every.is_zero()).then(|| catalog.keep_fresh(every));
    let feature_groups = catalog.snapshot().groups.len();
    tracing::info!(feature_groups, "read the catalog");
    let writing = writing::open(config, &catalog, aws.as_ref()).await?;
    let engine = Engine::with_writes(catalog, options, writing::writes(&writing))?;
    let background = Background {
        _refresh: refresh,
        writing: writing.ok(),
    };
    Ok((engine, background))
}

fn needs_aws(config: &Config) -> bool {
    config.catalog.kind == Some(CatalogKind::Aws) || config.storage.kind == Some(StorageKind::Aws)
}

/// One look at credentials, region and endpoints, for all that talks to AWS.
pub(crate) async fn aws_config(databases: Vec<String>) -> Result<SdkConfig> {
    load_config(&aws_options(databases)).await
}

fn aws_options(databases: Vec<String>) -> AwsOptions {
    AwsOptions {
        databases,
        ..AwsOptions::default()
    }
}

fn sources(
    config: &Config,
    aws: Option<&SdkConfig>,
) -> Result<(Arc<dyn CatalogSource>, Arc<dyn Storage>)> {
    let Config {
        catalog, storage, ..
    } = config;
    let options = aws_options(catalog.databases.clone());
    let source: Arc<dyn CatalogSource> = match (catalog.kind, &catalog.directory, aws) {
        (Some(CatalogKind::Files), Some(directory), _) => Arc::new(FilesSource::new(directory)),
        (Some(CatalogKind::Aws), _, Some(aws)) => {
            let options = AwsOptions {
                create: create_options(&catalog.create)?,
                ..options
            };
            Arc::new(AwsSource::new(aws, &options))
        }
        _ => return Err(incomplete("catalog")),
    };
    let storage: Arc<dyn Storage> = match (storage.kind, &storage.directory, aws) {
        (Some(StorageKind::Warehouse), Some(directory), _) => {
            Arc::new(WarehouseStorage::open(directory)?)
        }
        (Some(StorageKind::Aws), _, Some(aws)) => Arc::new(AwsStorage::new(aws)?),
        _ => return Err(incomplete("storage")),
    };
    Ok((source, storage))
}

/// # Errors
/// `InvalidArgument` for a half of it.
fn create_options(config: &CreateConfig) -> Result<Option<CreateOptions>> {
    let CreateConfig {
        role_arn,
        s3_uri,
        kms_key,
    } = config.clone();
    match (role_arn, s3_uri) {
        (Some(role_arn), Some(s3_uri)) => Ok(Some(CreateOptions {
            role_arn,
            s3_uri,
            kms_key,
        })),
        (None, None) if kms_key.is_none() => Ok(None),
        _ => Err(Error::invalid(
            "bad configuration: [catalog.create] needs both role_arn and s3_uri",
        )),
    }
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
