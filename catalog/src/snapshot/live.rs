//! The live catalog: a snapshot that is swapped whole when a refresh succeeds, and the task that
//! asks for refreshes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use rand::Rng;
use tokio::task::{AbortHandle, JoinError};

use super::descriptions::Descriptions;
use super::{CatalogHealth, CatalogSnapshot};
use crate::error::{Error, Result};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureMetadata};
use crate::source::CatalogSource;
use crate::storage::{Location, Storage};

const DESCRIPTIONS_MAX_AGE: Duration = Duration::from_mins(15);
const DESCRIPTIONS_RETRY_AFTER: Duration = Duration::from_secs(30);

/// The live catalog: a snapshot behind an `Arc` and its refresh.
#[derive(Debug)]
pub struct Catalog {
    shared: Arc<Inner>,
    in_flight: Mutex<Option<InFlight>>,
    descriptions: Descriptions,
}

/// The newest refresh and what its callers wait for.
#[derive(Debug)]
struct InFlight {
    task: AbortHandle,
    outcome: Shared<BoxFuture<'static, Result<()>>>,
}

#[derive(Debug)]
struct Inner {
    source: Arc<dyn CatalogSource>,
    storage: Arc<dyn Storage>,
    snapshot: ArcSwap<CatalogSnapshot>,
    last_error: Mutex<Option<String>>,
}

impl Catalog {
    /// Reads the source once.
    ///
    /// # Errors
    /// Those of the source: a server does not start on a catalog it cannot read.
    pub async fn open(
        source: Arc<dyn CatalogSource>,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Self>> {
        let catalog = Arc::new(Self {
            shared: Arc::new(Inner {
                source,
                storage,
                snapshot: ArcSwap::default(),
                last_error: Mutex::default(),
            }),
            in_flight: Mutex::default(),
            descriptions: Descriptions::new(DESCRIPTIONS_MAX_AGE, DESCRIPTIONS_RETRY_AFTER),
        });
        catalog.refresh().await?;
        Ok(catalog)
    }

    pub fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.shared.snapshot.load_full()
    }

    pub fn health(&self) -> CatalogHealth {
        CatalogHealth {
            last_success: self.shared.snapshot.load().taken_at,
            last_error: self.shared.last_error.lock().clone(),
        }
    }

    /// Reads the source now; callers that arrive during a refresh share its outcome. The refresh
    /// goes on when its callers go away.
    ///
    /// # Errors
    /// Those of the source and of [`CatalogSnapshot::build`]; the last good snapshot stays.
    pub async fn refresh(&self) -> Result<()> {
        let outcome = {
            let mut in_flight = self.in_flight.lock();
            let running = in_flight
                .take()
                .filter(|refresh| !refresh.task.is_finished());
            let refresh = running.unwrap_or_else(|| Arc::clone(&self.shared).start_refresh());
            in_flight.insert(refresh).outcome.clone()
        };
        outcome.await
    }

    /// Makes a feature group; the snapshot has it when this returns.
    ///
    /// # Errors
    /// Those of [`CatalogSource::create`] and of refreshing.
    pub async fn create_group(&self, definition: FeatureGroup) -> Result<()> {
        self.shared.source.create(definition).await?;
        self.refresh_anew().await
    }

    /// Adds features to a group; the snapshot has them when this returns.
    ///
    /// # Errors
    /// Those of [`CatalogSource::add_features`] and of refreshing.
    pub async fn add_features(&self, group: &str, features: Vec<FeatureDefinition>) -> Result<()> {
        self.shared.source.add_features(group, features).await?;
        self.refresh_anew().await
    }

    /// Ends a group; the snapshot does not have it when this returns.
    ///
    /// # Errors
    /// Those of [`CatalogSource::drop_group`] and of refreshing.
    pub async fn drop_group(&self, group: &FeatureGroup) -> Result<()> {
        self.shared.source.drop_group(group).await?;
        self.refresh_anew().await
    }

    /// Whether nobody else's files lie where those of `group` do, so that they may be deleted.
    ///
    /// # Errors
    /// `FailedPrecondition` that names who else has files there.
    pub fn check_alone(&self, group: &FeatureGroup) -> Result<()> {
        let Some(location) = self.location(group)? else {
            return Ok(());
        };
        let name = &group.feature_group_name;
        match self.snapshot().neighbour(name, &location) {
            None => Ok(()),
            Some(other) => Err(Error::precondition(format!(
                "files of {other} lie in {} too, where those of feature group '{name}' would be \
                 deleted",
                location.url
            ))),
        }
    }

