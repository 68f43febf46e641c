use std::fs;

use serde_json::json;

use super::*;
use crate::error::Kind;

/// A catalog folder with these files.
fn folder(files: &[(&str, &Value)]) -> (tempfile::TempDir, FilesSource) {
    let dir = tempfile::tempdir().expect("directory");
    fs::create_dir(dir.path().join("feature-groups")).expect("folder");
    for (name, json) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        fs::write(path, json.to_string()).expect("file");
    }
    let source = FilesSource::new(dir.path());
    (dir, source)
}

fn group(name: &str) -> Value {
    json!({
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "Id",
        "EventTimeFeatureName": "EventTime",
        "FeatureDefinitions": [
            {"FeatureName": "Id", "FeatureType": "String"},
            {"FeatureName": "EventTime", "FeatureType": "Fractional"},
            {"FeatureName": "age", "FeatureType": "Integral"},
        ],
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": "s3://b",
                "ResolvedOutputS3Uri": format!("s3://b/{name}/data"),
            },
            "DataCatalogConfig": {
                "TableName": format!("{name}_170"),
                "Catalog": "AwsDataCatalog",
                "Database": "SageMaker_FeatureStore",
            },
        },
    })
}

async fn failure(files: &[(&str, &Value)]) -> String {
    let (_dir, source) = folder(files);
    let error = source.load().await.expect_err("a broken folder");
    assert_eq!(error.kind, Kind::FailedPrecondition, "{error}");
    error.message
}

#[tokio::test]
async fn groups_are_read_and_their_tables_follow() {
    let (dir, source) = folder(&[
        ("feature-groups/a.json", &group("a")),
        ("feature-groups/b.json", &group("B")),
    ]);
    fs::write(dir.path().join("feature-groups/.c.json"), "editor's").expect("file");
    fs::write(dir.path().join("feature-groups/README.md"), "notes").expect("file");
    let contents = source.load().await.expect("contents");
    let names: Vec<_> = contents
        .groups
        .iter()
        .map(|g| g.feature_group_name.as_str())
        .collect();
    assert_eq!(names, ["a", "B"]);
    let table = &contents.tables[1];
    assert_eq!(
        (table.database.as_str(), table.name.as_str()),
        ("sagemaker_featurestore", "b_170")
    );
    assert_eq!(table.location.as_deref(), Some("s3://b/B/data"));
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.hive_type.as_str()))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "string"),
            ("eventtime", "double"),
            ("age", "bigint"),
            ("write_time", "timestamp"),
            ("api_invocation_time", "timestamp"),
            ("is_deleted", "boolean"),
        ]
    );
}

#[tokio::test]
async fn given_tables_replace_derived_ones() {
    let table = json!({
        "Name": "A_170", "DatabaseName": "sagemaker_featurestore",
        "StorageDescriptor": {
            "Columns": [{"Name": "id", "Type": "string", "Comment": "who"}],
            "Location": "s3://b/elsewhere/",
            "InputFormat": "x.MapredParquetInputFormat",
            "SerdeInfo": {"SerializationLibrary": "x.ParquetHiveSerDe", "Parameters": {}},
        },
        "PartitionKeys": [{"Name": "year", "Type": "string"}],
        "Parameters": {"classification": "parquet"},
        "CreateTime": "2023-01-01T00:00:00",
    });
    let bare = json!({"Name": "orphan", "DatabaseName": "Other"});
    let (_dir, source) = folder(&[
        ("feature-groups/a.json", &group("a")),
        ("glue-tables/a.json", &json!({"Table": table})),
        ("glue-tables/o.json", &bare),
    ]);
    let tables = source.load().await.expect("contents").tables;
    assert_eq!(tables.len(), 2);
    assert_eq!(tables[0].location.as_deref(), Some("s3://b/elsewhere/"));
    assert_eq!(tables[0].serde.as_deref(), Some("x.ParquetHiveSerDe"));
    assert_eq!(tables[0].columns[0].comment.as_deref(), Some("who"));
    assert_eq!(tables[0].partition_keys[0].name, "year");
    assert_eq!(tables[1].name, "orphan");
}

