//! Complete or an error: whatever happens to the files of a result between its pin and its last
//! row, the client gets all rows or a status.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::FlightInfo;
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::{AwsStorage, Storage, WarehouseStorage};
use featureflight_engine::{Engine, EngineOptions};
use featureflight_server::config::ServerConfig;
use featureflight_server::serve_engine;
use featureflight_tests::faults::{Fault, FaultyStorage};
use featureflight_tests::faulty_s3::{FaultyS3, HttpFault};
use featureflight_tests::warehouse::write_examples;
use tonic::Code;

use super::client::{Client, Server, only_ticket};

const STATEMENTS: [&str; 5] = [
    "SELECT * FROM features.examples",
    "SELECT * FROM history.examples",
    "SELECT * FROM sagemaker_featurestore.examples_1700000000",
    "SELECT * FROM point_in_time_join((SELECT id, event_time AS ts FROM history.examples), 'examples')",
    "SELECT l.id, r.v FROM (SELECT id, event_time AS ts FROM history.examples) l \
     ASOF JOIN features.examples r MATCH_CONDITION (l.ts >= r.event_time) ON l.id = r.id",
];

/// Options of an engine that keeps nothing of files.
fn forgetful() -> EngineOptions {
    EngineOptions {
        list_cache_ttl: Duration::ZERO,
        footer_cache_bytes: 0,
        ..EngineOptions::default()
    }
}

/// A server whose storage fails on command, with nothing of its files kept.
pub(crate) async fn faulty(timeout: Option<Duration>) -> (Server, Arc<FaultyStorage>) {
    faulty_with(EngineOptions {
        query_timeout: timeout.or(EngineOptions::default().query_timeout),
        ..forgetful()
    })
    .await
}

async fn faulty_with(options: EngineOptions) -> (Server, Arc<FaultyStorage>) {
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path());
    let storage = WarehouseStorage::open(directory.path()).unwrap();
    let storage = Arc::new(FaultyStorage::new(storage));
    let server = over(directory, Arc::clone(&storage) as _, options).await;
    (server, storage)
}

/// A server over `storage` of the groups that `directory` describes.
async fn over(
    directory: tempfile::TempDir,
    storage: Arc<dyn Storage>,
    options: EngineOptions,
) -> Server {
    let source = Arc::new(FilesSource::new(directory.path()));
    let catalog = Catalog::open(source, storage).await.unwrap();
    let engine = Engine::new(catalog, options).unwrap();
    let config = ServerConfig {
        listen: "127.0.0.1:0".into(),
        ..ServerConfig::default()
    };
    let handle = serve_engine(engine, &config, std::future::pending())
        .await
        .unwrap();
    Server { handle, directory }
}

/// Everything of the statement, pinned while all is well, then read under `fault`.
async fn read(
    client: &mut Client,
    storage: &FaultyStorage,
    sql: &str,
    fault: Fault,
    good: usize,
) -> Result<Vec<String>, tonic::Status> {
    storage.fail(Fault::None, 0);
    let info = client.execute(sql).await.unwrap();
    storage.fail(fault, good);
    let answer = fetch_all(client, &info).await;
    storage.fail(Fault::None, 0);
    answer
}

