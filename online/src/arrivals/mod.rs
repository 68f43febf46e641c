//! Which accepted rows of SageMaker's groups are in its offline store. SageMaker writes them in its
//! own time and does not say when, so they are known by what they say: record identifier, event
//! time, deletion and values ([`matching`]), with an API invocation time that is not before the row
//! was first sent.
//!
//! A row is pending until then. A statement looks for it in the files it lists, and leaves out what
//! it finds; the [`Watcher`] looks by itself and settles what it finds for good. Either looks into a
//! file once: a file that was listed before a row was accepted cannot hold it.

mod matching;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use featureflight_catalog::listing::{DataFile, EventRange, FileList, Lister};
use featureflight_catalog::scan::versions::FileReader;
use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::gateway::{Gateway, OfflineBy};
use crate::outbox::{Outbox, PendingBlock, Stage};
use matching::Wanted;

/// Rows of a block that wait.
pub(crate) type Waits = (Arc<PendingBlock>, Vec<usize>);

/// How far the clocks of S3 and of this machine may differ. AWS refuses requests that are signed a
/// quarter of an hour off.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// Rows looked for at once: each takes about a hundred bytes.
const AT_ONCE: usize = 1 << 20;

const FOOTER_CACHE: usize = 8 << 20;

/// See the module.
#[derive(Debug)]
pub struct Arrivals {
    catalog: Arc<Catalog>,
    reader: Arc<FileReader>,
    groups: Mutex<HashMap<String, Looks>>,
}

/// The looks into files of one group, one at a time.
type Looks = Arc<tokio::sync::Mutex<HashMap<String, Look>>>;

/// What was looked for in a file, as places in the order of acceptance.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Rows from here on were accepted after the file was listed.
    before: u64,
    /// Rows up to here were looked for.
    through: u64,
}

impl Arrivals {
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            reader: Arc::new(FileReader::new(FOOTER_CACHE)),
            groups: Mutex::default(),
        }
    }

    fn table(&self, group: &str) -> Result<Arc<FeatureTable>> {
        let snapshot = self.catalog.snapshot();
        match snapshot.groups.get(group).map(|entry| &entry.serving) {
            Some(Serving::Served(table)) => Ok(Arc::clone(table)),
            Some(Serving::OnlineOnly) => Err(Error::precondition(format!(
                "feature group '{group}' has no offline store"
            ))),
            Some(Serving::Unavailable(reason)) => Err(Error::precondition(format!(
                "feature group '{group}' is not served: {reason}"
            ))),
            None => Err(Error::not_found(format!(
                "feature group '{group}' does not exist"
            ))),
        }
    }

    fn looks(&self, group: &str) -> Looks {
        let mut groups = self.groups.lock();
        Arc::clone(groups.entry(group.to_owned()).or_default())
    }

    /// Notes of every row of `waiting`, which is all that waited of the group before `list` was
    /// made, whether a file of `list` has it.
    ///
    /// # Errors
    /// Those of reading the files and the outbox.
    pub(crate) async fn look(
        &self,
        outbox: &Outbox,
        group: &str,
        list: &FileList,
        waiting: &[Waits],
    ) -> Result<()> {
        let Some((last, _)) = waiting.last() else {
            return Ok(());
        };
        let through = last.position.sequence + 1;
        let before = outbox.next_sequence().max(through);
        let looks = self.looks(group);
        let mut looks = looks.lock().await;
        let recent = recent(list, waiting);
        let due: Vec<Arc<DataFile>> = recent
            .iter()
            .filter(|file| is_due(looks.get(file.meta.location.as_ref()), waiting))
            .cloned()
            .collect();
        if !due.is_empty() {
            let table = self.table(group)?;
            for some in in_portions(sent(waiting, list)) {
                self.find(&table, &due, some).await?;
            }
        }
        let kept: HashSet<&str> = recent.iter().map(path).collect();
        looks.retain(|path, _| kept.contains(path.as_str()));
        for path in due.iter().map(path) {
            let look = Look { before, through };
            let known = looks.entry(path.to_owned()).or_insert(look);
            known.through = known.through.max(through);
        }
        Ok(())
    }

    /// Notes which of `rows` are in which of `files`.
    async fn find(
        &self,
        table: &Arc<FeatureTable>,
        files: &[Arc<DataFile>],
        rows: Vec<Waits>,
    ) -> Result<()> {
        let wanted = {
            let table = Arc::clone(table);
            blocking(move || Wanted::new(table, rows)).await?
        };
        // All of a file's rows or none are noted: whoever gave up in between looks again.
        for (file, block, rows) in wanted.find(&self.reader, files).await? {
            block.land(&Arc::from(path(&file)), &rows);
        }
        Ok(())
    }
}

fn path(file: &Arc<DataFile>) -> &str {
    file.meta.location.as_ref()
}

/// The files that are not older than every row that waits.
fn recent(list: &FileList, waiting: &[Waits]) -> Vec<Arc<DataFile>> {
    let oldest = waiting.iter().map(|(block, _)| block.accepted_at).min();
    let oldest = oldest.and_then(|at| DateTime::from_timestamp_micros(at.micros));
    let oldest = oldest.map_or(DateTime::<Utc>::MIN_UTC, |at| at - CLOCKS_DIFFER);
    let files = list.files.iter();
    let recent = files.filter(|file| file.unlanded.is_none() && file.meta.last_modified >= oldest);
    recent.cloned().collect()
}

