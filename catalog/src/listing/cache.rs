//! Listings kept for a short time, and listings under way that several callers wait for.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::error::Result;
use crate::table::FileSet;

use super::{EventRange, FileList, walk};

/// Files in all cached listings together; the least recently used listings go first.
const MAX_FILES: usize = 1_000_000;
/// An empty listing takes room too.
const MAX_LISTINGS: usize = 4_096;

type Flight = Shared<BoxFuture<'static, Result<Arc<FileList>>>>;
type WeakFlight = WeakShared<BoxFuture<'static, Result<Arc<FileList>>>>;

/// The table a listing is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Table {
    url: String,
    hourly: bool,
}

enum State {
    /// Lives as long as somebody waits for it.
    Flight(WeakFlight),
    Done(Arc<FileList>),
}

struct Entry {
    id: u64,
    range: EventRange,
    began: Monotonic,
    listed_at: SystemTime,
    used: u64,
    state: State,
}

#[derive(Default)]
struct Entries {
    tables: HashMap<Table, Vec<Entry>>,
    /// Counts uses, and numbers entries.
    clock: u64,
}

#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<Entries>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("tables", &self.entries.lock().tables.len())
            .finish()
    }
}

impl Cache {
    pub(super) async fn get(
        self: &Arc<Self>,
        set: &FileSet,
        range: EventRange,
        not_before: Option<SystemTime>,
        ttl: Duration,
    ) -> Result<Arc<FileList>> {
        let table = Table {
            url: set.location.url.clone(),
            hourly: set.hourly,
        };
        let flight = {
            let mut entries = self.entries.lock();
            match entries.find(&table, range, not_before, ttl) {
                Some(Usable::Done(list)) => return Ok(list),
                Some(Usable::Flight(flight)) => flight,
                None => self.start(&mut entries, table, set, range, ttl),
            }
        };
        flight.await
    }

    /// Begins a listing that ends up in the cache.
    fn start(
        self: &Arc<Self>,
        entries: &mut Entries,
        table: Table,
        set: &FileSet,
        range: EventRange,
        ttl: Duration,
    ) -> Flight {
        entries.expire(ttl);
        entries.clock += 1;
        let id = entries.clock;
        let listed_at = SystemTime::now();
        let began = Monotonic::now();
        let (cache, set, key) = (Arc::clone(self), set.clone(), table.clone());
        let flight = async move {
            let found = walk::list(&set, range, listed_at).await;
            cache.entries.lock().finish(&key, id, found)
        }
        .boxed()
        .shared();
        if let Some(weak) = flight.downgrade() {
            let state = State::Flight(weak);
            let entry = Entry {
                id,
                range,
                began,
                listed_at,
                used: id,
                state,
            };
            entries.tables.entry(table).or_default().push(entry);
        }
        flight
    }

    pub(super) fn forget(&self, set: &FileSet) {
        let table = Table {
            url: set.location.url.clone(),
            hourly: set.hourly,
        };
        self.entries.lock().tables.remove(&table);
    }
}

enum Usable {
    Done(Arc<FileList>),
    Flight(Flight),
}

impl Entries {
    fn find(
        &mut self,
        table: &Table,
        range: EventRange,
        not_before: Option<SystemTime>,
        ttl: Duration,
    ) -> Option<Usable> {
        self.clock += 1;
        let now = SystemTime::now();
        // The newest first, so that what one statement saw the next one sees.
        for entry in self.tables.get_mut(table)?.iter_mut().rev() {
            // A listing from the future is one from before the clock was set back.
            let current = entry.began.elapsed() < ttl
                && not_before
                    .is_none_or(|bound| bound <= entry.listed_at && entry.listed_at <= now);
            if !current || !entry.range.covers(range) {
                continue;
            }
            let usable = match &entry.state {
                State::Done(list) => Some(Usable::Done(Arc::clone(list))),
                State::Flight(flight) => flight.upgrade().map(Usable::Flight),
            };
            if usable.is_some() {
                entry.used = self.clock;
                return usable;
            }
        }
        None
    }

    /// Records how listing `id` ended, unless it was forgotten meanwhile.
    fn finish(
        &mut self,
        table: &Table,
        id: u64,
        found: Result<walk::Found>,
    ) -> Result<Arc<FileList>> {
        let found = found.map(|found| (Arc::new(found.list), found.range));
        if let Some(entries) = self.tables.get_mut(table) {
            match &found {
                Ok((list, range)) => {
                    if let Some(entry) = entries.iter_mut().find(|entry| entry.id == id) {
                        entry.state = State::Done(Arc::clone(list));
                        entry.range = *range;
                        // Older listings of no wider a range are of no more use.
                        entries.retain(|other| other.id >= id || !range.covers(other.range));
                    }
                }
                Err(_) => entries.retain(|entry| entry.id != id),
            }
        }
        self.shrink();
        found.map(|(list, _)| list)
    }

    fn expire(&mut self, ttl: Duration) {
        for entries in self.tables.values_mut() {
            entries.retain(|entry| {
                entry.began.elapsed() < ttl
                    && match &entry.state {
                        State::Done(_) => true,
                        State::Flight(flight) => flight.upgrade().is_some(),
                    }
            });
        }
        self.tables.retain(|_, entries| !entries.is_empty());
    }

    /// Drops the least recently used listings until the rest fit. The newest always stays.
    fn shrink(&mut self) {
        let mut listings: Vec<(u64, u64, usize)> = self
            .tables
            .values()
            .flatten()
            .filter_map(|entry| match &entry.state {
                State::Done(list) => Some((entry.used, entry.id, list.files.len())),
                State::Flight(_) => None,
            })
            .collect();
        let mut files: usize = listings.iter().map(|(.., files)| files).sum();
        if files <= MAX_FILES && listings.len() <= MAX_LISTINGS {
            return;
        }
        listings.sort_unstable_by(|a, b| b.cmp(a));
        while listings.len() > 1 && (files > MAX_FILES || listings.len() > MAX_LISTINGS) {
            let Some((_, id, size)) = listings.pop() else {
                break;
            };
            files -= size;
            for entries in self.tables.values_mut() {
                entries.retain(|entry| entry.id != id);
            }
        }
        self.tables.retain(|_, entries| !entries.is_empty());
    }
}
