//! `PollFlightInfo` of statements that write: they say how far they are, write once however often
//! they are asked, and write nothing when they are cancelled before it counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_flight::{CancelStatus, FlightDescriptor, PollInfo};
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_engine::{Engine, EngineOptions, Writes};
use featureflight_online::forward::Lanes;
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::offline::{OwnedFiles, RewriteOptions};
use featureflight_online::outbox::{Outbox, OutboxOptions, Probe};
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_server::config::ServerConfig;
use featureflight_server::serve_engine;
use featureflight_tests::faults::{Fault, FaultyStorage};
use featureflight_tests::warehouse::{Group, write_examples};
use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::polling::statement;

/// Reads three files for nine rows.
const COPY: &str = "INSERT INTO scores SELECT id, event_time, 0.5, 1 FROM history.examples";
const WRITTEN: &str = "SELECT count(*) FROM history.scores";

/// A server that writes, whose storage and disk stall on command.
struct Writer {
    server: Server,
    storage: Arc<FaultyStorage>,
    /// An fsync of the outbox does not end.
    stuck: Arc<AtomicBool>,
}

impl Writer {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        write_examples(dir);
        Group::scores().write(dir);
        let storage = WarehouseStorage::open(dir).unwrap();
        let storage = Arc::new(FaultyStorage::new(storage));
        let source = Arc::new(FilesSource::new(dir));
        let catalog = Catalog::open(source, Arc::clone(&storage) as _);
        let stuck: Arc<AtomicBool> = Arc::default();
        let gate = Arc::clone(&stuck);
        let options = OutboxOptions {
            reserve_bytes: 0,
            probe: Probe::new(move |step| {
                while step == "append.sync" && gate.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }),
            ..OutboxOptions::default()
        };
        let gateway = Gateway {
            outbox: Arc::new(Outbox::open(&dir.join("outbox"), options).unwrap()),
            store: Arc::new(EmbeddedStore::open(&dir.join("online")).unwrap()),
            offline: OfflineBy::Gateway(Arc::new(OwnedFiles::new(
                dir.join("s3"),
                RewriteOptions::default(),
            ))),
            max_future: None,
            landed: Landed::default(),
            lanes: Lanes::default(),
        };
        let options = EngineOptions {
            list_cache_ttl: Duration::ZERO,
            footer_cache_bytes: 0,
            ..EngineOptions::default()
        };
        let writes = Writes::Through(Arc::new(gateway));
        let engine = Engine::with_writes(catalog.await.unwrap(), options, writes).unwrap();
        let config = ServerConfig {
            listen: "127.0.0.1:0".into(),
            ..ServerConfig::default()
        };
        let handle = serve_engine(engine, &config, std::future::pending());
        let handle = handle.await.unwrap();
        Self {
            server: Server { handle, directory },
            storage,
            stuck,
        }
    }

    /// A client whose polls do not wait long for something to happen.
    async fn connect(&self) -> Client {
        let client = self.server.connect().await;
        client.with_header("grpc-timeout", "300m")
    }

    async fn written(&self) -> Vec<String> {
        self.server.connect().await.rows(WRITTEN).await
    }
}

/// Else the outbox would wait for its disk for ever when a test fails.
impl Drop for Writer {
    fn drop(&mut self) {
        self.stuck.store(false, Ordering::SeqCst);
    }
}

async fn next(client: &mut Client, poll: &PollInfo) -> PollInfo {
    client.poll(descriptor(poll)).await.unwrap()
}

