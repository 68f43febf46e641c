//! A gateway to a fake SageMaker: an engine with an outbox, and the files of one group.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use featureflight_catalog::Result;
use featureflight_catalog::listing::{EventRange, Lister};
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::Serving;
use featureflight_catalog::unlanded::{Fresh, Waiting};
use featureflight_engine::query::PinnedQuery;
use featureflight_engine::session::Session;
use featureflight_engine::{Engine, EngineOptions, Writes};
use featureflight_online::arrivals::{Arrivals, WatchOptions, Watcher};
use featureflight_online::forward::{ForwardOptions, Forwarder, Lanes, Router};
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::outbox::{Outbox, OutboxOptions, Stage};
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_tests::fake_runtime::{FakeRuntime, Faults, OfflineRow};
use featureflight_tests::offline_service::land;
use featureflight_tests::warehouse::Group;
use futures::TryStreamExt;
use tempfile::TempDir;

pub(super) struct Rig {
    pub fake: FakeRuntime,
    pub dir: TempDir,
    group: FeatureGroup,
    running: Option<Running>,
    /// How long the gateway keeps a listing.
    pub listings: Duration,
    /// Rows of the fake's log that are in files.
    pub landed: Vec<usize>,
}

/// What ends with the process.
struct Running {
    gateway: Arc<Gateway>,
    engine: Arc<Engine>,
    session: Arc<Session>,
    _forwarder: Forwarder,
    _watcher: Watcher,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Group::scores().write(dir.path());
        let description = std::fs::read(dir.path().join("feature-groups/scores.json")).unwrap();
        let fake = FakeRuntime::start().await;
        fake.add_group("scores", "id", "at");
        let mut rig = Self {
            fake,
            group: serde_json::from_slice(&description).unwrap(),
            dir,
            running: None,
            listings: Duration::ZERO,
            landed: Vec::new(),
        };
        rig.restart(Duration::from_millis(50), Duration::from_hours(1))
            .await;
        rig
    }

    /// Ends the gateway as a crash would, but for what is on disk, and starts it anew.
    pub(super) async fn restart(&mut self, every: Duration, max_pending: Duration) {
        if let Some(running) = self.running.take() {
            drop(running);
        }
        let dir = self.dir.path();
        let options = OutboxOptions {
            reserve_bytes: 0,
            ..OutboxOptions::default()
        };
        let catalog = featureflight_tests::open_warehouse(dir).await;
        let outbox = Arc::new(opened(&dir.join("outbox"), &options).await);
        let aws = self.fake.sdk_config();
        let gateway = Arc::new(Gateway {
            outbox: Arc::clone(&outbox),
            store: Arc::new(SageMakerStore::new(&aws, Duration::from_millis(300), 8)),
            offline: OfflineBy::Service(Arc::new(Arrivals::new(Arc::clone(&catalog)))),
            max_future: None,
            landed: Landed::default(),
            lanes: Lanes::default(),
        });
        let forwarding = ForwardOptions {
            backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(50),
            lanes: Arc::clone(&gateway.lanes),
            ..ForwardOptions::default()
        };
        let router = Arc::clone(&gateway) as Arc<dyn Router>;
        let watching = WatchOptions { every, max_pending };
        let writes = Writes::Through(Arc::clone(&gateway));
        let options = EngineOptions {
            list_cache_ttl: self.listings,
            ..EngineOptions::default()
        };
        self.running = Some(Running {
            engine: Engine::with_writes(catalog, options, writes).unwrap(),
            session: Arc::new(Session::new("test")),
            _forwarder: Forwarder::start(outbox, router, forwarding),
            _watcher: Watcher::start(Arc::clone(&gateway), watching),
            gateway,
        });
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(super) async fn pin(&self, sql: &str) -> Result<Arc<PinnedQuery>> {
        let Running {
            engine, session, ..
        } = self.running();
        engine.pin(session, sql, Vec::new()).await
    }

    pub(super) async fn fetch(&self, query: &Arc<PinnedQuery>) -> Result<Vec<String>> {
        let rows = self.running().engine.run(query).await?;
        let batches: Vec<RecordBatch> = rows.try_collect().await?;
        Ok(lines(&batches))
    }

    pub(super) async fn try_sql(&self, sql: &str) -> Result<Vec<String>> {
        let query = self.pin(sql).await?;
        self.fetch(&query).await
    }

    /// The rows a statement answers, each with its values between bars.
    pub(super) async fn sql(&self, sql: &str) -> Vec<String> {
        match self.try_sql(sql).await {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// Only what is in files.
    pub(super) async fn stale(&self, sql: &str) -> Vec<String> {
        self.sql("SET featureflight.fresh = false").await;
        let rows = self.sql(sql).await;
        self.sql("RESET featureflight.fresh").await;
        rows
    }

    /// Until the service has everything that was accepted.
    pub(super) async fn sent(&self) {
        let outbox = &self.running().gateway.outbox;
        while !outbox.pending_groups(Stage::Online).is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Until nothing is pending.
    pub(super) async fn settled(&self) {
        for _ in 0..1_000 {
            let outbox = &self.running().gateway.outbox;
            if outbox.pending_groups(Stage::Offline).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("rows are pending still");
    }

    /// What a statement takes down first.
    pub(super) async fn waiting(&self) -> Waiting {
        let gateway = &self.running().gateway;
        gateway.waiting("scores", None).await.unwrap()
    }

    /// How many files, the pending rows as one of them, a statement reads that has taken `waiting`
    /// down and lists now, but for those that are there.
    pub(super) async fn beside(&self, waiting: Waiting) -> usize {
        let catalog = self.running().engine.catalog.snapshot();
        let Serving::Served(table) = &catalog.groups["scores"].serving else {
            panic!("the group is served");
        };
        let lister = Lister::new(Duration::ZERO);
        let list = lister.list(&table.files, EventRange::ALL, None).await;
        let list = list.unwrap();
        let there = list.files.len();
        let beside = waiting.beside(list, &table.files).await.unwrap();
        beside.files.len() - there
    }

    pub(super) fn faults(&self, faults: Faults) {
        self.fake.set_faults(faults);
    }

    /// The service writes those of the rows it has that `choose` says, by their number.
    pub(super) fn land(&mut self, mut choose: impl FnMut(usize) -> bool) {
        let log = self.fake.offline();
        let chosen: Vec<usize> = (0..log.len())
            .filter(|number| !self.landed.contains(number) && choose(*number))
            .collect();
        let rows: Vec<OfflineRow> = chosen.iter().map(|number| log[*number].clone()).collect();
        self.write(&rows);
        self.landed.extend(chosen);
    }

    /// A file of these rows, whoever sent them.
    pub(super) fn write(&self, rows: &[OfflineRow]) {
        land(rows, &self.group, &self.root());
    }

    fn root(&self) -> std::path::PathBuf {
        let bucket: &Path = self.dir.path();
        bucket.join("s3")
    }
}

/// The outbox, once those who had it open before are gone.
async fn opened(dir: &Path, options: &OutboxOptions) -> Outbox {
    for _ in 0..1_000 {
        match Outbox::open(dir, options.clone()) {
            Err(error) if error.message.contains("in use") => {}
            opened => return opened.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the outbox is in use still");
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|').map(str::trim);
        cells.collect::<Vec<_>>().join("|")
    };
    let lines = table.lines().filter(|line| line.starts_with('|'));
    lines.skip(1).map(cells).collect()
}
