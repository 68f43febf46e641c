//! Offline files that give way to others: the same versions in the same order, none twice, none
//! lost, for statements that have listed them and for those that are about to, and whatever kills
//! the process on the way.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use featureflight_catalog::listing::{EventRange, FileList, Lister};
use featureflight_catalog::replaced::Replaced;
use featureflight_catalog::scan::versions::{Columns, FileReader};
use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::unlanded::Fresh;
use featureflight_catalog::{Kind, Result};
use featureflight_online::gateway::Gateway;
use featureflight_online::offline::{
    EXPIRE_STEP, OfflineWriter, Optimized, REPLACE_STEPS, RewriteOptions, flush, forget_offline,
    optimize,
};
use featureflight_online::outbox::{Probe, Stage};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::model::Write;
use super::offline::{TIME, let_go, open_rewriting, parquet_files, read, rows, warehouse, write};
use super::victim::{self, say};

/// Of the hour of [`TIME`].
const HOUR: &str = "s3/g/data/year=2026/month=02/day=01/hour=12";

/// What a server of the warehouse has.
struct Rig {
    dir: TempDir,
    gateway: Arc<Gateway>,
    catalog: Arc<Catalog>,
    root: PathBuf,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Probe::default(), RewriteOptions::default()).await
    }

    async fn with(probe: Probe, options: RewriteOptions) -> Self {
        let dir = warehouse();
        let (gateway, catalog, offline) = open_rewriting(dir.path(), probe, options).await;
        Self {
            dir,
            gateway,
            catalog,
            root: offline.root,
        }
    }

    /// Each in a file of its own.
    async fn write(&self, requests: &[&[Write]]) {
        for request in requests {
            write(&self.gateway, request).await;
            self.flush().await;
        }
    }

    async fn flush(&self) {
        flush(&self.gateway, &self.catalog, "g", &self.root)
            .await
            .unwrap();
    }

    fn table(&self) -> Arc<FeatureTable> {
        table(&self.catalog)
    }

    async fn optimize(&self) -> Vec<Optimized> {
        optimize_all(&self.gateway, &self.catalog).await.unwrap()
    }

    async fn forget(&self, identifier: &str) -> Vec<(usize, u64)> {
        let snapshot = self.catalog.snapshot();
        let all = forget_offline(&self.gateway, &snapshot, &self.table(), identifier).await;
        let all = all.unwrap();
        (0..).zip(all.iter().map(|one| one.rows)).collect()
    }

    async fn list(&self) -> Arc<FileList> {
        let lister = Lister::new(Duration::ZERO);
        let table = self.table();
        let list = lister.list(&table.files, EventRange::ALL, None).await;
        list.unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        parquet_files(&self.dir.path().join("s3"))
    }

    /// A file that nobody flushed, in the hour of [`TIME`].
    fn put(&self, name: &str, versions: &[Version]) {
        put(&self.dir.path().join(HOUR), name, versions);
    }

    /// Every version by its record, the lowest rank first.
    fn ranked(&self) -> BTreeMap<String, Vec<Option<i64>>> {
        let mut all = Vec::new();
        for path in self.files() {
            let batch = read(&path);
            let ids = batch.column(0).as_string::<i32>();
            let event = batch.column(1).as_primitive::<Float64Type>();
            let values = batch.column_by_name("v").unwrap();
            let values = values.as_primitive::<Int64Type>();
            let time = |name: &str, row| {
                let column = batch.column_by_name(name).unwrap();
                column.as_primitive::<TimestampMicrosecondType>().value(row)
            };
            for row in 0..batch.num_rows() {
                let event = (event.value(row) * 1e6) as i64;
                let rank = (
                    event,
                    time("api_invocation_time", row),
                    time("write_time", row),
                    path.clone(),
                    row,
                );
                let value = values.iter().nth(row).unwrap();
                all.push((ids.value(row).to_owned(), rank, value));
            }
        }
        all.sort();
        let mut ranked: BTreeMap<String, Vec<Option<i64>>> = BTreeMap::new();
        for (id, _, value) in all {
            ranked.entry(id).or_default().push(value);
        }
        ranked
    }
}

