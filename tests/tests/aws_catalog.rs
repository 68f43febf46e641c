//! The catalog from SageMaker and Glue, through the real AWS clients, over HTTP to a fake.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use featureflight_catalog::Kind;
use featureflight_catalog::snapshot::{Catalog, CatalogSnapshot, Serving};
use featureflight_catalog::source::aws::{AwsOptions, AwsSource};
use featureflight_catalog::storage::AwsStorage;
use featureflight_tests::fake_aws::{FakeAws, PageSizes};
use serde_json::{Value, json};

fn group(name: &str) -> Value {
    json!({
        "FeatureGroupArn": format!("arn:aws:sagemaker:eu-west-1:123456789012:feature-group/{name}"),
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "EventTime",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "String"},
            {"FeatureName": "EventTime", "FeatureType": "String"},
        ],
        "CreationTime": 1_680_195_766.123,
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": "s3://offline",
                "ResolvedOutputS3Uri": format!("s3://offline/123456789012/sagemaker/eu-west-1/offline-store/{name}-1680195766/data"),
            },
            "DisableGlueTableCreation": false,
            "DataCatalogConfig": {
                "TableName": format!("{}_1680195766", name.replace('-', "_")),
                "Catalog": "AwsDataCatalog",
                "Database": "SageMaker_FeatureStore",
            },
        },
        "FeatureGroupStatus": "Created",
        "OfflineStoreStatus": {"Status": "Active"},
        "OnlineStoreConfig": {"EnableOnlineStore": true, "StorageType": "Standard_V2"},
        "AFieldOfTomorrow": {"x": [1, null]},
    })
}

fn table(database: &str, name: &str) -> Value {
    json!({
        "Name": name,
        "DatabaseName": database,
        "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": {
            "Columns": [{"Name": "id", "Type": "string"}, {"Name": "write_time", "Type": "timestamp"}],
            "Location": format!("s3://offline/{name}/data"),
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            },
        },
    })
}

fn with(mut group: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    group.pointer_mut(parent).unwrap()[key] = value;
    group
}

async fn try_open(
    fake: &FakeAws,
    options: &AwsOptions,
) -> featureflight_catalog::Result<Arc<Catalog>> {
    let config = fake.sdk_config();
    let source = AwsSource::new(&config, options);
    Catalog::open(Arc::new(source), Arc::new(AwsStorage::new(&config)?)).await
}

async fn open(fake: &FakeAws) -> Arc<Catalog> {
    try_open(fake, &AwsOptions::default()).await.unwrap()
}

/// Why a group is not served; `None` when it is.
fn reason(snapshot: &CatalogSnapshot, group: &str) -> Option<String> {
    match &snapshot.groups[group].serving {
        Serving::Served(_) => None,
        Serving::OnlineOnly => Some("online only".to_owned()),
        Serving::Unavailable(reason) => Some(reason.clone()),
    }
}

#[tokio::test]
async fn all_pages_are_followed() {
    let fake = FakeAws::start().await;
    fake.set_page_sizes(PageSizes {
        groups: 40,
        definitions: 300,
        tables: 70,
    });
    for number in 0..150 {
        fake.put_group(group(&format!("group-{number:03}")));
    }
    let mut wide = group("wide");
    let definitions = wide["FeatureDefinitions"].as_array_mut().unwrap();
    for number in 2..2_500 {
        definitions.push(json!({"FeatureName": format!("f{number}"), "FeatureType": "Fractional"}));
    }
    fake.put_group(wide.clone());
    for number in 0..230 {
        fake.put_table(table(
            "sagemaker_featurestore",
            &format!("table_{number:03}"),
        ));
    }
    let catalog = open(&fake).await;
    let snapshot = catalog.snapshot();
    assert_eq!(snapshot.groups.len(), 151);
    assert_eq!(reason(&snapshot, "wide"), None);
    let described = &snapshot.groups["wide"].group;
    assert_eq!(described.feature_definitions.len(), 2_500);
    // Nothing of the answer is lost, except the token of its pages.
    assert_eq!(serde_json::to_value(described).unwrap(), wide);
    let raw = &snapshot.raw["sagemaker_featurestore"];
    assert_eq!(
        raw.values().filter(|entry| entry.serving.is_ok()).count(),
        230
    );
    assert_eq!(fake.calls("ListFeatureGroups"), 4);
    assert_eq!(fake.calls("GetTables"), 4);
    assert_eq!(fake.calls("DescribeFeatureGroup"), 150 + 9);
}

