//! A Glue table as it stands: stored values under the table's column names and types.
//!
//! Columns match ignoring case. A partition key's value comes from the `key=value` folder of the
//! file, or from its column where no folder names it. A column found nowhere is null. What is
//! stored as another type is read where nothing is lost by it, as wider integers are; else it is
//! a `DataLoss` error that names the object and the column.

mod cast;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::listing::EventRange;
use crate::scan::exec::FilesExec;
use crate::scan::history::ScanContext;
use crate::table::RawTable;

use rows::Raw;

/// The provider of a raw table in one statement.
pub fn raw_provider(table: Arc<RawTable>, context: ScanContext) -> Arc<dyn TableProvider> {
    Arc::new(RawProvider { table, context })
}

#[derive(Debug)]
struct RawProvider {
    table: Arc<RawTable>,
    context: ScanContext,
}

#[async_trait]
impl TableProvider for RawProvider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Pins the files.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pin = &self.context.pin;
        let list = pin.files(&self.table.files, EventRange::ALL, None).await?;
        let projection = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.table.schema.fields().len()).collect(),
        };
        let raw = Raw::try_new(&self.table, &self.context, projection)?;
        let partitions = state.config().target_partitions();
        Ok(Arc::new(FilesExec::new(
            Arc::new(raw),
            list,
            limit,
            partitions,
        )))
    }
}
