//! The schemas the server brings to a statement: `system` and `information_schema`.
//!
//! The views of `information_schema` are `DataFusion`'s, over relations that have columns but no
//! rows; its table of engine settings is replaced by ours, so that no engine setting shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProvider, MemTable, SchemaProvider, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::Error;
use featureflight_udf::planner::relations::OneCatalog;

use crate::metadata::{Browse, LOCAL_TEMPORARY, TableInfo, own_relations, schema_names};
use crate::session::SessionView;
use crate::settings::Setting;
use crate::system::{self, SYSTEM, SystemContext};

/// The standard schema's name.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// Where the settings are listed.
const SETTINGS: &str = "df_settings";

const STANDARD_VIEWS: [&str; 7] = [
    "tables",
    "views",
    "columns",
    SETTINGS,
    "schemata",
    "routines",
    "parameters",
];

/// The server's own schemas as one statement sees them.
#[derive(Debug)]
struct StatementCatalog {
    system: Arc<SystemSchema>,
    information: Arc<InformationSchema>,
}

/// A catalog of the server's own schemas.
pub(crate) fn statement_catalog(
    context: &SystemContext,
    browse: Arc<Browse>,
    session: SessionView,
) -> OneCatalog {
    let tables = system::providers(context);
    let information = InformationSchema {
        context: context.clone(),
        browse,
        session,
    };
    OneCatalog(Arc::new(StatementCatalog {
        system: Arc::new(SystemSchema { tables }),
        information: Arc::new(information),
    }))
}

impl CatalogProvider for StatementCatalog {
    fn schema_names(&self) -> Vec<String> {
        vec![INFORMATION_SCHEMA.to_owned(), SYSTEM.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            SYSTEM => Some(Arc::clone(&self.system) as _),
            INFORMATION_SCHEMA => Some(Arc::clone(&self.information) as _),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct SystemSchema {
    tables: HashMap<String, Arc<dyn TableProvider>>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.get(name).cloned())
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

#[derive(Debug)]
struct InformationSchema {
    context: SystemContext,
    browse: Arc<Browse>,
    session: SessionView,
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        STANDARD_VIEWS.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        if name == SETTINGS {
            return Ok(Some(Arc::new(settings_table(&self.session)?)));
        }
        if !self.table_exist(name) {
            return Ok(None);
        }
        let relations = self.browse.relations(&self.context.snapshot);
        let mut schemas: BTreeMap<String, BTreeMap<String, TableInfo>> =
            schema_names(&self.context.snapshot)
                .into_iter()
                .map(|schema| (schema, BTreeMap::new()))
                .collect();
        // The views of the standard schema list themselves.
        let own = own_relations(&self.session).filter(|table| table.schema != INFORMATION_SCHEMA);
        for table in relations.iter().cloned().chain(own) {
            schemas
                .entry(table.schema.clone())
                .or_default()
                .insert(table.name.clone(), table);
        }
        let schemas = schemas
            .into_iter()
            .map(|(name, tables)| (name, Arc::new(BrowsedSchema { tables })))
            .collect();
        let browsed = OneCatalog(Arc::new(BrowsedCatalog { schemas }));
        InformationSchemaProvider::new(Arc::new(browsed))
            .table(name)
            .await
    }

    fn table_exist(&self, name: &str) -> bool {
        STANDARD_VIEWS.contains(&name)
    }
}

/// Name and columns of the standard views.
pub(crate) fn information_relations() -> Vec<(String, SchemaRef)> {
    use futures::FutureExt;
    let nothing = OneCatalog(Arc::new(BrowsedCatalog::default()));
    let provider = InformationSchemaProvider::new(Arc::new(nothing));
    STANDARD_VIEWS
        .iter()
        .filter_map(|name| {
            if *name == SETTINGS {
                return Some(((*name).to_owned(), settings_schema()));
            }
            // Ready at once: the rows are made when they are read.
            let table = provider.table(name).now_or_never()?.ok()??;
            Some(((*name).to_owned(), table.schema()))
        })
        .collect()
}

fn settings_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
        Field::new("description", DataType::Utf8, true),
    ]))
}

fn settings_table(session: &SessionView) -> PlanResult<MemTable> {
    let settings = Setting::ALL;
    let names: StringArray = settings.iter().map(|s| Some(s.to_string())).collect();
    let values: StringArray = settings.iter().map(|s| s.get(&session.settings)).collect();
    let about: StringArray = settings.iter().map(|s| Some(s.description())).collect();
    let columns = vec![
        Arc::new(names) as _,
        Arc::new(values) as _,
        Arc::new(about) as _,
    ];
    let batch = RecordBatch::try_new(settings_schema(), columns)?;
    MemTable::try_new(settings_schema(), vec![vec![batch]])
}

/// What `information_schema` lists.
#[derive(Debug, Default)]
struct BrowsedCatalog {
    schemas: BTreeMap<String, Arc<BrowsedSchema>>,
}

#[derive(Debug)]
struct BrowsedSchema {
    tables: BTreeMap<String, TableInfo>,
}

#[derive(Debug)]
struct BrowsedTable {
    columns: SchemaRef,
    kind: TableType,
}

impl CatalogProvider for BrowsedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).map(|schema| Arc::clone(schema) as _)
    }
}

fn kind_of(table: &TableInfo) -> TableType {
    match table.kind {
        "VIEW" => TableType::View,
        LOCAL_TEMPORARY => TableType::Temporary,
        _ => TableType::Base,
    }
}

#[async_trait]
impl SchemaProvider for BrowsedSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> PlanResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.get(name).map(|table| {
            let columns = Arc::clone(&table.columns);
            Arc::new(BrowsedTable {
                columns,
                kind: kind_of(table),
            }) as _
        }))
    }

    async fn table_type(&self, name: &str) -> PlanResult<Option<TableType>> {
        Ok(self.tables.get(name).map(kind_of))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

#[async_trait]
impl TableProvider for BrowsedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        self.kind
    }

    /// An error: an empty answer here would be a silently short one.
    async fn scan(
        &self,
        _state: &dyn datafusion::catalog::Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a relation was read that is only there to be listed").into())
    }
}