    /// Deletes the files of a group that was dropped.
    ///
    /// # Errors
    /// Those of [`Self::check_alone`] and [`Storage::remove`].
    pub async fn remove_files(&self, group: &FeatureGroup) -> Result<()> {
        self.check_alone(group)?;
        let Some(location) = self.location(group)? else {
            return Ok(());
        };
        let storage = Arc::clone(&self.shared.storage);
        let removed = tokio::task::spawn_blocking(move || storage.remove(&location)).await;
        removed.map_err(|error| Error::internal("deleting files broke off").with_source(error))?
    }

    /// Where the files of `group` lie, if anywhere.
    ///
    /// # Errors
    /// Those of [`Storage::locate`].
    pub fn location(&self, group: &FeatureGroup) -> Result<Option<Location>> {
        let url = group.data_url();
        url.map(|url| self.shared.storage.locate(url)).transpose()
    }

    /// A refresh that began after this was called.
    async fn refresh_anew(&self) -> Result<()> {
        let running = self
            .in_flight
            .lock()
            .as_ref()
            .map(|one| one.outcome.clone());
        if let Some(running) = running {
            // It may have read the source before; how it ended is not ours.
            let _ = running.await;
        }
        self.refresh().await
    }

    /// Refreshes every `interval`, jittered by a tenth, until the returned task is dropped.
    pub fn keep_fresh(self: &Arc<Self>, interval: Duration) -> RefreshTask {
        let catalog = Arc::clone(self);
        let task = tokio::spawn(async move {
            loop {
                let jitter = rand::rng().random_range(0.9..1.1);
                tokio::time::sleep(interval.mul_f64(jitter)).await;
                // The outcome is in `health`, which the refresh itself keeps.
                let _ = catalog.refresh().await;
            }
        });
        RefreshTask { task }
    }

    /// The descriptions of a group's features, by exact feature name; fetched on first use and
    /// kept while the group stays as it is, for at most 15 minutes.
    ///
    /// # Errors
    /// `NotFound` for a group the snapshot lacks; those of the source. A failure is remembered
    /// for 30 seconds.
    pub async fn feature_metadata(
        &self,
        group: &str,
    ) -> Result<Arc<BTreeMap<String, FeatureMetadata>>> {
        let snapshot = self.snapshot();
        let Some(entry) = snapshot.groups.get(group) else {
            return Err(Error::not_found(format!(
                "feature group '{group}' does not exist"
            )));
        };
        self.descriptions
            .get(&entry.group, self.shared.source.as_ref())
            .await
    }
}

impl Inner {
    /// In tasks of their own: a caller that goes away must not stop the refresh others wait for,
    /// and a panic in a source must reach them, and `last_error`, as an error.
    fn start_refresh(self: Arc<Self>) -> InFlight {
        let broke_off = |error: JoinError| {
            Err(Error::internal("the catalog refresh broke off").with_source(error))
        };
        let task = tokio::spawn(async move {
            let this = Arc::clone(&self);
            let reading = tokio::spawn(async move { this.refresh().await });
            let outcome = reading.await.unwrap_or_else(broke_off);
            self.note(&outcome);
            outcome
        });
        InFlight {
            task: task.abort_handle(),
            outcome: async move { task.await.unwrap_or_else(broke_off) }
                .boxed()
                .shared(),
        }
    }

    async fn refresh(&self) -> Result<()> {
        let taken_at = SystemTime::now();
        let contents = self.source.load().await?;
        let previous = self.snapshot.load_full();
        let snapshot =
            CatalogSnapshot::build(contents, self.storage.as_ref(), Some(&previous), taken_at)?;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    fn note(&self, outcome: &Result<()>) {
        let mut last_error = self.last_error.lock();
        match outcome {
            Ok(()) => {
                if last_error.take().is_some() {
                    tracing::info!("the catalog is fresh again");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the catalog could not be read");
                *last_error = Some(error.message.clone());
            }
        }
    }
}

/// Ends the background refresh when dropped.
#[must_use = "the refresh ends when this is dropped"]
#[derive(Debug)]
pub struct RefreshTask {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}
