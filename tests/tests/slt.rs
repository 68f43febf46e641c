//! Runs every `.slt` file twice: in the process against the engine, and through a Flight SQL
//! client against a server. Each file has its own session.
//!
//! `FEATUREFLIGHT_SLT_COMPLETE=1` writes the answers into the files instead of checking them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use featureflight_engine::session::Session;
use featureflight_engine::{Engine, EngineOptions};
use futures::TryStreamExt;
use sqllogictest::{
    AsyncDB, DBOutput, DefaultColumnType, Runner, default_column_validator, default_normalizer,
    default_validator,
};
use tonic::transport::{Channel, Endpoint};

/// A failed statement, as the client sees it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

fn failed(error: impl std::fmt::Display) -> Failed {
    Failed(error.to_string())
}

fn output(
    schema: &arrow::datatypes::Schema,
    batches: &[RecordBatch],
) -> Result<DBOutput<DefaultColumnType>, Failed> {
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::Utf8 => DefaultColumnType::Text,
            kind if kind.is_integer() => DefaultColumnType::Integer,
            kind if kind.is_floating() => DefaultColumnType::FloatingPoint,
            _ => DefaultColumnType::Any,
        })
        .collect();
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).map(|f| (column, f)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        for row in 0..batch.num_rows() {
            rows.push(
                columns
                    .iter()
                    .map(|(column, format)| match format.value(row).to_string() {
                        text if text.is_empty() && column.is_valid(row) => "(empty)".to_owned(),
                        text => text,
                    })
                    .collect(),
            );
        }
    }
    Ok(DBOutput::Rows { types, rows })
}

struct InProcess {
    engine: Arc<Engine>,
    session: Arc<Session>,
}

#[async_trait]
impl AsyncDB for InProcess {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let query = self
            .engine
            .pin(&self.session, sql, Vec::new())
            .await
            .map_err(failed)?;
        let stream = self.engine.run(&query).await.map_err(failed)?;
        let schema = stream.schema.clone();
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
        output(&schema, &batches)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "in-process"
    }
}

struct OverFlight(FlightSqlServiceClient<Channel>);

#[async_trait]
impl AsyncDB for OverFlight {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let info = self.0.execute(sql.to_owned(), None).await.map_err(failed)?;
        let schema = info.clone().try_decode_schema().map_err(failed)?;
        let mut batches = Vec::new();
        for endpoint in info.endpoint {
            let ticket = endpoint
                .ticket
                .ok_or_else(|| failed("an endpoint without a ticket"))?;
            let stream = self.0.do_get(ticket).await.map_err(failed)?;
            batches.extend(stream.try_collect::<Vec<_>>().await.map_err(failed)?);
        }
        if let Some(batch) = batches.first() {
            assert_eq!(
                batch.schema().as_ref(),
                &schema,
                "schema announced = schema sent: {sql}"
            );
        }
        output(&schema, &batches)
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &'static str {
        "flight"
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn slt_files_in_process() {
    let directory = tempfile::tempdir().unwrap();
    featureflight_tests::warehouse::write_examples(directory.path());
    let catalog = featureflight_tests::open_warehouse(directory.path()).await;
    let engine = Engine::new(catalog, EngineOptions::default()).unwrap();
    for file in files() {
        let make = || async {
            Ok(InProcess {
                engine: engine.clone(),
                session: Arc::new(Session::new("slt")),
            })
        };
        let mut runner = Runner::new(make);
        if std::env::var_os("FEATUREFLIGHT_SLT_COMPLETE").is_some() {
            runner
                .update_test_file(
                    &file,
                    " ",
                    default_validator,
                    default_normalizer,
                    default_column_validator,
                )
                .await
                .unwrap();
        } else if let Err(error) = runner.run_file_async(&file).await {
            panic!("{}: {error}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slt_files_over_flight() {
    let directory = tempfile::tempdir().unwrap();
    featureflight_tests::warehouse::write_examples(directory.path());
    let server = featureflight_tests::serve_warehouse(directory.path()).await;
    for file in files() {
        let address = format!("http://{}", server.local_addr);
        let make = || async {
            let endpoint = Endpoint::from_shared(address.clone()).unwrap();
            let channel = endpoint
                .timeout(Duration::from_mins(1))
                .connect()
                .await
                .map_err(failed)?;
            Ok(OverFlight(FlightSqlServiceClient::new(channel)))
        };
        let mut runner = Runner::new(make);
        if let Err(error) = runner.run_file_async(&file).await {
            panic!("{}: {error}", file.display());
        }
    }
}
