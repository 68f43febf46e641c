//! The writing side of a server: outbox, online store and forwarder, opened at its start and
//! drained at its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Writes;
use featureflight_online::arrivals::{Arrivals, WatchOptions, Watcher};
use featureflight_online::erase::Eraser;
use featureflight_online::forward::{ForwardOptions, Forwarder, Lanes, Router};
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::offline::{OfflineOptions, OfflineWriter, OwnedFiles, RewriteOptions};
use featureflight_online::outbox::{Durability, Outbox, OutboxOptions, Stage};
use featureflight_online::owner;
use featureflight_online::store::OnlineStore;
use featureflight_online::store::dynamodb::DynamoDbStore;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::store::redis::RedisStore;
use featureflight_online::store::sagemaker::SageMakerStore;

use crate::config::{
    CatalogKind, Config, OnlineConfig, OnlineKind, OutboxConfig, Secret, StorageKind,
};
use crate::start::aws_config;
use crate::task::AbortOnDrop;

/// How often expired records are removed, and how many at once.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_RECORDS: usize = 10_000;

/// How often SageMaker's offline store is looked at while rows wait to be seen there; queries look
/// by themselves.
const WATCH_EVERY: Duration = Duration::from_secs(15);

/// How often the end of the server looks whether everything was forwarded.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What writes need while the server runs.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) gateway: Arc<Gateway>,
    forwarder: Forwarder,
    offline: Option<OfflineWriter>,
    watcher: Option<Watcher>,
    _sweeper: Option<AbortOnDrop>,
}

/// Opens what the configuration says of writing, or says why nothing is written.
///
/// # Errors
/// Those of the outbox, the warehouse's owner and the online store.
pub(crate) async fn open(
    config: &Config,
    catalog: &Arc<Catalog>,
    aws: Option<&SdkConfig>,
) -> Result<Result<Writing, String>> {
    if !config.outbox.enabled {
        return Ok(Err(
            "outbox.enabled is false, so this server only reads".into()
        ));
    }
    match warehouse(config) {
        Some(warehouse) => open_owned(config, catalog, warehouse, aws).await,
        None => open_sagemaker(config, catalog, aws).await,
    }
}

/// The directory of groups that nobody but a gateway writes, if it is that.
fn warehouse(config: &Config) -> Option<&Path> {
    match (config.catalog.kind, config.storage.kind) {
        (Some(CatalogKind::Files), Some(StorageKind::Warehouse)) => {
            config.storage.directory.as_deref()
        }
        _ => None,
    }
}

async fn open_owned(
    config: &Config,
    catalog: &Arc<Catalog>,
    warehouse: &Path,
    aws: Option<&SdkConfig>,
) -> Result<Result<Writing, String>> {
    if !config.storage.own && !owner::is_claimed(warehouse) {
        return Ok(Err(
            "the warehouse is not this server's: files that SageMaker or somebody else writes are \
             only read; set storage.own = true (--own) to claim it for this server's writes"
                .into(),
        ));
    }
    let directory = config.outbox.directory.clone();
    let directory = directory.unwrap_or_else(|| warehouse.join("outbox"));
    let outbox = open_outbox(directory.clone(), &config.outbox).await?;
    owner::claim(warehouse, &directory)?;
    let mut sweeper = None;
    let OnlineConfig { table, prefix, .. } = &config.online;
    let timeout = config.online.timeout.0;
    let store: Arc<dyn OnlineStore> = match config.online.kind {
        OnlineKind::Embedded => {
            let directory = config.online.directory.clone();
            let directory = directory.unwrap_or_else(|| warehouse.join("online"));
            let store = EmbeddedStore::open(&directory)?;
            sweeper = Some(sweep(store.clone()));
            Arc::new(store)
        }
        OnlineKind::DynamoDb => {
            let aws = own_or_load(aws).await?;
            let store = DynamoDbStore::new(&aws, table, timeout, config.online.calls);
            store.create_table().await?;
            Arc::new(store)
        }
        OnlineKind::Redis => {
            let url = config.online.url.as_ref().map(Secret::reveal);
            let url = url.ok_or_else(|| {
                Error::invalid("bad configuration: online.kind = \"redis\" needs online.url")
            })?;
            Arc::new(RedisStore::new(url, prefix, timeout)?)
        }
    };
    let root = warehouse.join("s3");
    let rewrite = RewriteOptions {
        grace: config.offline.grace.0,
        target_bytes: config.offline.file_size.0,
    };
    let files = OfflineBy::Gateway(Arc::new(OwnedFiles::new(root.clone(), rewrite)));
    let gateway = gateway(outbox, store, files, &config.outbox);
    let options = OfflineOptions {
        root,
        max_bytes: config.offline.max_size.0,
        max_age: config.offline.max_age.0,
    };
    let offline = OfflineWriter::start(Arc::clone(&gateway), Arc::clone(catalog), options).await?;
    let mut writing = Writing::start(gateway, sweeper);
    writing.offline = Some(offline);
    Ok(Ok(writing))
}

