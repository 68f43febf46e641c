//! Statements that change the session or the catalog: what they answer, what they check, and their
//! effect, which happens once, when they are pinned.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use featureflight_catalog::snapshot::CatalogSnapshot;
use featureflight_catalog::{Error, Result};
use featureflight_udf::{Clocks, TempView};

use crate::boundary::announced;
use crate::caller::Caller;
use crate::erasing;
use crate::error::{classify, internal};
use crate::metadata::{CATALOG, nearest, schema_names};
use crate::pinning::Scope;
use crate::session::DEFAULT_SCHEMA;
use crate::settings::{Setting, Value};
use crate::statement::{Command, Fate, parts};
use crate::views::{CreateView, folded};

/// What a statement with an effect says that has nothing else to say.
const OK: &str = "OK";

/// What every statement with an effect answers: one row, mostly `OK`.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "status",
        DataType::Utf8,
        false,
    )]))
}

/// Checks a statement as far as it can be without its effect; the types of its parameters.
pub(crate) async fn check(scope: &Scope, command: Command) -> Result<Vec<Option<DataType>>> {
    match command {
        Command::Set(_, Some(value)) => {
            let ground = scope.ground(Clocks::default());
            Ok(ground.plan(select(value)?).await?.parameters)
        }
        Command::Use(name) => {
            schema_named(&scope.core.catalog.snapshot(), &name)?;
            Ok(Vec::new())
        }
        Command::CreateView(view) => {
            if view.is_due(&scope.core.catalog.snapshot(), &scope.session.views)? {
                made(scope, &view).await?;
            }
            Ok(Vec::new())
        }
        Command::Drop(drop) => {
            match erasing::dropped_group(scope, &drop)? {
                Some(group) => {
                    erasing::may_drop(scope, &group)?;
                }
                None => {
                    drop.found(&scope.core.catalog.snapshot(), &scope.session)?;
                }
            }
            Ok(Vec::new())
        }
        Command::Define(definition) => {
            definition.check(scope)?;
            Ok(Vec::new())
        }
        Command::Cancel(_)
        | Command::Quarantined(..)
        | Command::Set(_, None)
        | Command::Reset(_)
        | Command::Show(_)
        | Command::Query(_)
        | Command::Insert(_)
        | Command::Delete(_)
        | Command::Forget(_)
        | Command::Optimize(_) => Ok(Vec::new()),
    }
}

/// Has the effect; what to say of it.
pub(crate) async fn apply(scope: &Scope, caller: &Caller, command: Command) -> Result<String> {
    let session = &caller.session;
    if !matches!(command, Command::Set(..)) {
        no_parameters(scope)?;
    }
    match command {
        Command::Set(setting, value) => {
            caller.may_change(setting)?;
            let value = match value {
                Some(value) => Some(constant(scope, setting, value).await?),
                None => None,
            };
            session.update_settings(|settings| setting.put(settings, value));
        }
        Command::Reset(settings) => {
            // RESET ALL leaves alone what is not the session's to change.
            let all = settings.len() > 1;
            for setting in settings {
                match caller.may_change(setting) {
                    Ok(()) => session.update_settings(|settings| setting.put(settings, None)),
                    Err(_) if all => {}
                    Err(fixed) => return Err(fixed),
                }
            }
        }
        Command::Use(name) => {
            caller.may_change_schema()?;
            session.set_schema(schema_named(&scope.core.catalog.snapshot(), &name)?);
        }
        Command::CreateView(view) => {
            if view.is_due(&scope.core.catalog.snapshot(), &scope.session.views)? {
                let (made, columns) = made(scope, &view).await?;
                session.put_view(view.name.clone(), made, columns)?;
            }
        }
        Command::Drop(drop) => {
            if let Some(group) = erasing::dropped_group(scope, &drop)? {
                return erasing::drop_group(scope, group).await;
            }
            let names = drop.found(&scope.core.catalog.snapshot(), &scope.session)?;
            if drop.views {
                session.drop_views(&names);
            } else {
                session.drop_tables(&names);
            }
        }
        Command::Define(definition) => definition.apply(scope).await?,
        Command::Quarantined(fate, id) => quarantined(scope, fate, id).await?,
        Command::Cancel(id) => scope.core.queries.cancel(&id, session.label())?,
        Command::Show(_)
        | Command::Query(_)
        | Command::Insert(_)
        | Command::Delete(_)
        | Command::Forget(_)
        | Command::Optimize(_) => {
            return Err(Error::internal(
                "a statement without an effect on its session was to have one",
            ));
        }
    }
    Ok(OK.to_owned())
}

/// Sends a record in quarantine again, or forgets it.
///
/// # Errors
/// `NotFound` when it is not there, as on a server that writes nothing.
async fn quarantined(scope: &Scope, fate: Fate, id: u64) -> Result<()> {
    let Some(gateway) = scope.core.writes.through() else {
        return Err(Error::not_found(
            "this server writes nothing: it has no quarantine",
        ));
    };
    match fate {
        Fate::Redrive => gateway.outbox.redrive(id).await,
        Fate::Discard => gateway.outbox.discard(id),
    }
}

