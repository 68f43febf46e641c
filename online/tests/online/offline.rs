//! The offline writer: SageMaker's layout, each accepted row in exactly one file, whatever kills the
//! process on the way.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use featureflight_catalog::Instant;
use featureflight_catalog::listing::{EventRange, Lister};
use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_catalog::unlanded::Fresh;
use featureflight_online::forward::Lanes;
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::offline::{
    OfflineOptions, OfflineWriter, OwnedFiles, RewriteOptions, STEPS, flush,
};
use featureflight_online::outbox::{Outbox, OutboxOptions, Probe, Stage, Stages};
use featureflight_online::record::Operation;
use featureflight_online::store::OnlineStore;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::validate::Refusals;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use serde_json::json;
use tempfile::TempDir;

use super::model::{Write, block};
use super::victim::{self, say};

const OFFLINE: Stages = Stages {
    online: false,
    offline: true,
};

/// A time in the middle of an hour, in seconds.
pub(super) const TIME: i64 = 1_769_949_000;

/// Two groups, `g` and `h`.
pub(super) fn warehouse() -> TempDir {
    let dir = TempDir::new().unwrap();
    let mut group = json!({
        "FeatureGroupName": "g",
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "ts",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "String"},
            {"FeatureName": "ts", "FeatureType": "Fractional"},
            {"FeatureName": "later", "FeatureType": "String"},
            {"FeatureName": "v", "FeatureType": "Integral"},
        ],
        "FeatureGroupStatus": "Created",
        "OfflineStoreConfig": {"S3StorageConfig": {
            "S3Uri": "s3://b", "ResolvedOutputS3Uri": "s3://b/g/data"}},
    });
    std::fs::create_dir_all(dir.path().join("s3")).unwrap();
    std::fs::create_dir_all(dir.path().join("feature-groups")).unwrap();
    std::fs::write(dir.path().join("feature-groups/g.json"), group.to_string()).unwrap();
    group["FeatureGroupName"] = "h".into();
    group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"] = "s3://b/h/data".into();
    std::fs::write(dir.path().join("feature-groups/h.json"), group.to_string()).unwrap();
    dir
}

/// What a server of the warehouse has.
pub(super) async fn open(dir: &Path, probe: Probe) -> (Arc<Gateway>, Arc<Catalog>, OfflineOptions) {
    open_rewriting(dir, probe, RewriteOptions::default()).await
}

pub(super) async fn open_rewriting(
    dir: &Path,
    probe: Probe,
    rewriting: RewriteOptions,
) -> (Arc<Gateway>, Arc<Catalog>, OfflineOptions) {
    let store = EmbeddedStore::open(&dir.join("online")).unwrap();
    open_with(dir, probe, Arc::new(store), rewriting).await
}

/// The same with this online store.
pub(super) async fn open_with(
    dir: &Path,
    probe: Probe,
    store: Arc<dyn OnlineStore>,
    rewriting: RewriteOptions,
) -> (Arc<Gateway>, Arc<Catalog>, OfflineOptions) {
    let options = OutboxOptions {
        reserve_bytes: 0,
        checkpoint: Duration::from_millis(5),
        segment_bytes: 20_000,
        probe,
        ..OutboxOptions::default()
    };
    let gateway = Gateway {
        outbox: Arc::new(Outbox::open(&dir.join("outbox"), options).unwrap()),
        store,
        offline: OfflineBy::Gateway(Arc::new(OwnedFiles::new(dir.join("s3"), rewriting))),
        max_future: None,
        landed: Landed::default(),
        lanes: Lanes::default(),
    };
    let source = Arc::new(FilesSource::new(dir));
    let storage = Arc::new(WarehouseStorage::open(dir).unwrap());
    let options = OfflineOptions {
        root: dir.join("s3"),
        max_bytes: u64::MAX,
        max_age: Duration::ZERO,
    };
    let catalog = Catalog::open(source, storage).await.unwrap();
    (Arc::new(gateway), catalog, options)
}

pub(super) async fn write(gateway: &Gateway, writes: &[Write]) -> i64 {
    let mut draft = gateway.outbox.draft(OFFLINE);
    draft.push(&block("g", writes, None)).await.unwrap();
    let receipt = draft.commit(Refusals::default()).await.unwrap();
    receipt.accepted_at.unwrap().micros
}

