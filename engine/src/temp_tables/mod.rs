//! Temporary tables: rows that a session uploaded, in memory, until they are dropped or the session
//! ends.
//!
//! The rows count against the memory all queries share for as long as anything reads them, and
//! against limits of their session. An upload becomes visible when it is complete, in one step.

mod pack;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayData, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session as PlanningSession, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as PlanResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use featureflight_catalog::{Error, Kind, Result};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::engine::Engine;
use crate::error::classify;
use crate::functions::width;
use crate::metadata::{CATALOG, TEMP};
use crate::session::SessionView;
use crate::views::shadowed;

use pack::Packed;

/// One temporary table. Appending makes a new one that shares the chunks of the old.
pub(crate) struct TempTable {
    pub(crate) schema: SchemaRef,
    chunks: Vec<Arc<Chunk>>,
}

/// The rows of one upload.
struct Chunk {
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
    /// Given back with the last reader.
    _memory: MemoryReservation,
}

impl TempTable {
    fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }
}

impl fmt::Debug for TempTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempTable")
            .field("rows", &self.rows())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for TempTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        state: &dyn PlanningSession,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let batches: Vec<_> = self.chunks.iter().flat_map(|c| &c.batches).collect();
        let streams = state.config().target_partitions().min(batches.len()).max(1);
        let mut partitions = vec![Vec::new(); streams];
        for (partition, batch) in (0..streams).cycle().zip(batches) {
            partitions[partition].push(batch.clone());
        }
        Ok(MemorySourceConfig::try_new_exec(
            &partitions,
            Arc::clone(&self.schema),
            projection.cloned(),
        )?)
    }
}

/// What to do when the table of an upload is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    Fail,
    Append,
    Replace,
}

/// Where an upload goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// Spelled exactly as it will be.
    pub table: String,
    pub schema: Option<String>,
    pub catalog: Option<String>,
    pub temporary: bool,
    /// False: an upload to a table that is not there fails.
    pub create: bool,
    pub if_exists: IfExists,
}

/// An upload under way. Dropping it leaves everything as it was.
pub struct Upload {
    target: Target,
    caller: Caller,
    schema: SchemaRef,
    packed: Packed,
    rows: u64,
    bytes: u64,
    memory: MemoryReservation,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    rows: u64,
    bytes: u64,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("table", &self.target.table)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins an upload of rows of `schema` into a temporary table; others are
    /// [`Engine::append`]'s.
    ///
    /// # Errors
    /// `InvalidArgument` for a name or columns it cannot have;
    /// `AlreadyExists` and `NotFound` as the target says, and for a name that would hide a relation.
    pub fn upload(&self, caller: &Caller, target: Target, schema: SchemaRef) -> Result<Upload> {
        if !target.temporary {
            return Err(Error::invalid(format!(
                "table `{}` is not temporary: append to a feature group, or upload a temporary table",
                target.table
            )));
        }
        check_place(&target)?;
        check_columns(&schema)?;
        if let Some(relation) = shadowed(&self.catalog.snapshot(), &target.table) {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!(
                    "a temporary table `{}` would hide {relation}: give it another name",
                    target.table
                ),
            ));
        }
        let seen = caller.session.view();
        destination(&target, &schema, &seen)?;
        let pool = self.core.memory.kept();
        Ok(Upload {
            target,
            caller: caller.clone(),
            schema,
            packed: Packed::default(),
            rows: 0,
            bytes: 0,
            memory: MemoryConsumer::new("temporary table").register(&pool),
            limits: Limits {
                rows: self.options.max_upload_rows,
                bytes: self.options.max_upload_bytes,
            },
        })
    }
}

