//! Whose turn it is with the rows of a feature group. Those who send, list or flush rows do it side
//! by side or one after the other; whoever takes rows away for good waits for them and then is alone.

use std::collections::HashMap;
use std::sync::Arc;

use featureflight_catalog::Instant;
use featureflight_catalog::model::FeatureGroup;
use parking_lot::Mutex;
use tokio::sync::RwLock;

/// The turns of all groups, by name.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    groups: Mutex<HashMap<String, Turn>>,
    /// Groups that are being dropped, as they were defined.
    ending: Mutex<HashMap<String, Arc<FeatureGroup>>>,
    gone: Mutex<HashMap<String, Instant>>,
}

/// The turns of one group. Whoever takes several takes them in this order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    /// Shared by calls of the online store, until their outcome is marked.
    pub(crate) sending: Arc<RwLock<()>>,
    /// For whoever changes the group's offline files.
    pub(crate) files: Arc<tokio::sync::Mutex<()>>,
    /// Shared by statements from when they take down what waits until they have listed the files.
    pub(crate) listing: Arc<RwLock<()>>,
}

impl Turns {
    pub(crate) fn of(&self, group: &str) -> Turn {
        let mut groups = self.groups.lock();
        match groups.get(group) {
            Some(turn) => turn.clone(),
            None => groups.entry(group.to_owned()).or_default().clone(),
        }
    }

    pub(crate) fn note_ending(&self, group: &Arc<FeatureGroup>) {
        let name = group.feature_group_name.clone();
        self.ending.lock().insert(name, Arc::clone(group));
    }

    pub(crate) fn note_ended(&self, group: &str) {
        self.ending.lock().remove(group);
    }

    /// The group that is being dropped of that name.
    pub(crate) fn ending(&self, group: &str) -> Option<Arc<FeatureGroup>> {
        self.ending.lock().get(group).cloned()
    }

    /// Statements that began up to `until` may not list `url` any more: its group is dropped.
    pub(crate) fn note_gone(&self, url: &str, until: Instant) {
        self.gone.lock().insert(url.to_owned(), until);
    }

    /// It was not dropped after all.
    pub(crate) fn note_kept(&self, url: &str) {
        self.gone.lock().remove(url);
    }

    pub(crate) fn is_gone(&self, url: &str, since: Instant) -> bool {
        self.gone
            .lock()
            .get(url)
            .is_some_and(|until| since <= *until)
    }
}
