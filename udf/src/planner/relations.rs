//! The relations of a statement as `DataFusion`'s catalogs: `features`, `history`, raw databases
//! and `temp`, beside the schemas the server brings itself. For `information_schema`, browsing and
//! whatever planning does not claim; the session's clocks apply here too.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider,
};
use datafusion::datasource::ViewTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::Error;
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::history::{Cut, history_provider};
use featureflight_catalog::scan::raw::raw_provider;
use featureflight_catalog::snapshot::{GroupEntry, Serving};
use featureflight_catalog::table::RawTable;
use parking_lot::Mutex;

use super::names::online_only;
use super::names::{CATALOG, FEATURES, HISTORY, TEMP};
use super::scope::{Scope, system_schema};
use crate::context::StatementContext;
use crate::state::state_provider;

/// Plans of a session's views, made once per statement.
pub(super) type PlannedViews = Arc<Mutex<BTreeMap<String, Arc<LogicalPlan>>>>;

/// A raw table; a session clock makes reading it an error, as it stands outside of time.
pub(super) fn raw(table: &Arc<RawTable>, context: &StatementContext) -> Arc<dyn TableProvider> {
    let setting = match (context.clocks.system, context.clocks.valid) {
        (Some(_), _) => "system_time",
        (None, Some(_)) => "valid_time",
        (None, None) => return raw_provider(Arc::clone(table), context.scan.clone()),
    };
    let instead = match &table.feature_group {
        Some(group) => format!("read {FEATURES}.{group} or {HISTORY}.{group}"),
        None => format!("read a table of {FEATURES} or {HISTORY}"),
    };
    Arc::new(Refused {
        schema: Arc::clone(&table.schema),
        error: Error::invalid(format!(
            "{}.{} is a raw Glue table, served as it stands, and this session's \
             featureflight.{setting} is set: {instead}, or RESET featureflight.{setting}",
            table.database, table.name
        )),
    })
}

/// A relation whose columns are known and whose rows must not be read.
#[derive(Debug)]
pub(super) struct Refused {
    schema: SchemaRef,
    error: Error,
}

impl Refused {
    /// A relation one of whose times is a parameter without a value.
    pub(super) fn unbound(schema: SchemaRef) -> Arc<dyn TableProvider> {
        let error = Error::invalid("the statement has parameters without values: bind them first");
        Arc::new(Self { schema, error })
    }
}

#[async_trait]
impl TableProvider for Refused {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        Err(self.error.clone().into())
    }
}

/// A list of [`CATALOG`] alone, in which nothing can be registered.
#[derive(Debug)]
pub struct OneCatalog(pub Arc<dyn CatalogProvider>);

impl CatalogProviderList for OneCatalog {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::clone(&self.0))
    }
}

/// Everything a statement sees: what `context` has, and the schemas `state` brings.
pub(super) struct Catalog {
    pub(super) state: SessionState,
    pub(super) context: Arc<StatementContext>,
    pub(super) views: PlannedViews,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog")
            .field("schema", &self.context.schema)
            .finish_non_exhaustive()
    }
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let mut names: Vec<String> = [FEATURES, HISTORY, TEMP].map(str::to_owned).to_vec();
        let list = self.state.catalog_list();
        let own = list
            .catalog_names()
            .into_iter()
            .filter_map(|name| list.catalog(&name))
            .flat_map(|catalog| catalog.schema_names());
        names.extend(own.chain(self.context.catalog.raw.keys().cloned()));
        names.sort_unstable();
        names.dedup();
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let context = Arc::clone(&self.context);
        match name {
            FEATURES | HISTORY => Some(Arc::new(Groups {
                context,
                history: name == HISTORY,
            })),
            TEMP => Some(Arc::new(Views {
                state: self.state.clone(),
                context,
                planned: Arc::clone(&self.views),
            })),
            _ if self.own_schema(name) => system_schema(&self.state, name),
            _ if self.context.catalog.raw.contains_key(name) => Some(Arc::new(RawDatabase {
                context,
                name: name.to_owned(),
            })),
            _ => None,
        }
    }
}

