//! A cache of what sources say about features: asked for one group at a time, on first use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::error::Result;
use crate::model::{FeatureGroup, FeatureMetadata};
use crate::source::CatalogSource;

type Metadata = Arc<BTreeMap<String, FeatureMetadata>>;

/// Descriptions by group name, each good for one definition of the group.
#[derive(Debug)]
pub(super) struct Descriptions {
    max_age: Duration,
    retry_after: Duration,
    by_group: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The answer for one definition; concurrent callers wait for one request.
#[derive(Debug)]
struct Slot {
    group: Arc<FeatureGroup>,
    answer: OnceCell<(Result<Metadata>, Instant)>,
}

impl Descriptions {
    /// Answers are kept for `max_age`, since descriptions can be edited without the group's
    /// definition changing; failures for `retry_after`, so that a source in trouble is not asked
    /// by every client that lists columns.
    pub(super) fn new(max_age: Duration, retry_after: Duration) -> Self {
        Self {
            max_age,
            retry_after,
            by_group: Mutex::default(),
        }
    }

    pub(super) async fn get(
        &self,
        group: &Arc<FeatureGroup>,
        source: &dyn CatalogSource,
    ) -> Result<Metadata> {
        let slot = self.slot(group);
        let answer = slot.answer.get_or_init(|| async {
            let answer = source.feature_metadata(group).await.map(Arc::new);
            if let Err(error) = &answer {
                let group = &group.feature_group_name;
                tracing::warn!(%error, group, "feature descriptions could not be read");
            }
            (answer, Instant::now())
        });
        answer.await.0.clone()
    }

    fn slot(&self, group: &Arc<FeatureGroup>) -> Arc<Slot> {
        let mut by_group = self.by_group.lock();
        let slot = by_group.get(&group.feature_group_name);
        if let Some(slot) = slot.filter(|slot| self.is_good(slot, group)) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot {
            group: Arc::clone(group),
            answer: OnceCell::new(),
        });
        by_group.insert(group.feature_group_name.clone(), Arc::clone(&slot));
        slot
    }

    fn is_good(&self, slot: &Slot, group: &Arc<FeatureGroup>) -> bool {
        let fresh = match slot.answer.get() {
            Some((Ok(_), since)) => since.elapsed() < self.max_age,
            Some((Err(_), since)) => since.elapsed() < self.retry_after,
            None => true,
        };
        fresh && (Arc::ptr_eq(&slot.group, group) || slot.group == *group)
    }
}
