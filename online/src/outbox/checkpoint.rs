//! Checkpoints: marks, keys and the quarantine into the index, then the removal of segments that
//! hold nothing any more.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

use featureflight_catalog::{Error, Result};

use super::core::{Core, KeyState};
use super::index::{self, Reach};
use super::pending::PendingBlock;
use super::quarantine::NewEntry;
use super::segment;
use super::stage::{Position, Stage};

/// What a checkpoint saves: taken at one moment, in an order that keeps what depends on it.
struct Snapshot {
    marks: HashMap<Position, Arc<PendingBlock>>,
    quarantine: Vec<NewEntry>,
    keys: Vec<(super::IdempotencyKey, i64, Vec<u8>)>,
    /// Segments to remove, and the positions whose marks go with them.
    spent: Vec<u64>,
    forgotten: Vec<Position>,
    reach: Reach,
}

impl Core {
    /// Saves what changed since the last checkpoint.
    ///
    /// # Errors
    /// `Unavailable` when the index or the directory cannot be written; the next checkpoint saves
    /// it then.
    pub(super) fn checkpoint(&self) -> Result<()> {
        let _one = self.checkpoints.lock();
        let probe = |step| {
            let failed = |error| Error::unavailable(format!("a checkpoint failed: {error}"));
            self.options.probe.at(step).map_err(failed)
        };
        let snapshot = self.snapshot()?;
        let unchanged = snapshot.reach == self.index.reach()?;
        if unchanged && snapshot.is_empty() {
            return Ok(());
        }
        let saved = probe("checkpoint.save").and_then(|()| self.save(&snapshot));
        if let Err(error) = saved {
            self.restore(snapshot);
            return Err(error);
        }
        probe("checkpoint.saved")?;
        self.forget(&snapshot);
        self.remove(&snapshot.spent)
    }

    fn snapshot(&self) -> Result<Snapshot> {
        // Reach first: what it claims to be on disk stays so. Marks before the quarantine, which is
        // filled before a mark is set.
        let mut reach = *self.reach.lock();
        let mut pending = self.pending.lock();
        let marks = std::mem::take(&mut pending.dirty);
        let spent = pending.spent(reach.active);
        let held = spent
            .iter()
            .filter_map(|number| pending.segments.get(number));
        let forgotten = held
            .flat_map(|held| held.positions.iter().copied())
            .collect();
        let first = pending
            .segments
            .keys()
            .find(|number| !spent.contains(number));
        reach.first = first.copied().unwrap_or(reach.active);
        drop(pending);
        let quarantine = std::mem::take(&mut *self.quarantine.lock());
        let keys = self.keys.lock();
        let answered = keys.iter().filter_map(|(key, state)| match state {
            KeyState::Answered(answer, at) => Some((key, answer, *at)),
            KeyState::InFlight(_) => None,
        });
        let keys = answered.map(|(key, answer, at)| {
            let answer = serde_json::to_vec(answer)
                .map_err(|error| Error::internal("an answer has no JSON").with_source(error))?;
            Ok((key.clone(), at, answer))
        });
        Ok(Snapshot {
            keys: keys.collect::<Result<_>>()?,
            marks,
            quarantine,
            spent,
            forgotten,
            reach,
        })
    }

    fn save(&self, snapshot: &Snapshot) -> Result<()> {
        self.index.write(|transaction| {
            for (position, block) in &snapshot.marks {
                for stage in Stage::ALL {
                    index::save_mark(transaction, *position, stage, &block.marks(stage))?;
                }
            }
            for position in &snapshot.forgotten {
                index::forget_marks(transaction, *position)?;
            }
            for entry in &snapshot.quarantine {
                entry.save(transaction)?;
            }
            for (key, at, answer) in &snapshot.keys {
                index::save_key(transaction, key, *at, answer)?;
            }
            index::forget_keys(transaction, self.oldest_key())?;
            index::save_reach(transaction, snapshot.reach)
        })
    }

    /// Nothing was saved: the next checkpoint tries again.
    fn restore(&self, snapshot: Snapshot) {
        let mut pending = self.pending.lock();
        for (position, block) in snapshot.marks {
            pending.dirty.entry(position).or_insert(block);
        }
        drop(pending);
        self.quarantine.lock().splice(0..0, snapshot.quarantine);
    }

    /// Answers that are in the index need not be in memory.
    fn forget(&self, snapshot: &Snapshot) {
        let mut keys = self.keys.lock();
        for (key, at, _) in &snapshot.keys {
            if matches!(keys.get(key), Some(KeyState::Answered(_, kept)) if kept == at) {
                keys.remove(key);
            }
        }
    }

    fn remove(&self, spent: &[u64]) -> Result<()> {
        for number in spent {
            let held = self.pending.lock().segments.remove(number);
            let Some(held) = held else { continue };
            let path = &held.segment.path;
            let removed = self.options.probe.at("segment.remove");
            removed
                .and_then(|()| fs::remove_file(path))
                .map_err(|error| {
                    let path = path.display();
                    Error::unavailable(format!("'{path}' cannot be removed: {error}"))
                })?;
        }
        if spent.is_empty() {
            return Ok(());
        }
        segment::sync_dir(&self.dir).map_err(|error| {
            let dir = self.dir.display();
            Error::unavailable(format!("'{dir}' cannot be brought to disk: {error}"))
        })
    }
}

impl Snapshot {
    fn is_empty(&self) -> bool {
        self.marks.is_empty()
            && self.quarantine.is_empty()
            && self.keys.is_empty()
            && self.spent.is_empty()
    }
}
