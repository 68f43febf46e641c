//! One listing of a table's prefix.
//!
//! Without bounds, or where everything below a folder may match, a prefix is listed flat: one
//! request per thousand objects. Under bounds the walk opens year, month and day folders one by
//! one and lists flat only the days that may match. The folders left out are still looked at, but
//! one level at a time: what lies in them beside hour folders (a file next to `hour=00`, a folder
//! of another name) says nothing about its event times and is never pruned by its path. A small
//! prefix is cheaper flat than walked, so a first page is tried before any walk.

use std::time::SystemTime;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, TryStreamExt};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use crate::error::{Error, Result};
use crate::table::FileSet;

use super::folders::{Folder, Overlap};
use super::{Arc, DataFile, EventRange, FileList, settle};

/// Requests in flight per listing.
const CONCURRENCY: usize = 32;

/// Objects listed flat before a walk is tried: of the whole prefix, and of one folder. Stores
/// answer in pages of a thousand.
const FLAT_PREFIX: usize = 4_000;
const FLAT_FOLDER: usize = 1_000;

/// A listing and the range it is good for, which may be wider than what was asked.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) list: FileList,
    pub(super) range: EventRange,
}

/// Lists the files of `set` for `range`. `listed_at` is now, read before the call.
pub(super) async fn list(set: &FileSet, range: EventRange, listed_at: SystemTime) -> Result<Found> {
    let failed = |error: object_store::Error| {
        Error::unavailable(format!(
            "the files under {} cannot be listed: {}; try again later",
            set.location.url,
            crate::scan::fetch::describe(&error)
        ))
        .with_source(error)
    };
    let store = &set.location.store;
    let root = &set.location.prefix;
    let before = settle::begin(&set.location).await?;
    let (objects, range) = if range == EventRange::ALL {
        (flat(store, root).await.map_err(failed)?, EventRange::ALL)
    } else {
        match flat_up_to(store, root, FLAT_PREFIX).await.map_err(failed)? {
            Some(objects) => (objects, EventRange::ALL),
            None => (walk(store, root, range).await.map_err(failed)?, range),
        }
    };
    let (objects, replaced) = settle::settle(&set.location, before, objects).await?;
    let mut files: Vec<_> = objects
        .into_iter()
        .filter_map(|meta| data_file(root, meta))
        .map(Arc::new)
        .collect();
    files.sort_unstable_by(|a, b| a.meta.location.cmp(&b.meta.location));
    let listed = files.len();
    Ok(Found {
        list: FileList {
            files,
            listed_at,
            listed,
            pruned: 0,
            replaced: Arc::new(replaced),
        },
        range,
    })
}

/// What is left to look at.
enum Task {
    Flat(Path),
    Walk(Path, Folder),
}

/// What one task found.
#[derive(Default)]
struct Step {
    objects: Vec<ObjectMeta>,
    tasks: Vec<Task>,
}

async fn walk(
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    range: EventRange,
) -> object_store::Result<Vec<ObjectMeta>> {
    let mut tasks = vec![Task::Walk(root.clone(), Folder::default())];
    let mut running: FuturesUnordered<BoxFuture<'_, object_store::Result<Step>>> =
        FuturesUnordered::new();
    let mut objects = Vec::new();
    loop {
        while running.len() < CONCURRENCY {
            let Some(task) = tasks.pop() else { break };
            running.push(run(store, task, range).boxed());
        }
        let Some(step) = running.next().await else {
            return Ok(objects);
        };
        let step = step?;
        objects.extend(step.objects);
        tasks.extend(step.tasks);
    }
}

async fn run(
    store: &Arc<dyn ObjectStore>,
    task: Task,
    range: EventRange,
) -> object_store::Result<Step> {
    let (path, folder) = match task {
        Task::Flat(path) => {
            return Ok(Step {
                objects: flat(store, &path).await?,
                tasks: Vec::new(),
            });
        }
        Task::Walk(path, folder) => (path, folder),
    };
    // The whole prefix was tried flat already, and of a day that is left out only strays matter.
    let is_root = folder == Folder::default();
    if !is_root
        && !folder.is_day()
        && let Some(objects) = flat_up_to(store, &path, FLAT_FOLDER).await?
    {
        let tasks = Vec::new();
        return Ok(Step { objects, tasks });
    }
    let level = store.list_with_delimiter(Some(&path)).await?;
    let tasks = level
        .common_prefixes
        .into_iter()
        .filter_map(|child| plan(child, folder, range));
    Ok(Step {
        objects: level.objects,
        tasks: tasks.collect(),
    })
}

/// What to do with a folder below `parent`; `None` when nothing of it can be wanted.
fn plan(path: Path, parent: Folder, range: EventRange) -> Option<Task> {
    let name = path.filename()?;
    if is_hidden(name) {
        return None;
    }
    let Some(folder) = parent.child(name) else {
        return Some(Task::Flat(path));
    };
    match folder.overlap(range) {
        Overlap::Inside => Some(Task::Flat(path)),
        Overlap::Partial if folder.is_day() => Some(Task::Flat(path)),
        // Only a day's children are hours: whatever else is left out may hold strays.
        Overlap::Outside if parent.is_day() => None,
        Overlap::Partial | Overlap::Outside => Some(Task::Walk(path, folder)),
    }
}

async fn flat(store: &Arc<dyn ObjectStore>, path: &Path) -> object_store::Result<Vec<ObjectMeta>> {
    store.list(Some(path)).try_collect().await
}

/// The objects below `path` if there are fewer than `limit`.
async fn flat_up_to(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    limit: usize,
) -> object_store::Result<Option<Vec<ObjectMeta>>> {
    let objects: Vec<_> = store.list(Some(path)).take(limit).try_collect().await?;
    Ok((objects.len() < limit).then_some(objects))
}

fn data_file(root: &Path, meta: ObjectMeta) -> Option<DataFile> {
    let relative = meta.location.as_ref().strip_prefix(root.as_ref())?;
    let relative = if root.as_ref().is_empty() {
        relative
    } else {
        relative.strip_prefix('/')?
    };
    let wanted =
        meta.size > 0 && relative.ends_with(".parquet") && !relative.split('/').any(is_hidden);
    let hour = Folder::hour_of(relative);
    wanted.then_some(DataFile {
        meta,
        hour,
        unlanded: None,
    })
}

fn is_hidden(segment: &str) -> bool {
    segment.starts_with(['_', '.'])
}
