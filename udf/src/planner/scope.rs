//! What the planning of one statement shares: its context, the server's own schemas, its views as
//! plans, and the parameters seen so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono::{DateTime, Utc};
use datafusion::common::TableReference;
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::{ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::{Error, Instant, Result};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::error::classify;
use super::factors::Factors;
use super::names::{CATALOG, FEATURES, HISTORY, Names, TEMP};
use super::relations::{self, OneCatalog};
use crate::context::{StatementContext, TempView};
use crate::dialect;

/// The tables of the server's own schemas.
type SystemTables = BTreeMap<String, BTreeSet<String>>;

/// Views nested deeper than this are refused: each level is planned on the stack of the one above.
const MAX_VIEW_DEPTH: usize = 16;

/// See the module.
pub(super) struct Scope {
    pub(super) context: Arc<StatementContext>,
    /// The given state: the server's own schemas, functions and settings.
    base: SessionState,
    /// Names of the server's own schemas and their tables.
    pub(super) system: SystemTables,
    system_columns: Mutex<BTreeMap<(String, String), Vec<String>>>,
    views: relations::PlannedViews,
    parameters: Mutex<BTreeMap<usize, Option<DataType>>>,
    pub(super) now: DateTime<Utc>,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("schema", &self.context.schema)
            .finish_non_exhaustive()
    }
}

impl Scope {
    pub(super) fn new(state: &SessionState, context: &Arc<StatementContext>) -> Arc<Self> {
        Self::with_views(state, context, relations::PlannedViews::default())
    }

    pub(super) fn with_views(
        state: &SessionState,
        context: &Arc<StatementContext>,
        views: relations::PlannedViews,
    ) -> Arc<Self> {
        let now = context.clocks.system.unwrap_or(context.scan.pin.started);
        Arc::new(Self {
            context: Arc::clone(context),
            base: state.clone(),
            system: system_tables(state),
            system_columns: Mutex::default(),
            views,
            parameters: Mutex::default(),
            now: date_time(now),
        })
    }

