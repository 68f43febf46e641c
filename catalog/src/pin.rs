//! What one statement reads, fixed when it is executed: the listings behind its tables.
//!
//! The first look at a table's files lists them; every later look, also of a second run from the
//! same ticket, gets the same list.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::{Error, Kind, Result};
use crate::instant::Instant;
use crate::listing::{EventRange, FileList, Lister};
use crate::table::FileSet;
use crate::unlanded::{Fresh, Waiting};

/// The pinned listings of one statement.
#[derive(Debug)]
pub struct Pin {
    pub lister: Arc<Lister>,
    /// When the statement began.
    pub started: Instant,
    state: Mutex<State>,
    fresh: Option<Arc<dyn Fresh>>,
    only_files: bool,
}

#[derive(Debug, Default)]
struct State {
    frozen: bool,
    /// By location and whether its folders are hours.
    sets: HashMap<(String, bool), Vec<Pinned>>,
}

#[derive(Debug)]
struct Pinned {
    range: EventRange,
    not_before: Option<Instant>,
    list: Arc<OnceCell<Arc<FileList>>>,
}

impl Pin {
    pub fn new(lister: Arc<Lister>, started: Instant) -> Self {
        Self {
            lister,
            started,
            state: Mutex::default(),
            fresh: None,
            only_files: false,
        }
    }

    /// Reads what waits in `fresh` beside the files, or only the files, but all that came from it.
    #[must_use]
    pub fn reading(mut self, fresh: Arc<dyn Fresh>, only_files: bool) -> Self {
        self.fresh = Some(fresh);
        self.only_files = only_files;
        self
    }

    /// The pinned files of `set` for `range`. `system_time` is the cut of the relation, if any: a
    /// listing older than it (or than the statement, for a cut in its future) would miss files.
    /// Accepted versions that are in none of the files stand behind them.
    /// Without a cut a listing from the lister's cache will do.
    ///
    /// # Errors
    /// Those of [`Lister::list`]; `Aborted` after [`Pin::freeze`] for a listing that was not taken.
    pub async fn files(
        &self,
        set: &FileSet,
        range: EventRange,
        system_time: Option<Instant>,
    ) -> Result<Arc<FileList>> {
        let range = if set.hourly { range } else { EventRange::ALL };
        let not_before = system_time.map(|cut| cut.min(self.started));
        let cell = self.cell(set, range, not_before)?;
        let list = cell
            .get_or_try_init(|| async {
                // First what waits, then the files: see `unlanded`.
                let waiting = self.waiting(set, not_before).await?;
                let not_before = not_before.and_then(Instant::to_system_time);
                let not_before = not_before.max(waiting.landed_at);
                let list = self.lister.list(set, range, not_before).await?;
                let list = waiting.beside(list, set).await?;
                if let Some(fresh) = &self.fresh {
                    fresh.still_there(set, self.started)?;
                }
                Ok::<_, Error>(list)
            })
            .await?;
        Ok(Arc::clone(list))
    }

    async fn waiting(&self, set: &FileSet, cut: Option<Instant>) -> Result<Waiting> {
        match (&self.fresh, &set.group) {
            (Some(fresh), Some(group)) => {
                let waiting = fresh.waiting(group, cut).await?;
                Ok(Waiting {
                    versions: waiting.versions.filter(|_| !self.only_files),
                    ..waiting
                })
            }
            _ => Ok(Waiting::default()),
        }
    }

    /// Where the listing of this look is or will be remembered.
    fn cell(
        &self,
        set: &FileSet,
        range: EventRange,
        not_before: Option<Instant>,
    ) -> Result<Arc<OnceCell<Arc<FileList>>>> {
        let mut state = self.state.lock();
        let frozen = state.frozen;
        let key = (set.location.url.clone(), set.hourly);
        let pinned = state.sets.entry(key).or_default();
        let same = |one: &&Pinned| one.range == range && one.not_before == not_before;
        if let Some(known) = pinned.iter().find(same)
            && (!frozen || known.list.initialized())
        {
            return Ok(Arc::clone(&known.list));
        }
        // Another look of this statement may have listed enough: then both see the same files.
        let wide = pinned.iter().find_map(|one| {
            let list = one.list.get()?;
            let fresh = not_before.is_none_or(|bound| {
                // What waited when it was listed was not asked for up to a cut.
                let listed = self.fresh.is_none() && Instant::from(list.listed_at) >= bound;
                one.not_before >= Some(bound) || listed
            });
            (one.range.covers(range) && fresh).then_some((one.range, list))
        });
        let list = match wide {
            Some((covering, list)) if covering == range => {
                Arc::new(OnceCell::new_with(Some(Arc::clone(list))))
            }
            Some((_, list)) => Arc::new(OnceCell::new_with(Some(Arc::new(list.prune(range))))),
            None if frozen => {
                return Err(Error::new(
                    Kind::Aborted,
                    format!(
                        "the files of {} were not pinned when the statement was executed; run it again",
                        set.location.url
                    ),
                ));
            }
            None => Arc::default(),
        };
        pinned.push(Pinned {
            range,
            not_before,
            list: Arc::clone(&list),
        });
        Ok(list)
    }

    /// No listing may be taken from now on.
    pub fn freeze(&self) {
        self.state.lock().frozen = true;
    }

    /// Whether every listing so far was taken for a relation cut at `limit` or before in system
    /// time, so that no file written after `limit` can matter to any of them.
    pub fn is_cut_by(&self, limit: Instant) -> bool {
        let state = self.state.lock();
        let mut looks = state.sets.values().flatten();
        looks.all(|look| {
            // A cut in the statement's future was taken for its start.
            look.not_before
                .is_some_and(|cut| cut <= limit && cut < self.started)
        })
    }

    /// How many files are pinned, for the query log. A file of two listings counts once.
    pub fn pinned_files(&self) -> usize {
        let state = self.state.lock();
        let of_set = |pinned: &Vec<Pinned>| {
            let lists: Vec<_> = pinned.iter().filter_map(|one| one.list.get()).collect();
            if let [one] = lists.as_slice() {
                return one.files.len();
            }
            let paths: HashSet<_> = lists
                .iter()
                .flat_map(|list| &list.files)
                .map(|file| &file.meta.location)
                .collect();
            paths.len()
        };
        state.sets.values().map(of_set).sum()
    }
}
