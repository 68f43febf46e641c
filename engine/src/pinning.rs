//! From text to a pinned plan. Runs on a planning thread: everything here may recurse deeply and
//! compute for long.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use featureflight_catalog::pin::Pin;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::unlanded::Fresh;
use featureflight_catalog::{Error, Instant, Kind, Result};
use featureflight_udf::in_turn::node::InTurn;
use featureflight_udf::planner::Planned as PlannedQuery;
use featureflight_udf::{Clocks, StatementContext};
use parking_lot::Mutex;

use crate::boundary::{announced, sent};
use crate::caller::Caller;
use crate::catalogs::statement_catalog;
use crate::complexity;
use crate::effects;
use crate::engine::Core;
use crate::erasing::Forgetting;
use crate::error::classify;
use crate::limits;
use crate::nullability::{never_null, with_nulls};
use crate::online::OnlineStores;
use crate::query::life::Entry;
use crate::query::{PinnedPlan, Source};
use crate::repeat;
use crate::selected;
use crate::session::SessionView;
use crate::settings::{self, Settings};
use crate::slices;
use crate::statement::{self, Command};
use crate::system::SystemContext;
use crate::writes::{Deletion, Insertion, Optimization, Write, Writes, Written};

/// The result of [`pin`].
pub(crate) enum Planned {
    Query(Pinned),
    /// Rows that are not written yet.
    Write(Pinned, Box<Write>),
    /// Files that are not joined yet.
    Optimize(Optimization),
    /// A record that is not forgotten yet.
    Forget(Forgetting),
}

/// A statement with its files fixed.
pub(crate) struct Pinned {
    pub(crate) schema: SchemaRef,
    pub(crate) source: Source,
    pub(crate) repeatable: bool,
    pub(crate) unsettled: bool,
    pub(crate) files: usize,
    pub(crate) slices: usize,
    pub(crate) whole_because: Option<&'static str>,
    pub(crate) written: Option<Written>,
    /// Columns that have no type, since all they hold is nulls.
    untyped: Vec<usize>,
}

/// One statement's planning: the session as it was when the statement began.
pub(crate) struct Scope {
    pub(crate) core: Arc<Core>,
    pub(crate) session: SessionView,
    /// `None` while the statement is only prepared.
    pub(crate) parameters: Option<Vec<ScalarValue>>,
}

/// Everything one query is planned against.
pub(crate) struct Ground {
    pub(crate) state: SessionState,
    pub(crate) context: Arc<StatementContext>,
}

impl Scope {
    fn pin(&self, started: Instant) -> Pin {
        let pin = Pin::new(Arc::clone(&self.core.lister), started);
        match &self.core.writes {
            Writes::Through(gateway) => {
                let fresh = Arc::clone(gateway) as Arc<dyn Fresh>;
                pin.reading(fresh, self.session.settings.stale)
            }
            Writes::Refused(_) => pin,
        }
    }

    /// The state and context of one query under `clocks`.
    pub(crate) fn ground(&self, clocks: Clocks) -> Ground {
        let core = &self.core;
        let snapshot = core.catalog.snapshot();
        let started = Instant::now();
        let system = SystemContext {
            catalog: Arc::clone(&core.catalog),
            snapshot: Arc::clone(&snapshot),
            lister: Arc::clone(&core.lister),
            queries: Arc::clone(&core.queries),
            writes: core.writes.clone(),
        };
        let catalogs = statement_catalog(&system, Arc::clone(&core.browse), self.session.clone());
        let mut state = core.base.clone();
        state.register_catalog_list(Arc::new(catalogs));
        // now() is the same throughout a statement and in every run of it, and follows the clock.
        let now = clocks.system.unwrap_or(started);
        *state.execution_props_mut() =
            ExecutionProps::new().with_query_execution_start_time(clock_time(now));
        let context = StatementContext {
            catalog: snapshot,
            scan: ScanContext {
                pin: Arc::new(self.pin(started)),
                reader: Arc::clone(&core.reader),
            },
            clocks,
            schema: self.session.schema.clone(),
            views: Arc::clone(&self.session.views),
            tables: self.session.table_providers(),
            online: match &core.writes {
                Writes::Through(gateway) => Some(Arc::new(OnlineStores(Arc::clone(gateway))) as _),
                Writes::Refused(_) => None,
            },
            parameters: self.parameters.clone(),
        };
        Ground {
            state,
            context: Arc::new(context),
        }
    }
}

impl Ground {
    /// Plans with other parameters from here on.
    fn bind(&mut self, parameters: Vec<ScalarValue>) {
        Arc::make_mut(&mut self.context).parameters = Some(parameters);
    }

