//! The offline files of a warehouse this server owns, and how some of them give way to another:
//! whatever happens on the way, a list has the old files or the new one.
//!
//! 1. The new file is whole and on disk in a folder that no reader looks into.
//! 2. The [mark](Replaced) says what is to be replaced. From here on lists wait.
//! 3. The new file gets its name; then the old ones lose theirs: they are kept under others for
//!    statements that have them in their lists, or removed.
//! 4. The mark says that it is done. Lists go on.
//!
//! After a crash it is carried through if the new file has its name, and else it has not happened.
//! Two that want the same file cannot both have it: the second finds it changed, and gives up.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use featureflight_catalog::listing::DataFile;
use featureflight_catalog::replaced::{Replaced, Replacement, set_aside};
use featureflight_catalog::snapshot::{CatalogSnapshot, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant, Result};
use parking_lot::Mutex;

use super::file::{Unfinished, failed, remove_unfinished};
use crate::disk;
use crate::outbox::Outbox;

/// The steps of a replacement at which a [`Probe`](crate::outbox::Probe) is called.
pub const REPLACE_STEPS: [&str; 6] = [
    "replace.half",
    "replace.unnamed",
    "replace.noted",
    "replace.named",
    "replace.moving",
    "replace.moved",
];

/// And that of removing what was kept.
pub const EXPIRE_STEP: &str = "replace.expired";

/// The names of replaced files are known for so long at least: a statement that took down what
/// waited before a row got into one of them must be told where the row is now.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// How files are rewritten.
#[derive(Debug, Clone)]
pub struct RewriteOptions {
    /// Replaced files are kept for so long, for statements that are to read them.
    pub grace: Duration,
    /// The size of files that small ones are joined to.
    pub target_bytes: u64,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(2 * 60 * 60),
            target_bytes: 128 << 20,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct OwnedFiles {
    /// The folder that stands for every bucket.
    pub root: PathBuf,
    pub options: RewriteOptions,
    prefixes: Mutex<HashMap<PathBuf, Arc<Prefix>>>,
    optimizing: Mutex<HashSet<String>>,
}

/// What is known of the mark of a group's files.
#[derive(Debug, Default)]
struct Prefix {
    /// One replacement at a time.
    marking: Mutex<()>,
    /// When there is something to do to what was replaced.
    due: Mutex<Option<Instant>>,
}

/// Files of one group in one folder that are to give way.
#[derive(Debug)]
pub(super) struct Old<'a> {
    pub(super) files: &'a [Arc<DataFile>],
    /// Whether statements may go on to read them.
    pub(super) keep: bool,
}

/// The file that takes their place.
#[derive(Debug)]
pub(super) struct New {
    pub(super) name: String,
    pub(super) file: Unfinished,
}

impl OwnedFiles {
    pub fn new(root: PathBuf, options: RewriteOptions) -> Self {
        Self {
            root,
            options,
            prefixes: Mutex::default(),
            optimizing: Mutex::default(),
        }
    }

    /// The folder of a group's files.
    pub(super) fn folder(&self, table: &FeatureTable) -> PathBuf {
        self.root.join(table.files.location.prefix.as_ref())
    }

    /// Where a file of the list is.
    pub(super) fn place(&self, file: &DataFile) -> PathBuf {
        self.root.join(file.meta.location.as_ref())
    }

    /// The right to optimize a group, which one has at a time.
    pub(super) fn claim<'a>(&'a self, group: &'a str) -> Option<Claim<'a>> {
        let is_first = self.optimizing.lock().insert(group.to_owned());
        is_first.then_some(Claim(self, group))
    }

    fn prefix(&self, folder: &Path) -> Arc<Prefix> {
        let mut prefixes = self.prefixes.lock();
        Arc::clone(prefixes.entry(folder.to_owned()).or_default())
    }

