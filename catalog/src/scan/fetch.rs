//! Reads byte ranges of one pinned object: never of a newer one under the same key.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::physical_plan::metrics::Count;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};

use crate::error::{Error, Kind, Result};
use crate::listing::{DataFile, Lister};
use crate::table::FileSet;

/// Ranges nearer than this are fetched as one: a request costs about as much as these bytes.
const COALESCE: u64 = 512 * 1024;

/// One data object as the listing saw it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    set: FileSet,
    file: Arc<DataFile>,
    /// Told when the object is not what was listed any more.
    lister: Option<Arc<Lister>>,
    /// Its URL, for messages.
    name: String,
    /// Bytes fetched so far.
    fetched: Count,
}

impl Object {
    pub(crate) fn new(
        set: &FileSet,
        file: &Arc<DataFile>,
        lister: Option<&Arc<Lister>>,
        fetched: Count,
    ) -> Self {
        Self {
            name: format!("{}/{}", bucket(&set.location.url), file.meta.location),
            set: set.clone(),
            file: Arc::clone(file),
            lister: lister.cloned(),
            fetched,
        }
    }

    /// What tells this object from every other, and from another version of it.
    pub(crate) fn identity(&self) -> Identity {
        let meta = &self.file.meta;
        Identity {
            bucket: bucket(&self.set.location.url).to_owned(),
            path: meta.location.to_string(),
            size: meta.size,
            version: (meta.e_tag.clone()).unwrap_or_else(|| meta.last_modified.to_rfc3339()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn size(&self) -> u64 {
        self.file.meta.size
    }

    /// `DataLoss` for what is wrong with this object.
    pub(crate) fn corrupt(&self, reason: impl std::fmt::Display) -> Error {
        Error::data_loss(format!("{} cannot be decoded: {reason}", self.name))
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

    async fn range(&self, range: Range<u64>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let length = range.end - range.start;
        let options = GetOptions {
            if_match: self.file.meta.e_tag.clone(),
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let result = self
            .set
            .location
            .store
            .get_opts(&self.file.meta.location, options)
            .await
            .map_err(|e| self.failed(e))?;
        self.check_unchanged(&result)?;
        let bytes = result.bytes().await.map_err(|e| self.failed(e))?;
        if bytes.len() as u64 != length {
            return Err(Error::unavailable(format!(
                "{} cannot be read: the store sent {} bytes instead of {length}; try again later",
                self.name,
                bytes.len()
            )));
        }
        self.fetched.add(bytes.len());
        Ok(bytes)
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
        if let Some(lister) = &self.lister {
            lister.forget(&self.set);
        }
        let name = &self.name;
        let message = format!("{name} {what} after the statement was pinned; run it again");
        Error::new(Kind::Aborted, message)
    }

    fn failed(&self, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => self.no_longer("was removed"),
            object_store::Error::Precondition { .. } => self.changed(),
            other => Error::unavailable(format!(
                "{} cannot be read: {}; try again later",
                self.name,
                describe(&other)
            ))
            .with_source(other),
        }
    }
}

/// An object as it was listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    bucket: String,
    path: String,
    size: u64,
    /// Its e-tag, or else when it was modified.
    version: String,
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
