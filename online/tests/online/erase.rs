//! Dropping a feature group, and forgetting a record: in turn with what is sent, again when a store fails,
//! and through `kill -9` at every step.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::{Catalog, Serving};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::unlanded::Fresh;
use featureflight_catalog::{Error, Instant, Kind, Result};
use featureflight_online::erase::{DROP_STEPS, Eraser, FORGET_STEPS, Forgotten};
use featureflight_online::forward::{ForwardOptions, Forwarder};
use featureflight_online::gateway::Gateway;
use featureflight_online::group::Layout;
use featureflight_online::offline::{
    OfflineOptions, OfflineWriter, REPLACE_STEPS, RewriteOptions, flush,
};
use featureflight_online::outbox::{Probe, Stage, Stages};
use featureflight_online::record::{Operation, Record};
use featureflight_online::store::{BatchLimit, OnlineStore, Outcome, StoredRecord};
use featureflight_online::validate::Refusals;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::model::{Write, block, layout};
use super::offline::{TIME, let_go, open, open_with, parquet_files, rows, warehouse};
use super::victim::{self, say};

const BOTH: Stages = Stages {
    online: true,
    offline: true,
};

/// A store that writes down what it is asked and answers when it is let.
#[derive(Debug)]
struct Held {
    log: Mutex<Vec<String>>,
    lets: Semaphore,
    fails: AtomicBool,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::default(),
            lets: Semaphore::new(0),
            fails: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl OnlineStore for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn limit(&self) -> BatchLimit {
        BatchLimit {
            records: 1,
            bytes: 1 << 20,
            calls: 1,
        }
    }

    async fn write(&self, records: &[Record]) -> Vec<Outcome> {
        let text = |record: &Record| format!("{} {}", record.identifier(), record.group());
        self.log.lock().extend(records.iter().map(text));
        self.lets.acquire().await.unwrap().forget();
        vec![Outcome::Done; records.len()]
    }

    async fn get(&self, _: &Arc<Layout>, ids: &[String]) -> Result<Vec<Option<StoredRecord>>> {
        Ok(vec![None; ids.len()])
    }

    async fn forget(&self, group: &str, identifier: &str) -> Result<bool> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::unavailable("it is away"));
        }
        self.log.lock().push(format!("forget {identifier} {group}"));
        Ok(true)
    }

    async fn clear(&self, group: &str) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::unavailable("it is away"));
        }
        self.log.lock().push(format!("clear {group}"));
        Ok(())
    }
}

async fn write(gateway: &Gateway, group: &str, writes: &[Write]) {
    let mut draft = gateway.outbox.draft(BOTH);
    draft.push(&block(group, writes, None)).await.unwrap();
    draft.commit(Refusals::default()).await.unwrap();
}

fn defined(catalog: &Catalog, name: &str) -> Arc<FeatureGroup> {
    Arc::clone(&catalog.snapshot().groups[name].group)
}

fn forward(gateway: &Arc<Gateway>) -> Forwarder {
    let router = Arc::clone(gateway) as _;
    Forwarder::start(
        Arc::clone(&gateway.outbox),
        router,
        ForwardOptions::default(),
    )
}