    /// Plans `statement` as seen from `schema`. `stack` names the views it stands in.
    pub(super) fn plan<'a>(
        self: &'a Arc<Self>,
        statement: Statement,
        schema: &'a str,
        stack: &'a [String],
    ) -> BoxFuture<'a, Result<LogicalPlan>> {
        Box::pin(async move {
            let mut statement = statement;
            self.prepare_relations(&statement, schema, stack).await?;
            let names = Names {
                scope: self,
                schema,
            };
            dialect::names::rewrite(inner(&mut statement)?, &names)?;
            self.check_bare_names(&mut statement, &names)?;
            let mut state = self.base.clone();
            state.config_mut().options_mut().catalog.default_catalog = CATALOG.to_owned();
            state.config_mut().options_mut().catalog.default_schema = schema.to_owned();
            state.execution_props_mut().query_execution_start_time = Some(self.now);
            let catalog = relations::Catalog {
                state: self.base.clone(),
                context: Arc::clone(&self.context),
                views: Arc::clone(&self.views),
            };
            state.register_catalog_list(Arc::new(OneCatalog(Arc::new(catalog))));
            let factors = Factors::new(Arc::clone(self), schema.to_owned(), !stack.is_empty());
            state
                .register_relation_planner(Arc::new(factors))
                .map_err(classify)?;
            state.statement_to_plan(statement).await.map_err(classify)
        })
    }

    /// Makes ready what planning needs and cannot wait for: the columns of the server's own
    /// relations and the plans of views.
    async fn prepare_relations(
        self: &Arc<Self>,
        statement: &Statement,
        schema: &str,
        stack: &[String],
    ) -> Result<()> {
        let references = self
            .base
            .resolve_table_references(statement)
            .map_err(classify)?;
        for reference in references {
            let in_schema = reference.schema().unwrap_or(schema);
            if in_schema.eq_ignore_ascii_case(TEMP) || reference.schema().is_none() {
                self.prepare_view(reference.table(), stack).await?;
            }
            let tables = self
                .system
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(in_schema));
            if let Some((system, tables)) = tables {
                let table = tables
                    .iter()
                    .find(|name| name.eq_ignore_ascii_case(reference.table()));
                if let Some(table) = table {
                    self.prepare_system_table(system, table).await?;
                }
            }
        }
        Ok(())
    }

    /// After the rewrite a table without a schema is a common table expression; any other is not
    /// there, and `DataFusion` must not look for it elsewhere.
    fn check_bare_names(&self, statement: &mut Statement, names: &Names<'_>) -> Result<()> {
        let references = self
            .base
            .resolve_table_references(statement)
            .map_err(classify)?;
        let bare = super::normalise::bare_tables(inner(statement)?);
        for reference in references {
            let TableReference::Bare { table } = &reference else {
                continue;
            };
            let Some(name) = bare.get(table.as_ref()) else {
                continue;
            };
            return Err(match names.resolve(name)? {
                None => names.not_found(name),
                Some(_) => Error::internal(format!("table {name} was not given its schema")),
            });
        }
        Ok(())
    }

    async fn prepare_system_table(&self, schema: &str, table: &str) -> Result<()> {
        let key = (schema.to_owned(), table.to_owned());
        if self.system_columns.lock().contains_key(&key) {
            return Ok(());
        }
        let Some(provider) = system_schema(&self.base, schema) else {
            return Ok(());
        };
        if let Some(provider) = provider.table(table).await.map_err(classify)? {
            let columns = provider
                .schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect();
            self.system_columns.lock().insert(key, columns);
        }
        Ok(())
    }

    async fn prepare_view(self: &Arc<Self>, name: &str, stack: &[String]) -> Result<()> {
        let views = Arc::clone(&self.context.views);
        for (view_name, view) in views.iter() {
            if view_name.eq_ignore_ascii_case(name) {
                self.plan_view(view_name, view, stack).await?;
            }
        }
        Ok(())
    }

    /// Plans a view from its query, once per statement.
    pub(super) async fn plan_view(
        self: &Arc<Self>,
        name: &str,
        view: &TempView,
        stack: &[String],
    ) -> Result<()> {
        if self.views.lock().contains_key(name) {
            return Ok(());
        }
        if stack.iter().any(|outer| outer == name) {
            return Err(Error::invalid(format!(
                "view {name} reads itself, through {}",
                stack.join(", ")
            )));
        }
        if stack.len() >= MAX_VIEW_DEPTH {
            return Err(Error::invalid(format!(
                "views are nested deeper than {MAX_VIEW_DEPTH}"
            )));
        }
        let mut stack = stack.to_vec();
        stack.push(name.to_owned());
        let statement = Statement::Statement(Box::new(ast::Statement::Query(view.query.clone())));
        let statement = super::statement::admit(statement)?;
        let plan = self.plan(statement, &view.schema, &stack).await?;
        if !plan.get_parameter_names().map_err(classify)?.is_empty() {
            return Err(Error::invalid(format!(
                "view {name} has parameters; a view cannot"
            )));
        }
        let plan = named(plan, name, &view.columns)?;
        self.views.lock().insert(name.to_owned(), Arc::new(plan));
        Ok(())
    }

    pub(super) fn view(&self, name: &str) -> Option<Arc<LogicalPlan>> {
        self.views.lock().get(name).cloned()
    }

    pub(super) fn view_columns(&self, name: &str) -> Option<Vec<String>> {
        self.view(name).map(|plan| {
            plan.schema()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect()
        })
    }

    pub(super) fn system_columns(&self, schema: &str, table: &str) -> Option<Vec<String>> {
        self.system_columns
            .lock()
            .get(&(schema.to_owned(), table.to_owned()))
            .cloned()
    }

    /// What folds constants: knows this statement's `now()`.
    pub(super) fn simplify_context(&self) -> SimplifyContext {
        SimplifyContext::builder()
            .with_config_options(Arc::clone(self.base.config_options()))
            .with_query_execution_start_time(Some(self.now))
            .build()
    }

    /// Remembers that `$number` stands in a clause or an argument.
    pub(super) fn record_parameter(&self, number: usize, wanted: Option<DataType>) {
        let mut parameters = self.parameters.lock();
        let slot = parameters.entry(number).or_insert(None);
        if slot.is_none() {
            *slot = wanted;
        }
    }

    pub(super) fn recorded_parameters(&self) -> BTreeMap<usize, Option<DataType>> {
        self.parameters.lock().clone()
    }
}

