//! The offline writer of warehouses this server owns: accepted rows become Parquet files in
//! SageMaker's layout, one for every hour of event time, when enough or old enough rows wait.
//!
//! ```text
//! PREFIX/year=YYYY/month=MM/day=DD/hour=HH/{latest event time}_{16 letters and digits}.parquet
//! ```
//!
//! A row is in exactly one file, through crashes too. The files a flush will write are noted in the
//! outbox ([`landings`](crate::outbox::Landing)) before any of them is there; a file is whole and on
//! disk before it gets its name; its rows are settled after that. After a crash a noted file that is
//! there counts, and the rows of one that is not go into another.
//!
//! A flush takes whole requests, in their order: rows of one request that tie in every time lie in
//! one file, in the order they came in.

mod file;
mod forget;
mod names;
mod optimize;
mod owned;
mod plan;
mod stored;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant, Result};
use tokio::task::JoinHandle;

use crate::erase::Eraser;
use crate::gateway::{Gateway, OfflineBy};
use crate::outbox::{Landing, Outbox, PendingBlock, Stage};
use plan::Planned;

pub use forget::{Rewritten, forget_offline};
pub use optimize::{Optimized, optimize};
pub(crate) use owned::REMEMBERED;
pub use owned::{EXPIRE_STEP, OwnedFiles, REPLACE_STEPS, RewriteOptions};

/// The steps of a flush at which a [`Probe`](crate::outbox::Probe) is called.
pub const STEPS: [&str; 6] = [
    "offline.noted",
    "offline.half",
    "offline.unnamed",
    "offline.named",
    "offline.settled",
    "offline.forgotten",
];

/// Rows one flush takes into memory at most, as bytes of the outbox. One request may be larger.
const FLUSH_BYTES: u64 = 256 << 20;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How files are written.
#[derive(Debug, Clone)]
pub struct OfflineOptions {
    /// The folder that stands for every bucket.
    pub root: PathBuf,
    /// A group's rows are flushed when so much of them waits,
    pub max_bytes: u64,
    /// or when the oldest has waited for so long.
    pub max_age: Duration,
}

/// Flushes until it is dropped.
#[derive(Debug)]
pub struct OfflineWriter(JoinHandle<()>);

impl Drop for OfflineWriter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl OfflineWriter {
    /// Settles what a crash left between a file and its mark, carries out what it left half erased, then
    /// starts on the current runtime. Nothing may be forwarded yet.
    ///
    /// # Errors
    /// `Unavailable` when the outbox's index or the warehouse cannot be read.
    pub async fn start(
        gateway: Arc<Gateway>,
        catalog: Arc<Catalog>,
        options: OfflineOptions,
    ) -> Result<Self> {
        let (recovered, root) = (Arc::clone(&gateway), options.root.clone());
        let snapshot = catalog.snapshot();
        blocking(move || {
            recover(&recovered.outbox, &root)?;
            match &recovered.offline {
                OfflineBy::Gateway(files) => files.recover(&recovered.outbox, &snapshot),
                OfflineBy::Service(_) => Ok(()),
            }
        })
        .await?;
        Eraser::new(&gateway, &catalog).resume().await?;
        let look = LOOK_EVERY
            .min(options.max_age)
            .max(Duration::from_millis(10));
        Ok(Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(look).await;
                if let Err(error) = tend(&gateway).await {
                    tracing::warn!(%error, "replaced files cannot be removed; tried again");
                }
                let groups = gateway.outbox.pending_groups(Stage::Offline);
                for group in groups {
                    if !is_due(&gateway.outbox, &group, &options) {
                        continue;
                    }
                    if let Err(error) = flush(&gateway, &catalog, &group, &options.root).await {
                        tracing::warn!(group, %error, "accepted rows are not in the offline store \
                            yet; tried again");
                    }
                }
            }
        })))
    }
}

/// Ends what was replaced and is kept no longer.
async fn tend(gateway: &Arc<Gateway>) -> Result<()> {
    let OfflineBy::Gateway(files) = &gateway.offline else {
        return Ok(());
    };
    if !files.is_due() {
        return Ok(());
    }
    let (files, gateway) = (Arc::clone(files), Arc::clone(gateway));
    blocking(move || files.tend(&gateway.outbox)).await
}