/// # Errors
/// `InvalidArgument` when values were bound to a statement that has no parameters.
pub(crate) fn no_parameters(scope: &Scope) -> Result<()> {
    match scope.parameters.as_ref().map_or(0, Vec::len) {
        0 => Ok(()),
        count => Err(Error::invalid(format!(
            "the statement has no parameters, {count} values were bound"
        ))),
    }
}

/// What a setting is set to: any constant of SQL, `now()` included. The session's own clocks do not
/// reach into it.
async fn constant(scope: &Scope, setting: Setting, value: ast::Expr) -> Result<Value> {
    if let Some(text) = literal_text(&value) {
        no_parameters(scope)?;
        return setting.parse(text);
    }
    let named = |error: Error| Error {
        message: format!("{setting}: {}", error.message),
        ..error
    };
    let ground = scope.ground(Clocks::default());
    let planned = ground.plan(select(value)?).await.map_err(named)?;
    let optimized = ground
        .state
        .optimize(&planned.plan)
        .map_err(classify)
        .map_err(named)?;
    let constant = match &optimized {
        LogicalPlan::Projection(projection)
            if matches!(projection.input.as_ref(), LogicalPlan::EmptyRelation(_)) =>
        {
            projection
                .expr
                .first()
                .map(|expr| expr.clone().unalias_nested().data)
        }
        _ => None,
    };
    match constant {
        Some(Expr::Literal(value, _)) => setting.of_scalar(&value),
        _ => Err(setting.named_error("it takes a constant")),
    }
}

/// The text of a literal: read as an instant it keeps what no timestamp of SQL can hold.
fn literal_text(value: &ast::Expr) -> Option<&str> {
    let literal = match value {
        ast::Expr::Value(literal) => &literal.value,
        ast::Expr::TypedString(typed)
            if matches!(
                typed.data_type,
                ast::DataType::Timestamp(..) | ast::DataType::Date
            ) =>
        {
            &typed.value.value
        }
        _ => return None,
    };
    match literal {
        ast::Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

/// `SELECT value`.
fn select(value: ast::Expr) -> Result<Statement> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, "SELECT 1").map_err(internal)?;
    if let Some(ast::Statement::Query(query)) = statements.first_mut()
        && let ast::SetExpr::Select(select) = query.body.as_mut()
    {
        select.projection = vec![ast::SelectItem::UnnamedExpr(value)];
    }
    let statement = statements
        .pop()
        .ok_or_else(|| Error::internal("SELECT 1 is no statement"))?;
    Ok(Statement::Statement(Box::new(statement)))
}

/// The schema a name in `USE` stands for, in the catalog's spelling.
fn schema_named(snapshot: &CatalogSnapshot, name: &ast::ObjectName) -> Result<String> {
    let known = schema_names(snapshot);
    let idents: Vec<&ast::Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let wanted = match idents.as_slice() {
        [catalog] if catalog.value.eq_ignore_ascii_case(CATALOG) => {
            return Ok(DEFAULT_SCHEMA.to_owned());
        }
        [schema] => schema,
        [catalog, schema] if catalog.value.eq_ignore_ascii_case(CATALOG) => schema,
        _ => {
            let name = parts(name).join(".");
            return Err(Error::invalid(format!(
                "`{name}` is no schema: write USE schema"
            )));
        }
    };
    let matches = |schema: &&String| match wanted.quote_style {
        Some(_) => **schema == wanted.value,
        None => schema.eq_ignore_ascii_case(&wanted.value),
    };
    let found = known.iter().find(matches).cloned();
    found.ok_or_else(|| no_schema(&folded(wanted), &known))
}

/// The schema of this name: exactly, else ignoring case.
pub(crate) fn schema_of(snapshot: &CatalogSnapshot, name: &str) -> Result<String> {
    let known = schema_names(snapshot);
    let exact = known.iter().find(|schema| *schema == name);
    let found = exact.or_else(|| known.iter().find(|s| s.eq_ignore_ascii_case(name)));
    found.cloned().ok_or_else(|| no_schema(name, &known))
}

fn no_schema(name: &str, known: &[String]) -> Error {
    let near = nearest(name, known.iter().map(String::as_str));
    Error::not_found(format!("there is no schema `{name}`{near}"))
}

/// The view and its columns, planned once so that a wrong one is refused now.
async fn made(scope: &Scope, view: &CreateView) -> Result<(TempView, SchemaRef)> {
    let made = TempView {
        query: view.query.clone(),
        columns: view.columns.clone(),
        schema: scope.session.schema.clone(),
    };
    // Seen by the name it will have, so that a view that reads itself is found out.
    let mut views = BTreeMap::clone(&scope.session.views);
    views.insert(view.name.clone(), made.clone());
    let mut session = scope.session.clone();
    session.views = Arc::new(views);
    let inner = Scope {
        core: Arc::clone(&scope.core),
        session,
        parameters: Some(Vec::new()),
    };
    let ground = inner.ground(inner.session.settings.clocks);
    let everything = featureflight_udf::dialect::parse(&format!(
        "SELECT * FROM temp.\"{}\"",
        view.name.replace('"', "\"\"")
    ))?;
    let planned = ground.plan(everything).await?;
    Ok((made, announced(planned.plan.schema().as_arrow())))
}
