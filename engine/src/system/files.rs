//! `system.files`: the data objects behind every served feature group, listed when asked for. A
//! filter on `feature_group` keeps the listing to those groups.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::listing::{EventRange, FileList};
use featureflight_catalog::snapshot::Serving;
use featureflight_catalog::table::{FeatureTable, timestamp_type};
use featureflight_catalog::{Error, Kind, Result};
use futures::{StreamExt, TryStreamExt, stream};

use super::{SystemContext, SystemTable, wants};

#[derive(Debug)]
pub(super) struct Files;

/// Groups listed at once.
const CONCURRENT_LISTINGS: usize = 8;

/// Files one statement may see, so that their rows fit in memory.
const MAX_FILES: usize = 5_000_000;

#[async_trait]
impl SystemTable for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn remarks(&self) -> &'static str {
        "Data objects of each feature group's offline store, listed now; filter on feature_group"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("feature_group", DataType::Utf8, false),
            Field::new("object_key", DataType::Utf8, false),
            Field::new("size_bytes", DataType::Int64, false),
            Field::new("last_modified", timestamp_type(), false),
            Field::new("hour", timestamp_type(), true),
        ]))
    }

    fn key(&self) -> Option<&'static str> {
        Some("feature_group")
    }

    async fn rows(
        &self,
        context: &SystemContext,
        _projection: &[usize],
        keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let tables: Vec<Arc<FeatureTable>> = context
            .snapshot
            .groups
            .iter()
            .filter(|(name, _)| wants(keys, name))
            .filter_map(|(_, entry)| match &entry.serving {
                Serving::Served(table) => Some(Arc::clone(table)),
                Serving::OnlineOnly | Serving::Unavailable(_) => None,
            })
            .collect();
        let listings = tables.into_iter().map(|table| {
            let lister = Arc::clone(&context.lister);
            async move {
                let list = lister
                    .list(&table.files, EventRange::default(), None)
                    .await?;
                Ok::<_, Error>((table, list))
            }
        });
        let lists: Vec<(Arc<FeatureTable>, Arc<FileList>)> = stream::iter(listings)
            .buffered(CONCURRENT_LISTINGS)
            .try_collect()
            .await?;
        let count: usize = lists.iter().map(|(_, list)| list.files.len()).sum();
        if count > MAX_FILES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("system.files has {count} rows here: filter on feature_group"),
            ));
        }
        let rows = || {
            lists
                .iter()
                .flat_map(|(table, list)| list.files.iter().map(move |file| (table, file)))
        };
        let groups: StringArray = rows().map(|(table, _)| Some(table.name())).collect();
        let keys: StringArray = rows()
            .map(|(_, file)| Some(file.meta.location.as_ref()))
            .collect();
        let sizes: Int64Array = rows()
            .map(|(_, file)| i64::try_from(file.meta.size).ok())
            .collect();
        let modified: TimestampMicrosecondArray = rows()
            .map(|(_, file)| Some(file.meta.last_modified.timestamp_micros()))
            .collect();
        let hours: TimestampMicrosecondArray = rows()
            .map(|(_, file)| file.hour.map(|hour| hour.micros))
            .collect();
        RecordBatch::try_new(
            self.schema(),
            vec![
                Arc::new(groups),
                Arc::new(keys),
                Arc::new(sizes),
                Arc::new(modified.with_data_type(timestamp_type())),
                Arc::new(hours.with_data_type(timestamp_type())),
            ],
        )
        .map_err(crate::error::internal)
    }
}
