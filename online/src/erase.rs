//! Erasing for good: a feature group with all it holds, or a record with its every version.
//!
//! What is going to be erased is noted in the outbox first, and the note goes last. Whatever a crash
//! cut short is carried out by [`Eraser::resume`], before the server sends or serves anything. Nothing is
//! sent to the group's online store and nothing flushed meanwhile, so that what is accepted later comes
//! after the erasure everywhere. Work goes on when its caller goes away.

use std::sync::Arc;
use std::time::Duration;

use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant, Kind, Result};
use tokio::sync::MutexGuard;

use crate::gateway::{Gateway, OfflineBy};
use crate::offline::forget_offline;
use crate::outbox::{Erasure, Outbox, What};

/// The steps of dropping a group at which a [`Probe`](crate::outbox::Probe) is called.
pub const DROP_STEPS: [&str; 5] = [
    "erase.noted",
    "erase.undefined",
    "erase.settled",
    "erase.unfiled",
    "erase.cleared",
];

/// The same of forgetting a record; [rewriting files](crate::offline::REPLACE_STEPS) has its own.
pub const FORGET_STEPS: [&str; 4] = [
    "erase.noted",
    "erase.rewritten",
    "erase.hidden",
    "erase.removed",
];

/// What of a record was there, and is not any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Rows in the outbox, and in quarantine.
    pub outbox_rows: u64,
    /// Offline files that were written again without it, or removed, and its versions in them.
    pub files: u64,
    pub file_rows: u64,
    /// Whether the online store had something of it, if only the mark of a delete.
    pub online: bool,
}

/// How often an online store is asked, and the first wait in between, which doubles.
const ATTEMPTS: u32 = 5;
const WAIT: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Clone)]
pub struct Eraser {
    gateway: Arc<Gateway>,
    catalog: Arc<Catalog>,
}

