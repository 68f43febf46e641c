//! The three feature groups as definitions, and their `DescribeFeatureGroup` responses.

use featureflight_catalog::model::FeatureType;
use serde_json::{Value, json};

pub(super) const ACCOUNT: &str = "123456789012";
pub(super) const REGION: &str = "us-east-1";
const BUCKET: &str = "featureflight-demo";

/// One feature of a group.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) kind: FeatureType,
    pub(super) description: &'static str,
}

/// A feature group. The record identifier is its first feature, the event time its second.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Unix seconds of its creation, part of its folder's name.
    pub(super) created: i64,
    pub(super) features: &'static [Feature],
    /// Features that files written before [`Definition::added_at`] lack.
    pub(super) added: usize,
    /// Unix seconds.
    pub(super) added_at: i64,
}

const fn text(name: &'static str, description: &'static str) -> Feature {
    Feature {
        name,
        kind: FeatureType::String,
        description,
    }
}

const fn integral(name: &'static str, description: &'static str) -> Feature {
    Feature {
        name,
        kind: FeatureType::Integral,
        description,
    }
}

const fn fractional(name: &'static str, description: &'static str) -> Feature {
    Feature {
        name,
        kind: FeatureType::Fractional,
        description,
    }
}

pub(super) static CUSTOMERS: Definition = Definition {
    name: "customers",
    description: "Who a customer is: one version per change of the profile",
    created: 1_767_484_800,
    features: &[
        text("customer_id", "Names the customer"),
        text("event_time", "When the profile changed"),
        integral("age", "In years"),
        text("segment", "bronze, silver or gold"),
        text("city", "Where parcels go; null when not told"),
        integral("loyalty_points", "Balance"),
        fractional(
            "credit_limit",
            "In euros; corrected later by the credit bureau",
        ),
        integral("open_tickets", "Complaints not yet answered"),
    ],
    added: 0,
    added_at: 0,
};

pub(super) static ORDERS: Definition = Definition {
    name: "orders",
    description: "Rolling order statistics: one version per order",
    created: 1_767_488_400,
    features: &[
        text("customer_id", "Names the customer"),
        text("event_time", "When the order was placed"),
        integral(
            "orders_7d",
            "Orders of the last seven days, this one included",
        ),
        fractional(
            "spend_7d",
            "Euros spent in the last seven days, this order included",
        ),
        fractional("last_order_amount", "Euros of this order"),
        text("last_category", "What most of this order was"),
        fractional(
            "days_since_previous",
            "Since the order before; null for the first",
        ),
    ],
    added: 0,
    added_at: 0,
};

pub(super) static CARD_RISK: Definition = Definition {
    name: "card-risk",
    description: "How risky a customer's card looks: scored at checkout and every night",
    created: 1_767_492_000,
    features: &[
        text("CustomerId", "Names the customer"),
        fractional("ScoredAt", "When the score was made, in Unix seconds"),
        fractional("RiskScore", "0 (harmless) to 1"),
        text("RiskBand", "low, medium or high"),
        integral("Declines24h", "Declined payments of the last day"),
        integral("DeviceCount", "Devices seen with this card"),
        text(
            "ModelVersion",
            "The model that scored; added with the second model",
        ),
    ],
    added: 1,
    // 2026-01-12T00:00:00Z
    added_at: 1_768_176_000,
};

impl Definition {
    /// The key below the bucket under which the group's data lies.
    pub(super) fn data_prefix(&self) -> String {
        let Self { name, created, .. } = self;
        format!("{ACCOUNT}/sagemaker/{REGION}/offline-store/{name}-{created}/data")
    }

    /// How many of the features, from the front, a file written at `write_seconds` holds.
    pub(super) fn features_at(&self, write_seconds: i64) -> usize {
        let added = if write_seconds < self.added_at {
            self.added
        } else {
            0
        };
        self.features.len() - added
    }

    /// What `aws sagemaker describe-feature-group` would print, and descriptions of the features
    /// as `describe-feature-metadata` would.
    pub(super) fn describe(&self) -> Value {
        let Self {
            name,
            created,
            description,
            features,
            ..
        } = self;
        let created_at = chrono::DateTime::from_timestamp(*created, 0).unwrap_or_default();
        json!({
            "FeatureGroupArn": format!("arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/{name}"),
            "FeatureGroupName": name,
            "RecordIdentifierFeatureName": features[0].name,
            "EventTimeFeatureName": features[1].name,
            "FeatureDefinitions": features.iter().map(|feature| json!({
                "FeatureName": feature.name,
                "FeatureType": feature.kind,
            })).collect::<Vec<_>>(),
            "CreationTime": created_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, false),
            "OnlineStoreConfig": {"EnableOnlineStore": true},
            "OfflineStoreConfig": {
                "S3StorageConfig": {
                    "S3Uri": format!("s3://{BUCKET}"),
                    "ResolvedOutputS3Uri": format!("s3://{BUCKET}/{}", self.data_prefix()),
                },
                "DisableGlueTableCreation": false,
                "DataCatalogConfig": {
                    "TableName": format!("{}_{created}", name.replace('-', "_")),
                    "Catalog": "AwsDataCatalog",
                    "Database": "sagemaker_featurestore",
                },
                "TableFormat": "Glue",
            },
            "RoleArn": format!("arn:aws:iam::{ACCOUNT}:role/feature-store"),
            "FeatureGroupStatus": "Created",
            "OfflineStoreStatus": {"Status": "Active"},
            "Description": description,
            "FeatureMetadata": features.iter().map(|feature| json!({
                "FeatureName": feature.name,
                "Description": feature.description,
            })).collect::<Vec<_>>(),
        })
    }
}
