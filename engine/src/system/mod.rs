//! The schema `system`: what the server knows about itself, as tables.
//!
//! One file per table; each says its columns and makes its rows. A statement sees each of them
//! once: the rows that its first scan took are the rows of every later scan, of a second run from
//! the same ticket too.

mod feature_groups;
mod features;
mod files;
mod quarantine;
mod queries;
mod writes;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::Result;
use featureflight_catalog::listing::Lister;
use featureflight_catalog::snapshot::{Catalog, CatalogSnapshot};
use tokio::sync::Mutex;

use crate::query::QueryLog;
use crate::writes::Writes;

/// The schema's name.
pub(crate) const SYSTEM: &str = "system";

/// What system tables look at: the catalog as the statement sees it, and the server.
#[derive(Debug, Clone)]
pub(crate) struct SystemContext {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) snapshot: Arc<CatalogSnapshot>,
    pub(crate) lister: Arc<Lister>,
    pub(crate) queries: Arc<QueryLog>,
    pub(crate) writes: Writes,
}

/// One system table.
#[async_trait]
trait SystemTable: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// Said to drivers as the table's remarks.
    fn remarks(&self) -> &'static str;

    fn schema(&self) -> SchemaRef;

    /// The column whose equality filters make [`SystemTable::rows`] cheaper.
    fn key(&self) -> Option<&'static str> {
        None
    }

    /// All rows, or at least those whose key is one of `keys`; every column of the schema, where
    /// one that is not in `projection` may be null throughout, nullable or not.
    async fn rows(
        &self,
        context: &SystemContext,
        projection: &[usize],
        keys: Option<&[String]>,
    ) -> Result<RecordBatch>;
}

const TABLES: [&dyn SystemTable; 6] = [
    &feature_groups::FeatureGroups,
    &features::Features,
    &files::Files,
    &quarantine::Quarantine,
    &queries::Queries,
    &writes::Writes,
];

/// Name, columns and remarks of every system table.
pub(crate) fn relations() -> impl Iterator<Item = (&'static str, SchemaRef, &'static str)> {
    TABLES
        .iter()
        .map(|table| (table.name(), table.schema(), table.remarks()))
}

/// The system tables of one statement, by name.
pub(crate) fn providers(context: &SystemContext) -> HashMap<String, Arc<dyn TableProvider>> {
    TABLES
        .iter()
        .map(|table| {
            let provider = SystemProvider {
                table: *table,
                context: context.clone(),
                taken: Mutex::default(),
            };
            (
                table.name().to_owned(),
                Arc::new(provider) as Arc<dyn TableProvider>,
            )
        })
        .collect()
}

/// What a scan asked for: its columns and keys.
type Wanted = (Vec<usize>, Option<Vec<String>>);

#[derive(Debug)]
struct SystemProvider {
    table: &'static dyn SystemTable,
    context: SystemContext,
    taken: Mutex<HashMap<Wanted, RecordBatch>>,
}

#[async_trait]
impl TableProvider for SystemProvider {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match keys_of(filter, self.table.key()) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let schema = self.table.schema();
        let projection = projection
            .cloned()
            .unwrap_or_else(|| (0..schema.fields().len()).collect());
        let keys = filters
            .iter()
            .find_map(|filter| keys_of(filter, self.table.key()));
        let wanted = (projection, keys);
        let mut taken = self.taken.lock().await;
        let rows = if let Some(rows) = taken.get(&wanted) {
            rows.clone()
        } else {
            let (projection, keys) = &wanted;
            let rows = self
                .table
                .rows(&self.context, projection, keys.as_deref())
                .await?;
            let rows = rows.project(projection)?;
            taken.insert(wanted.clone(), rows.clone());
            rows
        };
        let schema: SchemaRef = Arc::new(Schema::clone(&rows.schema()));
        Ok(MemorySourceConfig::try_new_exec(
            &[vec![rows]],
            schema,
            None,
        )?)
    }
}

/// The values `filter` lets `key` have, when it is an equality or an IN list of text.
fn keys_of(filter: &Expr, key: Option<&str>) -> Option<Vec<String>> {
    let found = literals_of(filter, key?)?;
    found.into_iter().map(text_of).collect()
}

/// The values `filter` lets the column `key` have, when it is an equality or an IN list.
pub(crate) fn literals_of<'a>(filter: &'a Expr, key: &str) -> Option<Vec<&'a ScalarValue>> {
    let is_key = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == key);
    match filter {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) => {
            let value = match (left.as_ref(), right.as_ref()) {
                (column, Expr::Literal(value, _)) if is_key(column) => value,
                (Expr::Literal(value, _), column) if is_key(column) => value,
                _ => return None,
            };
            Some(vec![value])
        }
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => {
            let mut keys = literals_of(left, key)?;
            keys.extend(literals_of(right, key)?);
            Some(keys)
        }
        Expr::InList(list) if !list.negated && is_key(&list.expr) => list
            .list
            .iter()
            .map(|item| match item {
                Expr::Literal(value, _) => Some(value),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

fn text_of(value: &ScalarValue) -> Option<String> {
    value.try_as_str().flatten().map(str::to_owned)
}

/// Whether a scan with `keys` wants the rows of `name`.
fn wants(keys: Option<&[String]>, name: &str) -> bool {
    keys.is_none_or(|keys| keys.iter().any(|key| key == name))
}