#[tokio::test]
async fn a_drop_waits_for_what_is_under_way_and_nothing_is_sent_after_it() {
    let dir = warehouse();
    let store = Held::new();
    let (gateway, catalog, _) = open_with(
        dir.path(),
        Probe::default(),
        Arc::clone(&store) as _,
        RewriteOptions::default(),
    )
    .await;
    let _forwarder = forward(&gateway);
    let rows: Vec<Write> = (0..5).map(|n| Write::put("a", TIME + n, n)).collect();
    write(&gateway, "g", &rows).await;
    while store.log.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let eraser = Eraser::new(&gateway, &catalog);
    let group = defined(&catalog, "g");
    let files = match &catalog.snapshot().groups["g"].serving {
        Serving::Served(table) => table.files.clone(),
        other => panic!("{other:?}"),
    };
    let dropping = tokio::spawn({
        let (eraser, group) = (eraser.clone(), Arc::clone(&group));
        async move { eraser.drop_group(group).await }
    });
    // A second one has nothing left to do.
    let second = tokio::spawn({
        let eraser = eraser.clone();
        async move { eraser.drop_group(group).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        *store.log.lock(),
        ["a g"],
        "nothing else while that is under way"
    );
    assert!(!dropping.is_finished());
    let began = Instant::now();
    assert!(gateway.still_there(&files, began).is_ok());
    store.lets.add_permits(100);
    dropping.await.unwrap().unwrap();
    let missed = gateway.still_there(&files, began).unwrap_err();
    assert_eq!(
        missed.kind,
        Kind::NotFound,
        "a list from before may have missed some"
    );
    assert!(gateway.still_there(&files, Instant::now()).is_ok());
    assert_eq!(second.await.unwrap().unwrap_err().kind, Kind::NotFound);
    write(&gateway, "h", &rows[..1]).await;
    while !gateway.outbox.pending_groups(Stage::Online).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*store.log.lock(), ["a g", "clear g", "a h"]);
}

#[tokio::test]
async fn what_a_store_that_is_away_keeps_goes_with_the_next_drop() {
    let dir = warehouse();
    let store = Held::new();
    store.fails.store(true, Ordering::SeqCst);
    let (gateway, catalog, options) = open_with(
        dir.path(),
        Probe::default(),
        Arc::clone(&store) as _,
        RewriteOptions::default(),
    )
    .await;
    write(&gateway, "g", &[Write::put("a", TIME, 1)]).await;
    let group = defined(&catalog, "g");
    let eraser = Eraser::new(&gateway, &catalog);
    let failed = eraser.drop_group(Arc::clone(&group)).await.unwrap_err();
    assert_eq!(failed.kind, Kind::Unavailable);
    assert!(failed.message.contains("run DROP TABLE again"), "{failed}");
    assert!(!catalog.snapshot().groups.contains_key("g"));
    assert!(eraser.unfinished("g").is_some());

    // So does the next start.
    drop((gateway, eraser));
    let (gateway, catalog, _) = open_with(
        dir.path(),
        Probe::default(),
        Arc::clone(&store) as _,
        RewriteOptions::default(),
    )
    .await;
    let eraser = Eraser::new(&gateway, &catalog);
    eraser.resume().await.unwrap();
    assert!(eraser.unfinished("g").is_some(), "it is away still");
    let refused = {
        let mut draft = gateway.outbox.draft(BOTH);
        draft
            .push(&block("g", &[Write::put("a", TIME, 1)], None))
            .await
            .unwrap();
        draft.commit(Refusals::default()).await.unwrap_err()
    };
    assert_eq!(refused.kind, Kind::NotFound);
    store.fails.store(false, Ordering::SeqCst);
    eraser.drop_group(group).await.unwrap();
    assert!(eraser.unfinished("g").is_none());
    assert_eq!(*store.log.lock(), ["clear g"]);
    let writer = OfflineWriter::start(Arc::clone(&gateway), catalog, options).await;
    drop(writer.unwrap());
    assert_eq!(*store.log.lock(), ["clear g"], "nothing is left to resume");
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "started by the test below"]
fn victim() {
    victim::act(async |dir, probe, first| {
        let (gateway, catalog, options) = open(&dir, probe).await;
        let flushing = Arc::clone(&gateway);
        let _writer = OfflineWriter::start(flushing, Arc::clone(&catalog), options)
            .await
            .unwrap();
        let _forwarder = forward(&gateway);
        let eraser = Eraser::new(&gateway, &catalog);
        for number in first..first + 1_000 {
            if let Some(group) = defined_group(&dir) {
                catalog.create_group(group).await.unwrap();
            }
            let rows: Vec<Write> = (0..20)
                .map(|n| Write::put(&format!("r{n}"), TIME + number, number))
                .collect();
            write(&gateway, "g", &rows).await;
            write(
                &gateway,
                "h",
                &[Write::put(&number.to_string(), TIME, number)],
            )
            .await;
            say("ack", number);
            // Some are online and in files by then, some are not.
            tokio::time::sleep(Duration::from_millis(
                u64::try_from(number % 3).unwrap() * 15,
            ))
            .await;
            eraser.drop_group(defined(&catalog, "g")).await.unwrap();
        }
    });
}

/// The definition of `g`, if there is none.
fn defined_group(dir: &Path) -> Option<FeatureGroup> {
    if dir.join("feature-groups/g.json").exists() {
        return None;
    }
    let json = std::fs::read(dir.join("feature-groups/h.json")).unwrap();
    let group: FeatureGroup = serde_json::from_slice(&json).unwrap();
    Some(FeatureGroup {
        feature_group_name: "g".to_owned(),
        ..group
    })
}

#[test]
fn kill_9_at_every_step_of_a_drop_leaves_nothing_of_the_group_and_all_of_others() {
    let dir = warehouse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged: Vec<i64> = Vec::new();
    for count in [1, 2, 4] {
        for step in DROP_STEPS {
            let first = acknowledged.last().map_or(0, |last| last + 100);
            let name = "online::erase::victim";
            let said = victim::kill(name, dir.path(), step, count, first);
            acknowledged.extend(said.numbers("ack "));
            let place = format!("{step} pass {count}");
            runtime.block_on(check(dir.path(), &acknowledged, &place));
        }
    }
}

/// What must hold after a crash on the way, once the next process has begun.
async fn check(dir: &Path, acknowledged: &[i64], place: &str) {
    let (gateway, catalog, mut options) = open(dir, Probe::default()).await;
    options.max_age = Duration::from_secs(3_600);
    let started = OfflineWriter::start(Arc::clone(&gateway), Arc::clone(&catalog), options).await;
    drop(started.unwrap());
    let online = async |group: &str| {
        let records = gateway.store.list(&layout(group, Operation::Put)).await;
        let records = records.unwrap().unwrap().page(None, 100_000).unwrap();
        records
            .into_iter()
            .map(|record| record.identifier)
            .collect::<Vec<_>>()
    };
    assert!(
        Eraser::new(&gateway, &catalog).unfinished("g").is_none(),
        "{place}"
    );
    assert!(!dir.join("feature-groups/g.json").exists(), "{place}");
    assert!(!catalog.snapshot().groups.contains_key("g"), "{place}");
    for stage in Stage::ALL {
        assert!(gateway.outbox.pending("g", stage).is_empty(), "{place}");
    }
    let files = parquet_files(&dir.join("s3"));
    let is_of_g = |path: &String| path.contains("/g-") || path.contains("/g/");
    let files = files.iter().map(|path| path.display().to_string());
    let of_g: Vec<String> = files.filter(is_of_g).collect();
    assert!(of_g.is_empty(), "{place}: {of_g:?}");
    assert!(online("g").await.is_empty(), "{place}");
    // Of the other group nothing is missing, wherever it is.
    let mut there = online("h").await;
    for block in gateway.outbox.pending("h", Stage::Online) {
        let rows = block.read().unwrap();
        there.extend(
            block
                .unsettled(Stage::Online)
                .iter()
                .map(|row| rows.identifier(*row)),
        );
    }
    for number in acknowledged {
        assert!(
            there.contains(&number.to_string()),
            "{place}: {number} is lost"
        );
    }
    let_go(&gateway).await;
}

fn table(catalog: &Catalog) -> Arc<FeatureTable> {
    match &catalog.snapshot().groups["g"].serving {
        Serving::Served(table) => Arc::clone(table),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_is_removed_behind_what_was_sent_of_it_and_before_what_comes() {
    let dir = warehouse();
    let store = Held::new();
    let options = RewriteOptions::default();
    let held = Arc::clone(&store) as _;
    let (gateway, catalog, offline) = open_with(dir.path(), Probe::default(), held, options).await;
    let rows: Vec<Write> = (0..5).map(|n| Write::put("a", TIME + n, n)).collect();
    write(&gateway, "g", &rows[..3]).await;
    flush(&gateway, &catalog, "g", &offline.root).await.unwrap();
    let _forwarder = forward(&gateway);
    while store.log.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let eraser = Eraser::new(&gateway, &catalog);
    let forgetting = tokio::spawn({
        let (eraser, table) = (eraser.clone(), table(&catalog));
        async move { eraser.forget(table, "a".to_owned()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!forgetting.is_finished() && *store.log.lock() == ["a g"]);
    store.lets.add_permits(100);
    let forgotten = forgetting.await.unwrap().unwrap();
    let wanted = Forgotten {
        outbox_rows: 2,
        files: 1,
        file_rows: 3,
        online: true,
    };
    assert_eq!(forgotten, wanted);
    write(&gateway, "g", &rows[3..]).await;
    while !gateway.outbox.pending_groups(Stage::Online).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(*store.log.lock(), ["a g", "forget a g", "a g", "a g"]);
}

#[tokio::test]
async fn a_store_that_is_away_is_told_when_it_is_asked_again() {
    let dir = warehouse();
    let store = Held::new();
    store.fails.store(true, Ordering::SeqCst);
    let options = RewriteOptions::default();
    let held = Arc::clone(&store) as _;
    let (gateway, catalog, _) = open_with(dir.path(), Probe::default(), held, options).await;
    write(&gateway, "g", &[Write::put("a", TIME, 1)]).await;
    let eraser = Eraser::new(&gateway, &catalog);
    let forget = || eraser.forget(table(&catalog), "a".to_owned());
    let failed = forget().await.unwrap_err();
    assert_eq!(failed.kind, Kind::Unavailable);
    assert!(failed.message.contains("run CALL forget again"), "{failed}");
    assert!(gateway.outbox.pending("g", Stage::Offline).is_empty());
    // What came since is taken along by the next one, and by no restart.
    write(&gateway, "g", &[Write::put("a", TIME, 2)]).await;
    eraser.resume().await.unwrap();
    assert_eq!(gateway.outbox.pending("g", Stage::Offline).len(), 1);
    store.fails.store(false, Ordering::SeqCst);
    assert_eq!(forget().await.unwrap().outbox_rows, 1);
    assert_eq!(*store.log.lock(), ["forget a g"]);
}

/// Not a test by itself: the process that is killed.
#[test]
#[ignore = "started by the test below"]
fn forgetful_victim() {
    victim::act(async |dir, probe, first| {
        let (gateway, catalog, options) = open(&dir, probe).await;
        let root = options.root.clone();
        let options = OfflineOptions {
            max_age: Duration::from_secs(3_600),
            ..options
        };
        let flushing = Arc::clone(&gateway);
        let _writer = OfflineWriter::start(flushing, Arc::clone(&catalog), options)
            .await
            .unwrap();
        let _forwarder = forward(&gateway);
        let eraser = Eraser::new(&gateway, &catalog);
        for number in first..first + 1_000 {
            let rows = |hour: i64| {
                let at = TIME + hour * 3_600 + number;
                let other = Write::put(&format!("other-{hour}"), at, number);
                [Write::put("secret", at, number), other]
            };
            write(&gateway, "g", &rows(0)).await;
            write(&gateway, "g", &rows(1)).await;
            // In files, waiting, or both.
            if number % 3 > 0 {
                flush(&gateway, &catalog, "g", &root).await.unwrap();
            }
            if number % 3 != 1 {
                write(&gateway, "g", &rows(2)).await;
            }
            say("ack", number);
            let forgotten = eraser.forget(table(&catalog), "secret".to_owned()).await;
            forgotten.unwrap();
        }
    });
}

#[test]
fn kill_9_at_every_step_of_forgetting_brings_nothing_back_and_loses_nothing_else() {
    let dir = warehouse();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acknowledged: Vec<i64> = Vec::new();
    for count in [1, 3] {
        for step in FORGET_STEPS.into_iter().chain(REPLACE_STEPS) {
            let first = acknowledged.last().map_or(0, |last| last + 100);
            let name = "online::erase::forgetful_victim";
            let said = victim::kill(name, dir.path(), step, count, first);
            acknowledged.extend(said.numbers("ack "));
            let place = format!("{step} pass {count}");
            runtime.block_on(check_forgotten(dir.path(), &acknowledged, &place));
        }
    }
}

/// What must hold after a crash on the way, once the next process has begun: the record was to be
/// forgotten when it came.
async fn check_forgotten(dir: &Path, acknowledged: &[i64], place: &str) {
    let (gateway, catalog, mut options) = open(dir, Probe::default()).await;
    options.max_age = Duration::from_secs(3_600);
    let started = OfflineWriter::start(Arc::clone(&gateway), catalog, options).await;
    drop(started.unwrap());
    let records = gateway.store.list(&layout("g", Operation::Put)).await;
    let records = records.unwrap().unwrap().page(None, 100_000).unwrap();
    assert!(
        records.iter().all(|record| record.identifier != "secret"),
        "{place}: online"
    );
    for block in gateway.outbox.pending("g", Stage::Online) {
        let rows = block.read().unwrap();
        let unsent = block.unsettled(Stage::Online);
        let mut unsent = unsent.iter().map(|row| rows.identifier(*row));
        assert!(unsent.all(|id| id != "secret"), "{place}: it would be sent");
    }
    let found = rows(dir, &gateway);
    for ((id, number), times) in &found {
        assert_ne!(id, "secret", "{place}: {number} is back");
        assert_eq!(*times, 1, "{place}: {id} {number}");
    }
    for number in acknowledged {
        for hour in [0, 1] {
            let row = (format!("other-{hour}"), *number);
            assert!(found.contains_key(&row), "{place}: {row:?} is lost");
        }
    }
    let_go(&gateway).await;
}