#[tokio::test]
async fn a_group_without_a_table_name_has_no_raw_table() {
    let mut plain = group("a");
    plain["OfflineStoreConfig"]
        .as_object_mut()
        .expect("object")
        .remove("DataCatalogConfig");
    let (_dir, source) = folder(&[("feature-groups/a.json", &plain)]);
    assert_eq!(source.load().await.expect("contents").tables, []);
}

#[tokio::test]
async fn errors_name_the_file_and_say_what_is_wrong() {
    let dir = tempfile::tempdir().expect("directory");
    let error = FilesSource::new(dir.path())
        .load()
        .await
        .expect_err("no folder");
    assert!(
        error.message.contains("no folder 'feature-groups'"),
        "{error}"
    );

    let path = "feature-groups/x.json";
    let message = failure(&[(path, &json!("text"))]).await;
    assert!(
        message.contains(path) && message.contains("FeatureGroupName"),
        "{message}"
    );

    let mut broken = group("a");
    broken
        .as_object_mut()
        .expect("object")
        .remove("EventTimeFeatureName");
    let message = failure(&[(path, &broken)]).await;
    assert!(
        message.contains(path) && message.contains("EventTimeFeatureName"),
        "{message}"
    );

    let mut first_page = group("a");
    first_page["NextToken"] = json!("more");
    let message = failure(&[(path, &first_page)]).await;
    assert!(
        message.contains(path) && message.contains("first page"),
        "{message}"
    );

    let message = failure(&[(path, &group("a")), ("feature-groups/y.json", &group("a"))]).await;
    assert!(
        message.contains("y.json") && message.contains("x.json"),
        "{message}"
    );
    assert!(message.contains("feature group 'a' again"), "{message}");

    let table = json!({"Name": "t", "DatabaseName": "d"});
    let message = failure(&[
        ("glue-tables/1.json", &table),
        ("glue-tables/2.json", &table),
    ])
    .await;
    assert!(
        message.contains("2.json") && message.contains("'d.t' again"),
        "{message}"
    );
    let message = failure(&[("glue-tables/1.json", &json!({"Name": "t"}))]).await;
    assert!(
        message.contains("1.json") && message.contains("DatabaseName"),
        "{message}"
    );

    let (dir, source) = folder(&[]);
    fs::write(dir.path().join("feature-groups/x.json"), "{").expect("file");
    let message = source.load().await.expect_err("no JSON").message;
    assert!(
        message.contains("x.json") && message.contains("not JSON"),
        "{message}"
    );
}

#[tokio::test]
async fn descriptions_stand_in_the_groups_file() {
    let mut described = group("a");
    described["FeatureMetadata"] = json!([
        {"FeatureName": "age", "Description": "in years",
         "Parameters": [{"Key": "unit", "Value": "a"}]},
    ]);
    let (_dir, source) = folder(&[("feature-groups/a.json", &described)]);
    let contents = source.load().await.expect("contents");
    let metadata = source
        .feature_metadata(&contents.groups[0])
        .await
        .expect("metadata");
    assert_eq!(metadata.keys().collect::<Vec<_>>(), ["age"]);
    assert_eq!(metadata["age"].description.as_deref(), Some("in years"));
    assert_eq!(metadata["age"].other["Parameters"][0]["Value"], "a");

    for (wrong, why) in [
        (json!({"age": "in years"}), "not a list"),
        (
            json!([{"FeatureName": "agee"}]),
            "'agee', which is not defined",
        ),
        (
            json!([{"FeatureName": "age"}, {"FeatureName": "age"}]),
            "'age' twice",
        ),
    ] {
        described["FeatureMetadata"] = wrong;
        let message = failure(&[("feature-groups/a.json", &described)]).await;
        assert!(
            message.contains("a.json") && message.contains(why),
            "{message}"
        );
    }
}
