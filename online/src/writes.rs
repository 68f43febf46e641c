//! A write request from its first batch to its acknowledgement: validated, appended, and only then
//! answered.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use featureflight_catalog::{Error, Instant, Result};
use futures::{Stream, StreamExt};

use crate::group::WriteGroup;
use crate::outbox::{Answer, Begin, IdempotencyKey, Outbox, Receipt, Stages};
use crate::record::Operation;
use crate::validate::{OnError, ValidateOptions, Validator};

/// One request to write.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    pub group: &'a WriteGroup,
    pub operation: Operation,
    /// Of the batches to come.
    pub schema: &'a Schema,
    pub validate: ValidateOptions,
    pub on_error: OnError,
    /// What accepted rows go through.
    pub stages: Stages,
    pub key: Option<IdempotencyKey>,
}

/// Writes the rows of `batches`. When this returns, what the receipt's answer counts as accepted is
/// durable. With [`OnError::RefuseAll`] a single refused row means that nothing is accepted; the
/// rest is validated still, so that the answer names what else is wrong, and the idempotency key
/// stays free for the corrected request.
///
/// # Errors
/// `FailedPrecondition` for a repeated idempotency key with another number of rows;
/// `InvalidArgument` when the columns cannot fit, and what `batches` fail with; nothing is accepted
/// then. `ResourceExhausted` and `Unavailable` as [`crate::outbox::Draft::push`] and
/// [`crate::outbox::Draft::commit`].
pub async fn write<S>(outbox: &Outbox, request: WriteRequest<'_>, batches: S) -> Result<Receipt>
where
    S: Stream<Item = Result<RecordBatch>>,
{
    let WriteRequest {
        group,
        operation,
        schema,
        validate,
        on_error,
        stages,
        key,
    } = request;
    let mut validator = Validator::new(group, operation, schema, validate)?;
    let mut draft = match key {
        None => Some(outbox.draft(stages)),
        Some(key) => match outbox.begin(stages, &key).await? {
            Begin::Draft(draft) => Some(draft),
            Begin::Repeat(answer) => {
                check_repeat(&answer, batches).await?;
                return Ok(Receipt {
                    answer,
                    accepted_at: None,
                });
            }
        },
    };
    let mut batches = std::pin::pin!(batches);
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if !same_columns(batch.schema_ref(), schema) {
            return Err(Error::invalid(
                "a batch has other columns than the request began with: send one schema",
            ));
        }
        let block = validator.check(&batch, Instant::now())?;
        if on_error == OnError::RefuseAll && !validator.refusals().is_empty() {
            draft = None;
        }
        if let Some(draft) = &mut draft
            && !block.is_empty()
        {
            draft.push(&block).await?;
        }
    }
    let refused = validator.into_refusals();
    match draft {
        Some(draft) => draft.commit(refused).await,
        None => Ok(Receipt {
            answer: Answer {
                accepted: 0,
                refused,
            },
            accepted_at: None,
        }),
    }
}

/// A key stands for one request: another one under it would be lost without a word.
///
/// # Errors
/// `FailedPrecondition` when the rows are not as many as were answered for, and what they fail with.
async fn check_repeat<S>(answer: &Answer, batches: S) -> Result<()>
where
    S: Stream<Item = Result<RecordBatch>>,
{
    let mut rows = 0;
    let mut batches = std::pin::pin!(batches);
    while let Some(batch) = batches.next().await {
        rows += batch?.num_rows() as u64;
    }
    let before = answer.accepted + answer.refused.rows;
    if rows == before {
        return Ok(());
    }
    Err(Error::precondition(format!(
        "the idempotency key was used for a write of {before} rows, this one has {rows}: give every \
         write a key of its own"
    )))
}

/// Nullability may differ: it is often inferred batch by batch.
fn same_columns(one: &Schema, other: &Schema) -> bool {
    let columns = |schema: &Schema| {
        let fields = schema.fields().iter();
        let columns = fields.map(|field| (field.name().clone(), field.data_type().clone()));
        columns.collect::<Vec<_>>()
    };
    one.fields() == other.fields() || columns(one) == columns(other)
}

/// The records of `group` in `store`, as rows of the group's state: features in the definition's
/// order and types, the event time as a timestamp. Identifiers without a record have no row.
///
/// # Errors
/// Those of the store; `DataLoss` for a stored value that is not what the definition says.
pub async fn read_online(
    store: &dyn crate::store::OnlineStore,
    group: &WriteGroup,
    identifiers: &[String],
) -> Result<RecordBatch> {
    let found = store.get(&group.puts, identifiers).await?;
    let found: Vec<_> = found.into_iter().flatten().collect();
    state_rows(group, &found)
}

/// Records of an online store as rows of the group's state.
///
/// # Errors
/// `DataLoss` for a stored value that is not what the definition says.
pub fn state_rows(group: &WriteGroup, found: &[crate::store::StoredRecord]) -> Result<RecordBatch> {
    let columns = (0..group.puts.schema.fields().len())
        .map(|at| crate::record::column(group, at, found))
        .collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(&group.shape.state_schema), columns)
        .map_err(|error| Error::internal("records make no rows").with_source(error))
}
