//! `online('g')` on all four online stores, over the wire where there is one: whatever names the
//! records, they answer alike.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use featureflight_catalog::Kind;
use featureflight_engine::session::Session;
use featureflight_engine::{Engine, EngineOptions, Writes};
use featureflight_online::forward::{ForwardOptions, Forwarder, Lanes, Router};
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::offline::{OwnedFiles, RewriteOptions};
use featureflight_online::outbox::{Outbox, OutboxOptions, Stage};
use featureflight_online::store::OnlineStore;
use featureflight_online::store::dynamodb::DynamoDbStore;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::store::redis::RedisStore;
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_tests::fake_runtime::FakeRuntime;
use featureflight_tests::servers::Server;
use featureflight_tests::warehouse::Group;
use futures::TryStreamExt;

const TIMEOUT: Duration = Duration::from_secs(10);

/// An engine that writes to `store`, with 1,200 records there.
struct Site {
    engine: Arc<Engine>,
    session: Arc<Session>,
    _forwarder: Forwarder,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn with(store: Arc<dyn OnlineStore>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Group::scores().write(directory.path());
        std::fs::create_dir_all(directory.path().join("s3")).unwrap();
        let catalog = featureflight_tests::open_warehouse(directory.path()).await;
        let options = OutboxOptions {
            reserve_bytes: 0,
            ..OutboxOptions::default()
        };
        let outbox = Outbox::open(&directory.path().join("outbox"), options).unwrap();
        let gateway = Arc::new(Gateway {
            outbox: Arc::new(outbox),
            store,
            offline: OfflineBy::Gateway(Arc::new(OwnedFiles::new(
                directory.path().join("s3"),
                RewriteOptions::default(),
            ))),
            max_future: None,
            landed: Landed::default(),
            lanes: Lanes::default(),
        });
        let router = Arc::clone(&gateway) as Arc<dyn Router>;
        let outbox = Arc::clone(&gateway.outbox);
        let forwarder = Forwarder::start(Arc::clone(&outbox), router, ForwardOptions::default());
        let writes = Writes::Through(gateway);
        let site = Self {
            engine: Engine::with_writes(catalog, EngineOptions::default(), writes).unwrap(),
            session: Arc::new(Session::new("test")),
            _forwarder: forwarder,
            _directory: directory,
        };
        for sql in [
            "INSERT INTO scores SELECT 'r' || value, '2026-01-01T00:00:00.5Z', value / 8.0, value \
             FROM range(1200)",
            "INSERT INTO scores VALUES ('r3', '2026-01-02', NULL, 33), ('r4', '2025-01-01', 1, 44)",
            "DELETE FROM scores WHERE id = 'r5'",
            "CREATE TEMP VIEW spine AS SELECT 'r' || value AS id, value AS n FROM range(3, 2400, 2)",
        ] {
            site.sql(sql).await.unwrap();
        }
        while !outbox.pending_groups(Stage::Online).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site
    }

    async fn sql(&self, sql: &str) -> featureflight_catalog::Result<Vec<String>> {
        let query = self.engine.pin(&self.session, sql, Vec::new()).await?;
        let batches = self.engine.run(&query).await?;
        let batches: Vec<RecordBatch> = batches.try_collect().await?;
        let table = pretty_format_batches(&batches).unwrap().to_string();
        Ok(table.lines().skip(3).map(str::to_owned).collect())
    }
}

/// What names the records, and how many are there.
const NAMED: [(&str, usize); 6] = [
    ("WHERE id IN ('r3', 'r4', 'r5', 'nobody')", 2),
    ("WHERE id IN (SELECT id FROM spine)", 598),
    ("JOIN spine USING (id)", 598),
    (
        "JOIN spine USING (id) WHERE n < 10 AND score IS NOT NULL",
        2,
    ),
    ("RIGHT JOIN spine USING (id)", 1199),
    ("WHERE id IN (SELECT id FROM spine WHERE n > 5000)", 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_store_answers_alike_whatever_names_the_records() {
    let fake = FakeRuntime::start().await;
    fake.add_group("scores", "id", "at");
    let (redis, dynamodb) = (Server::redis(), Server::dynamodb());
    let table = DynamoDbStore::new(&dynamodb.aws(), "records", TIMEOUT, 8);
    table.create_table().await.unwrap();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let directory = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn OnlineStore>; 4] = [
        Arc::new(EmbeddedStore::open(directory.path()).unwrap()),
        Arc::new(SageMakerStore::new(&fake.sdk_config(), TIMEOUT, 8)),
        Arc::new(table),
        Arc::new(RedisStore::new(&url, "test:", TIMEOUT).unwrap()),
    ];
    let mut known: Option<Vec<Vec<String>>> = None;
    for store in stores {
        let name = store.name().to_owned();
        let site = Site::with(store).await;
        let mut answers = Vec::new();
        for (named, count) in NAMED {
            let sql = format!("SELECT * FROM online('scores') {named} ORDER BY 1, 2");
            let rows = site.sql(&sql).await.unwrap();
            // The last line is the frame's.
            assert_eq!(rows.len().saturating_sub(1), count, "{name}: {sql}");
            answers.push(rows);
        }
        let all = site.sql("SELECT count(*) FROM online('scores')").await;
        if name == "embedded" {
            assert!(all.unwrap()[0].contains("1199"));
        } else {
            assert_eq!(all.unwrap_err().kind, Kind::FailedPrecondition, "{name}");
        }
        let known = known.get_or_insert_with(|| answers.clone());
        assert_eq!(*known, answers, "{name}");
    }
}
