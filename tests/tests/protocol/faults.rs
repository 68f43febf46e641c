//! Complete or an error: whatever happens to the files of a result between its pin and its last
//! row, the client gets all rows or a status.

use std::sync::Arc;
use std::time::Duration;

use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_engine::{Engine, EngineOptions};
use featureflight_server::config::ServerConfig;
use featureflight_server::serve_engine;
use featureflight_tests::faults::{Fault, FaultyStorage};
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

/// A server whose storage fails on command, with nothing of its files kept.
pub(crate) async fn faulty(timeout: Option<Duration>) -> (Server, Arc<FaultyStorage>) {
    let directory = tempfile::tempdir().unwrap();
    write_examples(directory.path());
    let storage = WarehouseStorage::open(directory.path()).unwrap();
    let storage = Arc::new(FaultyStorage::new(storage));
    let source = Arc::new(FilesSource::new(directory.path()));
    let catalog = Catalog::open(source, Arc::clone(&storage) as _)
        .await
        .unwrap();
    let options = EngineOptions {
        list_cache_ttl: Duration::ZERO,
        footer_cache_bytes: 0,
        query_timeout: timeout.or(EngineOptions::default().query_timeout),
        ..EngineOptions::default()
    };
    let engine = Engine::new(catalog, options).unwrap();
    let config = ServerConfig {
        listen: "127.0.0.1:0".into(),
        ..ServerConfig::default()
    };
    let handle = serve_engine(engine, &config, std::future::pending())
        .await
        .unwrap();
    (Server { handle, directory }, storage)
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
    let answer = client.fetch(&only_ticket(&info)).await;
    storage.fail(Fault::None, 0);
    let mut lines = answer?.lines();
    lines.sort();
    Ok(lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_fails_never_makes_a_result_short() {
    let (server, storage) = faulty(None).await;
    let mut client = server.connect().await;
    for sql in STATEMENTS {
        let whole = read(&mut client, &storage, sql, Fault::None, 0)
            .await
            .expect(sql);
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
                match read(&mut client, &storage, sql, fault, good).await {
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
    assert_eq!(
        client.rows("SELECT count(*) FROM features.examples").await,
        ["2"]
    );
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
