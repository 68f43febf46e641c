//! Versions that were accepted and are in no file of the offline store yet. A statement reads them
//! beside the files it lists, each version once, whichever of the two it is in.
//!
//! What makes it once: the versions that wait are taken down *before* the files are listed, each
//! names its file before that file is there, and a list that may miss the file of a version that
//! waits no more is not used.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::ObjectMeta;
use tokio::sync::OwnedRwLockReadGuard;

use crate::error::Result;
use crate::instant::Instant;
use crate::listing::{DataFile, FileList};
use crate::scan::prune::Prune;
use crate::scan::versions::{Columns, VersionBatch};
use crate::table::{FeatureTable, FileSet};

/// The last segment of the place they are said to have.
const PLACE: &str = "unlanded";

/// The write time of a version that is accepted and that somebody else will write: later than every
/// cut, and shown as null.
pub const PENDING: Instant = Instant {
    micros: i64::MAX,
    nanos: 999,
};

/// Where versions wait.
#[async_trait]
pub trait Fresh: Send + Sync + fmt::Debug {
    /// What waits of `group` at this moment. With `cut`, everything that was accepted up to then
    /// waits or has landed when this returns, and nothing more will be accepted before it.
    ///
    /// # Errors
    /// `Unavailable` when that cannot be said.
    async fn waiting(&self, group: &str, cut: Option<Instant>) -> Result<Waiting>;

    /// Asked after files were listed for a statement that began at `started`.
    ///
    /// # Errors
    /// `NotFound` when their group was dropped since, so that some of them may have been missing.
    fn still_there(&self, set: &FileSet, started: Instant) -> Result<()>;
}

/// What waits of one group.
#[derive(Debug, Default)]
pub struct Waiting {
    /// A list of files that began before this may miss versions that wait no more.
    pub landed_at: Option<SystemTime>,
    /// `None` when nothing waits.
    pub versions: Option<Arc<dyn Candidates>>,
    /// Kept until the files are listed: no version is taken away for good meanwhile.
    pub turn: Option<OwnedRwLockReadGuard<()>>,
}

/// Versions that waited before the files were listed.
#[async_trait]
pub trait Candidates: Send + Sync + fmt::Debug {
    /// Those that are in none of these files; `None` when all are.
    ///
    /// # Errors
    /// Those of reading a file, where it has to be read to tell.
    async fn missing_from(&self, files: &FileList) -> Result<Option<Arc<dyn Unlanded>>>;
}

/// A fixed sequence of versions.
pub trait Unlanded: Send + Sync + fmt::Debug {
    /// How many batches there are.
    fn batches(&self) -> usize;

    /// Rows of a batch: 1 to 8,192.
    fn rows(&self, batch: usize) -> usize;

    /// False when every version of a batch lacks something that `prune` asks for.
    fn may_pass(&self, batch: usize, prune: &Prune) -> bool;

    /// Bytes of all of it, about.
    fn bytes(&self) -> u64;

    /// The columns of a batch, [`VersionBatch::first_row`] left at 0. Blocks the thread.
    ///
    /// # Errors
    /// `DataLoss` when it cannot be read any more as it was accepted.
    fn read(&self, batch: usize, table: &FeatureTable, columns: &Columns) -> Result<VersionBatch>;
}

impl Waiting {
    /// `list` and, behind its files, the versions that are in none of them.
    ///
    /// # Errors
    /// Those of [`Candidates::missing_from`].
    pub async fn beside(&self, list: Arc<FileList>, set: &FileSet) -> Result<Arc<FileList>> {
        let Some(versions) = &self.versions else {
            return Ok(list);
        };
        let Some(unlanded) = versions.missing_from(&list).await? else {
            return Ok(list);
        };
        let mut list = Arc::unwrap_or_clone(list);
        list.files.push(Arc::new(DataFile {
            meta: ObjectMeta {
                location: set.location.prefix.clone().join(PLACE),
                last_modified: chrono::DateTime::from(list.listed_at),
                size: unlanded.bytes(),
                e_tag: None,
                version: None,
            },
            hour: None,
            unlanded: Some(unlanded),
        }));
        Ok(Arc::new(list))
    }
}
