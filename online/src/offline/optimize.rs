//! Joins small files of hours that are over into larger ones: the same versions, in the same order.
//!
//! Versions that tie in every time rank by the key of their file and their place in it. So the files
//! that are joined are neighbours in the order of their keys, the new one's name lies among theirs,
//! and rows that tie stay in the order they had. A file that comes later holds rows that were
//! acknowledged later, which tie with none of these.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;
use featureflight_catalog::listing::{DataFile, EventRange, FileList, Lister};
use featureflight_catalog::snapshot::CatalogSnapshot;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant, Kind, Result};
use parquet::file::metadata::KeyValue;

use super::file::{self, Unfinished, failed};
use super::names;
use super::owned::{New, Old, OwnedFiles, folder_below};
use super::plan::{HOUR, schema, sort_keys, unfit};
use super::stored::{BATCH, Stored};
use crate::gateway::Gateway;
use crate::outbox::Stage;
use crate::record::event_times;

/// Rows of one new file in memory, in bytes.
const LOADED_BYTES: u64 = 256 << 20;

/// Files that are joined to one: their footers are in memory, and lists wait for their renames.
const MOST_FILES: usize = 1_000;

/// What became of the files of one hour of event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Optimized {
    /// Its start.
    pub hour: Instant,
    pub files_before: u64,
    pub files_after: u64,
    pub rows: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// Joins what there is to join of `table`; tells `done` of every hour, and all of them at the end.
/// Dropping the future stops it: an hour's files are joined or as they were.
///
/// # Errors
/// `FailedPrecondition` where the files are not this server's alone, and while they are optimized
/// already; `Unavailable` when the disk fails; `DataLoss` for a file that cannot be read. The hours
/// before that are done.
pub async fn optimize(
    gateway: &Arc<Gateway>,
    catalog: &CatalogSnapshot,
    table: &Arc<FeatureTable>,
    mut done: impl FnMut(&Optimized),
) -> Result<Vec<Optimized>> {
    let files = Arc::clone(gateway.owned_files(table.name())?);
    check_apart(catalog, table)?;
    let _claim = files.claim(table.name()).ok_or_else(|| {
        let group = table.name();
        Error::precondition(format!(
            "'{group}' is being optimized by another statement: wait for its end"
        ))
    })?;
    let list = list(table).await?;
    let hours = {
        let (gateway, table, list) = (Arc::clone(gateway), Arc::clone(table), Arc::clone(&list));
        super::blocking(move || hours(&gateway, &table, &list)).await?
    };
    let stop = Stop::default();
    let mut all = Vec::new();
    for hour in hours {
        let work = Work {
            gateway: Arc::clone(gateway),
            files: Arc::clone(&files),
            table: Arc::clone(table),
            schema: schema(table),
            stop: Arc::clone(&stop.0),
        };
        // Nobody drops the group, or takes rows of it away, meanwhile.
        let turn = gateway.outbox.turns().of(table.name()).files;
        let turn = turn.lock_owned().await;
        let optimized = super::blocking(move || {
            let _turn = turn;
            work.hour(&hour)
        });
        let optimized = optimized.await?;
        if let Some(optimized) = optimized {
            done(&optimized);
            all.push(optimized);
        }
    }
    Ok(all)
}

/// The files as they are now, not from a cache.
pub(super) async fn list(table: &FeatureTable) -> Result<Arc<FileList>> {
    let lister = Lister::new(Duration::ZERO);
    lister.list(&table.files, EventRange::ALL, None).await
}

/// A group whose files another one lists too would be rewritten under its eyes.
///
/// # Errors
/// `FailedPrecondition` that names the other one.
pub(super) fn check_apart(catalog: &CatalogSnapshot, table: &FeatureTable) -> Result<()> {
    let group = table.name();
    match catalog.group_beside(group, &table.files.location) {
        None => Ok(()),
        Some(other) => Err(Error::precondition(format!(
            "the files of '{group}' lie where those of '{other}' do: give each a location of its own"
        ))),
    }
}

/// Set when nobody waits for the work any more.
#[derive(Debug, Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Files of an hour that are over, small, and neighbours.
#[derive(Debug)]
struct Hour {
    start: Instant,
    folder: String,
    /// Two at least in each.
    neighbours: Vec<Vec<Arc<DataFile>>>,
}

