//! The relation `online('g')`: the records of a group as its online store has them. A predicate
//! that names record identifiers looks those up, when the statement is pinned. A join looks up what
//! its other side names, when it runs ([`OnlineExec`]). Without either the store must be able to list
//! its records.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use super::exec::OnlineExec;
use super::found::Found;
use super::{Online, identifier_text};
use crate::system::literals_of;

/// See the module.
#[derive(Debug)]
pub(super) struct Provider(Arc<Found>);

impl Provider {
    pub(super) fn new(online: Online) -> Self {
        Self(Arc::new(Found::new(online)))
    }

    /// The identifiers that `filter` names, as the store has them.
    fn keys(&self, filter: &Expr) -> Option<Vec<String>> {
        let named = literals_of(filter, self.0.online.identifier())?;
        // What is equal to null is nothing.
        let named = named.into_iter().filter(|value| !value.is_null());
        named.map(identifier_text).collect()
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.0.online.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match self.keys(filter) {
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
        let keys = filters.iter().filter_map(|filter| self.keys(filter));
        if let Some(keys) = keys.min_by_key(Vec::len) {
            let rows = &[self.0.look_up(keys).await?];
            let plan = MemorySourceConfig::try_new_exec(rows, self.schema(), projection.cloned())?;
            return Ok(plan);
        }
        let all = || (0..self.schema().fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(all);
        let records = self.0.list().await?;
        let plan = OnlineExec::try_new(Arc::clone(&self.0), records, projection)?;
        Ok(Arc::new(plan))
    }
}
