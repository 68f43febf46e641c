//! Reads byte ranges of one pinned object: never of a newer one under the same key.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::physical_plan::metrics::Count;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use tokio::sync::Semaphore;

use crate::error::{Error, Kind, Result};
use crate::listing::{DataFile, Lister};
use crate::replaced;
use crate::table::FileSet;

/// Ranges nearer than this are fetched as one: a request costs about as much as these bytes.
const COALESCE: u64 = 512 * 1024;

/// What the objects of one run share.
#[derive(Debug)]
pub(crate) struct Origin {
    set: FileSet,
    bucket: Arc<str>,
    /// Told when an object is not what was listed any more.
    lister: Option<Arc<Lister>>,
    /// A permit for each request in flight, where they are bounded.
    requests: Option<Semaphore>,
}

impl Origin {
    /// `requests` bounds the requests in flight over all objects of this origin.
    pub(crate) fn new(
        set: &FileSet,
        lister: Option<&Arc<Lister>>,
        requests: Option<usize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            set: set.clone(),
            bucket: bucket(&set.location.url).into(),
            lister: lister.cloned(),
            requests: requests.map(|most| Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
        })
    }
}

/// One data object as the listing saw it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    origin: Arc<Origin>,
    file: Arc<DataFile>,
    /// Bytes fetched so far.
    fetched: Count,
}

impl Object {
    pub(crate) fn new(origin: &Arc<Origin>, file: &Arc<DataFile>, fetched: Count) -> Self {
        Self {
            origin: Arc::clone(origin),
            file: Arc::clone(file),
            fetched,
        }
    }

    /// What tells this object from every other, and from another version of it.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            bucket: Arc::clone(&self.origin.bucket),
            file: Arc::clone(&self.file),
        }
    }

    /// Its URL, for messages.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.origin.bucket, self.file.meta.location)
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.meta.size
    }

    /// `DataLoss` for what is wrong with this object.
    pub(crate) fn corrupt(&self, reason: impl std::fmt::Display) -> Error {
        Error::data_loss(format!("{} cannot be decoded: {reason}", self.name()))
    }

    /// The bytes of each range, in order.
    ///
    /// # Errors
    /// `Aborted` when the object is gone or was replaced, `Unavailable` when the store fails,
    /// `DataLoss` for a range beyond the object's end (the file itself named it).
    pub(crate) async fn ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(wrong) = ranges
            .iter()
            .find(|r| r.start > r.end || r.end > self.size())
        {
            return Err(self.corrupt(format!(
                "it refers to bytes {} to {} of its {}",
                wrong.start,
                wrong.end,
                self.size()
            )));
        }
        object_store::coalesce_ranges(ranges, |range| self.range(range), COALESCE).await
    }

    /// The bytes of a range within the object's size, with one request.
    pub(crate) async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let length = range.end - range.start;
        let options = GetOptions {
            if_match: self.file.meta.e_tag.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let _permit = match &self.origin.requests {
            Some(requests) => requests.acquire().await.ok(),
            None => None,
        };
        let result = self.get(options).await.map_err(|e| self.failed(e))?;
        self.check_unchanged(&result)?;
        let bytes = result.bytes().await.map_err(|e| self.failed(e))?;
        if bytes.len() as u64 != length {
            return Err(Error::unavailable(format!(
                "{} cannot be read: the store sent {} bytes instead of {length}; try again later",
                self.name(),
                bytes.len()
            )));
        }
        self.fetched.add(bytes.len());
        Ok(bytes)
    }

    /// Replaced files are elsewhere for a while, see [`replaced`](crate::replaced).
    async fn get(&self, options: GetOptions) -> object_store::Result<GetResult> {
        let location = &self.origin.set.location;
        let place = &self.file.meta.location;
        let aside = location.rewritten.then(|| replaced::aside(place)).flatten();
        let Some(aside) = aside else {
            return location.store.get_opts(place, options).await;
        };
        match location.store.get_opts(place, options.clone()).await {
            Err(object_store::Error::NotFound { .. }) => {
                location.store.get_opts(&aside, options).await
            }
            answer => answer,
        }
    }

    /// For stores that overlook `If-Match`, and listings without e-tags.
    fn check_unchanged(&self, result: &GetResult) -> Result<()> {
        let (pinned, now) = (&self.file.meta, &result.meta);
        if pinned.size == now.size && same_version(pinned, now) {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> Error {
        self.no_longer("changed")
    }

    /// Also drops the cached listing, so that running the statement again sees what is there now.
    fn no_longer(&self, what: &str) -> Error {
        if let Some(lister) = &self.origin.lister {
            lister.forget(&self.origin.set);
        }
        let name = self.name();
        let message = format!("{name} {what} after the statement was pinned; run it again");
        Error::new(Kind::Aborted, message)
    }

    fn failed(&self, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => self.no_longer("was removed"),
            object_store::Error::Precondition { .. } => self.changed(),
            other => Error::unavailable(format!(
                "{} cannot be read: {}; try again later",
                self.name(),
                describe(&other)
            ))
            .with_source(other),
        }
    }
}