/// Returns when nobody else has the gateway any more, so that its outbox closes with it.
pub(super) async fn let_go(gateway: &Arc<Gateway>) {
    while Arc::strong_count(gateway) > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") && !name.starts_with('.') {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

pub(super) fn read(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

#[tokio::test]
async fn a_flush_writes_the_services_layout() {
    let dir = warehouse();
    let (gateway, catalog, options) = open(dir.path(), Probe::default()).await;
    let first = [
        Write::put("b", TIME, 1),
        Write::put("a", TIME + 60, 2),
        Write::put("a", TIME, 3),
        Write::put("a", TIME, 4),
        Write::put("a", TIME + 3_600, 5),
    ];
    let accepted = write(&gateway, &first).await;
    let delete = Write {
        operation: Operation::SoftDelete,
        ..Write::put("b", TIME + 1, 0)
    };
    let deleted = write(&gateway, &[delete]).await;
    flush(&gateway, &catalog, "g", &options.root).await.unwrap();
    assert!(gateway.outbox.pending_groups(Stage::Offline).is_empty());
    let files = parquet_files(dir.path());
    let [one, other] = files.as_slice() else {
        panic!("two hours: {files:?}");
    };
    let folder = dir.path().join("s3/g/data/year=2026/month=02/day=01");
    assert_eq!(one.parent().unwrap(), folder.join("hour=12"));
    assert_eq!(other.parent().unwrap(), folder.join("hour=13"));
    let name = one.file_name().unwrap().to_str().unwrap();
    let (latest, suffix) = name.split_once('_').unwrap();
    assert_eq!(latest, "20260201T123100Z");
    let suffix = suffix.strip_suffix(".parquet").unwrap();
    assert!(suffix.len() == 16 && suffix.bytes().all(|b| b.is_ascii_alphanumeric()));

    let rows = read(one);
    let schema = rows.schema();
    let names: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let system = ["write_time", "api_invocation_time", "is_deleted"];
    assert_eq!(
        names,
        [["id", "ts", "later", "v"].as_slice(), &system].concat()
    );
    let ids: Vec<_> = rows.column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["a", "a", "a", "b", "b"]);
    let times = rows.column(1).as_primitive::<Float64Type>();
    let times: Vec<_> = times
        .values()
        .iter()
        .map(|time| *time as i64 - TIME)
        .collect();
    assert_eq!(times, [0, 0, 60, 0, 1]);
    let values: Vec<_> = rows.column(3).as_primitive::<Int64Type>().iter().collect();
    assert_eq!(
        values,
        [Some(3), Some(4), Some(2), Some(1), None],
        "rows that tie stay in order"
    );
    for column in [4, 5] {
        let times = rows
            .column(column)
            .as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values()[..4], [accepted; 4]);
        assert_eq!(times.values()[4], deleted);
    }
    let deleted: Vec<_> = rows.column(6).as_boolean().iter().flatten().collect();
    assert_eq!(deleted, [false, false, false, false, true]);

    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(one).unwrap()).unwrap();
    let chunk = reader.metadata().row_group(0).column(0);
    assert!(matches!(chunk.compression(), Compression::ZSTD(_)));
    assert!(chunk.bloom_filter_offset().is_some() && chunk.statistics().is_some());
    let about = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    let accepted = about
        .iter()
        .find(|pair| pair.key == "featureflight.accepted");
    assert_eq!(accepted.unwrap().value.as_deref(), Some("0.0-1.0"));
}

#[tokio::test]
async fn a_flush_that_fails_loses_nothing_and_is_made_up_for() {
    let dir = warehouse();
    let (gateway, catalog, options) = open(dir.path(), Probe::default()).await;
    write(
        &gateway,
        &[Write::put("a", TIME, 1), Write::put("a", TIME + 3_600, 2)],
    )
    .await;
    // A file where the folder of the second hour should be.
    let day = dir.path().join("s3/g/data/year=2026/month=02/day=01");
    std::fs::create_dir_all(&day).unwrap();
    std::fs::write(day.join("hour=13"), "").unwrap();
    let failed = flush(&gateway, &catalog, "g", &options.root).await;
    assert!(failed.unwrap_err().message.contains("hour=13"));
    assert_eq!(parquet_files(&day).len(), 1, "the first hour is there");
    let waiting = gateway.outbox.pending("g", Stage::Offline);
    assert_eq!(waiting[0].unsettled(Stage::Offline), [1]);
    assert!(gateway.outbox.landings().unwrap().is_empty());
    std::fs::remove_file(day.join("hour=13")).unwrap();
    flush(&gateway, &catalog, "g", &options.root).await.unwrap();
    assert_eq!(parquet_files(&day).len(), 2);
    assert!(gateway.outbox.pending_groups(Stage::Offline).is_empty());
}

