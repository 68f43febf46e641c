//! Lists the data files of a table: hour-prefix pruning from event-time bounds, and a cache of
//! listings with a short life.
//!
//! Data files are the non-empty objects whose name ends in `.parquet`, with no segment below the
//! table's prefix that begins with `_` or `.`.

mod cache;
mod folders;
mod settle;
#[cfg(test)]
pub(crate) mod tests;
mod walk;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::ObjectMeta;

use crate::error::Result;
use crate::instant::Instant;
use crate::table::FileSet;
use crate::unlanded::Unlanded;

use cache::Cache;

/// Inclusive bounds on event time; `None` is unbounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventRange {
    pub from: Option<Instant>,
    pub to: Option<Instant>,
}

impl EventRange {
    /// Every event time.
    pub const ALL: Self = Self {
        from: None,
        to: None,
    };

    /// The event times in both ranges; may be empty.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        let from = match (self.from, other.from) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let to = match (self.to, other.to) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self { from, to }
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self {
            from: self.from.zip(other.from).map(|(a, b)| a.min(b)),
            to: self.to.zip(other.to).map(|(a, b)| a.max(b)),
        }
    }

    /// Whether no event time can be in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!((self.from, self.to), (Some(from), Some(to)) if from > to)
    }

    #[must_use]
    pub fn contains(self, instant: Instant) -> bool {
        self.from.is_none_or(|from| from <= instant) && self.to.is_none_or(|to| instant <= to)
    }

    /// Whether every event time of `other` is in this range.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        other.is_empty()
            || (self
                .from
                .is_none_or(|from| other.from.is_some_and(|inner| from <= inner))
                && self
                    .to
                    .is_none_or(|to| other.to.is_some_and(|inner| inner <= to)))
    }
}

/// One data object, or the versions that are in none yet.
#[derive(Debug, Clone)]
pub struct DataFile {
    pub meta: ObjectMeta,
    /// Start of the hour folder the object lies in (UTC as written), if it lies in one.
    pub hour: Option<Instant>,
    /// Set where there is no object: what a reader finds instead.
    pub unlanded: Option<Arc<dyn Unlanded>>,
}

/// Two sequences of versions without a file are the same when they are one.
impl PartialEq for DataFile {
    fn eq(&self, other: &Self) -> bool {
        let unlanded = match (&self.unlanded, &other.unlanded) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        unlanded && self.meta == other.meta && self.hour == other.hour
    }
}

impl DataFile {
    /// All event times in it lie before this instant, which pruning by hour folders relies on too;
    /// `None` when its place says nothing.
    #[must_use]
    pub fn event_times_before(&self) -> Option<Instant> {
        self.hour.map(folders::held_before)
    }
}

/// The files of one table for one range of event time, sorted by object key.
#[derive(Debug, Clone, PartialEq)]
pub struct FileList {
    pub files: Vec<Arc<DataFile>>,
    /// When the listing began: everything that existed then is in it.
    pub listed_at: SystemTime,
    /// Data objects seen and, of those, left out by their hour folder. Objects below folders that
    /// were never opened were not seen and are in neither count.
    pub listed: usize,
    pub pruned: usize,
    /// Places of files that others in the list replaced of late: they are in none of its files, their
    /// versions are.
    pub replaced: Arc<HashSet<String>>,
}

impl FileList {
    /// This list without the files whose hour folder cannot hold event times in `range`. Writers
    /// may name folders by their own time zone, so an hour counts as a day wider on both sides.
    #[must_use]
    pub fn prune(&self, range: EventRange) -> Self {
        let files: Vec<_> = if range.is_empty() {
            Vec::new()
        } else {
            let keep =
                |file: &&Arc<DataFile>| file.hour.is_none_or(|hour| folders::may_hold(hour, range));
            self.files.iter().filter(keep).cloned().collect()
        };
        let pruned = self.pruned + self.files.len() - files.len();
        Self {
            files,
            listed_at: self.listed_at,
            listed: self.listed,
            pruned,
            replaced: Arc::clone(&self.replaced),
        }
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.meta.size).sum()
    }

    /// The files dealt into `parts` groups of about equal bytes, each in the list's order. Groups
    /// are never more than the files; at least one group is returned. The same list and count give
    /// the same groups.
    #[must_use]
    pub fn split(&self, parts: usize) -> Vec<Vec<Arc<DataFile>>> {
        let parts = parts.clamp(1, self.files.len().max(1));
        let mut by_size: Vec<usize> = (0..self.files.len()).collect();
        by_size.sort_by_key(|&at| (std::cmp::Reverse(self.files[at].meta.size), at));
        let mut loads: std::collections::BinaryHeap<_> = (0..parts)
            .map(|part| std::cmp::Reverse((0_u64, part)))
            .collect();
        let mut groups = vec![Vec::new(); parts];
        for at in by_size {
            if let Some(std::cmp::Reverse((load, part))) = loads.pop() {
                groups[part].push(at);
                // A file costs something even when it is tiny: opening it.
                let cost = self.files[at].meta.size.saturating_add(64 * 1024);
                loads.push(std::cmp::Reverse((load.saturating_add(cost), part)));
            }
        }
        groups
            .into_iter()
            .map(|mut group| {
                group.sort_unstable();
                group
                    .into_iter()
                    .map(|at| Arc::clone(&self.files[at]))
                    .collect()
            })
            .collect()
    }
}

/// Lists with a cache; cheap to share.
#[derive(Debug)]
pub struct Lister {
    pub ttl: Duration,
    cache: Arc<Cache>,
}

impl Lister {
    /// A TTL of zero turns the cache off.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            cache: Arc::default(),
        }
    }

    /// The data files that may hold event times in `range`, which only sets with hour folders are
    /// pruned by. A cached listing that began before `not_before` is not used; a cached listing of
    /// a wider range is. Callers that need the same listing at the same time share one. A prefix
    /// without objects is an empty list.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be listed whole; never a partial list.
    pub async fn list(
        &self,
        set: &FileSet,
        range: EventRange,
        not_before: Option<SystemTime>,
    ) -> Result<Arc<FileList>> {
        let range = if set.hourly { range } else { EventRange::ALL };
        if range.is_empty() {
            return Ok(Arc::new(FileList {
                files: Vec::new(),
                listed_at: SystemTime::now(),
                listed: 0,
                pruned: 0,
                replaced: Arc::default(),
            }));
        }
        // Whole days repeat from statement to statement where `now()` does not.
        let days = folders::whole_days(range);
        let list = if self.ttl.is_zero() {
            let listed_at = SystemTime::now();
            walk::list(set, days, listed_at)
                .await
                .map(|found| Arc::new(found.list))?
        } else {
            self.cache.get(set, days, not_before, self.ttl).await?
        };
        Ok(if range == EventRange::ALL {
            list
        } else {
            Arc::new(list.prune(range))
        })
    }

    /// Drops what is cached of `set`: a listed object turned out to be gone or replaced.
    pub fn forget(&self, set: &FileSet) {
        self.cache.forget(set);
    }
}
