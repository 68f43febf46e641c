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
/// Bytes of the records one statement looks up, at most: it keeps them.
const MAX_BYTES: usize = 256 << 20;

/// Records that one read of the store asks for, and how many reads go on at a time.
const TOGETHER: usize = 1_000;
const AT_ONCE: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) online: Online,
    looked_up: Mutex<LookedUp>,
    listed: OnceCell<Option<Arc<dyn Records>>>,
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
        if keys.len() > MAX_KEYS {
            let asked = keys.len();
            return Err(too_much(&format!(
                "{MAX_KEYS} records at once, not {asked}"
            )));
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
            if bytes > MAX_BYTES {
                let most = MAX_BYTES >> 20;
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