fn is_due(outbox: &Outbox, group: &str, options: &OfflineOptions) -> bool {
    let blocks = outbox.pending(group, Stage::Offline);
    let Some(oldest) = blocks.first() else {
        return false;
    };
    let age = Instant::now()
        .micros
        .saturating_sub(oldest.accepted_at.micros);
    let bytes: u64 = blocks.iter().map(|block| block.bytes()).sum();
    bytes >= options.max_bytes
        || u128::from(age.max(0).cast_unsigned()) >= options.max_age.as_micros()
}

/// Writes what waits of `group`, or as much of it as one flush takes.
///
/// # Errors
/// Why rows still wait: nothing is lost, and what was written counts.
pub async fn flush(
    gateway: &Arc<Gateway>,
    catalog: &Catalog,
    group: &str,
    root: &Path,
) -> Result<()> {
    let turn = gateway.outbox.turns().of(group).files.lock_owned().await;
    let table = match catalog
        .snapshot()
        .groups
        .get(group)
        .map(|entry| &entry.serving)
    {
        Some(Serving::Served(table)) => Arc::clone(table),
        Some(Serving::OnlineOnly) => return Err(Error::precondition("it has no offline store")),
        Some(Serving::Unavailable(reason)) => {
            return Err(Error::precondition(format!("it is not served: {reason}")));
        }
        None => return Err(Error::precondition("the catalog does not have it any more")),
    };
    let (gateway, root) = (Arc::clone(gateway), root.to_owned());
    blocking(move || {
        let _turn = turn;
        flush_now(&gateway, &table, &root)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("the offline writer broke off").with_source(error))?
}

fn flush_now(gateway: &Gateway, table: &FeatureTable, root: &Path) -> Result<()> {
    let outbox = &gateway.outbox;
    let blocks = of_one_flush(outbox.pending(table.name(), Stage::Offline));
    let files = plan::files(table, &blocks)?;
    let landings: Vec<Landing> = files.iter().map(Planned::landing).collect();
    outbox.note_landings(&landings)?;
    for file in &files {
        for (block, rows) in &file.rows {
            block.land(&file.path, rows);
        }
    }
    outbox.step("offline.noted");
    let mut first_error = Ok(());
    for file in &files {
        match file::write(outbox, table, file, root) {
            Ok(()) => {
                gateway.landed.note(table.name());
                for (block, rows) in &file.rows {
                    gateway.settle_offline(block, rows);
                }
            }
            Err(error) => {
                for (block, _) in &file.rows {
                    block.unland(&file.path);
                }
                first_error = first_error.and(Err(error));
            }
        }
    }
    outbox.step("offline.settled");
    // Settled for good before the notes go.
    outbox.checkpoint()?;
    outbox.forget_landings(&landings)?;
    outbox.step("offline.forgotten");
    let rows: usize = files.iter().map(|file| file.batch.num_rows()).sum();
    tracing::debug!(group = table.name(), rows, files = files.len(), "flushed");
    first_error
}

/// Whole requests, the oldest ones.
fn of_one_flush(blocks: Vec<Arc<PendingBlock>>) -> Vec<Arc<PendingBlock>> {
    let mut bytes = 0;
    let mut taken: Vec<Arc<PendingBlock>> = Vec::new();
    for block in blocks {
        let begins = taken
            .last()
            .is_none_or(|last| last.position.sequence != block.position.sequence);
        if begins && !taken.is_empty() && bytes >= FLUSH_BYTES {
            break;
        }
        bytes += block.bytes();
        taken.push(block);
    }
    taken
}

/// What was noted and not settled when the last process ended.
fn recover(outbox: &Outbox, root: &Path) -> Result<()> {
    let landings = outbox.landings()?;
    for landing in &landings {
        let path = root.join(&landing.file);
        let is_there = path.try_exists().map_err(|error| {
            let path = path.display();
            Error::unavailable(format!("'{path}' cannot be looked at: {error}"))
        })?;
        if is_there {
            for (position, rows) in &landing.rows {
                outbox.settle(*position, Stage::Offline, rows);
            }
        }
    }
    if landings.is_empty() {
        return Ok(());
    }
    outbox.checkpoint()?;
    outbox.forget_landings(&landings)
}