/// What there is to join, by hour.
fn hours(gateway: &Gateway, table: &FeatureTable, list: &FileList) -> Result<Vec<Hour>> {
    let waiting = waiting_hours(gateway, table)?;
    // After the list was taken: a file that was listed and is not noted any more counts for good.
    let noted = gateway.outbox.landings()?;
    let noted: HashSet<String> = noted.into_iter().map(|landing| landing.file).collect();
    let files = gateway.owned_files(table.name())?;
    let small = files.options.target_bytes / 2;
    let now = Instant::now().micros;
    let folder = |file: &DataFile| -> Option<(Instant, String)> {
        let start = file.hour?;
        let (name, folder) = (file.meta.location.filename()?, folder_below(table, file)?);
        let is_over = start.micros.saturating_add(HOUR) <= now;
        let wanted = folder.split('/').count() == 4
            && is_over
            && !waiting.contains(&start.micros)
            && names::is_service_like(name)
            && file.meta.size < small
            && !noted.contains(file.meta.location.as_ref());
        wanted.then_some((start, folder))
    };
    let mut hours: Vec<Hour> = Vec::new();
    let mut breaks = true;
    for file in &list.files {
        let Some((start, folder)) = folder(file) else {
            breaks = true;
            continue;
        };
        if hours.last().is_none_or(|hour| hour.folder != folder) {
            breaks = true;
            hours.push(Hour {
                start,
                folder,
                neighbours: Vec::new(),
            });
        }
        let Some(hour) = hours.last_mut() else {
            continue;
        };
        match hour.neighbours.last_mut() {
            Some(neighbours) if !breaks => neighbours.push(Arc::clone(file)),
            _ => hour.neighbours.push(vec![Arc::clone(file)]),
        }
        breaks = false;
    }
    for hour in &mut hours {
        hour.neighbours.retain(|files| files.len() > 1);
    }
    hours.retain(|hour| !hour.neighbours.is_empty());
    Ok(hours)
}

/// The starts of hours that will get another file soon.
fn waiting_hours(gateway: &Gateway, table: &FeatureTable) -> Result<HashSet<i64>> {
    let mut hours = HashSet::new();
    for pending in gateway.outbox.pending(table.name(), Stage::Offline) {
        let block = pending.read()?;
        for row in pending.unsettled(Stage::Offline) {
            let micros = block.instants()[row].micros;
            hours.insert(micros.div_euclid(HOUR) * HOUR);
        }
    }
    Ok(hours)
}

/// The joining of files of one group.
struct Work {
    gateway: Arc<Gateway>,
    files: Arc<OwnedFiles>,
    table: Arc<FeatureTable>,
    schema: SchemaRef,
    stop: Arc<AtomicBool>,
}

/// A file to be joined with its neighbours.
struct Part {
    file: Arc<DataFile>,
    stored: Stored,
}

impl Work {
    /// `None` when nothing was joined.
    fn hour(&self, hour: &Hour) -> Result<Option<Optimized>> {
        let mut optimized = Optimized {
            hour: hour.start,
            files_before: 0,
            files_after: 0,
            rows: 0,
            bytes_before: 0,
            bytes_after: 0,
        };
        for neighbours in &hour.neighbours {
            let (mut parts, mut bytes, mut memory) = (Vec::new(), 0, 0);
            for file in neighbours {
                self.check_wanted()?;
                let Some(stored) = self.open(file)? else {
                    self.join(std::mem::take(&mut parts), &mut optimized)?;
                    (bytes, memory) = (0, 0);
                    continue;
                };
                let (size, loaded) = (file.meta.size, stored.memory());
                let target = self.files.options.target_bytes;
                let is_full = parts.len() == MOST_FILES
                    || bytes + size > target
                    || memory + loaded > LOADED_BYTES;
                if is_full {
                    self.join(std::mem::take(&mut parts), &mut optimized)?;
                    (bytes, memory) = (0, 0);
                }
                (bytes, memory) = (bytes + size, memory + loaded);
                parts.push(Part {
                    file: Arc::clone(file),
                    stored,
                });
            }
            self.join(parts, &mut optimized)?;
        }
        Ok((optimized.files_before > 0).then_some(optimized))
    }

    /// `None` for a file that is not there any more, or not as this writer writes.
    fn open(&self, file: &DataFile) -> Result<Option<Stored>> {
        let stored = match Stored::open(self.files.place(file)) {
            Err(error) if error.kind == Kind::FailedPrecondition => None,
            stored => stored?,
        };
        Ok(stored.filter(|stored| stored.fits(&self.schema)))
    }