#[tokio::test]
async fn glue_is_asked_in_lowercase_and_may_lack_things() {
    let fake = FakeAws::start().await;
    fake.put_group(group("Orders-V2"));
    fake.put_group(with(
        group("no-table"),
        "/OfflineStoreConfig/DataCatalogConfig",
        Value::Null,
    ));
    let elsewhere = "/OfflineStoreConfig/DataCatalogConfig/Database";
    fake.put_group(with(group("no-database"), elsewhere, json!("Nowhere")));
    fake.put_table(table("SageMaker_FeatureStore", "Orders_V2_1680195766"));
    fake.put_table(table("sagemaker_featurestore", "left_behind"));
    fake.put_table(table("Extra", "t"));
    fake.put_table(table("unasked", "t"));
    let options = AwsOptions {
        databases: vec!["EXTRA".to_owned()],
        ..AwsOptions::default()
    };
    let snapshot = try_open(&fake, &options).await.unwrap().snapshot();

    for name in ["Orders-V2", "no-table", "no-database"] {
        assert_eq!(reason(&snapshot, name), None, "{name}");
    }
    assert_eq!(
        snapshot.raw.keys().collect::<Vec<_>>(),
        ["extra", "nowhere", "sagemaker_featurestore"]
    );
    let raw = &snapshot.raw["sagemaker_featurestore"];
    assert_eq!(
        raw.keys().collect::<Vec<_>>(),
        ["left_behind", "orders_v2_1680195766"]
    );
    let claimed = &raw["orders_v2_1680195766"];
    assert_eq!(claimed.feature_group.as_deref(), Some("Orders-V2"));
    assert_eq!(claimed.serving.as_ref().unwrap().schema.fields().len(), 2);
    assert_eq!(raw["left_behind"].feature_group, None);
    assert!(raw["left_behind"].serving.is_ok());
    assert!(snapshot.raw["extra"]["t"].serving.is_ok());
    let missing = snapshot.raw["nowhere"]["no_database_1680195766"]
        .serving
        .as_ref()
        .unwrap_err();
    assert!(
        missing.contains("database 'nowhere' does not exist"),
        "{missing}"
    );
}

#[tokio::test]
async fn new_groups_and_features_appear_and_nothing_is_asked_twice() {
    let fake = FakeAws::start().await;
    fake.put_group(group("a"));
    fake.put_group(with(
        group("changing"),
        "/FeatureGroupStatus",
        json!("Creating"),
    ));
    let catalog = open(&fake).await;
    assert!(
        reason(&catalog.snapshot(), "changing")
            .unwrap()
            .contains("Creating")
    );

    fake.forget_calls();
    catalog.refresh().await.unwrap();
    // What is settled and unchanged is not described again.
    assert_eq!(fake.calls("DescribeFeatureGroup"), 1);

    let mut grown = group("a");
    let tier = json!({"FeatureName": "tier", "FeatureType": "String"});
    grown["FeatureDefinitions"]
        .as_array_mut()
        .unwrap()
        .push(tier);
    fake.put_group(grown);
    fake.put_group(group("b"));
    fake.put_group(group("changing"));
    catalog.refresh().await.unwrap();
    let snapshot = catalog.snapshot();
    assert_eq!(
        snapshot.groups.keys().collect::<Vec<_>>(),
        ["a", "b", "changing"]
    );
    assert_eq!(snapshot.groups["a"].group.feature_definitions.len(), 3);
    assert_eq!(reason(&snapshot, "changing"), None);

    fake.remove_group("b");
    catalog.refresh().await.unwrap();
    assert_eq!(
        catalog.snapshot().groups.keys().collect::<Vec<_>>(),
        ["a", "changing"]
    );
}