/// The statement whose names are rewritten: that inside `EXPLAIN`, if it is one.
fn inner(statement: &mut Statement) -> Result<&mut ast::Statement> {
    match statement {
        Statement::Statement(statement) => Ok(statement),
        Statement::Explain(ExplainStatement { statement, .. }) => inner(statement),
        other => Err(super::statement::refused(&other.to_string())),
    }
}

/// The view's columns under the names it was given, qualified by the view.
fn named(plan: LogicalPlan, view: &str, columns: &[ast::Ident]) -> Result<LogicalPlan> {
    let fields = plan.schema().fields().len();
    let mut builder = LogicalPlanBuilder::from(plan.clone());
    if !columns.is_empty() {
        if columns.len() != fields {
            return Err(Error::invalid(format!(
                "view {view} names {} columns, its query has {fields}",
                columns.len()
            )));
        }
        let renamed = plan
            .schema()
            .columns()
            .into_iter()
            .zip(columns)
            .map(|(column, ident)| {
                let name = match ident.quote_style {
                    Some(_) => ident.value.clone(),
                    None => ident.value.to_lowercase(),
                };
                datafusion::logical_expr::Expr::Column(column).alias(name)
            });
        builder = builder
            .project(renamed.collect::<Vec<_>>())
            .map_err(classify)?;
    }
    let mut seen = BTreeSet::new();
    for field in builder.schema().fields() {
        if !seen.insert(field.name().clone()) {
            return Err(Error::invalid(format!(
                "view {view} has two columns {}: give one of them an alias",
                field.name()
            )));
        }
    }
    builder
        .alias(TableReference::partial(TEMP, view.to_owned()))
        .and_then(LogicalPlanBuilder::build)
        .map_err(classify)
}

/// Schemas and tables of the given state that are not the catalog's.
fn system_tables(state: &SessionState) -> SystemTables {
    let mut found = SystemTables::new();
    let list = state.catalog_list();
    for catalog in list
        .catalog_names()
        .iter()
        .filter_map(|name| list.catalog(name))
    {
        for name in catalog.schema_names() {
            if [FEATURES, HISTORY, TEMP].contains(&name.as_str()) {
                continue;
            }
            if let Some(schema) = catalog.schema(&name) {
                let tables = schema.table_names().into_iter().collect();
                found.entry(name).or_insert(tables);
            }
        }
    }
    if state.config().information_schema() {
        use datafusion::catalog::information_schema::{
            INFORMATION_SCHEMA, INFORMATION_SCHEMA_TABLES,
        };
        found
            .entry(INFORMATION_SCHEMA.to_owned())
            .or_insert_with(|| {
                INFORMATION_SCHEMA_TABLES
                    .iter()
                    .map(|table| (*table).to_owned())
                    .collect()
            });
    }
    found
}

/// A schema of the server's own.
pub(super) fn system_schema(
    state: &SessionState,
    name: &str,
) -> Option<Arc<dyn datafusion::catalog::SchemaProvider>> {
    let list = state.catalog_list();
    let own = list
        .catalog_names()
        .iter()
        .filter_map(|catalog| list.catalog(catalog))
        .find_map(|catalog| catalog.schema(name));
    own.or_else(|| {
        state
            .schema_for_ref(TableReference::partial(name.to_owned(), "any"))
            .ok()
    })
}

/// As `now()` can say it: whole microseconds, so that it compares with timestamps here without
/// loss, and not beyond 2262, where its type ends.
fn date_time(instant: Instant) -> DateTime<Utc> {
    let most = i64::MAX / 1_000 - 1;
    DateTime::from_timestamp_nanos(instant.micros.clamp(-most, most) * 1_000)
}