/// Whether a file may hold rows that nobody has looked for in it.
fn is_due(look: Option<&Look>, waiting: &[Waits]) -> bool {
    let Some(look) = look else { return true };
    let unknown = look.through..look.before;
    let mut sequences = waiting.iter().map(|(block, _)| block.position.sequence);
    sequences.any(|sequence| unknown.contains(&sequence))
}

/// The rows that were sent and are not known to be in a file of `list`.
fn sent(waiting: &[Waits], list: &FileList) -> Vec<Waits> {
    let listed: HashSet<&str> = list.files.iter().map(path).collect();
    let sent = waiting.iter().map(|(block, rows)| {
        let mut rows = block.not_landed(rows.clone(), |file| listed.contains(file));
        block.keep_sent(&mut rows);
        (Arc::clone(block), rows)
    });
    sent.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// `waiting` in parts of [`AT_ONCE`] rows, about.
fn in_portions(waiting: Vec<Waits>) -> Vec<Vec<Waits>> {
    let mut portions: Vec<Vec<Waits>> = Vec::new();
    let mut rows = AT_ONCE;
    for waits in waiting {
        if rows >= AT_ONCE {
            portions.push(Vec::new());
            rows = 0;
        }
        rows += waits.1.len();
        if let Some(portion) = portions.last_mut() {
            portion.push(waits);
        }
    }
    portions
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("looking for accepted rows broke off").with_source(error))?
}

/// How a [`Watcher`] watches.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    pub every: Duration,
    /// How long after SageMaker took a row it is pending at most, if it is never seen in a file.
    pub max_pending: Duration,
}

/// Settles pending rows that are in files, and those that wait for too long, until it is dropped.
#[derive(Debug)]
pub struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watcher {
    /// Starts on the current runtime. Does nothing where the gateway writes the files itself.
    pub fn start(gateway: Arc<Gateway>, options: WatchOptions) -> Self {
        Self(tokio::spawn(async move {
            // Listed anew: what is waited for is what is new.
            let lister = Lister::new(Duration::ZERO);
            loop {
                tokio::time::sleep(options.every).await;
                for group in gateway.outbox.pending_groups(Stage::Offline) {
                    if let Err(error) = settle(&gateway, &lister, &group).await {
                        tracing::warn!(group, %error, "the offline store cannot be looked at");
                    }
                    give_up(&gateway, &group, options.max_pending);
                }
            }
        }))
    }
}

/// Settles the rows of `group` that are in files.
async fn settle(gateway: &Gateway, lister: &Lister, group: &str) -> Result<()> {
    let OfflineBy::Service(arrivals) = &gateway.offline else {
        return Ok(());
    };
    let waiting = waiting(&gateway.outbox, group);
    if waiting.is_empty() {
        return Ok(());
    }
    let table = arrivals.table(group)?;
    let blocks: Vec<_> = waiting.iter().map(|(block, _)| Arc::clone(block)).collect();
    let range = blocking(move || event_times(&blocks)).await?;
    let list = lister.list(&table.files, range, None).await?;
    arrivals
        .look(&gateway.outbox, group, &list, &waiting)
        .await?;
    let listed: HashSet<&str> = list.files.iter().map(path).collect();
    let landed = waiting.iter().map(|(block, rows)| {
        let missing = block.not_landed(rows.clone(), |file| listed.contains(file));
        let missing: HashSet<usize> = missing.into_iter().collect();
        let landed = rows.iter().copied().filter(|row| !missing.contains(row));
        (block, landed.collect::<Vec<_>>())
    });
    let landed: Vec<_> = landed.filter(|(_, rows)| !rows.is_empty()).collect();
    if !landed.is_empty() {
        // Lists from before now may miss the files of what is settled.
        gateway.landed.note(group);
    }
    for (block, rows) in landed {
        gateway.settle_offline(block, &rows);
    }
    Ok(())
}

/// What waits of `group` to be in a file.
pub(crate) fn waiting(outbox: &Outbox, group: &str) -> Vec<Waits> {
    let blocks = outbox.pending(group, Stage::Offline).into_iter();
    let waits = blocks.map(|block| {
        let rows = block.unsettled(Stage::Offline);
        (block, rows)
    });
    waits.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// The event times of all rows. Blocks the thread.
fn event_times(blocks: &[Arc<PendingBlock>]) -> Result<EventRange> {
    let mut all: Option<EventRange> = None;
    for block in blocks {
        let range = block.event_times()?;
        all = Some(all.map_or(range, |all| all.hull(range)));
    }
    Ok(all.unwrap_or(EventRange::ALL))
}

/// Settles rows that were taken by SageMaker `max_pending` ago and are in no file.
fn give_up(gateway: &Gateway, group: &str, max_pending: Duration) {
    for block in gateway.outbox.pending(group, Stage::Offline) {
        let overdue = block.overdue(max_pending);
        if overdue.is_empty() {
            continue;
        }
        let rows = overdue.len();
        tracing::warn!(
            group,
            rows,
            "SageMaker took rows and has not written them; they are not shown any more"
        );
        let mut lanes = gateway.lanes.lock();
        lanes.entry(group.to_owned()).or_default().overdue += rows as u64;
        drop(lanes);
        gateway
            .outbox
            .settle(block.position, Stage::Offline, &overdue);
    }
}
