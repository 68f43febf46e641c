//! A statement in process: an engine over a warehouse, its batches into a Parquet file.
//!
//! The clock runs from the statement's text, so that parsing, planning and listing count, to the
//! closed file; opening the catalog does not count, as a server has done it before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::aws::{AwsOptions, load_config};
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::{AwsStorage, Storage, WarehouseStorage};
use featureflight_engine::session::Session;
use featureflight_engine::{Engine, EngineOptions};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::Result;
use crate::answer::Answer;
use crate::report::{peak_rss_mb, rounded};
use crate::sink::ParquetSink;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Holds `feature-groups/`, `glue-tables/` and, unless --s3 is given, `s3/`.
    #[arg(long)]
    pub(crate) warehouse: PathBuf,
    /// Read the files from S3, as the AWS environment variables say.
    #[arg(long)]
    pub(crate) s3: bool,
    #[arg(long)]
    pub(crate) memory_limit_mb: Option<usize>,
    /// A statement, or `@` and the file it is in: a list of keys is longer than an argument may be.
    #[arg(long)]
    pub(crate) sql: String,
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// A column whose values are counted.
    #[arg(long)]
    pub(crate) matched: Option<String>,
}

pub(crate) async fn run(arguments: Arguments, threads: usize) -> Result<Value> {
    let Arguments {
        warehouse,
        s3,
        memory_limit_mb,
        sql,
        out,
        matched,
    } = arguments;
    let sql = match sql.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)?,
        None => sql,
    };
    let storage: Arc<dyn Storage> = if s3 {
        Arc::new(AwsStorage::new(
            &load_config(&AwsOptions::default()).await?,
        )?)
    } else {
        Arc::new(WarehouseStorage::open(&warehouse)?)
    };
    let catalog = Catalog::open(Arc::new(FilesSource::new(&warehouse)), storage).await?;
    let mut options = EngineOptions {
        target_partitions: threads,
        ..EngineOptions::default()
    };
    if let Some(limit) = memory_limit_mb {
        options.memory_limit_bytes = limit << 20;
    }
    let engine = Engine::new(catalog, options)?;
    let session = Arc::new(Session::new("bench"));

    let started = Instant::now();
    let query = engine.pin(&session, &sql, Vec::new()).await?;
    let mut batches = engine.run(&query).await?;
    let mut sink = ParquetSink::create(&out, &batches.schema, threads)?;
    while let Some(batch) = batches.try_next().await? {
        sink.write(batch).await?;
    }
    sink.close().await?;
    let seconds = started.elapsed().as_secs_f64();
    let peak = peak_rss_mb()?;

    let mut metrics = BTreeMap::new();
    if let Some(plan) = &batches.plan {
        add_counts(plan, &mut metrics);
    }
    let mut line = Answer::of(&out, matched.as_deref())?.json();
    line["engine"] = json!("featureflight");
    line["seconds"] = json!(rounded(seconds));
    line["peak_rss_mb"] = json!(peak);
    line["files_read"] = json!(metrics.get("files_read"));
    line["bytes_read"] = json!(metrics.get("bytes_scanned"));
    line["metrics"] = json!(metrics);
    Ok(line)
}

/// Adds up the counts of every operator below `plan`, by name.
fn add_counts(plan: &Arc<dyn ExecutionPlan>, totals: &mut BTreeMap<String, usize>) {
    for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
        if let MetricValue::Count { name, count } = metric.value() {
            *totals.entry(name.to_string()).or_default() += count.value();
        }
    }
    for child in plan.children() {
        add_counts(child, totals);
    }
}
