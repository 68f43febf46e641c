use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::descriptions::Descriptions;
use super::*;
use crate::error::{Error, Kind, Result};
use crate::model::FeatureMetadata;
use crate::source::{CatalogContents, CatalogSource, GlueColumn, GlueTable};
use crate::storage::{Location, S3Url, Storage};

#[derive(Debug)]
struct Memory;

impl Storage for Memory {
    fn locate(&self, url: &str) -> Result<Location> {
        let s3 = S3Url::parse(url)?;
        let store = Arc::new(object_store::memory::InMemory::new());
        Ok(Location {
            store,
            url: s3.to_string(),
            prefix: s3.key,
            rewritten: false,
        })
    }

    fn check(&self, locations: &[Location]) -> Result<()> {
        match locations
            .iter()
            .find(|location| location.url.contains("collides"))
        {
            Some(location) => Err(Error::precondition(location.url.clone())),
            None => Ok(()),
        }
    }
}

fn group_json(name: &str) -> Value {
    json!({
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "ts",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "String"},
            {"FeatureName": "ts", "FeatureType": "String"},
        ],
        "FeatureGroupStatus": "Created",
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": "s3://b", "ResolvedOutputS3Uri": format!("s3://b/{name}/data"),
            },
            "DataCatalogConfig": {
                "TableName": format!("{name}_1"), "Catalog": "AwsDataCatalog", "Database": "FS",
            },
        },
    })
}

fn group(json: Value) -> Arc<FeatureGroup> {
    Arc::new(serde_json::from_value(json).expect("group"))
}

fn table(name: &str, location: &str) -> GlueTable {
    GlueTable {
        database: "FS".to_owned(),
        name: name.to_owned(),
        columns: vec![GlueColumn {
            name: "id".to_owned(),
            hive_type: "string".to_owned(),
            comment: None,
        }],
        location: Some(location.to_owned()),
        serde: Some("x.ParquetHiveSerDe".to_owned()),
        ..GlueTable::default()
    }
}

fn build(contents: CatalogContents) -> Result<CatalogSnapshot> {
    CatalogSnapshot::build(contents, &Memory, None, SystemTime::UNIX_EPOCH)
}

/// Why the only group of a catalog is not served; `None` when it is.
fn reason(json: Value) -> Option<String> {
    let contents = CatalogContents {
        groups: vec![group(json)],
        ..CatalogContents::default()
    };
    let snapshot = build(contents).expect("snapshot");
    match &snapshot.groups.values().next().expect("entry").serving {
        Serving::Served(_) => None,
        Serving::OnlineOnly => Some("online only".to_owned()),
        Serving::Unavailable(reason) => Some(reason.clone()),
    }
}

#[test]
fn groups_that_cannot_be_served_stay_with_a_reason() {
    let changed = |pointer: &str, value: Value| {
        let mut json = group_json("g");
        let (parent, key) = pointer.rsplit_once('/').expect("pointer");
        json.pointer_mut(parent).expect("parent")[key] = value;
        reason(json)
    };
    for (pointer, value, why) in [
        (
            "/FeatureGroupStatus",
            json!("Creating"),
            "status is Creating",
        ),
        (
            "/FeatureGroupStatus",
            json!("Deleting"),
            "status is Deleting",
        ),
        ("/OfflineStoreConfig", Value::Null, "no offline store"),
        (
            "/OfflineStoreConfig/TableFormat",
            json!("Iceberg"),
            "Iceberg table, which is not served",
        ),
        (
            "/OfflineStoreConfig/TableFormat",
            json!("Delta"),
            "table format Delta",
        ),
        (
            "/OfflineStoreConfig/S3StorageConfig/ResolvedOutputS3Uri",
            Value::Null,
            "Resolved",
        ),
        (
            "/OfflineStoreConfig/S3StorageConfig/ResolvedOutputS3Uri",
            json!("file:///x"),
            "s3://",
        ),
        (
            "/EventTimeFeatureName",
            json!("id"),
            "both record identifier and event time",
        ),
    ] {
        let reason = changed(pointer, value).expect(why);
        assert!(reason.contains(why), "{reason}");
    }
    for (pointer, value) in [
        ("/FeatureGroupStatus", Value::Null),
        ("/OfflineStoreConfig/TableFormat", json!("Glue")),
        ("/OfflineStoreConfig/TableFormat", json!("Default")),
        ("/OfflineStoreStatus", json!({"Status": "Blocked"})),
        ("/OfflineStoreStatus", json!({"Status": "Disabled"})),
    ] {
        assert_eq!(changed(pointer, value.clone()), None, "{pointer} {value}");
    }
    let mut failed = group_json("g");
    failed["FeatureGroupStatus"] = json!("CreateFailed");
    failed["FailureReason"] = json!("table exists");
    assert_eq!(
        reason(failed).as_deref(),
        Some("its status is CreateFailed (table exists)")
    );
}

