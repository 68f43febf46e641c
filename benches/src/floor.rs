//! The decode floor: every column of every file once, with the `parquet` crate's own reader, text
//! as views, 8192 rows at a time, the files shared out among the threads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use serde_json::{Value, json};

use crate::Result;
use crate::report::{files, peak_rss_mb, rounded};

const BATCH_ROWS: usize = 8192;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, threads: usize) -> Result<Value> {
    let started = Instant::now();
    let mut paths = Vec::new();
    for folder in &arguments.folders {
        paths.extend(files(folder)?);
    }
    let next = AtomicUsize::new(0);
    let share = || -> Result<usize> {
        let mut rows = 0;
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            rows += decode(path)?;
        }
        Ok(rows)
    };
    let rows: Result<Vec<usize>> = thread::scope(|scope| {
        let tasks: Vec<_> = (0..threads).map(|_| scope.spawn(share)).collect();
        tasks
            .into_iter()
            .map(|task| task.join().map_err(|_| "a thread panicked")?)
            .collect()
    });
    let rows: usize = rows?.into_iter().sum();
    let seconds = started.elapsed().as_secs_f64();
    let mut bytes = 0;
    for path in &paths {
        bytes += path.metadata()?.len();
    }
    Ok(json!({
        "engine": "floor", "seconds": rounded(seconds), "peak_rss_mb": peak_rss_mb()?, "rows": rows,
        "files_read": paths.len(), "bytes_read": bytes,
    }))
}

/// Decodes one file and gives its number of rows.
fn decode(path: &Path) -> Result<usize> {
    let file = File::open(path)?;
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::default())?;
    let options = ArrowReaderOptions::new().with_schema(with_views(metadata.schema()));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
        .with_batch_size(BATCH_ROWS)
        .build()?;
    let mut rows = 0;
    for batch in reader {
        rows += batch?.num_rows();
    }
    Ok(rows)
}

fn with_views(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
            _ => Arc::clone(field),
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}
