//! What the port says in each state of a server, and what it does with clients that misbehave.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_engine::{EngineOptions, Writes};
use featureflight_online::forward::Lanes;
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::offline::{OwnedFiles, RewriteOptions};
use featureflight_online::outbox::{Outbox, OutboxOptions, Probe, Stages};
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::validate::Refusals;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Status and body of what the server says to `head`.
async fn ask(address: SocketAddr, head: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.write_all(head.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    // The server may close while more is on its way to it.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

/// An empty warehouse and an outbox whose disk fails when it is told to.
async fn watched(dir: &TempDir, fails: Arc<AtomicBool>) -> Watched {
    let dir = dir.path();
    for folder in ["feature-groups", "s3"] {
        std::fs::create_dir(dir.join(folder)).expect("a folder");
    }
    let probe = Probe::new(move |step| {
        if step == "append.sync" && fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    });
    let options = OutboxOptions {
        reserve_bytes: 0,
        probe,
        ..OutboxOptions::default()
    };
    let gateway = Gateway {
        outbox: Arc::new(Outbox::open(&dir.join("outbox"), options).expect("an outbox")),
        store: Arc::new(EmbeddedStore::open(&dir.join("online")).expect("a store")),
        offline: OfflineBy::Gateway(Arc::new(OwnedFiles::new(
            dir.join("s3"),
            RewriteOptions::default(),
        ))),
        max_future: None,
        landed: Landed::default(),
        lanes: Lanes::default(),
    };
    let storage = Arc::new(WarehouseStorage::open(dir).expect("storage"));
    let catalog = Catalog::open(Arc::new(FilesSource::new(dir)), storage);
    let catalog = catalog.await.expect("a catalog");
    let writes = Writes::Through(Arc::new(gateway));
    let engine = Engine::with_writes(catalog, EngineOptions::default(), writes);
    Watched {
        engine: engine.expect("an engine"),
        calls: Calls::default(),
        sessions: Sessions::new(Duration::ZERO, 10),
        connections: Arc::new(Semaphore::new(8)),
        max_connections: 10,
    }
}

#[tokio::test]
async fn readiness_has_its_reasons() {
    let monitor = Monitor::start("127.0.0.1:0").await.expect("a port");
    let at = monitor.address;
    assert_eq!(get(at, "/healthz").await, (200, "alive\n".to_owned()));
    let (status, body) = get(at, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("starting"), "{body}");
    assert_eq!(get(at, "/metrics").await.0, 503);

    let dir = tempfile::tempdir().expect("a folder");
    let fails = Arc::new(AtomicBool::new(false));
    let watched = watched(&dir, Arc::clone(&fails)).await;
    monitor.watch(watched.clone());
    assert_eq!(get(at, "/readyz").await, (200, "ready\n".to_owned()));
    let (status, body) = get(at, "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("\nfeatureflight_connections 2"), "{body}");
    assert!(body.contains("\nfeatureflight_outbox_failed 0"), "{body}");
    assert!(body.ends_with("# EOF\n"), "{body}");

    fails.store(true, Ordering::SeqCst);
    let outbox = &watched.engine.gateway().expect("writes").outbox;
    let draft = outbox.draft(Stages {
        online: true,
        offline: true,
    });
    draft
        .commit(Refusals::default())
        .await
        .expect_err("no disk");
    let (status, body) = get(at, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("fsync failed"), "{body}");
    let (_, body) = get(at, "/metrics").await;
    assert!(body.contains("\nfeatureflight_outbox_failed 1"), "{body}");

    watched.calls.drain();
    let (_, body) = get(at, "/readyz").await;
    assert_eq!(body.lines().count(), 2, "{body}");
    assert!(body.starts_with("stopping"), "{body}");
    assert_eq!(get(at, "/healthz").await.0, 200);
}

#[tokio::test]
async fn what_is_not_asked_for_well_is_refused() {
    let monitor = Monitor::start("127.0.0.1:0").await.expect("a port");
    let at = monitor.address;
    assert_eq!(get(at, "/").await.0, 404);
    assert_eq!(get(at, "/metrics/../etc/passwd").await.0, 404);
    let post = "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(ask(at, post).await.0, 405);
    let head = ask(at, "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(head, (200, String::new()));
    let long = format!(
        "GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let (status, _) = ask(at, &long).await;
    assert!(matches!(status, 0 | 431), "{status}");
    let many = "X: y\r\n".repeat(1_000);
    let (status, _) = ask(at, &format!("GET /healthz HTTP/1.1\r\n{many}\r\n")).await;
    assert!(matches!(status, 0 | 431), "{status}");
    assert_eq!(ask(at, "\x16\x03\x01\x02\n\n").await.0, 400);
    assert_eq!(get(at, "/healthz").await.0, 200);
}

/// More clients than there are places, and none of them says anything.
#[tokio::test]
async fn silent_clients_lose_their_places() {
    let monitor = Monitor::start("127.0.0.1:0").await.expect("a port");
    let at = monitor.address;
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS + 8 {
        let mut stream = TcpStream::connect(at).await.expect("connects");
        if number % 2 == 0 {
            stream.write_all(b"GET /healthz").await.expect("sends");
        }
        silent.push(stream);
    }
    let began = Instant::now();
    assert_eq!(get(at, "/healthz").await.0, 200);
    assert!(
        began.elapsed() < 3 * HEADER_TIMEOUT,
        "{:?}",
        began.elapsed()
    );
    drop(silent);
}
