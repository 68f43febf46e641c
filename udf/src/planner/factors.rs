//! Table factors: every one with a version clause, every relation of the catalog, our table
//! functions and as-of joins. What is left to `DataFusion` has no clause to lose.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, ObjectName, TableAlias, TableFactor};
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::history::{Cut, history_provider};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant, Result};

use super::constants::{Constant, substitute};
use super::error::classify;
use super::functions::{Call, Function};
use super::names::{FEATURES, Found, HISTORY, Names, Relation};
use super::relations::{self, Refused};
use super::scope::Scope;
use crate::clock::Clocks;
use crate::context::Skew;
use crate::dialect::{VersionClause, as_asof, version_of};
use crate::state::state_provider;

/// Records that `online_skew` looks at where it is not told.
const SAMPLE: usize = 10_000;

/// Plans the table factors of one statement.
#[derive(Debug)]
pub(super) struct Factors {
    pub(super) scope: Arc<Scope>,
    /// The default schema: the session's, or the one a view was made in.
    schema: String,
    pub(super) in_view: bool,
}

/// Clocks of a relation, and whether a parameter of theirs has no value yet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bound {
    pub(super) clocks: Clocks,
    pub(super) unbound: bool,
}

impl RelationPlanner for Factors {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> EngineResult<RelationPlanning> {
        match self.plan_factor(&relation, context)? {
            Some(planned) => Ok(RelationPlanning::Planned(Box::new(planned))),
            None => Ok(RelationPlanning::Original(Box::new(relation))),
        }
    }
}

impl Factors {
    pub(super) fn new(scope: Arc<Scope>, schema: String, in_view: bool) -> Self {
        Self {
            scope,
            schema,
            in_view,
        }
    }

