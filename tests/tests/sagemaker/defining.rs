//! `CREATE TABLE`, `ALTER TABLE ... ADD COLUMN` and `DROP TABLE` through SageMaker's control plane.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::aws::{AwsOptions, AwsSource, CreateOptions};
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_catalog::{Kind, Result};
use featureflight_engine::session::Session;
use featureflight_engine::{Engine, EngineOptions, Writes};
use featureflight_online::arrivals::Arrivals;
use featureflight_online::forward::Lanes;
use featureflight_online::gateway::{Gateway, Landed, OfflineBy};
use featureflight_online::outbox::{Outbox, OutboxOptions, Stage};
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_tests::fake_aws::FakeAws;
use futures::TryStreamExt;
use tempfile::TempDir;

struct Rig {
    fake: FakeAws,
    engine: Arc<Engine>,
    session: Arc<Session>,
    outbox: Arc<Outbox>,
    _dir: TempDir,
}

impl Rig {
    async fn start(create: Option<CreateOptions>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("s3")).unwrap();
        let fake = FakeAws::start().await;
        let aws = fake.sdk_config();
        let options = AwsOptions {
            create,
            ..AwsOptions::default()
        };
        let source = Arc::new(AwsSource::new(&aws, &options));
        let storage = Arc::new(WarehouseStorage::open(dir.path()).unwrap());
        let catalog = Catalog::open(source, storage).await.unwrap();
        let outbox = OutboxOptions {
            reserve_bytes: 0,
            ..OutboxOptions::default()
        };
        let outbox = Outbox::open(&dir.path().join("outbox"), outbox).unwrap();
        let outbox = Arc::new(outbox);
        let gateway = Gateway {
            outbox: Arc::clone(&outbox),
            store: Arc::new(SageMakerStore::new(&aws, Duration::from_secs(1), 8)),
            offline: OfflineBy::Service(Arc::new(Arrivals::new(Arc::clone(&catalog)))),
            max_future: None,
            landed: Landed::default(),
            lanes: Lanes::default(),
        };
        let writes = Writes::Through(Arc::new(gateway));
        Self {
            engine: Engine::with_writes(catalog, EngineOptions::default(), writes).unwrap(),
            session: Arc::new(Session::new("test")),
            outbox,
            fake,
            _dir: dir,
        }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let query = self.engine.pin(&self.session, sql, Vec::new()).await?;
        let rows = self.engine.run(&query).await?;
        rows.try_collect().await
    }

    async fn sql(&self, sql: &str) -> Result<usize> {
        let batches = self.rows(sql).await?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }
}

fn options() -> Option<CreateOptions> {
    Some(CreateOptions {
        role_arn: "arn:aws:iam::123456789012:role/features".into(),
        s3_uri: "s3://offline/here".into(),
        kms_key: Some("key".into()),
    })
}

