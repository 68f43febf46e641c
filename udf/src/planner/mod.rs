//! From a parsed statement to a logical plan: names rewritten, version clauses turned into clocks,
//! table functions and as-of joins into their nodes. No version clause is ever ignored.
//!
//! A statement goes through [`statement`] (is it one of ours, `SHOW` and `DESCRIBE` as queries),
//! [`normalise`], the name rewrite with [`names`], and `DataFusion`'s planner with [`factors`] for
//! its table factors; [`parameters`] and [`now`] leave a plan that means the same whenever it runs.

mod asof;
mod constants;
pub mod error;
pub mod expressions;
mod factors;
mod functions;
mod keys;
mod literals;
pub mod names;
mod normalise;
mod now;
mod parameters;
mod point_in_time;
mod precision;
mod query_planner;
pub mod relations;
mod scope;
mod spine;
mod statement;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, ObjectName};
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};

use crate::asof::push_down::PushDownAsofFilter;
use crate::context::StatementContext;
use error::classify;
use scope::Scope;

/// A planned query.
#[derive(Debug)]
pub struct Planned {
    pub plan: LogicalPlan,
    /// Types of `$1, $2, ...` in order; `None` where the statement does not tell.
    pub parameters: Vec<Option<DataType>>,
}

/// Adds what a session state needs to run our plans: physical planners of our nodes, optimizer
/// rules, scalar functions. Done once per server, not per statement.
#[must_use]
pub fn extend(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    let planners = builder.expr_planners().get_or_insert_with(Vec::new);
    planners.insert(0, Arc::new(literals::TimestampText));
    builder
        .with_analyzer_rule(Arc::new(precision::RoundConstants))
        .with_optimizer_rule(Arc::new(PushDownAsofFilter))
        .with_query_planner(Arc::new(query_planner::OperatorPlanner::new(
            crate::extension::extension_planners(),
        )))
}

/// Plans one query (or `EXPLAIN [ANALYZE]` of one, `SHOW`, `DESCRIBE`). `state` carries a catalog
/// list for `system` and `information_schema`; `features`, `history`, `temp` and raw relations are
/// resolved against `context`. When `context.parameters` is set, the plan has no placeholders;
/// otherwise a plan with parameters tells its columns and cannot run. `now()` is a literal in it.
///
/// # Errors
/// `InvalidArgument`, `NotFound` (with near names), or the reason why a group is not served.
pub async fn plan(
    state: &SessionState,
    statement: Statement,
    context: &Arc<StatementContext>,
) -> Result<Planned> {
    let statement = statement::admit(statement)?;
    let scope = Scope::new(state, context);
    let plan = scope.plan(statement, &context.schema, &[]).await?;
    let only_queries = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    only_queries.verify_plan(&plan).map_err(classify)?;
    let recorded = scope.recorded_parameters();
    let parameters = parameters::types(&plan, &recorded)?;
    let plan = match &context.parameters {
        Some(values) => {
            parameters::check(&parameters, values)?;
            parameters::bind(plan, values)?
        }
        None => match recorded.keys().next() {
            Some(parameter) => parameters::guard(plan, *parameter)?,
            None => plan,
        },
    };
    let plan = now::fix(plan, &scope.simplify_context())?;
    Ok(Planned { plan, parameters })
}

/// The feature group that `name` means by its name in `features`, served or not; `None` for any
/// other name, and for one of the session's own tables.
///
/// # Errors
/// `InvalidArgument` for an ambiguous name.
pub fn defined_group(
    state: &SessionState,
    name: &ObjectName,
    context: &Arc<StatementContext>,
) -> Result<Option<Arc<FeatureGroup>>> {
    let scope = Scope::new(state, context);
    let names = names::Names {
        scope: &scope,
        schema: &context.schema,
    };
    let entry = names.defined(name)?;
    Ok(entry.map(|entry| Arc::clone(&entry.group)))
}

/// The feature group that an argument of `function` names: `'group'`, as those of table functions.
///
/// # Errors
/// `NotFound` for an unknown group, the reason of one that is not served, `InvalidArgument` for anything
/// else.
pub fn group_argument(
    state: &SessionState,
    function: &str,
    argument: &Expr,
    context: &Arc<StatementContext>,
) -> Result<Arc<FeatureTable>> {
    let scope = Scope::new(state, context);
    let names = names::Names {
        scope: &scope,
        schema: &context.schema,
    };
    functions::one_group(&names, function, argument)
}

/// The feature group that `name` means as the target of a write: by its name in `features`.
///
/// # Errors
/// `NotFound` with near names, `InvalidArgument` for any other relation, the reason of a group that
/// is not served.
pub fn write_target(
    state: &SessionState,
    name: &ObjectName,
    context: &Arc<StatementContext>,
) -> Result<Arc<FeatureGroup>> {
    let scope = Scope::new(state, context);
    let names = names::Names {
        scope: &scope,
        schema: &context.schema,
    };
    if let Some(entry) = names.defined(name)? {
        return names::writable(entry);
    }
    match names.resolve(name)? {
        Some(found) => Err(Error::invalid(format!(
            "{}.{} cannot be written: only feature groups can, in the schema {}; upload data of \
             your own as a temporary table",
            found.schema,
            found.table,
            names::FEATURES
        ))),
        None => Err(names.not_found(name)),
    }
}