async fn open_sagemaker(
    config: &Config,
    catalog: &Arc<Catalog>,
    aws: Option<&SdkConfig>,
) -> Result<Result<Writing, String>> {
    let Some(directory) = &config.outbox.directory else {
        return Ok(Err(
            "this server has no outbox: set outbox.directory to a directory on a durable disk"
                .into(),
        ));
    };
    let outbox = open_outbox(directory.clone(), &config.outbox).await?;
    let aws = own_or_load(aws).await?;
    let (timeout, calls) = (config.online.timeout.0, config.online.calls);
    let store = Arc::new(SageMakerStore::new(&aws, timeout, calls));
    let service = OfflineBy::Service(Arc::new(Arrivals::new(Arc::clone(catalog))));
    let gateway = gateway(outbox, store, service, &config.outbox);
    Eraser::new(&gateway, catalog).resume().await?;
    let mut writing = Writing::start(gateway, None);
    let options = WatchOptions {
        every: WATCH_EVERY,
        max_pending: config.offline.max_pending.0,
    };
    writing.watcher = Some(Watcher::start(Arc::clone(&writing.gateway), options));
    Ok(Ok(writing))
}

async fn own_or_load(aws: Option<&SdkConfig>) -> Result<SdkConfig> {
    match aws {
        Some(aws) => Ok(aws.clone()),
        None => aws_config(Vec::new()).await,
    }
}

async fn open_outbox(directory: PathBuf, config: &OutboxConfig) -> Result<Arc<Outbox>> {
    let OutboxConfig {
        sync_every,
        segment,
        max_size,
        reserve,
        checkpoint,
        key_window,
        accept_damage,
        ..
    } = config;
    let durability = if sync_every.0.is_zero() {
        Durability::Synced
    } else {
        tracing::warn!(%sync_every, "writes are acknowledged before they are on disk");
        Durability::Written(sync_every.0)
    };
    let options = OutboxOptions {
        durability,
        segment_bytes: segment.0,
        max_bytes: max_size.0,
        reserve_bytes: reserve.0,
        checkpoint: checkpoint.0,
        key_window: key_window.0,
        accept_damage: *accept_damage,
        ..OutboxOptions::default()
    };
    let opened = tokio::task::spawn_blocking(move || Outbox::open(&directory, options)).await;
    let opened = opened
        .map_err(|error| Error::internal("opening the outbox broke off").with_source(error))?;
    Ok(Arc::new(opened?))
}

fn sweep(store: EmbeddedStore) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let store = store.clone();
            let swept = tokio::task::spawn_blocking(move || store.sweep(SWEEP_RECORDS)).await;
            match swept {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(removed)) => tracing::debug!(removed, "expired records were removed"),
                Ok(Err(error)) => tracing::warn!(%error, "expired records cannot be removed"),
            }
        }
    }))
}

fn gateway(
    outbox: Arc<Outbox>,
    store: Arc<dyn OnlineStore>,
    offline: OfflineBy,
    config: &OutboxConfig,
) -> Arc<Gateway> {
    Arc::new(Gateway {
        outbox,
        store,
        offline,
        landed: Landed::default(),
        lanes: Lanes::default(),
        max_future: Some(config.max_future.0).filter(|bound| !bound.is_zero()),
    })
}

impl Writing {
    /// Forwards from now on.
    fn start(gateway: Arc<Gateway>, sweeper: Option<AbortOnDrop>) -> Self {
        let store = gateway.store.name();
        tracing::info!(store, "feature groups can be written");
        let outbox = Arc::clone(&gateway.outbox);
        let router = Arc::clone(&gateway) as Arc<dyn Router>;
        let options = ForwardOptions {
            lanes: Arc::clone(&gateway.lanes),
            ..ForwardOptions::default()
        };
        Self {
            gateway,
            forwarder: Forwarder::start(outbox, router, options),
            offline: None,
            watcher: None,
            _sweeper: sweeper,
        }
    }

    /// Forwards what waits, for as long as that takes up to `grace`, and brings the outbox to disk.
    /// What is left then is forwarded after the next start.
    pub(crate) async fn stop(self, grace: Duration) {
        drop((self.offline, self.watcher));
        let outbox = &self.gateway.outbox;
        let drained = async {
            while !outbox.pending_groups(Stage::Online).is_empty() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("not everything was forwarded; the rest will be after the next start");
        }
        let stopped = tokio::time::timeout(grace, self.forwarder.stop()).await;
        if stopped.is_err() {
            tracing::warn!("the online store has not answered; rows are sent again after a start");
        }
        if let Err(error) = outbox.checkpoint() {
            tracing::warn!(%error, "the last checkpoint of the outbox failed");
        }
    }
}

/// What the engine needs of it.
pub(crate) fn writes(opened: &Result<Writing, String>) -> Writes {
    match opened {
        Ok(writing) => Writes::Through(Arc::clone(&writing.gateway)),
        Err(reason) => Writes::Refused(reason.clone()),
    }
}
