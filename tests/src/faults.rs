//! A warehouse whose storage fails on command, in the ways an object store does: objects that are
//! gone, replaced, cut short or never come, and a store that panics as an operator with a bug would.
//!
//! Everything else is the warehouse's own storage. It does not imitate S3's wire: what the client
//! of the store makes of that is tested against a server that speaks it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use featureflight_catalog::replaced::Replaced;
use featureflight_catalog::storage::{Location, Storage, WarehouseStorage};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// How often a stalled read looks whether it goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What happens to reads of data files; marks beside them are read as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// As if it had been removed.
    Gone,
    /// As if it had been written anew, for stores that look at `If-Match` and for those that do not.
    Replaced,
    ReplacedUnsaid,
    /// The body ends early without an error.
    Short,
    /// The body breaks off.
    Broken,
    /// Bytes of the object's end, where a file keeps its footer, are flipped.
    Damaged,
    /// Nothing comes for as long as this is the fault, but for so many reads as go well.
    Stalled,
    Panic,
}

/// The storage of a warehouse with a switch.
#[derive(Debug)]
pub struct FaultyStorage {
    inner: WarehouseStorage,
    /// The fault, and how many reads go well before.
    fault: Arc<Mutex<(Fault, usize)>>,
}

impl FaultyStorage {
    pub fn new(inner: WarehouseStorage) -> Self {
        Self {
            inner,
            fault: Arc::new(Mutex::new((Fault::None, 0))),
        }
    }

    /// From now on reads fail, after `good` that do not.
    pub fn fail(&self, fault: Fault, good: usize) {
        *self.fault.lock() = (fault, good);
    }
}

impl Storage for FaultyStorage {
    fn locate(&self, url: &str) -> featureflight_catalog::Result<Location> {
        let location = self.inner.locate(url)?;
        Ok(Location {
            store: Arc::new(FaultyStore {
                inner: location.store,
                fault: Arc::clone(&self.fault),
            }),
            ..location
        })
    }

    fn check(&self, locations: &[Location]) -> featureflight_catalog::Result<()> {
        self.inner.check(locations)
    }
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    fault: Arc<Mutex<(Fault, usize)>>,
}

impl FaultyStore {
    fn due(&self) -> Fault {
        let mut fault = self.fault.lock();
        if fault.1 > 0 {
            fault.1 -= 1;
            return Fault::None;
        }
        fault.0
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

fn generic(message: &str) -> Error {
    Error::Generic {
        store: "faulty",
        source: message.into(),
    }
}

/// `result` with its body changed.
async fn rewritten(
    result: GetResult,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> Result<GetResult> {
    let (meta, range, attributes) = (
        result.meta.clone(),
        result.range.clone(),
        result.attributes.clone(),
    );
    let body = change(result.bytes().await?.to_vec());
    Ok(GetResult {
        payload: GetResultPayload::Stream(futures::stream::iter([Ok(body.into())]).boxed()),
        meta,
        range,
        attributes,
    })
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.filename() == Some(Replaced::NAME) {
            return self.inner.get_opts(location, options).await;
        }
        match self.due() {
            Fault::None => self.inner.get_opts(location, options).await,
            Fault::Gone => Err(Error::NotFound {
                path: location.to_string(),
                source: "removed".into(),
            }),
            Fault::Replaced => Err(Error::Precondition {
                path: location.to_string(),
                source: "another e-tag".into(),
            }),
            Fault::ReplacedUnsaid => {
                let mut result = self.inner.get_opts(location, options).await?;
                result.meta.e_tag = Some("\"another\"".into());
                Ok(result)
            }
            Fault::Short => {
                let result = self.inner.get_opts(location, options).await?;
                rewritten(result, |mut body| {
                    body.truncate(body.len() / 2);
                    body
                })
                .await
            }
            Fault::Broken => {
                let mut result = self.inner.get_opts(location, options).await?;
                let broken = futures::stream::iter([Err(generic("connection reset"))]);
                result.payload = GetResultPayload::Stream(broken.boxed());
                Ok(result)
            }
            Fault::Damaged => {
                let result = self.inner.get_opts(location, options).await?;
                rewritten(result, |mut body| {
                    let end = body.len();
                    for byte in body.iter_mut().skip(end.saturating_sub(64)) {
                        *byte ^= 0x5a;
                    }
                    body
                })
                .await
            }
            Fault::Stalled => {
                while self.due() == Fault::Stalled {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                self.inner.get_opts(location, options).await
            }
            Fault::Panic => panic!("a bug in the store"),
        }
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<prost::bytes::Bytes>> {
        let mut parts = Vec::with_capacity(ranges.len());
        for range in ranges {
            let options = GetOptions::new().with_range(Some(range.clone()));
            parts.push(self.get_opts(location, options).await?.bytes().await?);
        }
        Ok(parts)
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