#[test]
fn tables_are_claimed_missing_or_orphans() {
    let contents = CatalogContents {
        groups: vec![group(group_json("Orders")), group(group_json("users"))],
        tables: vec![
            table("Orders_1", "s3://b/o"),
            table("old", "s3://b/x"),
            GlueTable {
                location: None,
                ..table("view", "")
            },
        ],
        ..CatalogContents::default()
    };
    let snapshot = build(contents).expect("snapshot");
    let raw = &snapshot.raw["fs"];
    let summary: Vec<_> = raw
        .iter()
        .map(|(name, entry)| {
            assert_eq!((&entry.name, entry.database.as_str()), (name, "fs"));
            let serving = entry
                .serving
                .as_ref()
                .map(|table| table.files.location.url.as_str());
            (
                name.as_str(),
                entry.feature_group.as_deref(),
                serving.map_err(String::as_str),
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            ("old", None, Ok("s3://b/x")),
            ("orders_1", Some("Orders"), Ok("s3://b/o")),
            (
                "users_1",
                Some("users"),
                Err(
                    "the Glue table its feature group names does not exist, or this server may not see it"
                )
            ),
            (
                "view",
                None,
                Err("the Glue table has no location (a view, or a link to another table)")
            ),
        ]
    );
}

#[test]
fn what_the_source_could_not_read_is_said() {
    let contents = CatalogContents {
        groups: vec![group(group_json("g"))],
        undescribed: [("g".to_owned(), "it may not be described".to_owned())].into(),
        unlisted: [("fs".to_owned(), "its database may not be listed".to_owned())].into(),
        ..CatalogContents::default()
    };
    let snapshot = build(contents).expect("snapshot");
    let Serving::Unavailable(reason) = &snapshot.groups["g"].serving else {
        panic!("served")
    };
    assert_eq!(reason, "it may not be described");
    let reason = snapshot.raw["fs"]["g_1"]
        .serving
        .as_ref()
        .expect_err("served");
    assert_eq!(reason, "its database may not be listed");
}

#[test]
fn a_catalog_that_contradicts_itself_is_refused() {
    let twice = vec![group(group_json("g")), group(group_json("g"))];
    let error = build(CatalogContents {
        groups: twice,
        ..CatalogContents::default()
    });
    assert!(
        error
            .expect_err("twice")
            .message
            .contains("'g' is defined twice")
    );
    let tables = vec![table("t", "s3://b/collides")];
    let error = build(CatalogContents {
        tables,
        ..CatalogContents::default()
    });
    assert_eq!(error.expect_err("collision").message, "s3://b/collides");
}

#[test]
fn unchanged_groups_keep_their_entries() {
    let contents = |changed: bool| {
        let mut other = group_json("other");
        if changed {
            other["Description"] = json!("new");
        }
        let groups = vec![group(group_json("same")), group(other)];
        CatalogContents {
            groups,
            ..CatalogContents::default()
        }
    };
    let first = build(contents(false)).expect("snapshot");
    let second = CatalogSnapshot::build(
        contents(true),
        &Memory,
        Some(&first),
        SystemTime::UNIX_EPOCH,
    )
    .expect("snapshot");
    let kept = |name: &str| Arc::ptr_eq(&first.groups[name].group, &second.groups[name].group);
    assert!(kept("same"));
    assert!(!kept("other"));
    assert_eq!(
        second.groups["other"].group.description.as_deref(),
        Some("new")
    );
}

/// A source whose answers the test decides; each load waits for a permit.
#[derive(Debug)]
struct Scripted {
    contents: Mutex<CatalogContents>,
    failure: Mutex<Option<&'static str>>,
    permits: Semaphore,
    loads: AtomicUsize,
    described: AtomicUsize,
}

impl Scripted {
    fn new(groups: &[&str]) -> Arc<Self> {
        Arc::new(Self {
            contents: Mutex::new(contents(groups)),
            failure: Mutex::default(),
            permits: Semaphore::new(1_000),
            loads: AtomicUsize::new(0),
            described: AtomicUsize::new(0),
        })
    }

    fn check(&self) -> Result<()> {
        match *self.failure.lock() {
            Some("panic") => panic!("a bug in the source"),
            Some(message) => Err(Error::unavailable(message)),
            None => Ok(()),
        }
    }
}

fn contents(groups: &[&str]) -> CatalogContents {
    let groups = groups.iter().map(|name| group(group_json(name))).collect();
    CatalogContents {
        groups,
        ..CatalogContents::default()
    }
}

#[async_trait]
impl CatalogSource for Scripted {
    async fn load(&self) -> Result<CatalogContents> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.expect("open").forget();
        self.check()?;
        Ok(self.contents.lock().clone())
    }

    async fn feature_metadata(
        &self,
        group: &FeatureGroup,
    ) -> Result<BTreeMap<String, FeatureMetadata>> {
        self.described.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.check()?;
        let metadata = FeatureMetadata {
            description: group.description.clone(),
            ..FeatureMetadata::default()
        };
        Ok([("id".to_owned(), metadata)].into())
    }
}

