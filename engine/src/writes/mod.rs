//! Writes to feature groups: `INSERT`, `DELETE`, uploads that append to a group, and rows of bound
//! parameters. All become rows of a [`Write`], which goes through validation and the outbox before
//! it is answered.
//!
//! A statement's rows are a query like any other: planned, pinned, permitted and limited as those
//! are ([`insert`], [`delete`]). It writes once, where it is pinned; fetching its answer again does
//! not.

mod answer;
mod bound;
mod delete;
mod ingest;
mod insert;
mod optimize;

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::{Error, Result, value_bytes};
use featureflight_online::contents::Digester;
use featureflight_online::gateway::Gateway;
use featureflight_online::group::WriteGroup;
use featureflight_online::outbox::{Answer, IdempotencyKey};
use featureflight_online::record::Operation;
use featureflight_online::validate::{OnError, Partial, ValidateOptions};
use featureflight_online::writes::{Once, WriteRequest, write};
use featureflight_udf::{Clocks, StatementContext};
use futures::{Stream, StreamExt, TryStreamExt};

use crate::caller::Caller;
use crate::engine::Engine;
use crate::pinning::{Pinned, Scope};
use crate::query::figures::Purpose;
use crate::query::life::Entry;
use crate::settings::WriteSettings;

pub use answer::Written;
pub(crate) use answer::schema;
pub use bound::Executed;
pub(crate) use delete::Deletion;
pub(crate) use insert::Insertion;
pub(crate) use optimize::{Optimization, optimized_schema, optimized_table};

/// Whether feature groups can be written.
#[derive(Debug, Clone)]
pub enum Writes {
    /// No, for this reason: a clause for the user.
    Refused(String),
    Through(Arc<Gateway>),
}

impl Writes {
    /// The way there is, if any.
    pub(crate) fn through(&self) -> Option<&Arc<Gateway>> {
        match self {
            Self::Through(gateway) => Some(gateway),
            Self::Refused(_) => None,
        }
    }

    /// # Errors
    /// `InvalidArgument` with the reason: the server never takes it.
    pub(crate) fn gateway(&self, group: &str) -> Result<&Arc<Gateway>> {
        match self {
            Self::Through(gateway) => Ok(gateway),
            Self::Refused(reason) => Err(Error::invalid(format!(
                "feature group '{group}' cannot be written: {reason}"
            ))),
        }
    }
}

/// What is to be written, but for the rows.
#[derive(Debug)]
pub(crate) struct Write {
    gateway: Arc<Gateway>,
    catalog: Arc<Catalog>,
    group: WriteGroup,
    operation: Operation,
    settings: WriteSettings,
    /// Of the rows: named as the group's features.
    schema: SchemaRef,
    /// See [`ValidateOptions::stored`].
    stored: Option<usize>,
}

impl Write {
    /// # Errors
    /// Why nothing, or nothing of this session, or nothing of this group can be written.
    fn new(scope: &Scope, group: Arc<FeatureGroup>, operation: Operation) -> Result<Self> {
        let session = &scope.session;
        let gateway = Arc::clone(scope.core.writes.gateway(&group.feature_group_name)?);
        refuse_clocks(session.settings.clocks)?;
        Ok(Self {
            gateway,
            catalog: Arc::clone(&scope.core.catalog),
            group: WriteGroup::new(group)?,
            operation,
            settings: session.settings.writes,
            schema: Arc::new(Schema::empty()),
            stored: None,
        })
    }

    /// Says which feature each column of the rows is. A column without a type holds nulls only.
    fn name_columns(&mut self, names: Vec<String>, types: impl Iterator<Item = DataType>) {
        let fields = names
            .into_iter()
            .zip(types)
            .map(|(name, data_type)| Field::new(name, data_type, true));
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    }