#[tokio::test]
async fn throttling_is_survived() {
    let fake = FakeAws::start().await;
    fake.put_group(group("a"));
    fake.put_table(table("sagemaker_featurestore", "a_1680195766"));
    // A few refusals are retried away.
    fake.throttle(3);
    let catalog = open(&fake).await;
    let good = catalog.snapshot();
    assert_eq!(reason(&good, "a"), None);

    // Many are not: the last good snapshot stays, whichever call they hit.
    for operation in [
        "ListFeatureGroups",
        "Search",
        "DescribeFeatureGroup",
        "GetTables",
    ] {
        fake.put_group(group("new"));
        fake.throttle_operation(operation, 1_000);
        let error = catalog.refresh().await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains(operation), "{error}");
        assert!(error.message.contains("throttled"), "{error}");
        assert!(Arc::ptr_eq(&catalog.snapshot(), &good));
        let health = catalog.health();
        assert_eq!(health.last_error, Some(error.message));
        assert_eq!(health.last_success, good.taken_at);
        // Four tries of a call, and no storm.
        assert!(
            fake.calls(operation) <= 8,
            "{operation}: {}",
            fake.calls(operation)
        );
        fake.throttle(0);
        fake.remove_group("new");
        fake.forget_calls();
    }
    catalog.refresh().await.unwrap();
    assert_eq!(catalog.health().last_error, None);
    assert_eq!(catalog.snapshot().groups.len(), 1);
}

#[tokio::test]
async fn an_outage_leaves_the_last_good_snapshot() {
    let fake = FakeAws::start().await;
    fake.put_group(group("a"));
    let catalog = open(&fake).await;
    fake.set_away(true);
    let error = catalog.refresh().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(catalog.snapshot().groups.len(), 1);
    fake.set_away(false);
    catalog.refresh().await.unwrap();

    drop(fake);
    let error = catalog.refresh().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.starts_with("sagemaker:"), "{error}");
    assert_eq!(catalog.snapshot().groups.len(), 1);
}

#[tokio::test]
async fn what_is_wrong_with_one_group_stays_with_it() {
    let fake = FakeAws::start().await;
    for name in ["good", "gone", "hidden", "odd"] {
        fake.put_group(group(name));
    }
    fake.fail_describe("gone", "ResourceNotFound");
    fake.fail_describe("hidden", "AccessDeniedException");
    fake.fail_describe("odd", "ValidationException");
    let snapshot = open(&fake).await.snapshot();
    assert_eq!(
        snapshot.groups.keys().collect::<Vec<_>>(),
        ["good", "hidden", "odd"]
    );
    assert_eq!(reason(&snapshot, "good"), None);
    let hidden = reason(&snapshot, "hidden").unwrap();
    assert!(
        hidden.contains("sagemaker:DescribeFeatureGroup is not allowed"),
        "{hidden}"
    );
    assert!(
        reason(&snapshot, "odd")
            .unwrap()
            .contains("ValidationException")
    );
}