async fn open(source: &Arc<Scripted>) -> Arc<Catalog> {
    Catalog::open(Arc::clone(source) as _, Arc::new(Memory))
        .await
        .expect("catalog")
}

fn names(catalog: &Catalog) -> Vec<String> {
    catalog.snapshot().groups.keys().cloned().collect()
}

#[tokio::test]
async fn the_last_good_snapshot_is_served_while_the_source_is_away() {
    let source = Scripted::new(&["a"]);
    let catalog = open(&source).await;
    let held = catalog.snapshot();
    assert!(catalog.health().last_error.is_none());
    let first = catalog.health().last_success.expect("success");

    for failure in ["throttled", "panic"] {
        *source.failure.lock() = Some(failure);
        let error = catalog.refresh().await.expect_err("failure");
        assert_eq!(names(&catalog), ["a"]);
        let health = catalog.health();
        assert_eq!(health.last_success, Some(first));
        assert_eq!(health.last_error, Some(error.message));
    }

    *source.failure.lock() = None;
    *source.contents.lock() = contents(&["a", "b"]);
    catalog.refresh().await.expect("refresh");
    assert_eq!(names(&catalog), ["a", "b"]);
    assert!(catalog.health().last_error.is_none());
    assert!(catalog.health().last_success > Some(first));
    assert_eq!(held.groups.len(), 1);
}

#[tokio::test]
async fn a_catalog_that_cannot_be_read_does_not_open() {
    let source = Scripted::new(&[]);
    *source.failure.lock() = Some("away");
    let error = Catalog::open(Arc::clone(&source) as _, Arc::new(Memory)).await;
    let error = error.expect_err("away");
    assert_eq!(
        (error.kind, error.message.as_str()),
        (Kind::Unavailable, "away")
    );
}

