//! The feature group as AWS describes it: the `DescribeFeatureGroup` response, with nothing lost
//! on a round trip through JSON and every enum open.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Features no definition may use: the offline store adds columns of these names.
pub const SYSTEM_COLUMNS: [&str; 3] = ["write_time", "api_invocation_time", "is_deleted"];

/// Where a warehouse's JSON may describe features: a list of
/// `{"FeatureName": ..., "Description": ..., "Parameters": [{"Key": ..., "Value": ...}]}`.
pub const METADATA_KEY: &str = "FeatureMetadata";

/// A `DescribeFeatureGroup` response. Field names are AWS's; what this type does not name is kept
/// in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FeatureGroup {
    pub feature_group_name: String,
    pub record_identifier_feature_name: String,
    pub event_time_feature_name: String,
    pub feature_definitions: Vec<FeatureDefinition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_group_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline_store_config: Option<OfflineStoreConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_group_status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl FeatureGroup {
    /// Database and table the group names in Glue, lowercased as Glue stores them.
    pub fn glue_names(&self) -> Option<(String, String)> {
        let names = self
            .offline_store_config
            .as_ref()?
            .data_catalog_config
            .as_ref()?;
        Some((
            names.database.to_lowercase(),
            names.table_name.to_lowercase(),
        ))
    }

    /// Whether both descriptions are of one group: not of another one of its name.
    pub fn is_same_group(&self, other: &Self) -> bool {
        const MADE: &str = "CreationTime";
        self.feature_group_name == other.feature_group_name
            && self.other.get(MADE) == other.other.get(MADE)
    }

    /// Whether this is the group that `earlier` described, and whatever was written to that may be
    /// written to this: not another one of its name.
    pub fn continues(&self, earlier: &Self) -> bool {
        let (now, then) = (&self.feature_definitions, &earlier.feature_definitions);
        self.is_same_group(earlier)
            && self.record_identifier_feature_name == earlier.record_identifier_feature_name
            && self.event_time_feature_name == earlier.event_time_feature_name
            && (now.starts_with(then) || then.iter().all(|feature| now.contains(feature)))
    }

    pub fn has_online_store(&self) -> bool {
        let config = self.other.get("OnlineStoreConfig");
        let enabled = config.and_then(|config| config.get("EnableOnlineStore"));
        enabled.and_then(Value::as_bool) == Some(true)
    }

    /// Where its data files lie; `None` for a group without an offline store, or before there are any.
    pub fn data_url(&self) -> Option<&str> {
        let store = self.offline_store_config.as_ref()?;
        let url = store.s3_storage_config.resolved_output_s3_uri.as_deref();
        url.filter(|url| !url.is_empty())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FeatureDefinition {
    pub feature_name: String,
    pub feature_type: FeatureType,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeatureType {
    Integral,
    Fractional,
    String,
    #[serde(untagged)]
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OfflineStoreConfig {
    pub s3_storage_config: S3StorageConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_catalog_config: Option<DataCatalogConfig>,
    /// `Glue`, `Iceberg`, `Default` or absent; absent means `Glue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_format: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl OfflineStoreConfig {
    pub fn is_iceberg(&self) -> bool {
        self.table_format.as_deref() == Some("Iceberg")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct S3StorageConfig {
    pub s3_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_output_s3_uri: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DataCatalogConfig {
    pub table_name: String,
    pub catalog: String,
    pub database: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Descriptions of a feature, from `DescribeFeatureMetadata` or a `FeatureMetadata` entry of a
/// warehouse's JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FeatureMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[cfg(test)]
mod tests;
