//! Where the rows of a server's feature groups go: one outbox, one online store, and whoever writes
//! the offline store. All groups of a server live in one place, so that one answer holds for all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use featureflight_catalog::Result;
use featureflight_catalog::model::FeatureGroup;
use parking_lot::Mutex;
use serde_json::Value;

use crate::forward::{Lanes, Router};
use crate::group::WriteGroup;
use crate::outbox::{Outbox, Stages};
use crate::store::OnlineStore;

/// Who writes accepted rows to the offline store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfflineBy {
    /// SageMaker, from what its runtime was sent.
    Service,
    /// This server.
    Gateway,
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
        match self.offline {
            OfflineBy::Service => Stages {
                online: true,
                offline: false,
            },
            OfflineBy::Gateway => Stages {
                online: has_online_store(&group.group),
                offline: group.group.offline_store_config.is_some(),
            },
        }
    }
}

/// As `DescribeFeatureGroup` tells it.
fn has_online_store(group: &FeatureGroup) -> bool {
    let config = group.other.get("OnlineStoreConfig");
    let enabled = config.and_then(|config| config.get("EnableOnlineStore"));
    enabled.and_then(Value::as_bool) == Some(true)
}

#[async_trait]
impl Router for Gateway {
    async fn store(&self, _group: &str) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::clone(&self.store))
    }
}