impl Upload {
    /// Takes rows, whose types must be the upload's.
    ///
    /// # Errors
    /// `ResourceExhausted` beyond the session's limits or the server's memory, `DeadlineExceeded`,
    /// `InvalidArgument` for other columns.
    pub fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if self.caller.deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(crate::query::past_deadline());
        }
        if batch.schema().fields() != self.schema.fields() {
            return Err(Error::invalid("the rows of an upload change their columns"));
        }
        let bytes = retained(&batch);
        self.rows += batch.num_rows() as u64;
        self.bytes += bytes as u64;
        self.within_limits(&self.caller.session.view())?;
        self.memory.try_grow(bytes).map_err(classify)?;
        if batch.num_rows() > 0 {
            self.packed.push(batch, bytes);
        }
        Ok(())
    }

    /// Makes the rows visible; how many there were.
    ///
    /// # Errors
    /// As [`Engine::upload`] and [`Upload::push`], for what other calls of the session did since.
    pub fn finish(self) -> Result<u64> {
        let name = self.target.table.clone();
        let session = Arc::clone(&self.caller.session);
        let rows = self.rows;
        session.put_table(&name, |seen| self.into_table(seen))?;
        Ok(rows)
    }

    fn into_table(mut self, seen: &SessionView) -> Result<Arc<TempTable>> {
        let before = destination(&self.target, &self.schema, seen)?;
        let schema =
            before.map_or_else(|| nullable(&self.schema), |table| Arc::clone(&table.schema));
        // Before they are made: a column without a type came as no bytes at all.
        let nulls = made(&self.schema, &schema, self.rows);
        self.bytes = self.bytes.saturating_add(nulls);
        self.within_limits(seen)?;
        let nulls = usize::try_from(nulls).unwrap_or(usize::MAX);
        self.memory.try_grow(nulls).map_err(classify)?;
        let packed = self.packed.finish();
        let fitted = packed.iter().map(|batch| fit(batch, &schema));
        let chunk = Chunk {
            batches: fitted.collect::<Result<_>>()?,
            rows: self.rows,
            bytes: self.bytes,
            _memory: self.memory,
        };
        let mut chunks = before.map_or_else(Vec::new, |table| table.chunks.clone());
        chunks.push(Arc::new(chunk));
        Ok(Arc::new(TempTable { schema, chunks }))
    }

    /// What the session holds beside the table that this upload replaces, and this upload.
    fn within_limits(&self, seen: &SessionView) -> Result<()> {
        let stays =
            |name: &str| name != self.target.table || self.target.if_exists != IfExists::Replace;
        let held = || seen.tables.iter().filter(|(name, _)| stays(name));
        let rows = self.rows + held().map(|(_, table)| table.rows()).sum::<u64>();
        let bytes = held().map(|(_, table)| table.bytes()).sum::<u64>();
        let bytes = bytes.saturating_add(self.bytes);
        let beyond = |what: &str, limit: u64, setting: &str| {
            Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the temporary tables of one session may hold {limit} {what} together \
                     (engine.{setting}): upload less, or drop a table first"
                ),
            ))
        };
        if rows > self.limits.rows {
            return beyond("rows", self.limits.rows, "max_upload_rows");
        }
        if bytes > self.limits.bytes {
            return beyond("bytes", self.limits.bytes, "max_upload");
        }
        Ok(())
    }
}

fn check_place(target: &Target) -> Result<()> {
    let wrong = |what: &str, said: &str, only: &str| {
        Err(Error::invalid(format!(
            "temporary tables live in {what} `{only}`, not in `{said}`: leave the {what} out"
        )))
    };
    if target.table.is_empty() {
        return Err(Error::invalid("an upload needs the name of a table"));
    }
    match (target.catalog.as_deref(), target.schema.as_deref()) {
        (Some(said), _) if !said.is_empty() && said != CATALOG => wrong("catalog", said, CATALOG),
        (_, Some(said)) if !said.is_empty() && said != TEMP => wrong("schema", said, TEMP),
        _ => Ok(()),
    }
}

fn check_columns(schema: &SchemaRef) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::invalid("an upload needs at least one column"));
    }
    let mut names = BTreeSet::new();
    match schema
        .fields()
        .iter()
        .find(|field| !names.insert(field.name()))
    {
        None => Ok(()),
        Some(twice) => Err(Error::invalid(format!(
            "the upload has two columns `{}`",
            twice.name()
        ))),
    }
}