fn descriptor(poll: &PollInfo) -> FlightDescriptor {
    poll.flight_descriptor.clone().expect("it goes on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_insert_says_how_far_it_is_and_writes_once() {
    let writer = Writer::start().await;
    let mut client = writer.connect().await;
    writer.storage.fail(Fault::Stalled, 0);
    let mut poll = client.poll(statement(COPY)).await.unwrap();
    let first = descriptor(&poll);
    let mut shares = Vec::new();
    while poll.flight_descriptor.is_some() {
        assert!(poll.info.as_ref().unwrap().endpoint.is_empty());
        assert_eq!(writer.written().await, ["0"], "nothing counts yet");
        shares.extend(poll.progress);
        // One more read goes well.
        writer.storage.fail(Fault::Stalled, 1);
        assert!(shares.len() < 100, "it does not end");
        poll = next(&mut client, &poll).await;
    }
    assert!(shares.is_sorted() && shares.iter().all(|share| *share < 1.0 + f64::EPSILON));
    assert!(
        shares.iter().any(|share| (0.1..0.9).contains(share)),
        "{shares:?}"
    );
    writer.storage.fail(Fault::None, 0);
    assert_eq!(poll.progress, Some(1.0));
    for _ in 0..3 {
        let again = client.poll(first.clone()).await.unwrap();
        assert_eq!(again, poll, "an answer that was lost is given again");
    }
    let ticket = only_ticket(&poll.info.unwrap());
    for _ in 0..2 {
        assert_eq!(client.fetch(&ticket).await.unwrap().lines(), ["9|0|"]);
    }
    assert_eq!(writer.written().await, ["9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_is_cancelled_before_it_counts_writes_nothing() {
    let writer = Writer::start().await;
    let mut client = writer.connect().await;
    writer.storage.fail(Fault::Stalled, 2);
    let poll = client.poll(statement(COPY)).await.unwrap();
    let shown: serde_json::Value =
        serde_json::from_slice(&poll.info.as_ref().unwrap().app_metadata).unwrap();
    let shown = shown["query_id"].as_str().unwrap().to_owned();
    let cancelled = client.cancel(poll.info.as_ref().unwrap()).await.unwrap();
    assert_eq!(cancelled, CancelStatus::Cancelled);
    writer.storage.fail(Fault::None, 0);
    assert_eq!(code(client.poll(descriptor(&poll)).await), Code::Cancelled);
    let sql = format!("SELECT state FROM system.queries WHERE id = '{shown}'");
    let mut other = writer.server.connect().await;
    assert_eq!(other.rows(&sql).await, ["cancelled"]);
    assert_eq!(writer.written().await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_is_becoming_durable_cannot_be_cancelled() {
    let writer = Writer::start().await;
    let mut client = writer.connect().await;
    writer.stuck.store(true, Ordering::SeqCst);
    let poll = client.poll(statement(COPY)).await.unwrap();
    let waiting = next(&mut client, &poll).await;
    let info = waiting.info.clone().unwrap();
    let refused = client.cancel(&info).await.unwrap();
    assert_eq!(refused, CancelStatus::NotCancellable);
    let shown: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    let cancel = format!("CANCEL QUERY '{}'", shown["query_id"].as_str().unwrap());
    assert_eq!(
        code(client.update(&cancel).await),
        Code::FailedPrecondition,
        "by SQL neither"
    );
    writer.stuck.store(false, Ordering::SeqCst);
    let done = client.poll_to_the_end(descriptor(&waiting)).await.unwrap();
    let info = done.info.unwrap();
    let ticket = only_ticket(&info);
    let refused = client.cancel(&info).await.unwrap();
    assert_eq!(refused, CancelStatus::NotCancellable, "it is done");
    assert_eq!(client.fetch(&ticket).await.unwrap().lines(), ["9|0|"]);
    assert_eq!(writer.written().await, ["9"]);
}

#[tokio::test]
async fn an_insert_that_is_refused_says_so_to_every_poll() {
    let writer = Writer::start().await;
    let mut client = writer.server.connect().await;
    let wrong = COPY.replace("event_time", "'soon'");
    let refused = client.poll_to_the_end(statement(&wrong)).await;
    let refused = refused.expect_err("no event time");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("9 rows refused"), "{refused}");
    assert_eq!(writer.written().await, ["0"]);
}
