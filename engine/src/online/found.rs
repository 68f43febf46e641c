//! What one statement found in an online store. Records that were looked up once are not asked for
//! again, so that every later scan and every later run of the statement has the same rows.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_online::store::Records;
use featureflight_online::writes::read_online;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{Mutex, OnceCell};

use super::Online;

/// Records one statement looks up at once, at most.
pub(crate) const MAX_KEYS: usize = 100_000;

const BOUNDS: Bounds = Bounds {
    keys: MAX_KEYS,
    bytes: 256 << 20,
};

/// Records that one read of the store asks for, and how many reads go on at a time.
const TOGETHER: usize = 1_000;
const AT_ONCE: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) online: Online,
    bounds: Bounds,
    looked_up: Mutex<LookedUp>,
    listed: OnceCell<Option<Arc<dyn Records>>>,
}

/// What one statement looks up, at most.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// At once.
    keys: usize,
    /// Of all records, in memory: they are kept.
    bytes: usize,
}

#[derive(Debug, Default)]
struct LookedUp {
    /// By the identifiers that were asked for together.
    records: HashMap<Vec<String>, Vec<RecordBatch>>,
    bytes: usize,
}

impl Found {
    pub(super) fn new(online: Online) -> Self {
        Self {
            online,
            bounds: BOUNDS,
            looked_up: Mutex::default(),
            listed: OnceCell::new(),
        }
    }

    /// The records of these identifiers, those that are there, in the columns of the state.
    ///
    /// # Errors
    /// `ResourceExhausted` for more than a statement may look up, and those of the store.
    pub(super) async fn look_up(&self, mut keys: Vec<String>) -> Result<Vec<RecordBatch>> {
        keys.sort_unstable();
        keys.dedup();
        let mut known = self.looked_up.lock().await;
        if let Some(records) = known.records.get(&keys) {
            return Ok(records.clone());
        }
        let (asked, most) = (keys.len(), self.bounds.keys);
        if asked > most {
            return Err(too_much(&format!("{most} records at once, not {asked}")));
        }
        let parts: Vec<Vec<String>> = keys.chunks(TOGETHER).map(<[_]>::to_vec).collect();
        let read = async |some: Vec<String>| {
            read_online(self.online.store.as_ref(), &self.online.group, &some).await
        };
        let mut reads = std::pin::pin!(stream::iter(parts).map(read).buffered(AT_ONCE));
        let mut records = Vec::new();
        let mut bytes = known.bytes;
        while let Some(batch) = reads.try_next().await? {
            bytes += batch.get_array_memory_size();
            if bytes > self.bounds.bytes {
                let most = self.bounds.bytes >> 20;
                return Err(too_much(&format!("{most} MB of records")));
            }
            records.push(batch);
        }
        known.bytes = bytes;
        known.records.insert(keys, records.clone());
        Ok(records)
    }

    /// The records of the group as they are when this is first asked for; `None` where the store
    /// cannot list them.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn list(&self) -> Result<Option<Arc<dyn Records>>> {
        let Online { group, store } = &self.online;
        let list = || store.list(&group.puts);
        self.listed.get_or_try_init(list).await.cloned()
    }
}

fn too_much(what: &str) -> Error {
    Error::new(
        Kind::ResourceExhausted,
        format!("a statement looks up {what} with online(): ask in parts"),
    )
}

#[cfg(test)]
mod tests {
    use featureflight_online::group::WriteGroup;
    use featureflight_online::store::embedded::EmbeddedStore;

    use super::*;

    async fn look_up(bounds: Bounds, keys: &[&str], times: usize) -> Result<usize> {
        let directory = tempfile::tempdir().unwrap();
        let group = serde_json::json!({
            "FeatureGroupName": "g",
            "RecordIdentifierFeatureName": "id",
            "EventTimeFeatureName": "at",
            "FeatureDefinitions": [
                {"FeatureName": "id", "FeatureType": "String"},
                {"FeatureName": "at", "FeatureType": "String"},
            ],
        });
        let group = serde_json::from_value(group).unwrap();
        let online = Online {
            group: Arc::new(WriteGroup::new(Arc::new(group)).unwrap()),
            store: Arc::new(EmbeddedStore::open(directory.path()).unwrap()),
        };
        let found = Found {
            bounds,
            ..Found::new(online)
        };
        let mut batches = 0;
        for time in 0..times {
            // Others each time.
            let keys = keys.iter().map(|key| format!("{key} {time}"));
            batches += found.look_up(keys.collect()).await?.len();
        }
        Ok(batches)
    }

    #[tokio::test]
    async fn a_statement_looks_up_so_much_and_no_more() {
        let enough = Bounds {
            keys: 3,
            bytes: 1 << 20,
        };
        assert_eq!(look_up(enough, &["a", "b", "c", "b"], 2).await.unwrap(), 2);
        let error = look_up(enough, &["a", "b", "c", "d"], 1).await.unwrap_err();
        assert_eq!(error.kind, Kind::ResourceExhausted);
        assert!(
            error.message.contains("3 records at once, not 4"),
            "{error}"
        );

        // Enough for one batch, and not for two.
        let mut bytes = 0;
        while look_up(Bounds { keys: 3, bytes }, &["a"], 1).await.is_err() {
            bytes += 8;
        }
        assert!(bytes > 0);
        let error = look_up(Bounds { keys: 3, bytes }, &["a"], 2).await;
        assert_eq!(error.unwrap_err().kind, Kind::ResourceExhausted);
    }
}
