//! The engine over a real warehouse: files on disk, statements in, batches out.

mod bound_rows;
mod browse;
mod complexity;
mod growth;
mod lifecycle;
mod limits;
mod optimizer;
mod panics;
mod pins;
mod resources;
mod sessions;
mod slices;
mod stopping;
mod system;
mod uploads;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_catalog::{Error, Instant, Result};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::query::PinnedQuery;
use crate::session::Session;
use crate::{Engine, EngineOptions};

/// One version of a customer: identifier, event time, age, write time.
type Version<'a> = (&'a str, &'a str, i64, &'a str);

struct Server {
    dir: TempDir,
    engine: Arc<Engine>,
    session: Arc<Session>,
}

/// Two served groups, one that is not, and no cache of listings.
async fn server() -> Server {
    server_with(EngineOptions {
        list_cache_ttl: Duration::ZERO,
        ..EngineOptions::default()
    })
    .await
}

async fn server_with(options: EngineOptions) -> Server {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("feature-groups")).unwrap();
    std::fs::create_dir_all(dir.path().join("s3")).unwrap();
    write_group(&dir, &group("customers"));
    write_group(&dir, &group("Loyal-Customers"));
    let mut creating = group("creating");
    creating["FeatureGroupStatus"] = json!("Creating");
    creating["OfflineStoreConfig"] = Value::Null;
    creating
        .as_object_mut()
        .unwrap()
        .remove("OfflineStoreConfig");
    write_group(&dir, &creating);
    let catalog = Catalog::open(
        Arc::new(FilesSource::new(dir.path())),
        Arc::new(WarehouseStorage::open(dir.path()).unwrap()),
    )
    .await
    .unwrap();
    let engine = Engine::new(catalog, options).unwrap();
    let server = Server {
        dir,
        engine,
        session: Arc::new(Session::new("secret")),
    };
    server.put(
        "customers",
        "first",
        &[
            ("c1", "2026-01-01T10:00:00Z", 30, "2026-01-01T10:05:00Z"),
            ("c1", "2026-01-01T11:00:00Z", 31, "2026-01-01T11:05:00Z"),
            ("c2", "2026-01-01T10:30:00Z", 40, "2026-01-01T10:35:00Z"),
        ],
    );
    server
}

fn group(name: &str) -> Value {
    json!({
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "customer_id",
        "EventTimeFeatureName": "event_time",
        "FeatureDefinitions": [
            {"FeatureName": "customer_id", "FeatureType": "String"},
            {"FeatureName": "event_time", "FeatureType": "String"},
            {"FeatureName": "age", "FeatureType": "Integral"},
            {"FeatureName": "Score", "FeatureType": "Fractional"},
        ],
        "FeatureMetadata": [{"FeatureName": "age", "Description": "in years"}],
        "FeatureGroupStatus": "Created",
        "Description": format!("all about {name}"),
        "OfflineStoreConfig": {
            "S3StorageConfig": {
                "S3Uri": "s3://bucket/store",
                "ResolvedOutputS3Uri": format!("s3://bucket/store/{name}/data"),
            },
            "DataCatalogConfig": {
                "TableName": format!("{}_1", name.replace('-', "_")),
                "Catalog": "AwsDataCatalog",
                "Database": "sagemaker_featurestore",
            },
        },
    })
}

fn write_group(dir: &TempDir, group: &Value) {
    let name = group["FeatureGroupName"].as_str().unwrap();
    let path = dir
        .path()
        .join("feature-groups")
        .join(format!("{name}.json"));
    std::fs::write(path, serde_json::to_vec_pretty(group).unwrap()).unwrap();
}

fn millis(text: &str) -> i64 {
    Instant::parse(text).unwrap().micros / 1_000
}

impl Server {
    /// Writes one data file into the hour folder of its first version.
    fn put(&self, group: &str, name: &str, versions: &[Version<'_>]) -> PathBuf {
        let hour = versions[0].1;
        let folder = self.dir.path().join(format!(
            "s3/store/{group}/data/year={}/month={}/day={}/hour={}",
            &hour[..4],
            &hour[5..7],
            &hour[8..10],
            &hour[11..13]
        ));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{name}.parquet"));
        let zoned = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("customer_id", DataType::Utf8, true),
            Field::new("event_time", DataType::Utf8, true),
            Field::new("age", DataType::Int64, true),
            Field::new("Score", DataType::Float64, true),
            Field::new("write_time", zoned.clone(), true),
            Field::new("api_invocation_time", zoned, true),
            Field::new("is_deleted", DataType::Boolean, true),
        ]));
        let texts = |pick: fn(&Version<'_>) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(versions.iter().map(pick)))
        };
        let times = || -> ArrayRef {
            let times = versions.iter().map(|version| millis(version.3));
            Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
        };
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![
                texts(|version| version.0.to_owned()),
                texts(|version| version.1.to_owned()),
                Arc::new(Int64Array::from_iter_values(
                    versions.iter().map(|version| version.2),
                )),
                Arc::new(Float64Array::from(vec![0.5; versions.len()])),
                times(),
                times(),
                Arc::new(BooleanArray::from(vec![false; versions.len()])),
            ],
        )
        .unwrap();
        let mut writer =
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }

    async fn pin(&self, sql: &str) -> Result<Arc<PinnedQuery>> {
        self.engine.pin(&self.session, sql, Vec::new()).await
    }

    async fn rows_of(&self, query: &Arc<PinnedQuery>) -> Result<Vec<RecordBatch>> {
        self.engine.run(query).await?.try_collect().await
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        self.rows_of(&self.pin(sql).await?).await
    }

    /// The result as sorted lines, cells separated by blanks.
    async fn lines(&self, sql: &str) -> Vec<String> {
        lines(&self.rows(sql).await.unwrap())
    }

    async fn bound(&self, sql: &str, parameters: Vec<ScalarValue>) -> Result<Vec<String>> {
        let query = self
            .engine
            .pin(&self.session, sql, vec![parameters])
            .await?;
        Ok(lines(&self.rows_of(&query).await?))
    }

    async fn error(&self, sql: &str) -> Error {
        self.rows(sql).await.unwrap_err()
    }
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<String> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            line.split('|')
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    lines.sort();
    lines
}