    /// Replaces `old` by `new`, or by nothing. False when one of them is not any more what it was
    /// listed as; nothing has happened then. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails: it is carried through later, or has not happened.
    pub(super) fn replace(
        &self,
        outbox: &Outbox,
        table: &FeatureTable,
        old: &Old<'_>,
        new: Option<New>,
    ) -> Result<bool> {
        let folder = self.folder(table);
        let prefix = self.prefix(&folder);
        let _one = prefix.marking.lock();
        let mut mark = read(&folder)?;
        self.carry_through(outbox, &folder, &mut mark)?;
        let first = old.files.first();
        let below = first.and_then(|file| folder_below(table, file));
        let below = below.ok_or_else(|| Error::internal("a file of another group"))?;
        let hour = folder.join(&below);
        let names = old
            .files
            .iter()
            .filter_map(|file| file.meta.location.filename());
        let names: Vec<String> = names.map(str::to_owned).collect();
        let known = names.iter().zip(old.files);
        if names.len() != old.files.len()
            || known
                .into_iter()
                .any(|(name, file)| !is_as_listed(&hour.join(name), file))
            || new
                .as_ref()
                .is_some_and(|new| hour.join(&new.name).exists())
        {
            return Ok(false);
        }
        mark.under_way = Some(Replacement {
            folder: below,
            file: new.as_ref().map(|new| new.name.clone()),
            files: names,
            at: Instant::now().micros,
            kept: old.keep,
        });
        // From here on it may have to be carried through.
        *prefix.due.lock() = Some(Instant::MIN);
        write(&folder, &mark)?;
        outbox.step("replace.noted");
        if let Some(new) = new {
            let named = fs::rename(&new.file.0, hour.join(&new.name));
            let named = named.and_then(|()| disk::sync_folder(&hour));
            if let Err(error) = named {
                tracing::warn!(%error, "a rewritten file did not get its name");
            }
            outbox.step("replace.named");
        }
        let happened = self.carry_through(outbox, &folder, &mut mark)?;
        *prefix.due.lock() = self.next_due(&mark);
        Ok(happened)
    }

    /// Ends what the mark says is under way: false when it has not happened. True also when nothing
    /// was.
    fn carry_through(&self, outbox: &Outbox, folder: &Path, mark: &mut Replaced) -> Result<bool> {
        let Some(one) = mark.under_way.clone() else {
            return Ok(true);
        };
        let hour = folder.join(&one.folder);
        if let Some(name) = &one.file {
            let place = hour.join(name);
            let is_there = place.try_exists().map_err(|error| failed(&place, &error))?;
            if !is_there {
                mark.under_way = None;
                write(folder, mark)?;
                return Ok(false);
            }
        }
        // The new name is on disk before the old ones go.
        disk::sync_folder(&hour).map_err(|error| failed(&hour, &error))?;
        for name in &one.files {
            let place = hour.join(name);
            let gone = if one.kept {
                fs::rename(&place, hour.join(set_aside(name)))
            } else {
                fs::remove_file(&place)
            };
            disk::unless_absent(gone).map_err(|error| failed(&place, &error))?;
            outbox.step("replace.moving");
        }
        disk::sync_folder(&hour).map_err(|error| failed(&hour, &error))?;
        outbox.step("replace.moved");
        mark.under_way = None;
        mark.count += 1;
        mark.recent.push(one);
        write(folder, mark)?;
        Ok(true)
    }

    /// Takes up what processes before this one left. Blocks the thread.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails, `DataLoss` for a mark that is none.
    pub(super) fn recover(&self, outbox: &Outbox, catalog: &CatalogSnapshot) -> Result<()> {
        for entry in catalog.groups.values() {
            let Serving::Served(table) = &entry.serving else {
                continue;
            };
            let folder = self.folder(table);
            remove_unfinished(&folder)?;
            let mut mark = read(&folder)?;
            self.carry_through(outbox, &folder, &mut mark)?;
            *self.prefix(&folder).due.lock() = self.next_due(&mark);
        }
        Ok(())
    }

