use serde_json::json;

use super::*;

fn rich(creation_time: &Value) -> Value {
    json!({
        "FeatureGroupArn": "arn:aws:sagemaker:eu-west-1:123456789012:feature-group/orders-v2",
        "FeatureGroupName": "orders-v2",
        "RecordIdentifierFeatureName": "order-id",
        "EventTimeFeatureName": "EventTime",
        "FeatureDefinitions": [
            {"FeatureName": "order-id", "FeatureType": "Integral"},
            {"FeatureName": "EventTime", "FeatureType": "String"},
            {"FeatureName": "total", "FeatureType": "Fractional"},
            {"FeatureName": "embedding", "FeatureType": "Fractional", "CollectionType": "Vector",
             "CollectionConfig": {"VectorConfig": {"Dimension": 8192}}},
            {"FeatureName": "flag", "FeatureType": "Boolean", "Since": 2027},
        ],
        "CreationTime": creation_time,
        "LastModifiedTime": 1_680_195_999.25,
        "OnlineStoreConfig": {
            "EnableOnlineStore": true, "StorageType": "Standard_V2",
            "SecurityConfig": {"KmsKeyId": "k"}, "TtlDuration": {"Unit": "Weeks", "Value": 1},
        },
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": "s3://b/p", "KmsKeyId": "k",
                "ResolvedOutputS3Uri": "s3://b/p/1/sagemaker/eu-west-1/offline-store/o/data",
            },
            "DisableGlueTableCreation": false,
            "DataCatalogConfig": {
                "TableName": "orders_v2_1680195766", "Catalog": "AwsDataCatalog",
                "Database": "SageMaker_FeatureStore", "Region": "new",
            },
            "TableFormat": "Hudi",
        },
        "ThroughputConfig": {"ThroughputMode": "Elastic", "ProvisionedReadCapacityUnits": 1},
        "RoleArn": "arn:aws:iam::123456789012:role/r",
        "FeatureGroupStatus": "Archived",
        "OfflineStoreStatus": {"Status": "Blocked", "BlockedReason": "policy"},
        "LastUpdateStatus": {"Status": "Failed", "FailureReason": "x"},
        "FailureReason": "none",
        "Description": "orders, one row each",
        "OnlineStoreTotalSizeBytes": 9_007_199_254_740_993_u64,
        "SomethingNew": {"deep": [1, 2.5, null, "ü"]},
        "ResponseMetadata": {"HTTPStatusCode": 200},
    })
}

#[test]
fn nothing_is_lost_on_a_round_trip() {
    for creation_time in [
        json!(1_680_195_766.123),
        json!("2023-03-30T17:02:46.123000+00:00"),
    ] {
        let json = rich(&creation_time);
        let group: FeatureGroup = serde_json::from_value(json.clone()).expect("group");
        assert_eq!(serde_json::to_value(&group).expect("JSON"), json);
        assert_eq!(group.other["CreationTime"], creation_time);
        let text = serde_json::to_string(&group).expect("text");
        assert_eq!(
            serde_json::from_str::<FeatureGroup>(&text).expect("group"),
            group
        );
    }
}

#[test]
fn enums_are_open() {
    let group: FeatureGroup = serde_json::from_value(rich(&json!(1))).expect("group");
    assert_eq!(
        group.feature_definitions[0].feature_type,
        FeatureType::Integral
    );
    let unknown = &group.feature_definitions[4];
    assert_eq!(
        unknown.feature_type,
        FeatureType::Other("Boolean".to_owned())
    );
    assert_eq!(group.feature_group_status.as_deref(), Some("Archived"));
}

#[test]
fn glue_names_are_lowercase() {
    let mut group: FeatureGroup = serde_json::from_value(rich(&json!(1))).expect("group");
    assert_eq!(
        group.glue_names(),
        Some((
            "sagemaker_featurestore".to_owned(),
            "orders_v2_1680195766".to_owned()
        ))
    );
    group
        .offline_store_config
        .as_mut()
        .expect("store")
        .data_catalog_config = None;
    assert_eq!(group.glue_names(), None);
}