fn table(catalog: &Catalog) -> Arc<FeatureTable> {
    match &catalog.snapshot().groups["g"].serving {
        Serving::Served(table) => Arc::clone(table),
        other => panic!("{other:?}"),
    }
}

async fn optimize_all(gateway: &Arc<Gateway>, catalog: &Catalog) -> Result<Vec<Optimized>> {
    optimize(gateway, &catalog.snapshot(), &table(catalog), |_| {}).await
}

/// Identifier, event time in seconds, value, write time in microseconds; null values are tombstones.
type Version = (&'static str, f64, Option<i64>, i64);

fn put(folder: &Path, name: &str, versions: &[Version]) {
    let write_times = || {
        let times = TimestampMicrosecondArray::from_iter_values(versions.iter().map(|v| v.3));
        Arc::new(times.with_timezone("UTC")) as ArrayRef
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "id",
            Arc::new(StringArray::from_iter_values(versions.iter().map(|v| v.0))),
        ),
        (
            "ts",
            Arc::new(Float64Array::from_iter_values(versions.iter().map(|v| v.1))),
        ),
        (
            "v",
            Arc::new(Int64Array::from_iter(versions.iter().map(|v| v.2))),
        ),
        ("write_time", write_times()),
        ("api_invocation_time", write_times()),
        (
            "is_deleted",
            Arc::new(BooleanArray::from_iter(
                versions.iter().map(|v| Some(v.2.is_none())),
            )),
        ),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    fs::create_dir_all(folder).unwrap();
    let file = fs::File::create(folder.join(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The values of all rows that a list's files hold, read as a statement reads them.
async fn values(table: &Arc<FeatureTable>, list: &FileList) -> Result<Vec<i64>> {
    let reader = Arc::new(FileReader::new(1 << 20));
    let columns = Columns {
        features: vec![3],
        ..Columns::default()
    };
    let mut values = Vec::new();
    for file in &list.files {
        let mut batches = reader.read(table, file, &columns, None);
        while let Some(batch) = batches.try_next().await? {
            let column = batch.features[0].as_primitive::<Int64Type>();
            values.extend(column.iter().flatten());
        }
    }
    values.sort_unstable();
    Ok(values)
}

#[tokio::test]
async fn small_files_of_an_hour_become_one() {
    let rig = Rig::new().await;
    let later = TIME + 3_600;
    rig.write(&[
        &[Write::put("b", TIME, 1), Write::put("a", TIME + 60, 2)],
        &[Write::put("a", TIME, 3), Write::put("a", later, 4)],
        &[Write::put("c", TIME + 5, 5), Write::put("b", TIME, 6)],
    ])
    .await;
    assert_eq!(rig.files().len(), 4);
    let (before, last) = (rig.ranked(), rig.files()[2].clone());
    let done = rig.optimize().await;
    let [hour] = done.as_slice() else {
        panic!("one hour has several files: {done:?}");
    };
    assert_eq!(hour.hour.micros, (TIME - 1_800) * 1_000_000);
    assert_eq!((hour.files_before, hour.files_after, hour.rows), (3, 1, 5));
    assert!(hour.bytes_before > hour.bytes_after, "{hour:?}");
    assert_eq!(rig.ranked(), before);
    let files = rig.files();
    let [joined, other] = files.as_slice() else {
        panic!("one file for each hour: {files:?}");
    };
    assert!(joined < &last && other.parent() != joined.parent());
    let size = fs::metadata(joined).unwrap().len();
    assert_eq!(size, hour.bytes_after);
    let batch = read(joined);
    let ids: Vec<_> = batch
        .column(0)
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(ids, ["a", "a", "b", "b", "c"]);
    let file = fs::File::open(joined).unwrap();
    let about = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file);
    let about = about.unwrap();
    assert!(
        about
            .metadata()
            .row_group(0)
            .column(0)
            .bloom_filter_offset()
            .is_some()
    );
    let about = about
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    let accepted = about
        .iter()
        .find(|pair| pair.key == "featureflight.accepted");
    assert_eq!(accepted.unwrap().value.as_deref(), Some("0.0-2.0"));
    assert!(
        rig.optimize().await.is_empty(),
        "there is nothing left to do"
    );
}

/// Where write times tie too, files and places decide; what a feature lacks in older files is null.
#[tokio::test]
async fn rows_that_tie_in_everything_keep_their_order() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let rig = Rig::new().await;
        let mut next = 0;
        for number in 0..random.random_range(3..8) {
            let mut versions: Vec<Version> = Vec::new();
            for _ in 0..random.random_range(1..40) {
                next += 1;
                let id = *["a", "b", "c"].choose(&mut random).unwrap();
                let event = TIME as f64 + f64::from(random.random_range(0..2));
                let value = random.random_bool(0.9).then_some(next);
                versions.push((id, event, value, random.random_range(0..2)));
            }
            let suffix: u64 = random.random_range(0..u64::MAX);
            // Now and then one that somebody else wrote, which stays as it is between the others.
            let name = if random.random_bool(0.2) {
                format!("20260201T123010Z-{number}.parquet")
            } else {
                format!(
                    "20260201T1230{}0Z_{suffix:016X}.parquet",
                    random.random_range(0..3)
                )
            };
            rig.put(&name, &versions);
        }
        let before = rig.ranked();
        let count = rig.files().len();
        rig.optimize().await;
        assert!(rig.files().len() <= count, "seed {seed}");
        assert_eq!(rig.ranked(), before, "seed {seed}");
    }
}

#[tokio::test]
async fn what_may_still_grow_or_is_not_ours_is_left_alone() {
    let options = RewriteOptions {
        target_bytes: 20_000,
        ..RewriteOptions::default()
    };
    let rig = Rig::with(Probe::default(), options).await;
    // An hour that goes on.
    let now = chrono::Utc::now().timestamp();
    for value in 0..3 {
        rig.write(&[&[Write::put("a", now, value)]]).await;
    }
    assert!(rig.optimize().await.is_empty());
    // Rows on their way into an hour that is over.
    rig.write(&[&[Write::put("a", TIME, 4)], &[Write::put("a", TIME, 5)]])
        .await;
    write(&rig.gateway, &[Write::put("b", TIME + 1, 6)]).await;
    assert!(rig.optimize().await.is_empty());
    rig.flush().await;
    // A large file between small ones, one of other columns, one of another name.
    let large: Vec<Version> = (0..9_000)
        .map(|row| {
            (
                "x",
                TIME as f64 + f64::from(row) / 7.0,
                Some(row.into()),
                row.into(),
            )
        })
        .collect();
    rig.put("20260201T12310000_0000000000000000.parquet", &large);
    let before = rig.ranked();
    let done = rig.optimize().await;
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!((done[0].files_before, done[0].files_after), (3, 1));
    assert_eq!(rig.ranked(), before);
    let strange = rig
        .dir
        .path()
        .join(HOUR)
        .join("20260201T12310000_0000000000000001.parquet");
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
    let file = fs::File::create(&strange).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    rig.put("part-00000.parquet", &[("y", TIME as f64, Some(1), 1)]);
    rig.put("part-00001.parquet", &[("y", TIME as f64, Some(2), 1)]);
    assert!(rig.optimize().await.is_empty());
}

/// Its rows count by what is noted until that is forgotten: after a crash they would be written again.
#[tokio::test]
async fn a_file_whose_flush_has_not_ended_is_left_alone() {
    let rig = Rig::new().await;
    rig.write(&[&[Write::put("a", TIME, 1)], &[Write::put("a", TIME, 2)]])
        .await;
    let noted = rig.list().await.files[0].meta.location.as_ref().to_owned();
    let landing = featureflight_online::outbox::Landing {
        file: noted,
        rows: Vec::new(),
    };
    rig.gateway
        .outbox
        .note_landings(std::slice::from_ref(&landing))
        .unwrap();
    assert!(rig.optimize().await.is_empty());
    let snapshot = rig.catalog.snapshot();
    let refused = forget_offline(&rig.gateway, &snapshot, &rig.table(), "a").await;
    assert_eq!(refused.unwrap_err().kind, Kind::Unavailable);
    rig.gateway.outbox.forget_landings(&[landing]).unwrap();
    assert_eq!(rig.optimize().await.len(), 1);
}

#[tokio::test]
async fn a_group_is_optimized_by_one_at_a_time() {
    let slow = Probe::new(|step| {
        if step == "replace.half" {
            std::thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    });
    let rig = Rig::with(slow, RewriteOptions::default()).await;
    rig.write(&[&[Write::put("a", TIME, 1)], &[Write::put("a", TIME, 2)]])
        .await;
    let both = tokio::join!(
        optimize_all(&rig.gateway, &rig.catalog),
        optimize_all(&rig.gateway, &rig.catalog)
    );
    let error = both.1.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains("is being optimized"), "{error}");
    assert_eq!(both.0.unwrap().len(), 1);
    assert!(rig.optimize().await.is_empty(), "the claim is given back");
}

/// Whoever gives up leaves an hour as it was, and nothing beside it.
#[tokio::test]
async fn a_statement_that_is_dropped_stops() {
    let reached = Arc::new(AtomicBool::new(false));
    let probe = {
        let reached = Arc::clone(&reached);
        Probe::new(move |step| {
            if step == "replace.half" {
                reached.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        })
    };
    let rig = Rig::with(probe, RewriteOptions::default()).await;
    let many: Vec<Write> = (0..9_000)
        .map(|at| Write::put(&at.to_string(), TIME, at))
        .collect();
    for half in many.chunks(4_500) {
        rig.write(&[half]).await;
    }
    let before = rig.files();
    {
        let optimizing = optimize_all(&rig.gateway, &rig.catalog);
        let until_half = async {
            while !reached.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            done = optimizing => panic!("too fast: {done:?}"),
            () = until_half => {}
        }
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(rig.files(), before);
    let unfinished = fs::read_dir(rig.dir.path().join("s3/g/data/_unfinished")).unwrap();
    assert_eq!(unfinished.count(), 0);
    assert_eq!(rig.optimize().await.len(), 1);
}

#[tokio::test]
async fn a_list_from_before_is_read_until_its_time_is_over() {
    let options = RewriteOptions {
        grace: Duration::from_millis(700),
        ..RewriteOptions::default()
    };
    let rig = Rig::with(Probe::default(), options).await;
    rig.write(&[
        &[Write::put("a", TIME, 1)],
        &[Write::put("a", TIME, 2)],
        &[Write::put("b", TIME, 3)],
    ])
    .await;
    let old = rig.list().await;
    assert_eq!(rig.optimize().await.len(), 1);
    let table = rig.table();
    assert_eq!(values(&table, &old).await.unwrap(), [1, 2, 3]);
    let new = rig.list().await;
    assert_eq!(new.files.len(), 1);
    assert_eq!(values(&table, &new).await.unwrap(), [1, 2, 3]);
    let offline = featureflight_online::offline::OfflineOptions {
        root: rig.root.clone(),
        max_bytes: u64::MAX,
        max_age: Duration::from_secs(3_600),
    };
    let catalog = Arc::clone(&rig.catalog);
    let _writer = OfflineWriter::start(Arc::clone(&rig.gateway), catalog, offline)
        .await
        .unwrap();
    let hour = rig.dir.path().join(HOUR);
    let entries = || fs::read_dir(&hour).unwrap().count();
    assert_eq!(entries(), 4);
    for _ in 0..100 {
        if entries() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(entries(), 1, "replaced files go");
    let error = values(&table, &old).await.unwrap_err();
    assert_eq!(error.kind, Kind::Aborted);
    assert!(error.message.contains("run it again"), "{error}");
    assert_eq!(values(&table, &new).await.unwrap(), [1, 2, 3]);
}

/// A statement takes down what waits; then those rows get into files, and these into another; then
/// it lists.
#[tokio::test]
async fn a_row_that_moved_twice_is_read_once() {
    let rig = Rig::new().await;
    rig.write(&[&[Write::put("a", TIME, 1)]]).await;
    write(&rig.gateway, &[Write::put("a", TIME, 2)]).await;
    let waiting = rig.gateway.waiting("g", None).await.unwrap();
    rig.flush().await;
    assert_eq!(rig.optimize().await.len(), 1);
    let table = rig.table();
    let list = waiting.beside(rig.list().await, &table.files).await;
    assert_eq!(values(&table, &list.unwrap()).await.unwrap(), [1, 2]);
    // Where the row went is known for longer than its first file is there.
    assert!(rig.forget("nobody").await.is_empty());
    let hour = fs::read_dir(rig.dir.path().join(HOUR)).unwrap();
    assert_eq!(hour.count(), 1);
    let list = waiting.beside(rig.list().await, &table.files).await;
    assert_eq!(values(&table, &list.unwrap()).await.unwrap(), [1, 2]);
}

/// What is joined beside it was read before the record was forgotten: it must not come back.
#[tokio::test]
async fn a_record_that_is_forgotten_while_files_are_joined_is_gone() {
    let (reached, on) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    let probe = {
        let on = Arc::clone(&on);
        Probe::new(move |step| {
            if step == "replace.unnamed" && !reached.swap(true, Ordering::SeqCst) {
                while !on.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        })
    };
    let rig = Rig::with(probe, RewriteOptions::default()).await;
    rig.write(&[
        &[Write::put("a", TIME, 1), Write::put("b", TIME, 2)],
        &[Write::put("b", TIME, 3)],
        &[Write::put("c", TIME, 4)],
    ])
    .await;
    let joining = {
        let (gateway, catalog) = (Arc::clone(&rig.gateway), Arc::clone(&rig.catalog));
        tokio::spawn(async move { optimize_all(&gateway, &catalog).await })
    };
    let unfinished = rig.dir.path().join("s3/g/data/_unfinished");
    while !fs::read_dir(&unfinished).is_ok_and(|mut files| files.next().is_some()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.forget("b").await.len(), 2);
    on.store(true, Ordering::SeqCst);
    assert!(joining.await.unwrap().unwrap().is_empty(), "it gives up");
    let ids: Vec<String> = rig.ranked().into_keys().collect();
    assert_eq!(ids, ["a", "c"]);
    assert_eq!(fs::read_dir(&unfinished).unwrap().count(), 0);
    assert_eq!(rig.optimize().await.len(), 1);
}

/// Lists that are taken while files are joined again and again, and flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_have_each_row_once_while_files_are_joined() {
    let slow = Probe::new(|step| {
        if step.starts_with("replace.") {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let rig = Arc::new(Rig::with(slow, RewriteOptions::default()).await);
    let count = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let writing = {
        let (rig, count) = (Arc::clone(&rig), Arc::clone(&count));
        tokio::spawn(async move {
            for value in 0..40 {
                rig.write(&[&[Write::put("a", TIME + value % 3 * 3_600, value)]])
                    .await;
                count.store(value + 1, Ordering::SeqCst);
                if value % 4 == 3 {
                    rig.optimize().await;
                }
            }
        })
    };
    let table = rig.table();
    let mut looks = 0;
    while !writing.is_finished() || looks < 5 {
        let least = count.load(Ordering::SeqCst);
        let list = rig.list().await;
        let found = values(&table, &list).await.unwrap();
        let all: Vec<i64> = (0..i64::try_from(found.len()).unwrap()).collect();
        assert_eq!(found, all, "rows are seen twice, or not at all");
        assert!(found.len() >= usize::try_from(least).unwrap());
        looks += 1;
    }
    writing.await.unwrap();
    assert!(looks > 20, "{looks} looks");
}

#[tokio::test]
async fn forgetting_rewrites_the_files_that_have_the_record_and_removes_what_was_kept() {
    let rig = Rig::new().await;
    rig.write(&[
        &[Write::put("a", TIME, 1), Write::put("b", TIME, 2)],
        &[Write::put("b", TIME + 1, 3), Write::put("b", TIME + 2, 4)],
        &[Write::put("c", TIME, 5)],
        &[Write::put("b", TIME + 3_600, 6)],
    ])
    .await;
    let untouched = rig.files()[..3]
        .iter()
        .find(|path| read(path).column(0).as_string::<i32>().value(0) == "c")
        .unwrap()
        .clone();
    let mut expected = rig.ranked();
    expected.remove("b");
    let old = rig.list().await;
    let mut found = rig.forget("b").await;
    found.sort_unstable();
    let rows: u64 = found.iter().map(|(_, rows)| rows).sum();
    assert_eq!((found.len(), rows), (3, 4));
    assert_eq!(rig.ranked(), expected);
    assert!(untouched.exists());
    assert_eq!(rig.files().len(), 2, "files without rows are gone");
    assert!(rig.forget("b").await.is_empty());
    let table = rig.table();
    let error = values(&table, &old).await.unwrap_err();
    assert_eq!(error.kind, Kind::Aborted, "{error}");
    let new = rig.list().await;
    assert_eq!(values(&table, &new).await.unwrap(), [1, 5]);

    // What was joined is kept for a while; not so after this.
    rig.write(&[&[Write::put("d", TIME, 7)]]).await;
    let kept = rig.list().await;
    assert_eq!(rig.optimize().await.len(), 1);
    assert_eq!(values(&table, &kept).await.unwrap(), [1, 5, 7]);
    assert_eq!(rig.forget("d").await.len(), 1);
    assert!(values(&table, &kept).await.is_err());
    let hour = fs::read_dir(rig.dir.path().join(HOUR)).unwrap();
    assert_eq!(hour.count(), 1, "nothing is left of the record");
}

/// Ties of other records stay in order, and columns nobody knows stay.
#[tokio::test]
async fn forgetting_keeps_the_rest_of_a_file_as_it_is() {
    let rig = Rig::new().await;
    let at = TIME as f64;
    rig.put(
        "20260201T123000Z_0000000000000005.parquet",
        &[("a", at, Some(1), 1), ("b", at, Some(2), 1)],
    );
    rig.put(
        "20260201T123000Z_0000000000000006.parquet",
        &[("b", at, Some(3), 1)],
    );
    rig.put(
        "part-00000.parquet",
        &[
            ("b", at, Some(4), 1),
            ("a", at, Some(5), 1),
            ("b", at, None, 1),
        ],
    );
    rig.put("part-00000a.parquet", &[("b", at, Some(6), 1)]);
    let mut expected = rig.ranked();
    expected.remove("a");
    let found = rig.forget("a").await;
    assert_eq!(found.iter().map(|(_, rows)| rows).sum::<u64>(), 2);
    assert_eq!(rig.ranked(), expected);
    let names = read(&rig.files()[0]).schema();
    assert!(names.field_with_name("later").is_err(), "{names}");
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "started by the test below"]
fn victim() {
    victim::act(async |dir, probe, first| {
        let options = RewriteOptions {
            grace: Duration::from_millis(1),
            ..RewriteOptions::default()
        };
        let (gateway, catalog, options) = open_rewriting(&dir, probe, options).await;
        let writer = OfflineWriter::start(Arc::clone(&gateway), Arc::clone(&catalog), options);
        let _writer = writer.await.unwrap();
        for number in first..first + 5_000 {
            let hour = number % 2 * 3_600;
            let rows = [
                Write::put("a", TIME + hour, number),
                Write::put("b", TIME, number),
                Write::put(&format!("gone-{number}"), TIME, number),
            ];
            write(&gateway, &rows).await;
            say("ack", number);
            if number % 3 == 2 {
                while !gateway.outbox.pending("g", Stage::Offline).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                optimize_all(&gateway, &catalog).await.unwrap();
                let gone = format!("gone-{number}");
                while let Err(error) = forgotten_of(&gateway, &catalog, &gone).await {
                    assert_eq!(error.kind, Kind::Unavailable, "{error}");
                }
                say("gone", number);
            }
        }
    });
}

async fn forgotten_of(gateway: &Arc<Gateway>, catalog: &Catalog, identifier: &str) -> Result<()> {
    let (snapshot, table) = (catalog.snapshot(), table(catalog));
    let forgotten = forget_offline(gateway, &snapshot, &table, identifier).await;
    forgotten.map(drop)
}

#[test]
fn kill_9_at_every_step_of_a_replacement_keeps_every_row_once() {
    let dir = warehouse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut acknowledged, mut gone) = (Vec::<i64>::new(), Vec::<i64>::new());
    let mut first = 0;
    for count in [1, 2, 5, 9] {
        for step in REPLACE_STEPS.into_iter().chain([EXPIRE_STEP]) {
            // Not a number again that a victim wrote and did not live to say so.
            first += 9_999;
            let said = victim::kill("online::rewriting::victim", dir.path(), step, count, first);
            acknowledged.extend(said.numbers("ack "));
            gone.extend(said.numbers("gone "));
            let place = format!("{step} pass {count}");
            let options = RewriteOptions::default();
            runtime.block_on(async {
                let opened = open_rewriting(dir.path(), Probe::default(), options);
                let (gateway, catalog, mut offline) = opened.await;
                offline.max_age = Duration::from_secs(3_600);
                let recovered = Arc::clone(&gateway);
                let writer = OfflineWriter::start(recovered, Arc::clone(&catalog), offline).await;
                drop(writer.unwrap());
                let mark = fs::read(dir.path().join("s3/g/data").join(Replaced::NAME));
                let mark = mark.map_or_else(
                    |_| Replaced::default(),
                    |json| Replaced::from_json(&json, &"the mark").unwrap(),
                );
                assert_eq!(mark.under_way, None, "{place}");
                assert!(
                    !dir.path().join("s3/g/data/_unfinished").exists(),
                    "{place}"
                );
                let found = rows(dir.path(), &gateway);
                for (row, times) in &found {
                    assert_eq!(*times, 1, "{place}: {row:?}");
                }
                for number in &acknowledged {
                    for id in ["a", "b"] {
                        let row = (id.to_owned(), *number);
                        assert!(found.contains_key(&row), "{place}: {row:?} is lost");
                    }
                }
                for number in &gone {
                    let row = (format!("gone-{number}"), *number);
                    assert!(!found.contains_key(&row), "{place}: {row:?} is back");
                }
                // What a statement lists is what the folder has.
                let list = Lister::new(Duration::ZERO)
                    .list(&table(&catalog).files, EventRange::ALL, None)
                    .await
                    .unwrap();
                let files = parquet_files(&dir.path().join("s3"));
                assert_eq!(list.files.len(), files.len(), "{place}");
                let_go(&gateway).await;
            });
        }
    }
    assert!(acknowledged.len() > 40 && gone.len() > 5);
}