const VISITORS: &str = "CREATE TABLE visitors (id BIGINT, seen TIMESTAMP, score DOUBLE, PRIMARY KEY (id)) \
                        WITH (ttl = '30 days')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_there_when_the_statement_answers() {
    let rig = Rig::start(options()).await;
    rig.sql(VISITORS).await.unwrap();
    assert!(rig.fake.calls("DescribeFeatureGroup") >= 3, "it waited");
    let group = rig.fake.group("visitors").unwrap();
    assert_eq!(group["FeatureGroupStatus"], "Created");
    assert_eq!(group["RoleArn"], "arn:aws:iam::123456789012:role/features");
    let online = &group["OnlineStoreConfig"];
    assert_eq!(online["EnableOnlineStore"], true);
    assert_eq!(online["SecurityConfig"]["KmsKeyId"], "key");
    assert_eq!(online["TtlDuration"]["Value"], 30);
    let storage = &group["OfflineStoreConfig"]["S3StorageConfig"];
    assert_eq!(
        (&storage["S3Uri"], &storage["KmsKeyId"]),
        (&"s3://offline/here".into(), &"key".into())
    );
    let kinds: Vec<_> = group["FeatureDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .collect();
    assert_eq!(kinds[1]["FeatureType"], "String");
    assert_eq!(
        rig.sql("SELECT id, seen, score FROM visitors")
            .await
            .unwrap(),
        0
    );
    let insert = "INSERT INTO visitors VALUES (1, '2026-01-01', 0.5)";
    assert_eq!(rig.sql(insert).await.unwrap(), 1);
    assert_eq!(
        rig.sql("SELECT id, seen, score FROM visitors")
            .await
            .unwrap(),
        1
    );

    let again = rig.sql(VISITORS).await.unwrap_err();
    assert_eq!(again.kind, Kind::AlreadyExists);
    let if_not_exists = VISITORS.replacen("TABLE", "TABLE IF NOT EXISTS", 1);
    rig.sql(&if_not_exists).await.unwrap();
    assert_eq!(rig.fake.calls("CreateFeatureGroup"), 1);

    // More than one update takes.
    let columns: Vec<String> = (0..150)
        .map(|n| format!("ADD COLUMN f{n} BIGINT"))
        .collect();
    rig.sql(&format!("ALTER TABLE visitors {}", columns.join(", ")))
        .await
        .unwrap();
    assert_eq!(rig.fake.calls("UpdateFeatureGroup"), 2);
    assert_eq!(
        rig.sql("SELECT f0, f99, f149 FROM visitors").await.unwrap(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_gone_when_its_drop_answers() {
    let rig = Rig::start(options()).await;
    rig.sql(VISITORS).await.unwrap();
    let insert = "INSERT INTO visitors VALUES (1, '2026-01-01', 0.5)";
    rig.sql(insert).await.unwrap();
    let pinned = rig
        .engine
        .pin(&rig.session, "SELECT id FROM visitors", Vec::new());
    let pinned = pinned.await.unwrap();
    let error = rig.sql("DROP TABLE visitors").await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    rig.sql("SET featureflight.allow_drop = true")
        .await
        .unwrap();

    let error = rig.sql("CALL forget('visitors', 1)").await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(
        error.message.contains("SageMaker keeps the records"),
        "{error}"
    );

    rig.fake.deny("DeleteFeatureGroup");
    let error = rig.sql("DROP TABLE visitors").await.unwrap_err();
    assert_eq!(error.kind, Kind::PermissionDenied);
    assert!(
        error.message.contains("sagemaker:DeleteFeatureGroup"),
        "{error}"
    );
    assert_eq!(
        rig.sql("SELECT id FROM visitors").await.unwrap(),
        1,
        "nothing happened"
    );
    rig.sql("INSERT INTO visitors VALUES (2, '2026-01-01', 0.5)")
        .await
        .unwrap();
    rig.fake.allow("DeleteFeatureGroup");
    rig.fake.fail_changes(Some("it is replicated"));
    let error = rig.sql("DROP TABLE visitors").await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(
        error
            .message
            .contains("could not be deleted: it is replicated"),
        "{error}"
    );
    rig.fake.fail_changes(None);

    let deleted = rig.fake.calls("DeleteFeatureGroup");
    let said = rig.rows("DROP TABLE visitors").await.unwrap();
    let said = said[0].column(0).as_string::<i32>().value(0).to_owned();
    assert!(
        said.starts_with("OK: SageMaker keeps the files in s3://offline/here/"),
        "{said}"
    );
    assert!(
        said.ends_with("the Glue table sagemaker_featurestore.visitors_1700000000"),
        "{said}"
    );
    assert_eq!(rig.fake.calls("DeleteFeatureGroup"), deleted + 1);
    assert!(rig.fake.group("visitors").is_none());
    assert_eq!(rig.sql(insert).await.unwrap_err().kind, Kind::NotFound);
    let rows = async {
        let rows = rig.engine.run(&pinned).await?;
        rows.try_collect::<Vec<_>>().await
    };
    assert_eq!(rows.await.unwrap_err().kind, Kind::Aborted);

    // What waited for the old group is not sent to the new one.
    rig.sql(VISITORS).await.unwrap();
    assert_eq!(rig.sql("SELECT id FROM visitors").await.unwrap(), 0);
    assert!(rig.outbox.pending_groups(Stage::Online).is_empty());
    rig.sql(insert).await.unwrap();
    assert_eq!(rig.sql("SELECT id FROM visitors").await.unwrap(), 1);
}

/// Nobody knows what became of a call without an answer: the group takes nothing until a drop of it
/// has one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_without_an_answer_is_repeated() {
    let rig = Rig::start(options()).await;
    rig.sql(VISITORS).await.unwrap();
    let insert = "INSERT INTO visitors VALUES (1, '2026-01-01', 0.5)";
    rig.sql(insert).await.unwrap();
    rig.sql("SET featureflight.allow_drop = true")
        .await
        .unwrap();
    rig.fake.throttle_operation("DeleteFeatureGroup", 1);
    let error = rig.sql("DROP TABLE visitors").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("run DROP TABLE again"), "{error}");
    assert_eq!(rig.sql(insert).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(
        rig.sql("SELECT id FROM visitors").await.unwrap(),
        1,
        "it is there still"
    );
    // The service has carried it out after all.
    rig.fake.remove_group("visitors");
    rig.sql("DROP TABLE visitors").await.unwrap();
    assert!(rig.outbox.pending_groups(Stage::Online).is_empty());
    rig.sql(VISITORS).await.unwrap();
    rig.sql(insert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_service_refuses_or_fails_is_said_with_its_reason() {
    let rig = Rig::start(None).await;
    let error = rig.sql(VISITORS).await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains("catalog.create.role_arn"), "{error}");
    assert_eq!(rig.fake.calls("CreateFeatureGroup"), 0);

    let rig = Rig::start(options()).await;
    rig.fake.fail_changes(Some("the role cannot be assumed"));
    let error = rig.sql(VISITORS).await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(
        error.message.contains("the role cannot be assumed"),
        "{error}"
    );

    // Made by somebody else since the catalog was read.
    rig.fake.fail_changes(None);
    let other = VISITORS.replace("visitors", "others");
    let source = rig.fake.sdk_config();
    let elsewhere = AwsSource::new(
        &source,
        &AwsOptions {
            create: options(),
            ..AwsOptions::default()
        },
    );
    let group = rig.fake.group("visitors").unwrap();
    let mut group: featureflight_catalog::model::FeatureGroup =
        serde_json::from_value(group).unwrap();
    group.feature_group_name = "others".into();
    featureflight_catalog::source::CatalogSource::create(&elsewhere, group)
        .await
        .unwrap();
    let error = rig.sql(&other).await.unwrap_err();
    assert_eq!(error.kind, Kind::AlreadyExists);

    rig.fake.deny("CreateFeatureGroup");
    let denied = VISITORS.replace("visitors", "denied");
    let error = rig.sql(&denied).await.unwrap_err();
    assert_eq!(error.kind, Kind::PermissionDenied);
    // Sent once: nobody knows what became of a call without an answer.
    rig.fake.throttle_operation("CreateFeatureGroup", 5);
    let calls = rig.fake.calls("CreateFeatureGroup");
    let error = rig.sql(&denied).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("may have been done"), "{error}");
    assert_eq!(rig.fake.calls("CreateFeatureGroup"), calls + 1);

    let rig = Rig::start(options()).await;
    rig.sql(VISITORS).await.unwrap();
    rig.fake.fail_changes(Some("too many updates"));
    let error = rig.sql("ALTER TABLE visitors ADD COLUMN x BIGINT").await;
    let error = error.unwrap_err();
    assert!(
        error
            .message
            .contains("could not be updated: too many updates"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_waited_for_while_looks_at_it_fail_or_lag() {
    let rig = Rig::start(options()).await;
    // More than the client tries again by itself.
    rig.fake.throttle_operation("DescribeFeatureGroup", 6);
    rig.sql(VISITORS).await.unwrap();
    assert_eq!(
        rig.fake.group("visitors").unwrap()["FeatureGroupStatus"],
        "Created"
    );
    rig.sql("ALTER TABLE visitors ADD COLUMN x BIGINT")
        .await
        .unwrap();
    // The update before it has succeeded, which says nothing of this one.
    rig.fake.show_updates_late();
    rig.sql("ALTER TABLE visitors ADD COLUMN y BIGINT")
        .await
        .unwrap();
    assert_eq!(rig.sql("SELECT x, y FROM visitors").await.unwrap(), 0);
}