/// A request has its place in time before it is on disk, where it may take long to get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_waits_for_what_was_accepted_before_it() {
    let dir = warehouse();
    let slow = Probe::new(|at| {
        if at == "append.sync" {
            std::thread::sleep(Duration::from_millis(400));
        }
        Ok(())
    });
    let (gateway, catalog, _) = open(dir.path(), slow).await;
    let snapshot = catalog.snapshot();
    let Serving::Served(table) = &snapshot.groups["g"].serving else {
        panic!("the group is served");
    };
    let writing = Arc::clone(&gateway);
    let written = tokio::spawn(async move { write(&writing, &[Write::put("a", TIME, 1)]).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let cut = Instant::now();
    let seen = async |cut| {
        let lister = Lister::new(Duration::ZERO);
        let waiting = gateway.waiting("g", cut).await.unwrap();
        let list = lister
            .list(&table.files, EventRange::ALL, None)
            .await
            .unwrap();
        let list = waiting.beside(list, &table.files).await.unwrap();
        list.files.len()
    };
    assert_eq!(seen(None).await, 0, "it is not acknowledged yet");
    let found = seen(Some(cut)).await;
    let accepted_at = written.await.unwrap();
    assert!(accepted_at <= cut.micros, "the test is too slow");
    assert_eq!(found, 1, "it is part of the cut");
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "started by the test below"]
fn victim() {
    victim::act(async |dir, probe, first| {
        let (gateway, catalog, options) = open(&dir, probe).await;
        let flushing = Arc::clone(&gateway);
        let _writer = OfflineWriter::start(flushing, catalog, options)
            .await
            .unwrap();
        for number in first..first + 5_000 {
            let hour = number % 3 * 3_600;
            let rows = [
                Write::put("a", TIME + hour, number),
                Write::put("b", TIME + 3_600, number),
            ];
            write(&gateway, &rows).await;
            say("ack", number);
        }
    });
}

/// How often each row is in files and in the outbox together: by identifier and value.
pub(super) fn rows(dir: &Path, gateway: &Gateway) -> BTreeMap<(String, i64), usize> {
    let mut rows: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for path in parquet_files(&dir.join("s3")) {
        let batch = read(&path);
        let ids = batch.column(0).as_string::<i32>();
        let values = batch.column(3).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let row = (ids.value(row).to_owned(), values.value(row));
            *rows.entry(row).or_default() += 1;
        }
    }
    for block in gateway.outbox.pending("g", Stage::Offline) {
        let read = block.read().unwrap();
        for row in block.unsettled(Stage::Offline) {
            let value = read.text(2, row).unwrap().parse().unwrap();
            *rows.entry((read.identifier(row), value)).or_default() += 1;
        }
    }
    rows
}

#[test]
fn kill_9_at_every_step_puts_every_row_into_one_file() {
    let dir = warehouse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut acknowledged, mut first) = (Vec::new(), 0);
    for count in [1, 2, 3, 7] {
        for step in STEPS {
            // Not a number again that a victim wrote and did not live to say so.
            first += 10_000;
            let said = victim::kill("online::offline::victim", dir.path(), step, count, first);
            acknowledged.extend(said.numbers("ack "));
            let place = format!("{step} pass {count}");
            runtime.block_on(async {
                let (gateway, catalog, mut options) = open(dir.path(), Probe::default()).await;
                options.max_age = Duration::from_secs(3_600);
                let recovered = Arc::clone(&gateway);
                let writer = OfflineWriter::start(recovered, catalog, options).await;
                drop(writer.unwrap());
                assert!(gateway.outbox.landings().unwrap().is_empty(), "{place}");
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
                let_go(&gateway).await;
            });
        }
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
}