impl Eraser {
    pub fn new(gateway: &Arc<Gateway>, catalog: &Arc<Catalog>) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            catalog: Arc::clone(catalog),
        }
    }

    /// The group of this name that is being dropped: by a statement that goes on, or that failed on the
    /// way and has to be repeated.
    pub fn unfinished(&self, group: &str) -> Option<Arc<FeatureGroup>> {
        self.outbox().turns().ending(group)
    }

    /// Ends a feature group: its definition, what waits of it, and, where this server owns the
    /// warehouse, its files and its online records. SageMaker takes its own online store along and keeps
    /// the files. A group of the same name that is made afterwards has nothing of it.
    ///
    /// # Errors
    /// `NotFound` when another statement dropped it; `FailedPrecondition` when other files lie among its
    /// own; those of [`Catalog::drop_group`]; `Unavailable` when something of it is left: until the drop is
    /// repeated, nothing can be written to the group and none of its name be made.
    pub async fn drop_group(&self, group: Arc<FeatureGroup>) -> Result<()> {
        let eraser = self.clone();
        spawned(async move { eraser.drop_now(&group).await }).await
    }

    async fn drop_now(&self, group: &Arc<FeatureGroup>) -> Result<()> {
        let name = group.feature_group_name.as_str();
        let turn = self.outbox().turns().of(name);
        let _sending = turn.sending.write().await;
        let _files = turn.files.lock().await;
        let begun = self.unfinished(name).is_some();
        let there = self.catalog.snapshot().groups.get(name).cloned();
        if !begun && !there.is_some_and(|there| there.group.continues(group)) {
            return Err(Error::not_found(format!(
                "feature group '{name}' was dropped by another statement"
            )));
        }
        if self.owns_files() {
            self.catalog.check_alone(group)?;
        }
        let erasure = Erasure {
            group: name.to_owned(),
            before: self.outbox().place(Some(name)).await?,
            what: What::Group(Box::new(FeatureGroup::clone(group))),
            offline_done: false,
        };
        self.outbox().turns().note_ending(group);
        let noted = self.noting(&erasure, Outbox::note_erasure).await;
        if let Err(error) = noted {
            self.keep(group);
            return Err(error);
        }
        self.outbox().step("erase.noted");
        self.finish_drop(group, &erasure).await
    }

    async fn finish_drop(&self, group: &FeatureGroup, erasure: &Erasure) -> Result<()> {
        let (outbox, name) = (self.outbox(), group.feature_group_name.as_str());
        let location = self.catalog.location(group)?;
        let gone = |until| {
            let url = location.as_ref().map(|location| location.url.as_str());
            url.into_iter()
                .for_each(|url| outbox.turns().note_gone(url, until));
        };
        gone(Instant::MAX);
        if let Err(error) = self.catalog.drop_group(group).await {
            if let Some(location) = &location {
                outbox.turns().note_kept(&location.url);
            }
            if error.kind == Kind::Unavailable {
                return Err(again(name, error));
            }
            self.noting(erasure, Outbox::forget_erasure).await?;
            self.keep(group);
            return Err(error);
        }
        gone(Instant::now());
        outbox.step("erase.undefined");
        self.noting(erasure, Outbox::erase)
            .await
            .map_err(|error| again(name, error))?;
        outbox.step("erase.settled");
        if self.owns_files() {
            let removed = self.catalog.remove_files(group).await;
            removed.map_err(|error| again(name, error))?;
            self.gateway.landed.note(name);
            outbox.step("erase.unfiled");
            let cleared = patiently(|| self.gateway.store.clear(name)).await;
            cleared.map_err(|error| again(name, error))?;
            outbox.step("erase.cleared");
        }
        self.noting(erasure, Outbox::forget_erasure).await?;
        self.gateway.lanes.lock().remove(name);
        self.keep(group);
        Ok(())
    }

    /// Takes every version of a record away, from the outbox, the offline files and the online store, with
    /// all that is remembered of it. No statement that begins later sees any of it; what is accepted later
    /// stays. A repetition finds nothing, or what was left.
    ///
    /// # Errors
    /// `FailedPrecondition` where SageMaker keeps the records; those of [`forget_offline`];
    /// `Unavailable` when the outbox's disk or the online store fails. Some of it may be gone then: it
    /// has to be run again.
    pub async fn forget(&self, table: Arc<FeatureTable>, identifier: String) -> Result<Forgotten> {
        if !self.owns_files() {
            let name = table.name();
            return Err(Error::precondition(format!(
                "SageMaker keeps the records of '{name}', so this server cannot forget one: take it \
                 out of the online store with SET featureflight.deletion = 'hard' and DELETE, and \
                 rewrite its files in S3 where those are kept"
            )));
        }
        let eraser = self.clone();
        spawned(async move { eraser.forget_now(&table, identifier).await }).await
    }

    async fn forget_now(&self, table: &Arc<FeatureTable>, record: String) -> Result<Forgotten> {
        let name = table.name();
        let turn = self.outbox().turns().of(name);
        let _sending = turn.sending.write().await;
        let files = turn.files.lock().await;
        let there = self.catalog.snapshot().groups.get(name).cloned();
        if !there.is_some_and(|there| there.group.continues(&table.group)) {
            return Err(Error::not_found(format!(
                "feature group '{name}' was dropped"
            )));
        }
        let mut erasure = Erasure {
            group: name.to_owned(),
            before: self.outbox().place(None).await?,
            what: What::Record(record),
            offline_done: false,
        };
        self.noting(&erasure, Outbox::note_erasure).await?;
        self.outbox().step("erase.noted");
        let forgotten = self.finish_forget(table, &mut erasure, files).await;
        // What failed is repeated by a statement, which takes along what came until then.
        self.noting(&erasure, Outbox::forget_erasure).await?;
        forgotten
    }

    async fn finish_forget(
        &self,
        table: &Arc<FeatureTable>,
        erasure: &mut Erasure,
        files: MutexGuard<'_, ()>,
    ) -> Result<Forgotten> {
        let What::Record(record) = erasure.what.clone() else {
            return Err(Error::internal("a group is no record"));
        };
        let outbox = self.outbox();
        let mut forgotten = Forgotten::default();
        if !erasure.offline_done {
            // Files and outbox at once: else an older version than the last could be seen.
            let _alone = outbox.turns().of(table.name()).listing.write_owned().await;
            let snapshot = self.catalog.snapshot();
            let rewritten = forget_offline(&self.gateway, &snapshot, table, &record).await?;
            self.gateway.landed.note(table.name());
            forgotten.files = rewritten.len() as u64;
            forgotten.file_rows = rewritten.iter().map(|file| file.rows).sum();
            outbox.step("erase.rewritten");
            forgotten.outbox_rows = self.noting(erasure, Outbox::erase).await?;
            erasure.offline_done = true;
            self.noting(erasure, Outbox::note_erasure).await?;
            outbox.step("erase.hidden");
        }
        drop(files);
        let store = &self.gateway.store;
        let removed = patiently(|| store.forget(table.name(), &record)).await;
        forgotten.online = removed.map_err(|error| Error {
            message: format!(
                "the record is gone but for the online store, run CALL forget again: {}",
                error.message
            ),
            ..error
        })?;
        outbox.step("erase.removed");
        Ok(forgotten)
    }

    /// Carries out what was noted when the last process ended. What fails is left to be repeated, and
    /// logged.
    ///
    /// # Errors
    /// `Unavailable` and `DataLoss` when the notes cannot be read.
    pub async fn resume(&self) -> Result<()> {
        let outbox = Arc::clone(self.outbox());
        for erasure in blocking(move || outbox.erasures()).await? {
            let group = match &erasure.what {
                What::Group(group) => Arc::new(FeatureGroup::clone(group)),
                What::Record(_) => {
                    self.resume_forget(erasure).await?;
                    continue;
                }
            };
            let name = erasure.group.as_str();
            self.outbox().turns().note_ending(&group);
            self.outbox().place(Some(name)).await?;
            let turn = self.outbox().turns().of(name);
            let _sending = turn.sending.write().await;
            let _files = turn.files.lock().await;
            match self.finish_drop(&group, &erasure).await {
                Ok(()) => tracing::info!(group = name, "a feature group's drop was completed"),
                Err(error) => tracing::error!(group = name, %error, "a feature group's drop could \
                    not be completed"),
            }
        }
        Ok(())
    }

    async fn resume_forget(&self, mut erasure: Erasure) -> Result<()> {
        let name = erasure.group.clone();
        let entry = self.catalog.snapshot().groups.get(&name).cloned();
        if let Some(Serving::Served(table)) = entry.map(|entry| entry.serving) {
            let turn = self.outbox().turns().of(&name);
            let _sending = turn.sending.write().await;
            let files = turn.files.lock().await;
            match self.finish_forget(&table, &mut erasure, files).await {
                Ok(_) => tracing::info!(group = name, "a record was forgotten"),
                Err(error) => {
                    tracing::error!(group = name, %error, "a record could not be forgotten: \
                    run CALL forget again");
                }
            }
        }
        self.noting(&erasure, Outbox::forget_erasure).await
    }

    /// Writes to the group of that name are taken again, if there is one.
    fn keep(&self, group: &FeatureGroup) {
        let name = &group.feature_group_name;
        self.outbox().reopen(name);
        self.outbox().turns().note_ended(name);
    }

    fn outbox(&self) -> &Arc<Outbox> {
        &self.gateway.outbox
    }

    /// Whether files and online records are this server's to delete.
    pub fn owns_files(&self) -> bool {
        matches!(self.gateway.offline, OfflineBy::Gateway(_))
    }

    /// Does `work` where it may block.
    async fn noting<T: Send + 'static>(
        &self,
        erasure: &Erasure,
        work: impl FnOnce(&Outbox, &Erasure) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (outbox, erasure) = (Arc::clone(self.outbox()), erasure.clone());
        blocking(move || work(&outbox, &erasure)).await
    }
}

/// The drop has begun and cannot be taken back.
fn again(group: &str, error: Error) -> Error {
    Error {
        kind: Kind::Unavailable,
        message: format!(
            "feature group '{group}' is not dropped as a whole yet, run DROP TABLE again: {}",
            error.message
        ),
        source: error.source,
    }
}

/// Asks an online store again while it does not answer, for some seconds.
async fn patiently<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let mut wait = WAIT;
    for _ in 1..ATTEMPTS {
        match ask().await {
            Err(error) if error.kind == Kind::Unavailable => tokio::time::sleep(wait).await,
            answer => return answer,
        }
        wait *= 2;
    }
    ask().await
}

/// Runs to its end whatever becomes of the caller.
async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.map_err(|error| Error::internal("erasing broke off").with_source(error))?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("erasing broke off").with_source(error))?
}
