//! The relation `online('g')`: the records of a group as its online store has them. A predicate
//! that names record identifiers looks those up, when the statement is pinned; without one the
//! store must be able to list its records.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_online::record::fractional;
use featureflight_online::store::{Records, StoredRecord};
use featureflight_online::writes::{read_online, state_rows};
use tokio::sync::{Mutex, OnceCell};

use super::Online;
use crate::system::literals_of;

/// Records one statement looks up at most.
const MAX_KEYS: usize = 10_000;

/// Records of one batch of a list.
const PAGE: usize = 4_096;

/// What its first scans found is what every later scan of the statement finds.
#[derive(Debug)]
pub(super) struct Provider {
    online: Online,
    /// By identifiers.
    found: Mutex<HashMap<Vec<String>, RecordBatch>>,
    listed: OnceCell<Option<Arc<dyn Records>>>,
}

impl Provider {
    pub(super) fn new(online: Online) -> Self {
        Self {
            online,
            found: Mutex::default(),
            listed: OnceCell::new(),
        }
    }

    async fn look_up(&self, keys: Vec<String>) -> Result<RecordBatch> {
        let mut found = self.found.lock().await;
        if let Some(rows) = found.get(&keys) {
            return Ok(rows.clone());
        }
        check_count(keys.len())?;
        let Online { group, store } = &self.online;
        let rows = read_online(store.as_ref(), group, &keys).await?;
        found.insert(keys, rows.clone());
        Ok(rows)
    }

    async fn list(&self) -> Result<Arc<dyn Records>> {
        let Online { group, store } = &self.online;
        let list = || store.list(&group.puts);
        let listed = self.listed.get_or_try_init(list).await?;
        listed.clone().ok_or_else(|| {
            let (name, store) = (group.name(), store.name());
            let identifier = &group.group.record_identifier_feature_name;
            Error::precondition(format!(
                "the online store of '{name}' ({store}) looks up records and does not list them: add \
                 WHERE \"{identifier}\" = ... or IN (...)"
            ))
        })
    }
}

impl Online {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.group.shape.state_schema)
    }

    /// The identifiers that `filter` names, as the store has them.
    fn keys(&self, filter: &Expr) -> Option<Vec<String>> {
        let schema = &self.group.shape.state_schema;
        let identifier = schema.field(self.group.shape.record_identifier);
        let named = literals_of(filter, identifier.name())?;
        // What is equal to null is nothing.
        let named = named.into_iter().filter(|value| !value.is_null());
        named.map(text).collect()
    }
}

/// A record identifier as text.
fn text(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Int64(Some(value)) => Some(value.to_string()),
        ScalarValue::Float64(Some(value)) => Some(fractional(*value)),
        other => other.try_as_str().flatten().map(str::to_owned),
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        self.online.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match self.online.keys(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let keys = filters.iter().filter_map(|filter| self.online.keys(filter));
        if let Some(mut keys) = keys.min_by_key(Vec::len) {
            keys.sort_unstable();
            keys.dedup();
            let rows = self.look_up(keys).await?;
            let rows = &[vec![rows]];
            let plan = MemorySourceConfig::try_new_exec(rows, self.schema(), projection.cloned())?;
            return Ok(plan);
        }
        let partition = Arc::new(Pages {
            online: self.online.clone(),
            schema: self.schema(),
            records: self.list().await?,
        });
        let table = StreamingTable::try_new(self.schema(), vec![partition])?;
        table.scan(state, projection, &[], limit).await
    }
}

fn check_count(keys: usize) -> Result<()> {
    if keys <= MAX_KEYS {
        return Ok(());
    }
    Err(Error::new(
        Kind::ResourceExhausted,
        format!("online() looks up {MAX_KEYS} records at once, not {keys}: ask in parts"),
    ))
}

/// All records of a group, page by page.
#[derive(Debug)]
struct Pages {
    online: Online,
    schema: SchemaRef,
    records: Arc<dyn Records>,
}

/// The records behind `after`.
pub(super) async fn page(
    records: &Arc<dyn Records>,
    after: Option<String>,
) -> Result<Vec<StoredRecord>> {
    let records = Arc::clone(records);
    let page = move || records.page(after.as_deref(), PAGE);
    let found = tokio::task::spawn_blocking(page).await;
    found.map_err(|error| Error::internal("listing records broke off").with_source(error))?
}

impl PartitionStream for Pages {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let online = self.online.clone();
        let state = (Arc::clone(&self.records), None);
        let batches = futures::stream::try_unfold(state, move |(records, after)| {
            let online = online.clone();
            async move {
                let found = page(&records, after).await?;
                let Some(last) = found.last() else {
                    return Ok::<_, DataFusionError>(None);
                };
                let after = Some(last.identifier.clone());
                let rows = state_rows(&online.group, &found)?;
                Ok(Some((rows, (records, after))))
            }
        });
        let schema = Arc::clone(&self.schema);
        Box::pin(RecordBatchStreamAdapter::new(schema, batches))
    }
}
