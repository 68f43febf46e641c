//! The sample warehouse: three feature groups in the exact layout of a SageMaker offline store,
//! told as a [`story`] and written file by file. The same bytes on every machine.

mod definition;
mod file;
mod random;
mod story;
mod version;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use featureflight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};

use definition::{CARD_RISK, CUSTOMERS, Definition, ORDERS};
use file::{DataFile, Writer};
use random::Random;
use story::{Flush, Story};
use version::{HOUR, Version};

pub use story::{Examples, Returned, Scale};
pub(super) use version::utc;

/// Counts up whenever the same scale would give other bytes.
const VERSION: u32 = 1;

/// Written last, so that its presence says the warehouse is whole.
const MANIFEST: &str = "demo.json";

/// Tasks of a Spark job.
const SPARK_TASKS: usize = 4;

/// Names what a warehouse of `scale` holds.
pub fn name(scale: Scale) -> String {
    format!("demo-{VERSION}-{}-{}", scale.customers, scale.days)
}

/// What is known about a sample warehouse without reading it: counted while it was made, by code
/// that shares nothing with the scanner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Facts {
    pub version: u32,
    pub scale: Scale,
    /// By feature group.
    pub groups: BTreeMap<String, GroupFacts>,
    pub examples: Examples,
}

/// Counts of one feature group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupFacts {
    pub versions: u64,
    pub tombstones: u64,
    /// Record identifiers that ever had a version, and those whose newest one is no tombstone.
    pub records: u64,
    pub live: u64,
    pub files: u64,
}

/// A sample warehouse that is complete.
#[derive(Debug, Clone)]
pub struct Warehouse {
    pub dir: PathBuf,
    pub facts: Facts,
    /// False when it was there already.
    pub made: bool,
}

impl Warehouse {
    /// The warehouse in `dir`, made if `dir` is absent or empty. `progress` hears of each percent
    /// and may break off, which leaves nothing behind.
    ///
    /// # Errors
    /// `FailedPrecondition` when `dir` holds something else, `Cancelled` when broken off, and the
    /// file system's.
    pub fn open_or_make(
        dir: &Path,
        scale: Scale,
        progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Self> {
        if let Some(facts) = read_facts(dir, scale)? {
            return Ok(Self {
                dir: dir.to_owned(),
                facts,
                made: false,
            });
        }
        let partial = partial_dir(dir)?;
        let made = make(&partial, scale, progress).and_then(|facts| {
            fs::rename(&partial, dir)
                .map_err(|error| cannot("move the warehouse to", dir, &error))?;
            Ok(Self {
                dir: dir.to_owned(),
                facts,
                made: true,
            })
        });
        if made.is_err() {
            // What failed first is what matters.
            let _ = fs::remove_dir_all(&partial);
            // Someone else may have been faster.
            if let Ok(Some(facts)) = read_facts(dir, scale) {
                return Ok(Self {
                    dir: dir.to_owned(),
                    facts,
                    made: false,
                });
            }
        }
        made
    }
}

/// The facts of the complete warehouse in `dir`; `None` when there is room for one.
fn read_facts(dir: &Path, scale: Scale) -> Result<Option<Facts>> {
    let occupied = |why: &str| {
        Error::precondition(format!(
            "{} {why}; remove it, or choose another directory with --dir",
            dir.display()
        ))
    };
    match fs::read(dir.join(MANIFEST)) {
        Ok(manifest) => match serde_json::from_slice::<Facts>(&manifest) {
            Ok(facts) if facts.version == VERSION && facts.scale == scale => Ok(Some(facts)),
            _ => Err(occupied("holds a sample warehouse of another version")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match fs::read_dir(dir) {
            Ok(mut entries) => match entries.next() {
                Some(_) => Err(occupied("is not empty and holds no sample warehouse")),
                None => Ok(None),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", dir, &error)),
        },
        Err(error) => Err(cannot("read", dir, &error)),
    }
}

/// A fresh directory beside `dir`, on the same file system, so that the move is atomic.
fn partial_dir(dir: &Path) -> Result<PathBuf> {
    let name = dir
        .file_name()
        .ok_or_else(|| Error::invalid(format!("{} cannot be made", dir.display())))?;
    let partial = dir.with_file_name(format!(
        ".{}.{}.partial",
        name.to_string_lossy(),
        std::process::id()
    ));
    fs::create_dir_all(&partial).map_err(|error| cannot("make", &partial, &error))?;
    Ok(partial)
}

fn make(
    dir: &Path,
    scale: Scale,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Facts> {
    for definition in [&CUSTOMERS, &ORDERS, &CARD_RISK] {
        describe(dir, definition)?;
    }
    let facts = tell(dir, scale, progress)?;
    let manifest = serde_json::to_vec_pretty(&facts)
        .map_err(|error| Error::internal(format!("cannot encode {MANIFEST}: {error}")))?;
    write(&dir.join(MANIFEST), &manifest)?;
    Ok(facts)
}

/// The group's description and the placeholder the service leaves before any data.
fn describe(dir: &Path, definition: &Definition) -> Result<()> {
    let groups = dir.join("feature-groups");
    let data = dir.join("s3").join(definition.data_prefix());
    for folder in [&groups, &data] {
        fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
    }
    let text = format!("{:#}\n", definition.describe());
    write(
        &groups.join(format!("{}.json", definition.name)),
        text.as_bytes(),
    )?;
    let created = utc(definition.created * version::SECOND).format("%Y-%m-%dT%H:%M:%SZ");
    write(&data.join(format!("{}{created}.txt", definition.name)), b"")
}

/// Tells the story on this thread while others write its files.
fn tell(
    dir: &Path,
    scale: Scale,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Facts> {
    let threads = thread::available_parallelism().map_or(1, |n| n.get().min(8));
    let (sender, receiver) = sync_channel::<Flush>(4 * threads);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| write_flushes(dir, &receiver)))
            .collect();
        let told = run_story(scale, sender, progress);
        let mut files = BTreeMap::new();
        for writer in writers {
            let written = writer
                .join()
                .map_err(|_| Error::internal("a thread that writes the warehouse failed"))??;
            for (group, count) in written {
                *files.entry(group).or_insert(0) += count;
            }
        }
        let mut facts = told?;
        for (group, facts) in &mut facts.groups {
            facts.files = files.get(group.as_str()).copied().unwrap_or(0);
        }
        Ok(facts)
    })
}

fn run_story(
    scale: Scale,
    sender: SyncSender<Flush>,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Facts> {
    let mut story = Story::new(scale);
    let mut counts = BTreeMap::<&str, Count>::new();
    let mut percent = None;
    while let Some(flushes) = story.advance() {
        for flush in flushes {
            let count = counts.entry(flush.definition.name).or_default();
            count.add(&flush, scale.customers as usize);
            // Without a receiver a writer has failed, and will say why.
            if sender.send(flush).is_err() {
                return Err(Error::internal("the writers of the warehouse are gone"));
            }
        }
        let (done, all) = story.progress();
        let now = done * 100 / all.max(1);
        if percent.replace(now) != Some(now) && progress(now).is_break() {
            return Err(Error::new(
                featureflight_catalog::Kind::Cancelled,
                "interrupted",
            ));
        }
    }
    let groups = counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count.facts()))
        .collect();
    Ok(Facts {
        version: VERSION,
        scale,
        groups,
        examples: story.examples().clone(),
    })
}

/// Counts a group's versions and knows the newest of each record.
#[derive(Default)]
struct Count {
    facts: GroupFacts,
    /// By customer: event time, api invocation time and write time of the newest, and whether it
    /// is a tombstone.
    newest: Vec<Option<(i64, i64, i64, bool)>>,
}

impl Count {
    fn add(&mut self, flush: &Flush, customers: usize) {
        self.newest.resize(customers, None);
        for row in &flush.rows {
            self.facts.versions += 1;
            self.facts.tombstones += u64::from(row.is_deleted);
            let rank = (
                row.event_time,
                row.api_invocation_time,
                flush.write_time,
                row.is_deleted,
            );
            let newest = &mut self.newest[row.customer];
            *newest = (*newest).max(Some(rank));
        }
    }