#[tokio::test]
async fn a_role_may_lack_some_rights() {
    // Without Search every group is described each time; without List the search names them.
    for operation in ["Search", "ListFeatureGroups"] {
        let fake = FakeAws::start().await;
        fake.put_group(group("a"));
        fake.deny(operation);
        let catalog = open(&fake).await;
        catalog.refresh().await.unwrap();
        assert_eq!(reason(&catalog.snapshot(), "a"), None, "{operation}");
        let described = if operation == "Search" { 2 } else { 1 };
        assert_eq!(fake.calls("DescribeFeatureGroup"), described, "{operation}");
    }
    // Without Glue the groups are served, and the raw tables say why they are not.
    let fake = FakeAws::start().await;
    fake.put_group(group("a"));
    fake.deny("GetTables");
    let snapshot = open(&fake).await.snapshot();
    assert_eq!(reason(&snapshot, "a"), None);
    let why = snapshot.raw["sagemaker_featurestore"]["a_1680195766"]
        .serving
        .as_ref()
        .unwrap_err();
    assert!(why.contains("glue:GetTables is not allowed"), "{why}");
}

#[tokio::test]
async fn a_server_without_rights_does_not_start() {
    for denied in [
        &["ListFeatureGroups", "Search"][..],
        &["DescribeFeatureGroup"],
        &["*"],
    ] {
        let fake = FakeAws::start().await;
        fake.put_group(group("a"));
        denied.iter().for_each(|operation| fake.deny(operation));
        let error = try_open(&fake, &AwsOptions::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::PermissionDenied, "{error}");
        assert!(error.message.contains("sagemaker:"), "{error}");
        assert!(error.message.contains("grant"), "{error}");
        assert!(error.message.contains("AccessDenied"), "{error}");
    }
}

#[tokio::test]
async fn descriptions_come_on_demand() {
    for without_search in [false, true] {
        let fake = FakeAws::start().await;
        fake.set_page_sizes(PageSizes {
            groups: 10,
            definitions: 100,
            tables: 100,
        });
        let mut wide = group("wide");
        let definitions = wide["FeatureDefinitions"].as_array_mut().unwrap();
        for number in 0..30 {
            definitions
                .push(json!({"FeatureName": format!("f{number}"), "FeatureType": "Integral"}));
        }
        fake.put_group(wide);
        fake.put_group(group("wide-2"));
        fake.put_metadata("wide", "f29", json!({"Description": "the last"}));
        fake.put_metadata(
            "wide",
            "id",
            json!({"Parameters": [{"Key": "pii", "Value": "yes"}]}),
        );
        fake.put_metadata("wide-2", "id", json!({"Description": "of another group"}));
        if without_search {
            fake.deny("Search");
        }
        let catalog = open(&fake).await;
        fake.forget_calls();
        let metadata = catalog.feature_metadata("wide").await.unwrap();
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["f29", "id"]);
        assert_eq!(metadata["f29"].description.as_deref(), Some("the last"));
        assert_eq!(metadata["id"].other["Parameters"][0]["Key"], "pii");
        let described = if without_search { 32 } else { 0 };
        assert_eq!(fake.calls("DescribeFeatureMetadata"), described);
        assert_eq!(fake.calls("Search"), if without_search { 1 } else { 4 });
        catalog.feature_metadata("wide").await.unwrap();
        assert_eq!(fake.calls("DescribeFeatureMetadata"), described);
    }
}

/// A provider that finds nothing.
#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no profile, no role")))
    }
}

#[tokio::test]
async fn missing_and_expired_credentials_are_told_from_missing_rights() {
    let fake = FakeAws::start().await;
    fake.put_group(group("a"));
    let mut config = fake.sdk_config().into_builder();
    config.set_credentials_provider(Some(SharedCredentialsProvider::new(NoCredentials)));
    let config = config.build();
    let source = AwsSource::new(&config, &AwsOptions::default());
    let error = Catalog::open(
        Arc::new(source),
        Arc::new(AwsStorage::new(&config).unwrap()),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition, "{error}");
    assert!(
        error.message.contains("found no AWS credentials"),
        "{error}"
    );
    assert!(error.message.contains("no profile, no role"), "{error}");

    fake.fail_describe("a", "ExpiredTokenException");
    let error = try_open(&fake, &AwsOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, Kind::PermissionDenied);
    assert!(error.message.contains("renew them"), "{error}");
}