#[tokio::test]
async fn concurrent_refreshes_are_one() {
    let source = Scripted::new(&["a"]);
    let catalog = open(&source).await;
    source.permits.forget_permits(1_000);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let catalog = Arc::clone(&catalog);
            tokio::spawn(async move { catalog.refresh().await })
        })
        .collect();
    while source.loads.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    // A caller that goes away does not stop the refresh of the others.
    callers[0].abort();
    source.permits.add_permits(1_000);
    for caller in callers.into_iter().skip(1) {
        caller.await.expect("task").expect("refresh");
    }
    assert_eq!(source.loads.load(Ordering::SeqCst), 2);
    catalog.refresh().await.expect("refresh");
    assert_eq!(source.loads.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_refresh_that_everyone_left_is_not_answered_with_later() {
    let source = Scripted::new(&["a"]);
    let catalog = open(&source).await;
    source.permits.forget_permits(1_000);
    let caller = tokio::spawn({
        let catalog = Arc::clone(&catalog);
        async move { catalog.refresh().await }
    });
    until(|| source.loads.load(Ordering::SeqCst) == 2).await;
    caller.abort();
    source.permits.add_permits(1);
    until(|| source.permits.available_permits() == 0).await;
    *source.contents.lock() = contents(&["a", "new"]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    source.permits.add_permits(1_000);
    catalog.refresh().await.expect("refresh");
    assert_eq!(source.loads.load(Ordering::SeqCst), 3);
    assert_eq!(names(&catalog), ["a", "new"]);
}

#[tokio::test]
async fn the_background_refresh_survives_failures_and_ends_when_dropped() {
    let source = Scripted::new(&["a"]);
    let catalog = open(&source).await;
    let task = catalog.keep_fresh(Duration::from_millis(5));
    *source.failure.lock() = Some("panic");
    until(|| catalog.health().last_error.is_some()).await;
    assert_eq!(names(&catalog), ["a"]);
    *source.contents.lock() = contents(&["a", "new"]);
    *source.failure.lock() = None;
    until(|| names(&catalog) == ["a", "new"]).await;
    until(|| catalog.health().last_error.is_none()).await;
    drop(task);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let loads = source.loads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(source.loads.load(Ordering::SeqCst), loads);
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..5_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the condition was not met within ten seconds");
}

#[tokio::test]
async fn descriptions_are_asked_for_once_per_definition() {
    let source = Scripted::new(&["a"]);
    let catalog = open(&source).await;
    let described = || source.described.load(Ordering::SeqCst);
    assert_eq!(described(), 0);
    let (one, two) = tokio::join!(catalog.feature_metadata("a"), catalog.feature_metadata("a"));
    assert!(Arc::ptr_eq(
        &one.expect("metadata"),
        &two.expect("metadata")
    ));
    catalog.refresh().await.expect("refresh");
    catalog.feature_metadata("a").await.expect("metadata");
    assert_eq!(described(), 1);

    let mut changed = group_json("a");
    changed["Description"] = json!("new");
    *source.contents.lock() = CatalogContents {
        groups: vec![group(changed)],
        ..CatalogContents::default()
    };
    catalog.refresh().await.expect("refresh");
    let metadata = catalog.feature_metadata("a").await.expect("metadata");
    assert_eq!(metadata["id"].description.as_deref(), Some("new"));
    assert_eq!(described(), 2);

    let error = catalog
        .feature_metadata("absent")
        .await
        .expect_err("absent");
    assert_eq!(error.kind, Kind::NotFound);
}

#[tokio::test]
async fn descriptions_age_and_failures_are_remembered_for_a_while() {
    let source = Scripted::new(&[]);
    let group = group(group_json("a"));
    let described = || source.described.load(Ordering::SeqCst);
    let (long, none) = (Duration::from_hours(1), Duration::ZERO);

    let aging = Descriptions::new(none, long);
    for asked in 1..=2 {
        aging.get(&group, source.as_ref()).await.expect("metadata");
        assert_eq!(described(), asked);
    }

    *source.failure.lock() = Some("throttled");
    let patient = Descriptions::new(long, long);
    let eager = Descriptions::new(long, none);
    for asked in 1..=3 {
        let error = patient
            .get(&group, source.as_ref())
            .await
            .expect_err("throttled");
        assert_eq!(error.kind, Kind::Unavailable);
        eager
            .get(&group, source.as_ref())
            .await
            .expect_err("throttled");
        assert_eq!(described(), 2 + 1 + asked);
    }
    *source.failure.lock() = None;
    eager.get(&group, source.as_ref()).await.expect("metadata");
}
