//! `OPTIMIZE TABLE`: joins the small files of a feature group whose offline store this server
//! writes. It happens once, where the statement is pinned; its answer has a row for every hour of
//! event time whose files were joined.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::snapshot::{CatalogSnapshot, Serving};
use featureflight_catalog::table::{FeatureTable, timestamp_type};
use featureflight_catalog::{Error, Result};
use featureflight_online::gateway::Gateway;
use featureflight_online::offline::{Optimized, optimize};
use featureflight_udf::Clocks;

use super::unheeded;
use crate::pinning::Scope;
use crate::query::life::Entry;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let counts = [
        "files_before",
        "files_after",
        "rows",
        "bytes_before",
        "bytes_after",
    ];
    let hour = Field::new("hour", timestamp_type(), false);
    let counts = counts.map(|name| Field::new(name, DataType::Int64, false));
    let fields: Vec<Field> = [hour].into_iter().chain(counts).collect();
    Arc::new(Schema::new(fields))
});

/// The hour of event time, and its files before and after.
pub(crate) fn optimized_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// The table that a statement names.
///
/// # Errors
/// `InvalidArgument` for more than its name.
pub(crate) fn optimized_table(statement: ast::Statement) -> Result<ast::ObjectName> {
    match statement {
        ast::Statement::OptimizeTable {
            name,
            has_table_keyword: _,
            on_cluster: None,
            partition: None,
            include_final: false,
            deduplicate: None,
            predicate: None,
            zorder: None,
        } => Ok(name),
        _ => Err(unheeded("OPTIMIZE TABLE group")),
    }
}

/// A group whose files are to be joined.
#[derive(Debug)]
pub(crate) struct Optimization {
    gateway: Arc<Gateway>,
    catalog: Arc<CatalogSnapshot>,
    table: Arc<FeatureTable>,
}

impl Optimization {
    /// # Errors
    /// `InvalidArgument` on a server that writes nothing, `FailedPrecondition` where the files are
    /// SageMaker's, and those of the name.
    pub(crate) fn plan(scope: &Scope, name: &ast::ObjectName) -> Result<Self> {
        let ground = scope.ground(Clocks::default());
        let (state, context) = (&ground.state, &ground.context);
        let group = featureflight_udf::planner::write_target(state, name, context)?;
        let entry = context.catalog.groups.get(&group.feature_group_name);
        let Some(Serving::Served(table)) = entry.map(|entry| &entry.serving) else {
            let name = &group.feature_group_name;
            return Err(Error::precondition(format!(
                "feature group '{name}' has no offline store: it has no files to join"
            )));
        };
        let table = Arc::clone(table);
        let gateway = Arc::clone(scope.core.writes.gateway(table.name())?);
        gateway.owned_files(table.name())?;
        Ok(Self {
            gateway,
            catalog: scope.core.catalog.snapshot(),
            table,
        })
    }

    /// # Errors
    /// Those of [`optimize`].
    pub(crate) async fn carry_out(&self, entry: &Entry) -> Result<RecordBatch> {
        entry.writes();
        let done = |one: &Optimized| {
            let rows = usize::try_from(one.rows).unwrap_or(usize::MAX);
            let bytes = usize::try_from(one.bytes_after).unwrap_or(usize::MAX);
            entry.received(rows, bytes);
        };
        let hours = optimize(&self.gateway, &self.catalog, &self.table, done).await?;
        let files: u64 = hours.iter().map(|hour| hour.files_before).sum();
        let group = self.table.name();
        tracing::info!(group, hours = hours.len(), files, "files were joined");
        rows(&hours)
    }
}

fn rows(hours: &[Optimized]) -> Result<RecordBatch> {
    let starts = hours.iter().map(|hour| hour.hour.micros);
    let starts = TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC");
    let count = |of: fn(&Optimized) -> u64| -> ArrayRef {
        let counts = hours.iter().map(|hour| of(hour).cast_signed());
        Arc::new(Int64Array::from_iter_values(counts))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(starts),
        count(|hour| hour.files_before),
        count(|hour| hour.files_after),
        count(|hour| hour.rows),
        count(|hour| hour.bytes_before),
        count(|hour| hour.bytes_after),
    ];
    RecordBatch::try_new(optimized_schema(), columns).map_err(crate::error::internal)
}