    pub(super) fn names(&self) -> Names<'_> {
        Names {
            scope: &self.scope,
            schema: &self.schema,
        }
    }

    /// The plan of `factor`; `None` leaves it to `DataFusion`.
    fn plan_factor(
        &self,
        factor: &TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<PlannedRelation>> {
        let version = version_of(factor)?;
        match factor {
            TableFactor::Table {
                name,
                args: Some(args),
                alias,
                ..
            } => self.plan_function(name, &args.args, alias.as_ref(), context),
            TableFactor::Function {
                name, args, alias, ..
            } => self.plan_function(name, args, alias.as_ref(), context),
            TableFactor::Table { name, alias, .. } => {
                let plan = self.plan_table(name, version, context)?;
                Ok(plan.map(|plan| PlannedRelation::new(plan, alias.clone())))
            }
            TableFactor::NestedJoin { .. } => match as_asof(factor) {
                Some(join) => {
                    let alias = join.alias.clone();
                    let plan = self.plan_asof(join, context)?;
                    Ok(Some(PlannedRelation::new(plan, alias)))
                }
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    fn plan_table(
        &self,
        name: &ObjectName,
        version: Option<VersionClause>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<LogicalPlan>> {
        // The rewrite has given every relation of the catalog its schema: what has none is a
        // common table expression, or nothing.
        if name.0.len() == 1 {
            return match version {
                None => Ok(None),
                Some(_) => Err(cannot_travel(&format!(
                    "{name} is a common table expression: put the clause on the tables inside it"
                ))),
            };
        }
        let Some(found) = self.names().resolve(name)? else {
            return Err(self.names().not_found(name));
        };
        let explicit = match version {
            Some(version) => self.clocks_of(&found, version, context)?,
            None => Bound::default(),
        };
        let bound = Bound {
            clocks: explicit.clocks.or(self.scope.context.clocks),
            unbound: explicit.unbound,
        };
        match &found.relation {
            Relation::Features(table) => self.state(table, bound).map(Some),
            Relation::History(table) => self.history(table, bound, EventRange::default()).map(Some),
            Relation::Raw(table) => {
                let provider = relations::raw(table, &self.scope.context);
                scan(&found.schema, &found.table, "", provider).map(Some)
            }
            Relation::View => match self.scope.view(&found.table) {
                Some(plan) => Ok(Some(plan.as_ref().clone())),
                None => Err(Error::internal(format!(
                    "view {} was not planned",
                    found.table
                ))),
            },
            Relation::Temporary(rows) => {
                scan(&found.schema, &found.table, "", Arc::clone(rows)).map(Some)
            }
            Relation::System => Ok(None),
        }
    }

    /// The clocks of an explicit clause on `found`.
    ///
    /// # Errors
    /// `InvalidArgument` when the relation cannot travel, or the time is no constant.
    pub(super) fn clocks_of(
        &self,
        found: &Found,
        version: VersionClause,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Bound> {
        let name = format!("{}.{}", found.schema, found.table);
        match &found.relation {
            Relation::Features(_) | Relation::History(_) => {}
            Relation::Raw(table) => {
                let instead = match &table.feature_group {
                    Some(group) => format!("{FEATURES}.{group} or {HISTORY}.{group}"),
                    None => format!("a table of {FEATURES} or {HISTORY}"),
                };
                return Err(cannot_travel(&format!(
                    "{name} is a raw Glue table, served as it stands: use {instead}"
                )));
            }
            Relation::View => {
                return Err(cannot_travel(&format!(
                    "{name} is a view of this session: put the clause on the tables inside it, or \
                     SET featureflight.system_time, which reaches into views"
                )));
            }
            Relation::Temporary(_) => {
                return Err(cannot_travel(&format!(
                    "{name} is a temporary table of this session, which has no versions"
                )));
            }
            Relation::System => {
                return Err(cannot_travel(&format!(
                    "{name} describes the server as it is now"
                )));
            }
        }
        if version.version.is_some() {
            return Err(Error::invalid(format!(
                "VERSION AS OF on {name}: not for this table format, which has no snapshots; use \
                 FOR SYSTEM_TIME AS OF"
            )));
        }
        let mut bound = Bound::default();
        let mut read = |what: &str, expr: Option<ast::Expr>| -> Result<Option<Instant>> {
            let Some(expr) = expr else { return Ok(None) };
            let what = format!("{what} AS OF on {name}");
            let instant = self.instant(&what, expr, context)?;
            bound.unbound |= instant == Constant::Unbound;
            Ok(instant.known())
        };
        let system = read("FOR SYSTEM_TIME", version.system)?;
        let valid = read("FOR VALID_TIME", version.valid)?;
        bound.clocks = Clocks { system, valid };
        Ok(bound)
    }

    fn plan_function(
        &self,
        name: &ObjectName,
        args: &[FunctionArg],
        alias: Option<&TableAlias>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<PlannedRelation>> {
        let Some(function) = Function::named(name) else {
            return Ok(None);
        };
        let call = Call::parse(function, args)?;
        let plan = match function {
            Function::PointInTimeJoin => self.plan_point_in_time(call, context)?,
            Function::Online | Function::OnlineSkew => self.plan_online(call)?,
            Function::AsOf | Function::Latest | Function::History => {
                self.plan_travel(call, context)?
            }
        };
        // Without an alias a call is named by its function.
        let plan = match alias {
            Some(_) => plan,
            None => LogicalPlanBuilder::from(plan)
                .alias(function.name())
                .and_then(LogicalPlanBuilder::build)
                .map_err(classify)?,
        };
        Ok(Some(PlannedRelation::new(plan, alias.cloned())))
    }

    /// `as_of`, `latest` and `history`.
    fn plan_travel(
        &self,
        mut call: Call,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let table = call.group(&self.names())?;
        if call.function == Function::History {
            let from = self.argument(&mut call, "from", context)?;
            let to = self.argument(&mut call, "to", context)?;
            let unbound = [from, to].contains(&Some(Constant::Unbound));
            let range = EventRange {
                from: from.and_then(Constant::known),
                to: to.and_then(Constant::known),
            };
            return self.history(
                &table,
                Bound {
                    clocks: self.scope.context.clocks,
                    unbound,
                },
                range,
            );
        }
        let bound = self.travel_clocks(&mut call, context)?;
        self.state(&table, bound)
    }

    /// `online` and `online_skew`.
    fn plan_online(&self, mut call: Call) -> Result<LogicalPlan> {
        let function = call.function.name();
        let group = call.online_group(&self.names());
        let context = &self.scope.context;
        if context.clocks != Clocks::default() {
            return Err(Error::invalid(format!(
                "{function} shows the online store as it is now, and this session has a clock: RESET \
                 featureflight.system_time and featureflight.valid_time"
            )));
        }
        let online = context.online.as_ref().ok_or_else(|| {
            Error::precondition(format!("{function}: this server has no online store"))
        })?;
        let group = group?;
        let provider = if call.function == Function::Online {
            online.records(&group)?
        } else {
            let table = call.group(&self.names())?;
            let scan = || context.scan.clone();
            online.skew(Skew {
                sample: call.take_count("sample")?.unwrap_or(SAMPLE),
                state: state_provider(Arc::clone(&table), Clocks::default(), scan()),
                history: history_provider(Arc::clone(&table), Cut::default(), scan()),
                table: Arc::clone(&table),
            })?
        };
        scan(function, &group.feature_group_name, "", provider)
    }

    /// The clocks of `as_of` and `latest`.
    pub(super) fn travel_clocks(
        &self,
        call: &mut Call,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Bound> {
        let valid = self.argument(call, "event_time", context)?;
        let system = self.argument(call, "known_at", context)?;
        let unbound = [valid, system].contains(&Some(Constant::Unbound));
        let clocks = Clocks {
            system: system.and_then(Constant::known),
            valid: valid.and_then(Constant::known),
        };
        Ok(Bound {
            clocks: clocks.or(self.scope.context.clocks),
            unbound,
        })
    }

    fn argument(
        &self,
        call: &mut Call,
        name: &str,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<Constant<Instant>>> {
        let what = format!("{} of {}", name, call.function.name());
        call.take(name)
            .map(|expr| self.instant(&what, expr, context))
            .transpose()
    }

    fn state(&self, table: &Arc<FeatureTable>, bound: Bound) -> Result<LogicalPlan> {
        let provider = if bound.unbound {
            Refused::unbound(Arc::clone(&table.state_schema))
        } else {
            state_provider(
                Arc::clone(table),
                bound.clocks,
                self.scope.context.scan.clone(),
            )
        };
        scan(FEATURES, table.name(), &clock_text(bound.clocks), provider)
    }

    fn history(
        &self,
        table: &Arc<FeatureTable>,
        bound: Bound,
        range: EventRange,
    ) -> Result<LogicalPlan> {
        let to = match (range.to, bound.clocks.valid) {
            (Some(to), Some(valid)) => Some(to.min(valid)),
            (to, valid) => to.or(valid),
        };
        let cut = Cut {
            event_time: EventRange {
                from: range.from,
                to,
            },
            system_time: bound.clocks.system,
        };
        let mut text = clock_text(Clocks {
            system: bound.clocks.system,
            valid: to,
        });
        if let Some(from) = range.from {
            text.push_str(&format!(" FROM {from}"));
        }
        let provider = if bound.unbound {
            Refused::unbound(Arc::clone(&table.history_schema))
        } else {
            history_provider(Arc::clone(table), cut, self.scope.context.scan.clone())
        };
        scan(HISTORY, table.name(), &text, provider)
    }

    /// `plan` with the statement's parameters, so that its types are known; as it is while the
    /// statement is only prepared.
    pub(super) fn bind_plan(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match &self.scope.context.parameters {
            Some(values) => super::parameters::bind(plan, values),
            None => Ok(plan),
        }
    }

    pub(super) fn bind_expr(&self, expr: Expr) -> Result<Expr> {
        match &self.scope.context.parameters {
            Some(values) => substitute(expr, values),
            None => Ok(expr),
        }
    }
}

fn cannot_travel(why: &str) -> Error {
    Error::invalid(format!("a version clause does not apply here: {why}"))
}

fn clock_text(clocks: Clocks) -> String {
    let mut text = String::new();
    if let Some(valid) = clocks.valid {
        text.push_str(&format!(" FOR VALID_TIME AS OF {valid}"));
    }
    if let Some(system) = clocks.system {
        text.push_str(&format!(" FOR SYSTEM_TIME AS OF {system}"));
    }
    text
}

/// A scan under the relation's plain name. The optimizer takes two scans of one name for the same
/// rows, so the scan itself also carries its clocks.
fn scan(
    schema: &str,
    table: &str,
    clocks: &str,
    provider: Arc<dyn TableProvider>,
) -> Result<LogicalPlan> {
    let plain = TableReference::partial(schema, table);
    let source = provider_as_source(provider);
    let scanned = if clocks.is_empty() {
        LogicalPlanBuilder::scan(plain, source, None)
    } else {
        let name = TableReference::partial(schema, format!("{table}{clocks}"));
        LogicalPlanBuilder::scan(name, source, None).and_then(|scanned| scanned.alias(plain))
    };
    scanned
        .and_then(LogicalPlanBuilder::build)
        .map_err(classify)
}

/// True when rows of a group's state, not of its history, flow out of `plan`.
pub(super) fn reads_state(plan: &LogicalPlan) -> bool {
    if let LogicalPlan::TableScan(scan) = plan {
        return scan.table_name.schema() == Some(FEATURES);
    }
    plan.inputs().into_iter().any(reads_state)
}