    /// The logical plan of a query, within limits.
    pub(crate) async fn plan(&self, statement: Statement) -> Result<PlannedQuery> {
        limits::check_expansion(&statement, &self.context.views)?;
        let stored = |name: &str| self.context.columns_at_most(name);
        selected::check(&statement, &self.context.views, &stored)?;
        let planned =
            featureflight_udf::planner::plan(&self.state, statement, &self.context).await?;
        limits::check_size(std::slice::from_ref(&planned.plan))?;
        complexity::check(&planned.plan)?;
        crate::functions::check(&planned.plan)?;
        Ok(planned)
    }
}

/// Plans a statement, takes its listings and fixes them; or has its effect.
pub(crate) async fn pin(
    core: Arc<Core>,
    caller: Caller,
    sql: String,
    rows: Vec<Vec<ScalarValue>>,
    entry: &Entry,
) -> Result<Planned> {
    let command = parse(&core, &sql)?;
    entry.is_for(command.purpose());
    let mut rows = rows.into_iter();
    let scope = Scope {
        core,
        session: caller.view(),
        parameters: Some(rows.next().unwrap_or_default()),
    };
    match command {
        Command::Query(statement) => {
            check_length(&scope.core, &sql, rows.len() + 1)?;
            let pinned = pin_rows(&scope, statement, rows.collect()).await;
            pinned.map(Planned::Query)
        }
        _ if rows.len() > 0 => Err(Error::invalid(
            "several rows of parameters are bound, which a query takes, and an INSERT that is \
             executed as an update: bind one row at a time",
        )),
        Command::Insert(insert) => {
            let (rows, write) = Insertion::new(*insert)?.plan(&scope).await?;
            Ok(Planned::Write(rows, Box::new(write)))
        }
        Command::Delete(delete) => {
            let (rows, write) = Deletion::new(*delete)?.plan(&scope).await?;
            Ok(Planned::Write(rows, Box::new(write)))
        }
        Command::Forget(call) => {
            effects::no_parameters(&scope)?;
            Forgetting::plan(&scope, &call).map(Planned::Forget)
        }
        Command::Optimize(name) => {
            effects::no_parameters(&scope)?;
            Optimization::plan(&scope, &name).map(Planned::Optimize)
        }
        Command::Show(wanted) => {
            effects::no_parameters(&scope)?;
            let shown = settings::show(&wanted, &scope.session.settings)?;
            Ok(Planned::Query(Pinned::rows(shown)))
        }
        effect => {
            let said = effects::apply(&scope, &caller, effect).await?;
            let said: StringArray = [Some(said)].into_iter().collect();
            let row = RecordBatch::try_new(effects::schema(), vec![Arc::new(said)]);
            let row = row.map_err(crate::error::internal)?;
            Ok(Planned::Query(Pinned::rows(row)))
        }
    }
}

impl Pinned {
    pub(crate) fn rows(batch: RecordBatch) -> Self {
        Self {
            schema: batch.schema(),
            source: Source::Rows(batch),
            repeatable: true,
            unsettled: false,
            files: 0,
            slices: 1,
            whole_because: None,
            written: None,
            untyped: Vec::new(),
        }
    }

    /// The answer of a write.
    pub(crate) fn written(written: Written) -> Result<Self> {
        Ok(Self {
            written: Some(written.clone()),
            ..Self::rows(written.row()?)
        })
    }

    /// The types of its columns; [`DataType::Null`] for one that holds nothing but nulls.
    pub(crate) fn types(&self) -> impl Iterator<Item = DataType> {
        let fields = self.schema.fields().iter().enumerate();
        fields.map(|(at, field)| {
            if self.untyped.contains(&at) {
                DataType::Null
            } else {
                field.data_type().clone()
            }
        })
    }
}

pub(crate) async fn pin_query(scope: &Scope, statement: Statement) -> Result<Pinned> {
    pin_rows(scope, statement, Vec::new()).await
}

