//! `system.feature_groups`: every feature group, served or not and why, every Glue table that no
//! group claims, and how fresh all of that is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::Result;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::{GroupEntry, RawEntry, Serving};
use featureflight_catalog::table::timestamp_type;

use super::{SystemContext, SystemTable};
use crate::metadata::OWN_SCHEMAS;

#[derive(Debug)]
pub(super) struct FeatureGroups;

/// What `serving` says of a group whose relations can be read.
const SERVED: &str = "served";

/// What it says of a group that is written and looked up, and has no relations.
const ONLINE_ONLY: &str = "online only: it has no offline store";

/// What it says of a Glue table that is only readable raw.
const UNCLAIMED: &str = "raw only: no feature group claims this table";

/// What it says of a Glue table that cannot be named in SQL.
const HIDDEN: &str = "not served: the server has a schema of the database's name";

#[derive(Debug, Default)]
struct Row<'a> {
    name: Option<&'a str>,
    group: Option<&'a FeatureGroup>,
    serving: &'a str,
    glue_database: Option<String>,
    glue_table: Option<String>,
    s3_location: Option<String>,
}

#[async_trait]
impl SystemTable for FeatureGroups {
    fn name(&self) -> &'static str {
        "feature_groups"
    }

    fn remarks(&self) -> &'static str {
        "Feature groups and Glue tables without one: whether they are served, and why not"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
        Arc::new(Schema::new(vec![
            text("name", true),
            text("status", true),
            text("serving", false),
            text("table_format", true),
            text("record_identifier", true),
            text("event_time", true),
            Field::new("features", DataType::Int64, true),
            text("description", true),
            text("s3_location", true),
            text("glue_database", true),
            text("glue_table", true),
            Field::new("snapshot_taken_at", timestamp_type(), true),
            Field::new("snapshot_age_seconds", DataType::Int64, true),
            text("last_refresh_error", true),
        ]))
    }

    async fn rows(
        &self,
        context: &SystemContext,
        _projection: &[usize],
        _keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let snapshot = &context.snapshot;
        let health = context.catalog.health();
        let groups = snapshot
            .groups
            .iter()
            .map(|(name, entry)| of_group(name, entry));
        let orphans = snapshot
            .raw
            .values()
            .flat_map(|tables| tables.values())
            .filter(|entry| entry.feature_group.is_none())
            .map(of_orphan);
        let rows: Vec<Row<'_>> = groups.chain(orphans).collect();

        let text = |value: &dyn Fn(&Row<'_>) -> Option<String>| -> ArrayRef {
            Arc::new(rows.iter().map(value).collect::<StringArray>())
        };
        let of_group = |value: &dyn Fn(&FeatureGroup) -> Option<String>| {
            text(&|row: &Row<'_>| row.group.and_then(value))
        };
        let features = rows.iter().map(|row| {
            row.group
                .and_then(|group| i64::try_from(group.feature_definitions.len()).ok())
        });
        let taken_at = snapshot.taken_at.and_then(micros);
        let age = snapshot
            .taken_at
            .and_then(|at| SystemTime::now().duration_since(at).ok())
            .and_then(|age| i64::try_from(age.as_secs()).ok());
        let columns: Vec<ArrayRef> = vec![
            text(&|row| row.name.map(str::to_owned)),
            of_group(&|group| group.feature_group_status.clone()),
            text(&|row| Some(row.serving.to_owned())),
            of_group(&table_format),
            of_group(&|group| Some(group.record_identifier_feature_name.clone())),
            of_group(&|group| Some(group.event_time_feature_name.clone())),
            Arc::new(features.collect::<Int64Array>()),
            of_group(&|group| group.description.clone()),
            text(&|row| row.s3_location.clone()),
            text(&|row| row.glue_database.clone()),
            text(&|row| row.glue_table.clone()),
            Arc::new(
                TimestampMicrosecondArray::from(vec![taken_at; rows.len()])
                    .with_data_type(timestamp_type()),
            ),
            Arc::new(Int64Array::from(vec![age; rows.len()])),
            text(&|_| health.last_error.clone()),
        ];
        RecordBatch::try_new(self.schema(), columns).map_err(crate::error::internal)
    }
}

fn of_group<'a>(name: &'a str, entry: &'a GroupEntry) -> Row<'a> {
    let store = entry.group.offline_store_config.as_ref();
    let glue = store.and_then(|store| store.data_catalog_config.as_ref());
    let s3 = store.map(|store| &store.s3_storage_config);
    Row {
        name: Some(name),
        group: Some(&entry.group),
        serving: match &entry.serving {
            Serving::Served(_) => SERVED,
            Serving::OnlineOnly => ONLINE_ONLY,
            Serving::Unavailable(reason) => reason,
        },
        glue_database: glue.map(|glue| glue.database.to_lowercase()),
        glue_table: glue.map(|glue| glue.table_name.to_lowercase()),
        s3_location: s3.map(|s3| {
            s3.resolved_output_s3_uri
                .clone()
                .unwrap_or_else(|| s3.s3_uri.clone())
        }),
    }
}

fn of_orphan(entry: &RawEntry) -> Row<'_> {
    Row {
        name: None,
        group: None,
        serving: match &entry.serving {
            Ok(_) if OWN_SCHEMAS.contains(&entry.database.as_str()) => HIDDEN,
            Ok(_) => UNCLAIMED,
            Err(reason) => reason,
        },
        glue_database: Some(entry.database.clone()),
        glue_table: Some(entry.name.clone()),
        s3_location: entry
            .serving
            .as_ref()
            .ok()
            .map(|raw| raw.files.location.url.clone()),
    }
}

/// An absent format is Glue's, for a group that has an offline store.
fn table_format(group: &FeatureGroup) -> Option<String> {
    let store = group.offline_store_config.as_ref()?;
    Some(
        store
            .table_format
            .clone()
            .unwrap_or_else(|| "Glue".to_owned()),
    )
}

pub(super) fn micros(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).ok(),
        Err(before) => i64::try_from(before.duration().as_micros())
            .ok()
            .map(|micros| -micros),
    }
}