/// All of the endpoints, sorted; or the first status.
async fn fetch_all(client: &mut Client, info: &FlightInfo) -> Result<Vec<String>, tonic::Status> {
    let mut lines = Vec::new();
    for endpoint in &info.endpoint {
        lines.extend(
            client
                .fetch(endpoint.ticket.as_ref().unwrap())
                .await?
                .lines(),
        );
    }
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_fails_never_makes_a_result_short() {
    let (server, storage) = faulty(None).await;
    let mut client = server.connect().await;
    fail_each_read(&mut client, &storage, &STATEMENTS).await;
    assert_eq!(
        client.rows("SELECT count(*) FROM features.examples").await,
        ["2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_fails_never_makes_slices_short() {
    let (server, storage) = faulty(None).await;
    let mut client = server.connect().await;
    client.rows("SET featureflight.endpoints = 4").await;
    let sql = "SELECT * FROM history.examples UNION ALL SELECT * FROM history.examples";
    let info = client.execute(sql).await.unwrap();
    assert!(info.endpoint.len() > 1, "it is cut");
    fail_each_read(&mut client, &storage, &[sql]).await;
}

/// Each read of each statement in turn, by each fault: all rows or a status.
async fn fail_each_read(client: &mut Client, storage: &FaultyStorage, statements: &[&str]) {
    for sql in statements {
        let whole = read(client, storage, sql, Fault::None, 0).await.expect(sql);
        assert!(!whole.is_empty(), "{sql}");
        for (fault, expected) in [
            (Fault::Gone, Code::Aborted),
            (Fault::Replaced, Code::Aborted),
            (Fault::ReplacedUnsaid, Code::Aborted),
            (Fault::Short, Code::Unavailable),
            (Fault::Broken, Code::Unavailable),
            (Fault::Damaged, Code::DataLoss),
            (Fault::Panic, Code::Internal),
        ] {
            let mut failed = 0;
            // Each read in turn fails, until there are no more.
            for good in 0..200 {
                match read(client, storage, sql, fault, good).await {
                    Err(status) => {
                        failed += 1;
                        // What is wrong inside a page may be seen by whoever decodes it.
                        let fits = status.code() == expected
                            || (fault == Fault::Damaged && status.code() == Code::DataLoss);
                        assert!(fits, "{sql}, {fault:?} after {good}: {status}");
                        assert!(!status.message().contains("a bug in"), "{status}");
                    }
                    Ok(rows) if fault == Fault::Damaged && rows != whole => {
                        panic!("{sql}: damage after {good} reads changed the answer");
                    }
                    Ok(rows) => {
                        assert_eq!(rows, whole, "{sql}, {fault:?} after {good}");
                        break;
                    }
                }
            }
            assert!(failed > 0, "{sql}: no read failed with {fault:?}");
        }
    }
}

/// What only the wire of an object store can do, to the client that is really used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_object_store_never_makes_a_result_short() {
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path());
    let s3 = FaultyS3::serve(&directory.path().join("s3")).await;
    let storage = Arc::new(AwsStorage::new(&s3.sdk_config()).unwrap());
    let options = EngineOptions {
        query_timeout: Some(Duration::from_secs(4)),
        ..forgetful()
    };
    let server = over(directory, storage, options).await;
    let mut client = server.connect().await;
    for sql in [STATEMENTS[0], STATEMENTS[1]] {
        s3.fail(HttpFault::None, 0);
        let info = client.execute(sql).await.unwrap();
        let whole = fetch_all(&mut client, &info).await.expect(sql);
        assert!(!whole.is_empty(), "{sql}");
        for fault in [
            HttpFault::OtherRange,
            HttpFault::OtherBytes,
            HttpFault::NoRange,
            HttpFault::Short,
            HttpFault::ShortAndSaysSo,
            HttpFault::Stalled,
            HttpFault::Failing,
        ] {
            for good in [0, 1, 3] {
                s3.fail(HttpFault::None, 0);
                let info = client.execute(sql).await.unwrap();
                s3.fail(fault, good);
                let answer = fetch_all(&mut client, &info).await;
                match answer {
                    Err(status) => assert!(
                        matches!(
                            status.code(),
                            Code::Unavailable | Code::DataLoss | Code::DeadlineExceeded
                        ),
                        "{sql}, {fault:?} after {good}: {status}"
                    ),
                    Ok(rows) => {
                        assert_eq!(rows, whole, "{sql}, {fault:?} after {good}");
                        let harmless = good > 0 || fault == HttpFault::NoRange;
                        assert!(harmless, "{sql}: nothing failed with {fault:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_never_comes_ends_at_the_deadline() {
    let (server, storage) = faulty(Some(Duration::from_secs(1))).await;
    let mut client = server.connect().await;
    for sql in STATEMENTS {
        let status = read(&mut client, &storage, sql, Fault::Stalled, 1)
            .await
            .expect_err(sql);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{sql}: {status}");
    }
}

#[tokio::test]
async fn files_changed_on_disk_after_the_pin_are_noticed() {
    for change in ["removed", "cut", "grown", "rewritten"] {
        let server = Server::start().await;
        let mut client = server.connect().await;
        let info = client
            .execute("SELECT * FROM history.examples")
            .await
            .unwrap();
        for file in data_files(&server.directory.path().join("s3")) {
            let bytes = std::fs::read(&file).unwrap();
            match change {
                "removed" => std::fs::remove_file(&file).unwrap(),
                "cut" => std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap(),
                "grown" => std::fs::write(&file, [bytes.clone(), bytes].concat()).unwrap(),
                _ => {
                    std::fs::remove_file(&file).unwrap();
                    std::fs::write(&file, &bytes).unwrap();
                }
            }
        }
        match client.fetch(&only_ticket(&info)).await {
            // The same bytes under another name are the same rows.
            Ok(answer) => {
                assert_eq!(change, "rewritten");
                assert_eq!(answer.rows(), 9);
            }
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{change}: {status}"),
        }
    }
}

fn data_files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(data_files(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            files.push(path);
        }
    }
    files
}
