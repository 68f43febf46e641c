//! `system.features`: every feature of every group, as defined, with its description.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::Result;
use featureflight_catalog::model::{FeatureGroup, FeatureType};
use futures::{StreamExt, stream};

use super::{SystemContext, SystemTable, wants};

#[derive(Debug)]
pub(super) struct Features;

const DESCRIPTION: usize = 6;

/// Groups whose descriptions are asked for at once.
const CONCURRENT_LOOKUPS: usize = 8;

#[async_trait]
impl SystemTable for Features {
    fn name(&self) -> &'static str {
        "features"
    }

    fn remarks(&self) -> &'static str {
        "Every feature of every feature group, as defined; descriptions are fetched when selected"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        Arc::new(Schema::new(vec![
            text("feature_group", false),
            text("name", false),
            text("type", false),
            Field::new("ordinal_position", DataType::Int64, false),
            Field::new("is_record_identifier", DataType::Boolean, false),
            Field::new("is_event_time", DataType::Boolean, false),
            text("description", true),
        ]))
    }

    fn key(&self) -> Option<&'static str> {
        Some("feature_group")
    }

    async fn rows(
        &self,
        context: &SystemContext,
        projection: &[usize],
        keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let groups: Vec<&FeatureGroup> = context
            .snapshot
            .groups
            .iter()
            .filter(|(name, _)| wants(keys, name))
            .map(|(_, entry)| entry.group.as_ref())
            .collect();
        let descriptions = if projection.contains(&DESCRIPTION) {
            descriptions(context, &groups).await
        } else {
            BTreeMap::new()
        };
        let rows = || {
            groups.iter().flat_map(|group| {
                let features = group.feature_definitions.iter().enumerate();
                features.map(move |(position, feature)| (*group, position, feature))
            })
        };
        let names: StringArray = rows()
            .map(|(group, _, _)| Some(group.feature_group_name.as_str()))
            .collect();
        let features: StringArray = rows()
            .map(|(_, _, feature)| Some(feature.feature_name.as_str()))
            .collect();
        let types: StringArray = rows()
            .map(|(_, _, feature)| Some(type_name(&feature.feature_type)))
            .collect();
        let positions: Int64Array = rows()
            .map(|(_, position, _)| i64::try_from(position + 1).ok())
            .collect();
        let identifiers: BooleanArray = rows()
            .map(|(g, _, f)| Some(f.feature_name == g.record_identifier_feature_name))
            .collect();
        let event_times: BooleanArray = rows()
            .map(|(g, _, f)| Some(f.feature_name == g.event_time_feature_name))
            .collect();
        let said: StringArray = rows()
            .map(|(group, _, feature)| {
                descriptions
                    .get(&group.feature_group_name)?
                    .get(&feature.feature_name)
                    .cloned()
            })
            .collect();
        RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(names),
                Arc::new(features),
                Arc::new(types),
                Arc::new(positions),
                Arc::new(identifiers),
                Arc::new(event_times),
                Arc::new(said),
            ],
        )
        .map_err(crate::error::internal)
    }
}

/// By group, then feature. A group whose descriptions cannot be had has none here: that must not
/// hide its features.
async fn descriptions(
    context: &SystemContext,
    groups: &[&FeatureGroup],
) -> BTreeMap<String, BTreeMap<String, String>> {
    let lookups = groups.iter().map(|group| {
        let name = group.feature_group_name.clone();
        async move {
            match context.catalog.feature_metadata(&name).await {
                Ok(metadata) => {
                    let said = metadata.iter().filter_map(|(feature, metadata)| {
                        Some((feature.clone(), metadata.description.clone()?))
                    });
                    Some((name, said.collect()))
                }
                Err(error) => {
                    tracing::warn!(group = name, %error, "descriptions of features not available");
                    None
                }
            }
        }
    });
    let lookups: Vec<_> = lookups.collect();
    stream::iter(lookups)
        .buffer_unordered(CONCURRENT_LOOKUPS)
        .filter_map(futures::future::ready)
        .collect()
        .await
}

fn type_name(kind: &FeatureType) -> &str {
    match kind {
        FeatureType::Integral => "Integral",
        FeatureType::Fractional => "Fractional",
        FeatureType::String => "String",
        FeatureType::Other(name) => name,
    }
}
