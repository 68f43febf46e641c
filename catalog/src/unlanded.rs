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

use crate::error::Result;
use crate::instant::Instant;
use crate::listing::{DataFile, FileList};
use crate::scan::prune::Prune;
use crate::scan::versions::{Columns, VersionBatch};
use crate::table::{FeatureTable, FileSet};

/// The last segment of the place they are said to have.
const PLACE: &str = "unlanded";

/// Where versions wait.
#[async_trait]
pub trait Fresh: Send + Sync + fmt::Debug {
    /// What waits of `group` at this moment. With `cut`, everything that was accepted up to then
    /// waits or has landed when this returns, and nothing more will be accepted before it.
    ///
    /// # Errors
    /// `Unavailable` when that cannot be said.
    async fn waiting(&self, group: &str, cut: Option<Instant>) -> Result<Waiting>;
}

/// What waits of one group.
#[derive(Debug, Default)]
pub struct Waiting {
    /// A list of files that began before this may miss versions that wait no more.
    pub landed_at: Option<SystemTime>,
    /// `None` when nothing waits.
    pub versions: Option<Arc<dyn Candidates>>,
}

/// Versions that waited before the files were listed.
pub trait Candidates: Send + Sync + fmt::Debug {
    /// Those that are in none of these files; `None` when all are.
    fn missing_from(&self, files: &FileList) -> Option<Arc<dyn Unlanded>>;
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
    #[must_use]
    pub fn beside(&self, list: Arc<FileList>, set: &FileSet) -> Arc<FileList> {
        let missing = self.versions.as_ref();
        let Some(unlanded) = missing.and_then(|versions| versions.missing_from(&list)) else {
            return list;
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
        Arc::new(list)
    }
}