    /// Whether there is something for [`Self::tend`] to do.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        let prefixes = self.prefixes.lock();
        let mut due = prefixes.values().filter_map(|prefix| *prefix.due.lock());
        due.any(|due| due <= now)
    }

    /// Removes replaced files whose time is over, and ends what a failing disk kept from its end.
    /// Blocks the thread.
    ///
    /// # Errors
    /// As [`Self::recover`].
    pub(super) fn tend(&self, outbox: &Outbox) -> Result<()> {
        let now = Instant::now();
        let due: Vec<PathBuf> = {
            let prefixes = self.prefixes.lock();
            let due = prefixes.iter().filter(|(_, prefix)| {
                let due = *prefix.due.lock();
                due.is_some_and(|due| due <= now)
            });
            due.map(|(folder, _)| folder.clone()).collect()
        };
        for folder in due {
            self.expire(outbox, &folder, now)?;
        }
        Ok(())
    }

    /// Removes every file of `table` that was replaced and is kept. Blocks the thread.
    ///
    /// # Errors
    /// As [`Self::recover`].
    pub(super) fn remove_kept(&self, outbox: &Outbox, table: &FeatureTable) -> Result<()> {
        self.expire(outbox, &self.folder(table), Instant::MAX)
    }

    /// As if it were `now`; names are remembered by the clock.
    fn expire(&self, outbox: &Outbox, folder: &Path, now: Instant) -> Result<()> {
        let prefix = self.prefix(folder);
        let _one = prefix.marking.lock();
        let mut mark = read(folder)?;
        self.carry_through(outbox, folder, &mut mark)?;
        let before = mark.clone();
        for one in mark.recent.iter_mut().filter(|one| one.kept) {
            if later(one.at, self.options.grace) > now {
                continue;
            }
            let hour = folder.join(&one.folder);
            for name in &one.files {
                let place = hour.join(set_aside(name));
                let gone = disk::unless_absent(fs::remove_file(&place));
                gone.map_err(|error| failed(&place, &error))?;
            }
            disk::unless_absent(disk::sync_folder(&hour)).map_err(|error| failed(&hour, &error))?;
            one.kept = false;
        }
        let clock = Instant::now();
        let is_known = |one: &Replacement| one.kept || later(one.at, REMEMBERED) > clock;
        let forgotten = mark.recent.iter().take_while(|one| !is_known(one)).count();
        mark.recent.drain(..forgotten);
        outbox.step(EXPIRE_STEP);
        if mark != before {
            write(folder, &mark)?;
        }
        *prefix.due.lock() = self.next_due(&mark);
        Ok(())
    }

    fn next_due(&self, mark: &Replaced) -> Option<Instant> {
        if mark.under_way.is_some() {
            return Some(Instant::MIN);
        }
        let due = mark.recent.iter().map(|one| {
            if one.kept {
                later(one.at, self.options.grace)
            } else {
                later(one.at, REMEMBERED)
            }
        });
        due.min()
    }
}

/// See [`OwnedFiles::claim`].
#[derive(Debug)]
pub(super) struct Claim<'a>(&'a OwnedFiles, &'a str);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.optimizing.lock().remove(self.1);
    }
}

/// The folder of a file, below the prefix of its group.
pub(super) fn folder_below(table: &FeatureTable, file: &DataFile) -> Option<String> {
    let below = file
        .meta
        .location
        .prefix_match(&table.files.location.prefix)?;
    let mut parts: Vec<_> = below.map(|part| part.as_ref().to_owned()).collect();
    parts.pop()?;
    Some(parts.join("/"))
}

fn later(at: i64, by: Duration) -> Instant {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    Instant::from_micros(at.saturating_add(by))
}

/// Names are never used twice, but somebody else may have been here.
fn is_as_listed(path: &Path, file: &DataFile) -> bool {
    let Ok(found) = fs::metadata(path) else {
        return false;
    };
    let modified = found.modified().ok().map(DateTime::<Utc>::from);
    found.len() == file.meta.size && modified == Some(file.meta.last_modified)
}

fn read(folder: &Path) -> Result<Replaced> {
    let place = folder.join(Replaced::NAME);
    match fs::read(&place) {
        Ok(json) => Replaced::from_json(&json, &place.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Replaced::default()),
        Err(error) => {
            let place = place.display();
            Err(Error::unavailable(format!(
                "'{place}' cannot be read: {error}"
            )))
        }
    }
}

fn write(folder: &Path, mark: &Replaced) -> Result<()> {
    let json = serde_json::to_vec(mark)
        .map_err(|error| Error::internal("a mark has no JSON").with_source(error))?;
    let put = disk::put(folder, Replaced::NAME, &json);
    put.map_err(|error| failed(&folder.join(Replaced::NAME), &error))
}