    fn facts(self) -> GroupFacts {
        let newest = || self.newest.iter().flatten();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        GroupFacts {
            records: count(newest().count()),
            live: count(newest().filter(|(.., deleted)| !deleted).count()),
            ..self.facts
        }
    }
}

/// Writes what arrives until the story is over; gives how many files each group got.
fn write_flushes(
    dir: &Path,
    receiver: &Mutex<Receiver<Flush>>,
) -> Result<BTreeMap<&'static str, u64>> {
    let mut files = BTreeMap::new();
    loop {
        let flush = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(flush) = flush else { return Ok(files) };
        let group = flush.definition.name;
        *files.entry(group).or_insert(0) += write_flush(dir, flush)?;
    }
}

/// One file per hour of event time (a Spark job: one per hour and task).
fn write_flush(dir: &Path, flush: Flush) -> Result<u64> {
    let Flush {
        definition,
        writer,
        write_time,
        rows,
    } = flush;
    let data = dir.join("s3").join(definition.data_prefix());
    let seed = u64::from_ne_bytes((write_time ^ definition.created.rotate_left(32)).to_ne_bytes());
    let mut random = Random::new(seed);
    let job = uuid::Builder::from_random_bytes(
        (u128::from(random.next()) << 64 | u128::from(random.next())).to_be_bytes(),
    )
    .into_uuid();
    let mut hours = BTreeMap::<i64, Vec<Version>>::new();
    for row in rows {
        hours
            .entry(row.event_time.div_euclid(HOUR))
            .or_default()
            .push(row);
    }
    let mut files = 0;
    for (hour, rows) in hours {
        let folder = data.join(
            utc(hour * HOUR)
                .format("year=%Y/month=%m/day=%d/hour=%H")
                .to_string(),
        );
        fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
        let tasks = match writer {
            Writer::Service => 1,
            Writer::Spark => SPARK_TASKS,
        };
        for (task, rows) in rows.chunks(rows.len().div_ceil(tasks)).enumerate() {
            let name = match writer {
                Writer::Service => service_name(rows, &mut random),
                Writer::Spark => format!("part-{task:05}-{job}.c000.parquet"),
            };
            DataFile {
                definition,
                writer,
                write_time,
                rows,
            }
            .write(&folder.join(name))?;
            files += 1;
        }
    }
    Ok(files)
}

/// The latest event time in the file and sixteen letters and digits.
fn service_name(rows: &[Version], random: &mut Random) -> String {
    let latest = rows.iter().map(|row| row.event_time).max().unwrap_or(0);
    format!(
        "{}_{}.parquet",
        utc(latest).format("%Y%m%dT%H%M%SZ"),
        random.name(16)
    )
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|error| cannot("write", path, &error))
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