impl Catalog {
    fn own_schema(&self, name: &str) -> bool {
        let list = self.state.catalog_list();
        list.catalog_names()
            .iter()
            .filter_map(|catalog| list.catalog(catalog))
            .any(|catalog| catalog.schema(name).is_some())
    }
}

/// `features` or `history`. Groups that are not served are not listed; asked for, they answer with
/// the reason.
#[derive(Debug)]
struct Groups {
    context: Arc<StatementContext>,
    history: bool,
}

impl Groups {
    fn entry(&self, name: &str) -> Option<&GroupEntry> {
        self.context.catalog.groups.get(name)
    }
}

#[async_trait]
impl SchemaProvider for Groups {
    fn table_names(&self) -> Vec<String> {
        let served = |entry: &GroupEntry| matches!(entry.serving, Serving::Served(_));
        let groups = self.context.catalog.groups.iter();
        groups
            .filter(|(_, entry)| served(entry))
            .map(|(name, _)| name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let Some(entry) = self.entry(name) else {
            return Ok(None);
        };
        let table = match &entry.serving {
            Serving::Served(table) => Arc::clone(table),
            Serving::OnlineOnly => return Err(online_only(name).into()),
            Serving::Unavailable(reason) => {
                return Err(Error::precondition(format!(
                    "feature group {name} is not served: {reason}"
                ))
                .into());
            }
        };
        let (clocks, scan) = (self.context.clocks, self.context.scan.clone());
        Ok(Some(if self.history {
            let cut = Cut {
                event_time: EventRange {
                    from: None,
                    to: clocks.valid,
                },
                system_time: clocks.system,
            };
            history_provider(table, cut, scan)
        } else {
            state_provider(table, clocks, scan)
        }))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.entry(name).map(|_| TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }
}

/// A Glue database.
#[derive(Debug)]
struct RawDatabase {
    context: Arc<StatementContext>,
    name: String,
}

#[async_trait]
impl SchemaProvider for RawDatabase {
    fn table_names(&self) -> Vec<String> {
        let tables = self
            .context
            .catalog
            .raw
            .get(&self.name)
            .into_iter()
            .flatten();
        tables
            .filter(|(_, entry)| entry.serving.is_ok())
            .map(|(name, _)| name.clone())
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let tables = self.context.catalog.raw.get(&self.name);
        let Some(entry) = tables.and_then(|tables| tables.get(name)) else {
            return Ok(None);
        };
        match &entry.serving {
            Ok(table) => Ok(Some(raw(table, &self.context))),
            Err(reason) => Err(Error::precondition(format!(
                "table {}.{name} cannot be read: {reason}",
                self.name
            ))
            .into()),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.context
            .catalog
            .raw
            .get(&self.name)
            .is_some_and(|tables| tables.contains_key(name))
    }
}

/// The session's views and tables.
struct Views {
    state: SessionState,
    context: Arc<StatementContext>,
    planned: PlannedViews,
}

impl std::fmt::Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Views")
            .field("names", &self.table_names())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for Views {
    fn table_names(&self) -> Vec<String> {
        self.context.temporaries().map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if let Some(rows) = self.context.tables.get(name) {
            return Ok(Some(Arc::clone(rows)));
        }
        let Some(view) = self.context.views.get(name) else {
            return Ok(None);
        };
        let scope = Scope::with_views(&self.state, &self.context, Arc::clone(&self.planned));
        scope.plan_view(name, view, &[]).await?;
        let Some(plan) = scope.view(name) else {
            return Ok(None);
        };
        let table = ViewTable::new(plan.as_ref().clone(), Some(view.query.to_string()));
        Ok(Some(Arc::new(table)))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        if let Some(rows) = self.context.tables.get(name) {
            return Ok(Some(rows.table_type()));
        }
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.context.temporaries().any(|known| known == name)
    }
}
