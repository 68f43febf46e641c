//! `features.g`: the state of a feature group under two clocks, one row per record.

pub(crate) mod best;
pub(crate) mod exec;
pub(crate) mod filters;
mod once;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::table::FeatureTable;

use crate::clock::Clocks;
use crate::state::exec::StateExec;

/// The provider of a group's state: per record identifier the top-ranked version among those the
/// clocks let through, dropped if it is a tombstone. Schema: [`FeatureTable::state_schema`].
///
/// Only predicates on the record identifier go below the ranking: any other would choose among
/// versions instead of states.
pub fn state_provider(
    table: Arc<FeatureTable>,
    clocks: Clocks,
    scan: ScanContext,
) -> Arc<dyn TableProvider> {
    Arc::new(StateTable {
        table,
        clocks,
        scan,
    })
}

#[derive(Debug)]
struct StateTable {
    table: Arc<FeatureTable>,
    clocks: Clocks,
    scan: ScanContext,
}

#[async_trait]
impl TableProvider for StateTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.state_schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| {
            if filters::on_record_identifier(&self.table, filter) {
                TableProviderFilterPushDown::Exact
            } else {
                TableProviderFilterPushDown::Unsupported
            }
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let range = EventRange {
            from: None,
            to: self.clocks.valid,
        };
        let files = self
            .scan
            .pin
            .files(&self.table.files, range, self.clocks.system)
            .await?;
        let filter = filters::physical(&self.table, filters, state)?;
        let every = || (0..self.table.state_schema.fields().len()).collect();
        let projection = projection.cloned().unwrap_or_else(every);
        let plan = StateExec::try_new(
            Arc::clone(&self.table),
            self.clocks,
            &self.scan,
            files,
            filter,
            projection,
            limit,
            state.config().target_partitions(),
        )?;
        Ok(Arc::new(plan))
    }
}
