//! Where the rows of a server's feature groups go: one outbox, one online store, and whoever writes
//! the offline store. All groups of a server live in one place, so that one answer holds for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use featureflight_catalog::{Error, Instant, Result};
use parking_lot::Mutex;

use crate::arrivals::Arrivals;
use crate::forward::{Lanes, Router};
use crate::group::WriteGroup;
use crate::offline::OwnedFiles;
use crate::outbox::{Outbox, PendingBlock, Stage, Stages};
use crate::store::OnlineStore;

/// Who writes accepted rows to the offline store.
#[derive(Debug)]
pub enum OfflineBy {
    /// SageMaker, from what its runtime was sent.
    Service(Arc<Arrivals>),
    /// This server, into the warehouse it owns.
    Gateway(Arc<OwnedFiles>),
}

/// See the module.
#[derive(Debug)]
pub struct Gateway {
    pub outbox: Arc<Outbox>,
    pub store: Arc<dyn OnlineStore>,
    pub offline: OfflineBy,
    /// Event times further ahead of the clock are refused; `None` sets no bound.
    pub max_future: Option<Duration>,
    pub landed: Landed,
    pub lanes: Lanes,
}

/// When the last offline file of each group came to be.
#[derive(Debug, Default)]
pub struct Landed(Mutex<HashMap<String, SystemTime>>);

impl Landed {
    pub(crate) fn of(&self, group: &str) -> Option<SystemTime> {
        self.0.lock().get(group).copied()
    }

    /// Lists of files that began before now miss a file of `group`.
    pub(crate) fn note(&self, group: &str) {
        let now = SystemTime::now();
        self.0.lock().insert(group.to_owned(), now);
    }
}

impl Gateway {
    /// What rows of `group` go through. SageMaker's runtime takes those of groups without an online
    /// store too; no other store does.
    pub fn stages(&self, group: &WriteGroup) -> Stages {
        Stages {
            online: match &self.offline {
                OfflineBy::Service(_) => true,
                OfflineBy::Gateway(_) => group.group.has_online_store(),
            },
            offline: group.group.offline_store_config.is_some(),
        }
    }

    /// The online store, for reading records of `group`.
    ///
    /// # Errors
    /// `FailedPrecondition` for a group without one.
    pub fn online(&self, group: &WriteGroup) -> Result<&Arc<dyn OnlineStore>> {
        if group.group.has_online_store() {
            return Ok(&self.store);
        }
        let name = group.name();
        Err(Error::precondition(format!(
            "feature group '{name}' has no online store"
        )))
    }

    /// The offline files of `group`, for rewriting them.
    ///
    /// # Errors
    /// `FailedPrecondition` where SageMaker writes them.
    pub fn owned_files(&self, group: &str) -> Result<&Arc<OwnedFiles>> {
        match &self.offline {
            OfflineBy::Gateway(files) => Ok(files),
            OfflineBy::Service(_) => Err(Error::precondition(format!(
                "SageMaker writes the offline store of '{group}', so nobody else may rewrite its \
                 files: only those of a warehouse that this server owns can be"
            ))),
        }
    }

    /// Marks rows that are in the offline store.
    pub(crate) fn settle_offline(&self, block: &PendingBlock, rows: &[usize]) {
        if rows.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut lanes = self.lanes.lock();
        let status = lanes.entry(block.group().to_owned()).or_default();
        status.landed += rows.len() as u64;
        status.last_landed = Some(now);
        status.landing_seconds = Some((now.micros - block.accepted_at.micros) as f64 / 1e6);
        drop(lanes);
        self.outbox.settle(block.position, Stage::Offline, rows);
    }
}

#[async_trait]
impl Router for Gateway {
    async fn store(&self, _group: &str) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::clone(&self.store))
    }
}
