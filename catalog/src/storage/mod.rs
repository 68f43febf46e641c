//! From an `s3://bucket/key` location to an object store and a path in it: a warehouse directory,
//! or S3 with credentials, region and endpoint from `aws-config`, one store per bucket.

mod aws;
mod warehouse;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::{Error, Result};

pub use aws::AwsStorage;
pub use warehouse::WarehouseStorage;

/// A place in an object store that files are listed under.
#[derive(Clone)]
pub struct Location {
    pub store: Arc<dyn ObjectStore>,
    /// Without a trailing slash; listing matches whole segments below it.
    pub prefix: Path,
    /// As the catalog spells it, for messages: `s3://bucket/prefix`.
    pub url: String,
    /// Whether a gateway may replace files here, see [`replaced`](crate::replaced).
    pub rewritten: bool,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Location").field(&self.url).finish()
    }
}

/// Resolves the locations a catalog names.
pub trait Storage: Send + Sync + fmt::Debug {
    /// # Errors
    /// `InvalidArgument` for anything but `s3://bucket[/key]` (`s3a` is read as `s3`), or a key
    /// with a `.` or `..` segment.
    fn locate(&self, url: &str) -> Result<Location>;

    /// Whether the locations of one catalog can be told apart here. Called with all of them
    /// before a snapshot is served.
    ///
    /// # Errors
    /// `FailedPrecondition` that names two locations which would read each other's files.
    fn check(&self, _locations: &[Location]) -> Result<()> {
        Ok(())
    }

    /// Deletes whatever lies under a location. Blocks the thread.
    ///
    /// # Errors
    /// `FailedPrecondition` where files are only read; `Unavailable` when some may be left.
    fn remove(&self, location: &Location) -> Result<()> {
        Err(Error::precondition(format!(
            "files of {} are only read here",
            location.url
        )))
    }
}

/// An S3 location in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Url {
    pub bucket: String,
    pub key: Path,
}

impl S3Url {
    /// Keys are taken as they are: a catalog does not percent-encode them.
    ///
    /// # Errors
    /// `InvalidArgument`, as [`Storage::locate`] says.
    pub fn parse(url: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid(format!("location '{url}' cannot be read: {why}"));
        let rest = ["s3://", "s3a://", "s3n://"]
            .iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| invalid("only s3:// locations are supported"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=255).contains(&bucket.len())
            || !bucket.chars().all(plain)
            || bucket.chars().all(|c| c == '.')
        {
            return Err(invalid("it does not name a bucket"));
        }
        let key = key.trim_end_matches('/');
        if key.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(invalid("'.' and '..' are not allowed in a key"));
        }
        if key.starts_with('/') {
            return Err(invalid("an empty segment is not allowed in a key"));
        }
        let key = Path::parse(key).map_err(|_| {
            invalid("empty segments and control characters are not allowed in a key")
        })?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key,
        })
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.key.as_ref().is_empty() {
            write!(f, "/{}", self.key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
