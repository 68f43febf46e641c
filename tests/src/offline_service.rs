//! Writes what the fake runtime accepted into a warehouse, as the service writes the offline store:
//! one Parquet file for every hour of event time, with one write time for all its rows and whole
//! seconds of API invocation time.
//!
//! When, and which rows together, is the test's to say. It shares no code with the scanner.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use chrono::DateTime;
use featureflight_catalog::Instant;
use featureflight_catalog::model::{FeatureGroup, FeatureType};
use parquet::arrow::ArrowWriter;

use crate::fake_runtime::OfflineRow;

/// Writes `rows` of `group` below `root`, which stands for every bucket.
///
/// # Panics
/// When a value is not of its feature's type.
pub fn land(rows: &[OfflineRow], group: &FeatureGroup, root: &Path) {
    let hour = |row: &OfflineRow| row.event_time.micros.div_euclid(3_600_000_000);
    let mut hours: Vec<i64> = rows.iter().map(hour).collect();
    hours.sort_unstable();
    hours.dedup();
    let config = group.offline_store_config.as_ref().unwrap();
    let uri = config.s3_storage_config.resolved_output_s3_uri.as_ref();
    let (_, key) = uri
        .unwrap()
        .trim_start_matches("s3://")
        .split_once('/')
        .unwrap();
    for at in hours {
        let rows: Vec<&OfflineRow> = rows.iter().filter(|row| hour(row) == at).collect();
        let seconds = |micros: i64| DateTime::from_timestamp(micros / 1_000_000, 0).unwrap();
        let folder = seconds(at * 3_600_000_000).format("year=%Y/month=%m/day=%d/hour=%H");
        let folder = root.join(key).join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        let latest = rows.iter().map(|row| row.event_time.micros).max().unwrap();
        let latest = seconds(latest).format("%Y%m%dT%H%M%SZ");
        let name = format!("{latest}_{:016X}.parquet", rand::random::<u64>());
        let batch = batch(&rows, group);
        // Whole or absent, as objects of S3 are.
        let unfinished = folder.join(format!(".{name}"));
        let file = fs::File::create(&unfinished).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        fs::rename(unfinished, folder.join(name)).unwrap();
    }
}

fn batch(rows: &[&OfflineRow], group: &FeatureGroup) -> RecordBatch {
    let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
    for definition in &group.feature_definitions {
        let name = definition.feature_name.as_str();
        let texts = rows.iter().map(|row| row.values.get(name));
        let column: ArrayRef = match definition.feature_type {
            FeatureType::Integral => Arc::new(
                texts
                    .map(|text| Some(text?.parse::<i64>().unwrap()))
                    .collect::<Int64Array>(),
            ),
            FeatureType::Fractional => Arc::new(
                texts
                    .map(|text| Some(text?.parse::<f64>().unwrap()))
                    .collect::<Float64Array>(),
            ),
            _ => Arc::new(texts.collect::<StringArray>()),
        };
        columns.push((name, column, true));
    }
    let now = Instant::now().micros / 1_000;
    let written = TimestampMillisecondArray::from(vec![now; rows.len()]).with_timezone("UTC");
    let invoked = rows.iter().map(|row| row.invoked_at.micros);
    let invoked = TimestampMicrosecondArray::from_iter_values(invoked).with_timezone("UTC");
    let deleted = rows.iter().map(|row| Some(row.is_deleted));
    columns.push(("write_time", Arc::new(written), false));
    columns.push(("api_invocation_time", Arc::new(invoked), false));
    columns.push((
        "is_deleted",
        Arc::new(deleted.collect::<BooleanArray>()),
        false,
    ));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}