    fn check_wanted(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "nobody waits for it any more"));
        }
        Ok(())
    }

    fn join(&self, parts: Vec<Part>, optimized: &mut Optimized) -> Result<()> {
        let names: Vec<&str> = parts
            .iter()
            .filter_map(|part| part.file.meta.location.filename())
            .collect();
        let name = names.last().and_then(|last| names::before(last));
        let Some(name) = name.filter(|name| names.len() > 1 && !names.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let prefix = self.files.folder(&self.table);
        let new = New {
            file: Unfinished::new(&prefix, &name)?,
            name,
        };
        let rows = match self.merge(&parts, &new.file) {
            // Somebody else rewrote one of them.
            Err(error) if error.kind == Kind::Aborted => return Ok(()),
            rows => rows?,
        };
        let bytes_after = std::fs::metadata(&new.file.0)
            .map_err(|error| failed(&new.file.0, &error))?
            .len();
        let outbox = &self.gateway.outbox;
        outbox.step("replace.unnamed");
        let files: Vec<_> = parts.into_iter().map(|part| part.file).collect();
        let old = Old {
            files: &files,
            keep: true,
        };
        if self.files.replace(outbox, &self.table, &old, Some(new))? {
            self.gateway.landed.note(self.table.name());
            optimized.files_before += files.len() as u64;
            optimized.files_after += 1;
            optimized.rows += rows as u64;
            optimized.bytes_before += files.iter().map(|file| file.meta.size).sum::<u64>();
            optimized.bytes_after += bytes_after;
        }
        Ok(())
    }

    /// Writes the rows of all parts, and how many there are.
    fn merge(&self, parts: &[Part], into: &Unfinished) -> Result<usize> {
        let mut loaded = Loaded::default();
        for part in parts {
            for batch in part.stored.read_as(&self.schema)? {
                self.check_wanted()?;
                loaded.push(&self.table, batch?)?;
            }
        }
        let order = loaded.order();
        let identifier = &self.table.group.record_identifier_feature_name;
        let written = |error: &dyn std::fmt::Display| failed(&into.0, error);
        let about = accepted(parts);
        let writer = file::writer(into.create()?, identifier, &self.schema, order.len(), about);
        let mut writer = writer.map_err(|error| written(&error))?;
        let batches: Vec<&RecordBatch> = loaded.batches.iter().collect();
        for (at, rows) in order.chunks(BATCH).enumerate() {
            self.check_wanted()?;
            let rows = interleave_record_batch(&batches, rows).map_err(unfit)?;
            writer.write(&rows).map_err(|error| written(&error))?;
            if at == 0 {
                self.gateway.outbox.step("replace.half");
            }
        }
        let file = writer.into_inner().map_err(|error| written(&error))?;
        file.sync_all().map_err(|error| written(&error))?;
        Ok(order.len())
    }
}

/// The places in the order of acceptance that all parts span, where each says its own.
fn accepted(parts: &[Part]) -> Vec<KeyValue> {
    let each = parts
        .iter()
        .map(|part| file::accepted(Some(&part.stored.about())));
    let each: Option<Vec<_>> = each.collect();
    let each = each.unwrap_or_default();
    let first = each.iter().map(|(first, _)| *first).min();
    let last = each.iter().map(|(_, last)| *last).max();
    let span = first.zip(last).map(file::accepted_pair);
    span.into_iter().collect()
}

/// Rows in memory, in the order of their files.
#[derive(Default)]
struct Loaded {
    batches: Vec<RecordBatch>,
    keys: Vec<Rows>,
    instants: Vec<Vec<Instant>>,
}

impl Loaded {
    fn push(&mut self, table: &FeatureTable, batch: RecordBatch) -> Result<()> {
        let times = batch.column(table.event_time);
        let instants = event_times(table.event_time_form, times).map_err(|row| {
            let group = table.name();
            Error::data_loss(format!(
                "the event time of row {row} of a batch of '{group}' cannot be read"
            ))
        })?;
        self.keys
            .push(sort_keys(batch.column(table.record_identifier))?);
        self.instants.push(instants);
        self.batches.push(batch);
        Ok(())
    }

    /// Batch and row of each row: by record identifier and event time, and as they came.
    fn order(&self) -> Vec<(usize, usize)> {
        let batches = self.batches.iter().enumerate();
        let mut order: Vec<(usize, usize)> = batches
            .flat_map(|(at, batch)| (0..batch.num_rows()).map(move |row| (at, row)))
            .collect();
        let key =
            |(batch, row): (usize, usize)| (self.keys[batch].row(row), self.instants[batch][row]);
        // Stable: rows that tie stay in the order of their files.
        order.sort_by(|one, other| key(*one).cmp(&key(*other)));
        order
    }
}