    /// # Errors
    /// `NotFound` when the group is not the one any more that the statement named.
    fn check_there(&self) -> Result<()> {
        let name = self.group.name();
        let snapshot = self.catalog.snapshot();
        let now = snapshot.groups.get(name).map(|entry| &entry.group);
        if now.is_some_and(|now| now.continues(&self.group.group)) {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "feature group '{name}' was dropped: nothing was written to it"
        )))
    }

    /// Validates the rows and makes them durable.
    ///
    /// # Errors
    /// Those of the rows and of [`write`]; `InvalidArgument` that lists the refused rows when that
    /// means nothing was accepted.
    async fn carry_out(
        &self,
        caller: &Caller,
        contents: Digester,
        entry: &Entry,
        rows: impl Stream<Item = Result<RecordBatch>>,
    ) -> Result<Written> {
        let on_error = if self.settings.skip_refused {
            OnError::Skip
        } else {
            OnError::RefuseAll
        };
        let request = WriteRequest {
            group: &self.group,
            operation: self.operation,
            schema: &self.schema,
            validate: ValidateOptions {
                partial: if self.settings.partial_puts {
                    Partial::Null
                } else {
                    Partial::Refuse
                },
                max_future: self.gateway.max_future,
                ttl: None,
                stored: self.stored,
            },
            on_error,
            stages: self.gateway.stages(&self.group),
            once: caller.idempotency_key.clone().map(|key| Once {
                key: IdempotencyKey {
                    scope: self.group.name().to_owned(),
                    key,
                },
                contents,
            }),
        };
        entry.writes();
        let mut is_there = false;
        let rows = rows.map(|batch| {
            if !is_there {
                // Not before the request has its place: a drop behind that refuses it.
                self.check_there()?;
                is_there = true;
            }
            let batch = renamed(&batch?, &self.schema)?;
            entry.received(batch.num_rows(), value_bytes(&batch));
            Ok(batch)
        });
        let committing = futures::stream::once(async { entry.commits() });
        let committing = committing.filter_map(async |outcome| outcome.err().map(Err));
        let rows = rows.chain(committing);
        let receipt = write(&self.gateway.outbox, request, rows).await?;
        let Answer {
            accepted, refused, ..
        } = receipt.answer;
        let group = self.group.name();
        tracing::info!(group, accepted, refused = refused.rows, "rows were written");
        if on_error == OnError::RefuseAll && !refused.is_empty() {
            return Err(Error::invalid(format!(
                "nothing was written to '{group}': {refused}"
            )));
        }
        Ok(Written { accepted, refused })
    }
}

/// The columns of `batch`, in order, as those of `schema`.
fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match field.data_type() {
        DataType::Null => Arc::new(NullArray::new(batch.num_rows())) as _,
        _ => Arc::clone(column),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
        .map_err(|error| Error::invalid(format!("the rows change their columns: {error}")))
}

/// # Errors
/// `FailedPrecondition` for a session that lives in the past: what it writes would be of now.
pub(crate) fn refuse_clocks(clocks: Clocks) -> Result<()> {
    let setting = match (clocks.system, clocks.valid) {
        (None, None) => return Ok(()),
        (Some(_), _) => "system_time",
        (None, Some(_)) => "valid_time",
    };
    Err(Error::precondition(format!(
        "featureflight.{setting} is set, and a session in the past writes nothing: RESET \
         featureflight.{setting} first"
    )))
}

/// For a statement that says more than is read of it.
pub(crate) fn unheeded(form: &str) -> Error {
    Error::invalid(format!(
        "the statement has a clause that cannot be heeded here: write {form}"
    ))
}

/// The target of a statement as planning sees it.
fn target(
    scope: &Scope,
    state: &SessionState,
    context: &Arc<StatementContext>,
    name: &ast::ObjectName,
    operation: Operation,
) -> Result<Write> {
    let group = featureflight_udf::planner::write_target(state, name, context)?;
    Write::new(scope, group, operation)
}

impl Engine {
    /// Runs the query that makes the rows of a statement and writes them.
    pub(crate) async fn carry_out(
        self: &Arc<Self>,
        caller: &Caller,
        sql: &str,
        parameters: &[ArrayRef],
        mut rows: Pinned,
        write: &Write,
        entry: &Entry,
    ) -> Result<Written> {
        let mut contents = Digester::of_statement(sql);
        contents.values(parameters)?;
        let token = self.core.queries.receive(caller.session.label(), sql);
        token.entry().is_for(Purpose::Part);
        let mut settings = caller.view().settings;
        // Limits of results; these rows are none.
        (settings.max_rows, settings.max_bytes) = (None, None);
        rows.slices = 1;
        let query = Self::pinned(caller, rows, token, settings, std::time::Duration::ZERO);
        let query = Arc::new(query);
        // A repeat of an idempotency key runs nothing.
        let batches = futures::stream::once(async {
            let batches = self.run_slice(&query, None, caller.deadline).await?;
            entry.reads(batches.plan.as_ref());
            Ok::<_, Error>(batches)
        });
        let batches = batches.try_flatten();
        write.carry_out(caller, contents, entry, batches).await
    }
}
