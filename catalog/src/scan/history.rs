//! The `history` relation: every version of a feature group, under optional cuts.

mod bounds;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::instant::Instant;
use crate::listing::EventRange;
use crate::pin::Pin;
use crate::scan::exec::FilesExec;
use crate::scan::versions::FileReader;
use crate::table::FeatureTable;

use rows::History;

pub use bounds::event_range;

/// Inclusive cuts that filter versions before anything else sees them, exact to the nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    pub event_time: EventRange,
    /// `write_time <= x`.
    pub system_time: Option<Instant>,
}

/// What every scan of one statement shares.
#[derive(Debug, Clone)]
pub struct ScanContext {
    pub pin: Arc<Pin>,
    pub reader: Arc<FileReader>,
}

/// The provider of `history.g` (or of a version clause on it) in one statement. Its schema is
/// [`FeatureTable::history_schema`]; event-time predicates prune hour folders.
pub fn history_provider(
    table: Arc<FeatureTable>,
    cut: Cut,
    context: ScanContext,
) -> Arc<dyn TableProvider> {
    Arc::new(HistoryProvider {
        table,
        cut,
        context,
    })
}

#[derive(Debug)]
struct HistoryProvider {
    table: Arc<FeatureTable>,
    cut: Cut,
    context: ScanContext,
}

#[async_trait]
impl TableProvider for HistoryProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.history_schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Pins the files. Filters only choose folders here; the plan above still applies them.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let event_time = self.event_time_name();
        let range = filters
            .iter()
            .map(|filter| event_range(filter, event_time))
            .fold(self.cut.event_time, EventRange::intersect);
        let list = self
            .context
            .pin
            .files(&self.table.files, range, self.cut.system_time)
            .await?;
        let projection = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.table.history_schema.fields().len()).collect(),
        };
        let history = History::try_new(&self.table, self.cut, range, &self.context, projection)?;
        let partitions = state.config().target_partitions();
        Ok(Arc::new(FilesExec::new(
            Arc::new(history),
            list,
            limit,
            partitions,
        )))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| {
            if event_range(filter, self.event_time_name()) == EventRange::ALL {
                TableProviderFilterPushDown::Unsupported
            } else {
                TableProviderFilterPushDown::Inexact
            }
        };
        Ok(filters.iter().map(support).collect())
    }
}

impl HistoryProvider {
    fn event_time_name(&self) -> &str {
        self.table
            .history_schema
            .field(self.table.event_time)
            .name()
    }
}