/// The table whose rows stay, if any.
fn destination<'a>(
    target: &Target,
    schema: &SchemaRef,
    seen: &'a SessionView,
) -> Result<Option<&'a Arc<TempTable>>> {
    let name = &target.table;
    let exists = |kind: &str| {
        Error::new(
            Kind::AlreadyExists,
            format!(
                "this session has a temporary {kind} `{name}`: append to it, replace it, drop it or choose another name"
            ),
        )
    };
    if seen.views.contains_key(name) {
        return Err(exists("view"));
    }
    match (seen.tables.get(name), target.if_exists) {
        (None, _) if target.create => Ok(None),
        (None, _) => {
            let near = crate::metadata::nearest(name, seen.tables.keys().map(String::as_str));
            Err(Error::not_found(format!(
                "this session has no temporary table `{name}`{near}"
            )))
        }
        (Some(_), IfExists::Fail) => Err(exists("table")),
        (Some(_), IfExists::Replace) => Ok(None),
        (Some(table), IfExists::Append) => {
            check_same_columns(name, schema, &table.schema)?;
            Ok(Some(table))
        }
    }
}

/// Columns go by name; one without values may have no type.
fn check_same_columns(name: &str, sent: &SchemaRef, table: &SchemaRef) -> Result<()> {
    let mismatch = |why: String| {
        Err(Error::invalid(format!(
            "the rows do not fit the temporary table `{name}`: {why}"
        )))
    };
    if sent.fields().len() != table.fields().len() {
        let (sent, table) = (sent.fields().len(), table.fields().len());
        return mismatch(format!("{sent} columns for its {table}"));
    }
    for field in table.fields() {
        let Ok(found) = sent.field_with_name(field.name()) else {
            return mismatch(format!("column `{}` is missing", field.name()));
        };
        let (found, wanted) = (found.data_type(), field.data_type());
        if found != wanted && *found != DataType::Null {
            return mismatch(format!(
                "column `{}` is {found}, the table's is {wanted}",
                field.name()
            ));
        }
    }
    Ok(())
}

/// Later uploads may bring nulls.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|field| Arc::new(Field::clone(field).with_nullable(true)));
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

/// Bytes of the nulls that [`fit`] makes of `rows` rows.
fn made(sent: &SchemaRef, schema: &SchemaRef, rows: u64) -> u64 {
    let taken = |field: &&Arc<Field>| {
        let sent = sent.field_with_name(field.name());
        sent.is_ok_and(|sent| sent.data_type() == field.data_type())
    };
    let made = schema.fields().iter().filter(|field| !taken(field));
    made.map(|field| width::of_nulls(field.data_type(), rows))
        .fold(0, u64::saturating_add)
}

/// `batch` with the columns of `schema`, in its order.
fn fit(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            _ => new_null_array(field.data_type(), batch.num_rows()),
        });
    RecordBatch::try_new(Arc::clone(schema), columns.collect()).map_err(|error| {
        Error::invalid(format!(
            "the rows do not fit the columns they announce: {error}"
        ))
    })
}

/// Bytes that keeping `batch` keeps in memory. Its columns may be parts of one allocation, which
/// counts once and whole.
fn retained(batch: &RecordBatch) -> usize {
    let mut allocations = HashMap::new();
    for column in batch.columns() {
        add_allocations(&column.to_data(), &mut allocations);
    }
    allocations.values().sum::<usize>() + size_of_val(batch.columns())
}

fn add_allocations(data: &ArrayData, found: &mut HashMap<usize, usize>) {
    let nulls = data.nulls().map(|nulls| nulls.inner().inner());
    for buffer in data.buffers().iter().chain(nulls) {
        found.insert(buffer.data_ptr().as_ptr() as usize, buffer.capacity());
    }
    for child in data.child_data() {
        add_allocations(child, found);
    }
}

impl SessionView {
    /// The session's tables as planning takes them.
    pub(crate) fn table_providers(
        &self,
    ) -> Arc<std::collections::BTreeMap<String, Arc<dyn TableProvider>>> {
        let tables = self.tables.iter();
        Arc::new(
            tables
                .map(|(name, table)| (name.clone(), Arc::clone(table) as Arc<dyn TableProvider>))
                .collect(),
        )
    }
}
