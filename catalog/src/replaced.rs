//! Files that a gateway replaced by others: by one with the same versions in the same order, or by
//! what is left of one without the versions of a record.
//!
//! ```text
//! PREFIX/_replaced.json                 what was replaced, and what is being replaced right now
//! PREFIX/year=.../.NAME.parquet.replaced   a replaced file, kept for statements whose list has it
//! ```
//!
//! Several files cannot be renamed at once. So the mark tells of a replacement before its first
//! step and again behind its last, and whoever lists files reads it before and after: what was
//! replaced in between is put right in the list, and what is half replaced is waited for. Raw
//! readers of the folder see the new file, for a moment beside some of the old ones.

use object_store::path::Path;
use object_store::{GetOptions, ObjectStore};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::storage::Location;

/// The mark of the files below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// How many replacements there were.
    pub count: u64,
    /// The last of them, in their order.
    pub recent: Vec<Replacement>,
    /// The next one, while its files are in neither state.
    pub under_way: Option<Replacement>,
}

/// Files of one folder that gave way to one file, or to none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Below the prefix, without slashes at its ends.
    pub folder: String,
    /// The new file's name.
    pub file: Option<String>,
    /// The names of the files it replaces.
    pub files: Vec<String>,
    /// When, in microseconds since the epoch.
    pub at: i64,
    /// Whether the old files are still there, [set aside](set_aside).
    pub kept: bool,
}

impl Replaced {
    /// The name of a mark, below the prefix.
    pub const NAME: &str = "_replaced.json";

    /// As it is written.
    ///
    /// # Errors
    /// `DataLoss` for anything else.
    pub fn from_json(json: &[u8], place: &dyn std::fmt::Display) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| {
            Error::data_loss(format!("'{place}' does not say what was replaced: {error}"))
                .with_source(error)
        })
    }

    /// The mark of a location, which is empty where nothing was ever replaced.
    ///
    /// # Errors
    /// `Unavailable` when the store fails, `DataLoss` for a mark that is none.
    pub(crate) async fn read(location: &Location) -> Result<Self> {
        let place = location.prefix.clone().join(Self::NAME);
        let failed = |error: object_store::Error| {
            let why = crate::scan::fetch::describe(&error);
            let url = &location.url;
            Error::unavailable(format!(
                "what was replaced under {url} cannot be read: {why}; try again later"
            ))
            .with_source(error)
        };
        let found = location.store.get_opts(&place, GetOptions::default()).await;
        let json = match found {
            Ok(found) => found.bytes().await.map_err(failed)?,
            Err(object_store::Error::NotFound { .. }) => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        Self::from_json(&json, &place)
    }

    /// Those that came behind the first `count`, in their order; `None` when they are too many to
    /// be remembered.
    pub fn since(&self, count: u64) -> Option<&[Replacement]> {
        let new = usize::try_from(self.count.checked_sub(count)?).ok()?;
        let known = self.recent.len().checked_sub(new)?;
        self.recent.get(known..)
    }
}

impl Replacement {
    /// The place of a file of that name.
    pub fn place(&self, prefix: &Path, name: &str) -> Path {
        let folders = self.folder.split('/').filter(|part| !part.is_empty());
        folders.chain([name]).fold(prefix.clone(), Path::join)
    }
}

/// The name of a replaced file while it is kept, in the same folder.
pub fn set_aside(name: &str) -> String {
    format!(".{name}.replaced")
}

/// Where the replaced file of this place is while it is kept.
pub(crate) fn aside(location: &Path) -> Option<Path> {
    let name = location.filename()?;
    let text = location.as_ref();
    let folder = &text[..text.len() - name.len()];
    Path::parse(format!("{folder}{}", set_aside(name))).ok()
}