/// An object as it was listed: its place, its size, and its e-tag or else when it was modified.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    bucket: Arc<str>,
    file: Arc<DataFile>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.file.meta, &other.file.meta);
        ours.location == theirs.location
            && ours.size == theirs.size
            && ours.e_tag == theirs.e_tag
            && (ours.e_tag.is_some() || ours.last_modified == theirs.last_modified)
            && self.bucket == other.bucket
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.file.meta.location.hash(state);
        self.file.meta.size.hash(state);
    }
}

fn same_version(pinned: &ObjectMeta, now: &ObjectMeta) -> bool {
    match (&pinned.e_tag, &now.e_tag) {
        (Some(pinned), Some(now)) => bare(pinned) == bare(now),
        // HTTP dates have whole seconds, listings milliseconds.
        _ => pinned.last_modified.timestamp() == now.last_modified.timestamp(),
    }
}

fn bare(e_tag: &str) -> &str {
    e_tag.trim_start_matches("W/").trim_matches('"')
}

/// `s3://bucket` of `s3://bucket/key`.
pub(crate) fn bucket(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..]
        .find('/')
        .map_or(url.len(), |at| after_scheme + at);
    &url[..end]
}

/// What a store's error means to a user, without its internals.
pub(crate) fn describe(error: &object_store::Error) -> String {
    match error {
        object_store::Error::NotFound { .. } => {
            return "there is no such bucket or object".to_owned();
        }
        object_store::Error::PermissionDenied { .. } => {
            return "the object store denies access".to_owned();
        }
        object_store::Error::Unauthenticated { .. } => {
            return "the object store refuses the credentials".to_owned();
        }
        _ => {}
    }
    if let Some(code) = s3_code(&error.to_string()) {
        return format!("the object store answers {code}");
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            return io.kind().to_string();
        }
        next = current.source();
    }
    "the object store does not answer as it should".to_owned()
}

/// The `Code` of an S3 error response somewhere in `text`: `NoSuchBucket`, `AccessDenied`.
fn s3_code(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plausible = !code.is_empty() && code.len() < 64;
    (plausible && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_errors_say_what_is_wrong_without_internals() {
        let generic = |text: &str| object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        };
        let s3 = generic("GET http://10.0.0.1/b: 404: <Error><Code>NoSuchBucket</Code><Message>x");
        assert_eq!(describe(&s3), "the object store answers NoSuchBucket");
        for other in [
            "http://10.0.0.1/b",
            "<Code></Code>",
            "<Code>a b</Code>",
            "<Code>x",
        ] {
            assert_eq!(
                describe(&generic(other)),
                "the object store does not answer as it should"
            );
        }
        let io = object_store::Error::Generic {
            store: "local",
            source: Box::new(std::io::Error::from(std::io::ErrorKind::PermissionDenied)),
        };
        assert_eq!(describe(&io), "permission denied");
    }

    #[test]
    fn buckets_of_urls() {
        for (url, expected) in [
            ("s3://bucket/a/b", "s3://bucket"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("bucket/a", "bucket"),
        ] {
            assert_eq!(bucket(url), expected);
        }
    }
}
