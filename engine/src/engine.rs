//! The engine: one per server. [`Engine::prepare`] looks at a statement, [`Engine::pin`] fixes what
//! it will read, [`Engine::run`] streams its rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SessionState;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::Result;
use featureflight_catalog::listing::Lister;
use featureflight_catalog::scan::versions::{FileReader, ReadSettings};
use featureflight_catalog::snapshot::Catalog;
use tokio::time::Instant;

use crate::boundary::sent;
use crate::caller::Caller;
use crate::error::classify;
use crate::executor::Executor;
use crate::memory::Memory;
use crate::metadata::Browse;
use crate::pinning::{self, Pinned, Planned};
use crate::planning::Planning;
use crate::preparing;
use crate::query::admission::Admission;
use crate::query::life::{Received, Token};
use crate::query::{
    Limit, PinnedQuery, QueryLog, QueryStatus, ResultStream, Rows, Run, Source, Watch, stopped,
};
use crate::settings::Settings;
use crate::spill::SpillDirectory;
use crate::writes::Writes;

/// Limits and times, each with a sane default.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Life of a cached listing; zero turns the cache off.
    pub list_cache_ttl: Duration,
    pub footer_cache_bytes: usize,
    /// How a query reads ahead.
    pub read: ReadSettings,
    /// Memory all queries share.
    pub memory_limit_bytes: usize,
    /// Memory of the whole process: beyond it the largest query is given up.
    pub process_memory_limit_bytes: u64,
    /// Where intermediate results go that do not fit in memory; the system's temporary directory
    /// if absent.
    pub spill_directory: Option<PathBuf>,
    pub spill_limit_bytes: u64,
    pub target_partitions: usize,
    /// Longest statement text.
    pub max_sql_bytes: usize,
    /// Queries that run at once, and how many more may wait.
    pub max_running_queries: usize,
    pub max_queued_queries: usize,
    /// Rows and bytes of all temporary tables of one session.
    pub max_upload_rows: u64,
    pub max_upload_bytes: u64,
    /// How long one statement may plan, listings included, where the query timeout is not shorter.
    pub planning_timeout: Duration,
    pub query_timeout: Option<Duration>,
    /// A system-time cut younger than this may still gain rows.
    pub settling_time: Duration,
    pub idle_session_timeout: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        Self {
            list_cache_ttl: Duration::from_secs(30),
            footer_cache_bytes: 64 << 20,
            read: ReadSettings::default(),
            memory_limit_bytes: 2 << 30,
            process_memory_limit_bytes: 8 << 30,
            spill_directory: None,
            spill_limit_bytes: 50 << 30,
            target_partitions: cores,
            max_sql_bytes: 256 << 10,
            max_running_queries: (cores * 2).max(8),
            max_queued_queries: 128,
            max_upload_rows: 100_000_000,
            max_upload_bytes: 1 << 30,
            planning_timeout: Duration::from_mins(2),
            query_timeout: Some(Duration::from_hours(1)),
            settling_time: Duration::from_mins(20),
            idle_session_timeout: Duration::from_hours(1),
        }
    }
}

/// What a statement will answer, before it runs.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// As it leaves the server: no view types, timestamps in microseconds UTC.
    pub schema: SchemaRef,
    /// One field per parameter, named `$1`...; one the statement does not tell the type of is text.
    /// Timestamps are in milliseconds: Apache's JDBC driver up to 18.3 puts milliseconds into the
    /// announced unit unconverted. A client may bind any unit.
    pub parameters: SchemaRef,
    /// True for statements with an effect. They answer one row all the same, `OK` in a column
    /// `status` or the count of a write, for drivers that fetch the result of whatever they run.
    pub is_update: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    pub catalog: Arc<Catalog>,
    pub options: EngineOptions,
    pub(crate) core: Arc<Core>,
}

/// What planning shares with the engine, and outlives a caller that went away.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: EngineOptions,
    pub(crate) base: SessionState,
    pub(crate) lister: Arc<Lister>,
    pub(crate) reader: Arc<FileReader>,
    pub(crate) queries: Arc<QueryLog>,
    pub(crate) browse: Arc<Browse>,
    pub(crate) planning: Planning,
    pub(crate) admission: Admission,
    pub(crate) memory: Memory,
    pub(crate) executor: Executor,
    pub(crate) writes: Writes,
    /// Last, so that what uses it is gone before.
    _spill: SpillDirectory,
}

impl Engine {
    /// # Errors
    /// `Unavailable` when the spill directory cannot be made, `ResourceExhausted` when there is no
    /// thread left.
    pub fn new(catalog: Arc<Catalog>, options: EngineOptions) -> Result<Arc<Self>> {
        let reason = "this server only reads feature groups";
        Self::with_writes(catalog, options, Writes::Refused(reason.to_owned()))
    }