/// The query with the parameters of `scope`, then with each of `further`, over the same files.
async fn pin_rows(
    scope: &Scope,
    statement: Statement,
    further: Vec<Vec<ScalarValue>>,
) -> Result<Pinned> {
    let mut ground = scope.ground(scope.session.settings.clocks);
    let mut plans = vec![ground.plan(statement.clone()).await?.plan];
    for parameters in further {
        ground.bind(parameters);
        plans.push(ground.plan(statement.clone()).await?.plan);
        limits::check_size(&plans)?;
    }
    let never_null = plans.first().map(never_null).unwrap_or_default();
    let plan = InTurn::plan(plans).map_err(classify)?;
    let Ground { state, context } = ground;
    let plan = repeat::settle_ties(shown_types(plan, &scope.session.settings)).map_err(classify)?;
    let repeatable = repeat::repeats(&plan).map_err(classify)?;
    let optimized = state.optimize(&plan).map_err(classify)?;
    limits::check_depth(&optimized)?;
    // Making the physical plan asks every provider for its files.
    let made = make_physical(scope, state, &optimized).await?;
    let Physical {
        mut state,
        plan: physical,
        slices,
        whole_because,
    } = made;
    // What is planned again has its tables already. The catalogs of the statement would keep all
    // others of the session in memory for as long as the plan is pinned.
    state.register_catalog_list(Arc::clone(scope.core.base.catalog_list()));
    let columns = optimized.schema().fields().iter().enumerate();
    let untyped = columns.filter(|(_, field)| *field.data_type() == DataType::Null);
    let untyped = untyped.map(|(at, _)| at).collect();
    let pin = &context.scan.pin;
    pin.freeze();
    let schema = announced(&with_nulls(optimized.schema().as_arrow(), &never_null));
    Ok(Pinned {
        schema,
        repeatable,
        unsettled: unsettled(scope, &context),
        files: pin.pinned_files(),
        slices,
        whole_because,
        written: None,
        untyped,
        source: Source::Plan(PinnedPlan {
            state: Arc::new(state),
            logical: Arc::new(optimized),
            first: Mutex::new(Some(physical)),
        }),
    })
}

struct Physical {
    state: SessionState,
    plan: Arc<dyn ExecutionPlan>,
    slices: usize,
    whole_because: Option<&'static str>,
}

/// The physical plan, made for as many slices as the session asks for where that is possible.
async fn make_physical(
    scope: &Scope,
    state: SessionState,
    optimized: &LogicalPlan,
) -> Result<Physical> {
    let wanted = scope.session.settings.endpoints.unwrap_or(1);
    let mut whole_because = None;
    if let Some(wanted) = usize::try_from(wanted).ok().filter(|wanted| *wanted > 1) {
        let mut sliced = state.clone();
        let options = sliced.config_mut().options_mut();
        options.execution.target_partitions = wanted;
        // It would tie the parts together only to use more threads.
        options.optimizer.enable_round_robin_repartition = false;
        let plan = physical_plan(&sliced, optimized).await?;
        match slices::of(&plan, wanted) {
            Ok(slices) => {
                return Ok(Physical {
                    state: sliced,
                    plan,
                    slices,
                    whole_because: None,
                });
            }
            Err(why) => whole_because = Some(why),
        }
    }
    Ok(Physical {
        plan: physical_plan(&state, optimized).await?,
        state,
        slices: 1,
        whole_because,
    })
}

/// The physical plan of an optimized logical one.
pub(crate) async fn physical_plan(
    state: &SessionState,
    optimized: &LogicalPlan,
) -> Result<Arc<dyn ExecutionPlan>> {
    state
        .query_planner()
        .create_physical_plan(optimized, state)
        .await
        .map_err(classify)
}

/// `DESCRIBE` shows the types a client will get.
pub(crate) fn shown_types(plan: LogicalPlan, settings: &Settings) -> LogicalPlan {
    match plan {
        LogicalPlan::DescribeTable(mut describe) => {
            describe.schema = sent(announced(&describe.schema), settings);
            LogicalPlan::DescribeTable(describe)
        }
        other => other,
    }
}

/// Whether what was read may still gain rows: some relation has no system-time cut, or a young one.
fn unsettled(scope: &Scope, context: &StatementContext) -> bool {
    let settling = i64::try_from(scope.core.options.settling_time.as_micros()).unwrap_or(i64::MAX);
    let started = context.scan.pin.started;
    let settled = Instant::from_micros(started.micros.saturating_sub(settling));
    !context.scan.pin.is_cut_by(settled)
}

pub(crate) fn parse(core: &Core, sql: &str) -> Result<Command> {
    check_length(core, sql, 1)?;
    statement::classify(featureflight_udf::dialect::parse(sql)?)
}

/// The text counts once for each row of parameters, since it is planned as often.
fn check_length(core: &Core, sql: &str, rows: usize) -> Result<()> {
    let most = core.options.max_sql_bytes / rows;
    if sql.len() <= most {
        return Ok(());
    }
    let of_rows = match rows {
        1 => String::new(),
        rows => format!(" with {rows} rows of parameters"),
    };
    Err(Error::new(
        Kind::ResourceExhausted,
        format!(
            "the statement has {} bytes, the limit is {most}{of_rows}: pass long lists as \
             parameters or join a table",
            sql.len()
        ),
    ))
}

/// As `now()` can say it: its type ends in the year 2262.
fn clock_time(instant: Instant) -> chrono::DateTime<chrono::Utc> {
    let bounded = instant
        .micros
        .clamp(i64::MIN / 1_000 + 1, i64::MAX / 1_000 - 1);
    let nanos = if bounded == instant.micros {
        i64::from(instant.nanos)
    } else {
        0
    };
    chrono::DateTime::from_timestamp_nanos(bounded * 1_000 + nanos)
}