    /// An engine that writes.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_writes(
        catalog: Arc<Catalog>,
        options: EngineOptions,
        writes: Writes,
    ) -> Result<Arc<Self>> {
        let threads = (options.target_partitions * 2).max(8);
        let lister = Arc::new(Lister::new(options.list_cache_ttl));
        let reader = FileReader::new(options.footer_cache_bytes)
            .with_settings(options.read)
            .correcting(&lister);
        let spill = SpillDirectory::make(options.spill_directory.as_deref())?;
        let memory = Memory::new(
            options.memory_limit_bytes,
            options.process_memory_limit_bytes,
        )?;
        let core = Arc::new(Core {
            catalog: Arc::clone(&catalog),
            base: crate::runtime::base_state(&options, spill.path())?,
            lister,
            reader: Arc::new(reader),
            queries: Arc::default(),
            browse: Arc::default(),
            planning: Planning::new(threads, options.max_queued_queries.max(threads)),
            admission: Admission::new(
                "runs",
                options.max_running_queries,
                options.max_queued_queries,
            ),
            memory,
            executor: Executor::new(options.max_running_queries, options.target_partitions)?,
            writes,
            options: options.clone(),
            _spill: spill,
        });
        // The first client to browse should not wait for every column of every group.
        core.browse.relations(&catalog.snapshot());
        Ok(Arc::new(Self {
            catalog,
            options,
            core,
        }))
    }

    /// Plans `sql` without running it; nothing is listed and nothing changes.
    ///
    /// # Errors
    /// Those of planning.
    pub async fn prepare(&self, caller: impl Into<Caller>, sql: &str) -> Result<Prepared> {
        let caller = caller.into();
        let (core, view, text) = (Arc::clone(&self.core), caller.view(), sql.to_owned());
        let planned = self
            .core
            .planning
            .run(
                self.planning_limit(Some(&caller)),
                &caller.session.plans,
                move || preparing::prepare(core, view, text),
            )
            .await;
        // Preparing is no query of its own in the log; a bug in it still gets an id.
        planned.map_err(|error| match error.kind {
            featureflight_catalog::Kind::Internal => self
                .core
                .queries
                .receive(caller.session.label(), "prepare")
                .fail(error),
            _ => error,
        })
    }

    /// Executes the planning half of a statement: clocks resolved, listing taken. A statement with
    /// an effect (`SET`, `USE`, `CREATE TEMP VIEW`, ...) has it here, once; its result is one row,
    /// `OK`. A write is durable when this returns; its result says how many rows were written.
    ///
    /// `rows` are the rows of bound parameters, none for a statement without. With several, a query
    /// runs once for each, over the same files, and its results follow one another.
    ///
    /// # Errors
    /// Those of planning and listing; `DeadlineExceeded`, `Cancelled`.
    pub async fn pin(
        self: &Arc<Self>,
        caller: impl Into<Caller>,
        sql: &str,
        rows: Vec<Vec<ScalarValue>>,
    ) -> Result<Arc<PinnedQuery>> {
        self.begin(caller.into(), sql, rows).1.await
    }

    /// As [`Engine::pin`], for whoever wants to watch the statement meanwhile. It ends when the
    /// future is dropped.
    pub fn begin(
        self: &Arc<Self>,
        caller: Caller,
        sql: &str,
        rows: Vec<Vec<ScalarValue>>,
    ) -> (
        Watch,
        impl Future<Output = Result<Arc<PinnedQuery>>> + Send + use<>,
    ) {
        let (engine, sql) = (Arc::clone(self), sql.to_owned());
        let token = engine.core.queries.receive(caller.session.label(), &sql);
        let watch = Watch(Arc::clone(token.entry()));
        let pinned = async move { engine.pin_received(token, caller, sql, rows).await };
        (watch, pinned)
    }

    async fn pin_received(
        self: Arc<Self>,
        token: Token<Received>,
        caller: Caller,
        sql: String,
        rows: Vec<Vec<ScalarValue>>,
    ) -> Result<Arc<PinnedQuery>> {
        let settings = caller.view().settings;
        let (core, of, text) = (Arc::clone(&self.core), caller.clone(), sql.clone());
        let values = rows.iter().flatten().map(ScalarValue::size);
        let input_bytes = sql.len() + values.sum::<usize>();
        let entry = Arc::clone(token.entry());
        // Only a repeat of a write asks for them again.
        let keyed = caller.idempotency_key.is_some();
        let bound = rows.iter().flatten().take_while(|_| keyed);
        let bound: PlanResult<Vec<_>> = bound.map(ScalarValue::to_array).collect();
        let began = Instant::now();
        let limit = self.planning_limit(Some(&caller));
        let work = async {
            let planned =
                self.core
                    .planning
                    .run(limit, &caller.session.plans, move || async move {
                        pinning::pin(core, of, text, rows, &entry).await
                    });
            match planned.await? {
                Planned::Query(pinned) => Ok(pinned),
                Planned::Optimize(optimization) => {
                    let optimized = optimization.carry_out(token.entry()).await?;
                    Ok(Pinned::rows(optimized))
                }
                Planned::Forget(forgetting) => Ok(Pinned::rows(forgetting.carry_out().await?)),
                Planned::Write(rows, write) => {
                    let bound = bound.map_err(classify)?;
                    let written = self
                        .carry_out(&caller, &sql, &bound, rows, &write, token.entry())
                        .await?;
                    Pinned::written(written)
                }
            }
        };
        let mut pinned = match token.until_cancelled(work).await {
            Ok(pinned) => pinned,
            Err(error) => return Err(token.fail(error)),
        };
        pinned.schema = sent(pinned.schema, &settings);
        let mut query = Self::pinned(&caller, pinned, token, settings, began.elapsed());
        query.input_bytes = input_bytes;
        Ok(Arc::new(query))
    }

    pub(crate) fn pinned(
        caller: &Caller,
        pinned: Pinned,
        token: Token<Received>,
        settings: Settings,
        planned: Duration,
    ) -> PinnedQuery {
        PinnedQuery {
            id: token.id().to_owned(),
            schema: pinned.schema,
            repeatable: pinned.repeatable,
            unsettled: pinned.unsettled,
            files: pinned.files as u64,
            planned_ms: u64::try_from(planned.as_millis()).unwrap_or(u64::MAX),
            slices: pinned.slices,
            whole_because: pinned.whole_because,
            written: pinned.written,
            input_bytes: 0,
            settings,
            source: pinned.source,
            entry: token.planned(pinned.files, pinned.slices),
            session: Arc::clone(&caller.session),
            ran: (0..pinned.slices).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Runs a pinned query whole; may be called again and gives the same rows, as a multiset.
    ///
    /// # Errors
    /// `ResourceExhausted` when too many queries wait, `Aborted` for the second run of a query that
    /// does not repeat, `DeadlineExceeded` after the query timeout, and those of planning.
    pub async fn run(self: &Arc<Self>, query: &Arc<PinnedQuery>) -> Result<ResultStream> {
        self.run_slice(query, None, None).await
    }

    /// Runs one slice of a pinned query, or the whole of it, for a client that waits until
    /// `deadline`.
    ///
    /// # Errors
    /// Those of [`Engine::run`]; `InvalidArgument` for a slice there is not.
    pub async fn run_slice(
        self: &Arc<Self>,
        query: &Arc<PinnedQuery>,
        slice: Option<usize>,
        deadline: Option<Instant>,
    ) -> Result<ResultStream> {
        let token = Token::begin(&query.entry, slice);
        let began = Instant::now();
        let limit = self.run_limit(query, deadline);
        let admitted = async {
            let permit = self
                .core
                .admission
                .admit_within(&query.session.share)
                .await?;
            query.claim(slice.unwrap_or(0))?;
            let queued_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            Ok((permit, queued_ms, self.rows(query, slice).await?))
        };
        let admitted = tokio::select! {
            biased;
            admitted = admitted => admitted,
            error = stopped(token.entry(), limit) => Err(error),
        };
        match admitted {
            Ok((permit, queued_ms, rows)) => {
                let (query, token) = (Arc::clone(query), token.permitted(rows.plan()));
                let run = Run {
                    query,
                    rows,
                    token,
                    permit,
                    limit,
                    queued_ms,
                };
                Ok(crate::query::start(run, &self.core.executor))
            }
            Err(error) => Err(token.fail(error)),
        }
    }

    /// What a run reads: the rows there are, or a physical plan over the pinned files.
    async fn rows(&self, query: &Arc<PinnedQuery>, slice: Option<usize>) -> Result<Rows> {
        let plan = match &query.source {
            Source::Rows(batch) => return Ok(Rows::Ready(batch.clone())),
            Source::Plan(plan) => plan,
        };
        let first = plan.first.lock().take();
        let physical = if let Some(physical) = first {
            physical
        } else {
            let (state, logical) = (Arc::clone(&plan.state), Arc::clone(&plan.logical));
            let work = move || async move { pinning::physical_plan(&state, &logical).await };
            self.core
                .planning
                .run(self.planning_limit(None), &query.session.plans, work)
                .await?
        };
        let context = self.core.memory.context(&plan.state)?;
        Ok(match slice {
            Some(slice) if query.slices > 1 => Rows::Slice {
                plan: physical,
                context,
                slice,
                of: query.slices,
            },
            _ => Rows::Plan(physical, context),
        })
    }

    fn run_limit(&self, query: &PinnedQuery, deadline: Option<Instant>) -> Limit {
        let timeouts = [self.options.query_timeout, query.settings.query_timeout];
        let timeout = timeouts.into_iter().flatten().min();
        Limit {
            timeout: timeout.map(|timeout| Instant::now() + timeout),
            deadline,
        }
    }

    /// Running and recent queries.
    pub fn queries(&self) -> Vec<QueryStatus> {
        self.core.queries.statuses()
    }

    /// The shortest of what the server, the session and the client allow.
    pub(crate) fn planning_limit(&self, caller: Option<&Caller>) -> Option<Duration> {
        let of_caller = caller.into_iter().flat_map(|caller| {
            let left = caller
                .deadline
                .map(|at| at.saturating_duration_since(Instant::now()));
            [left, caller.view().settings.query_timeout]
        });
        [
            Some(self.options.planning_timeout),
            self.options.query_timeout,
        ]
        .into_iter()
        .chain(of_caller)
        .flatten()
        .min()
    }
}
