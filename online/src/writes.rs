//! A write request from its first batch to its acknowledgement: validated, appended, and only then
//! answered.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use featureflight_catalog::{Error, Instant, Result};
use futures::{Stream, StreamExt};

use crate::contents::Digester;
use crate::group::WriteGroup;
use crate::outbox::{Answer, Begin, IdempotencyKey, Outbox, Receipt, Stages};
use crate::record::Operation;
use crate::validate::{OnError, ValidateOptions, Validator};

/// Rows that are validated at once.
const PIECE_ROWS: usize = 8_192;

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
    pub once: Option<Once>,
}

/// That a request has one effect, however often it is made.
#[derive(Debug)]
pub struct Once {
    pub key: IdempotencyKey,
    /// What else would be another request.
    pub contents: Digester,
}

/// Writes the rows of `batches`. When this returns, what the receipt's answer counts as accepted is
/// durable. With [`OnError::RefuseAll`] a single refused row means that nothing is accepted; the
/// rest is validated still, so that the answer names what else is wrong, and the idempotency key
/// stays free for the corrected request. `batches` is asked for nothing before the request has its
/// place in the outbox, behind which [groups are dropped](crate::erase).
///
/// # Errors
/// `FailedPrecondition` for an idempotency key of another request;
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
        once,
    } = request;
    let asked = format!("{operation:?} {on_error:?} {:?}", validate.partial);
    let mut validator = Validator::new(group, operation, schema, validate)?;
    let (mut draft, mut contents) = match once {
        None => (Some(outbox.draft(stages)), None),
        Some(Once { key, mut contents }) => {
            contents.text(&asked);
            if contents.is_of_rows() {
                contents.columns(schema)?;
            }
            match outbox.begin(stages, &key).await? {
                Begin::Draft(draft) => (Some(draft), Some(contents)),
                Begin::Repeat(answer) => {
                    outbox.figures().repeated.inc();
                    check_repeat(&answer, contents, batches).await?;
                    return Ok(Receipt {
                        answer,
                        accepted_at: None,
                    });
                }
            }
        }
    };
    let mut batches = std::pin::pin!(in_pieces(batches));
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        if !same_columns(batch.schema_ref(), schema) {
            return Err(Error::invalid(
                "a batch has other columns than the request began with: send one schema",
            ));
        }
        if let Some(contents) = contents.as_mut().filter(|contents| contents.is_of_rows()) {
            contents.rows(&batch)?;
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
    outbox.figures().refused_rows.inc_by(refused.rows);
    match draft {
        Some(mut draft) => {
            if let Some(contents) = contents {
                draft.holds(contents.finish());
            }
            draft.commit(refused).await
        }
        None => Ok(Receipt {
            answer: Answer {
                refused,
                ..Answer::default()
            },
            accepted_at: None,
        }),
    }
}

/// The rows of `batches`, no batch of more than [`PIECE_ROWS`]: rows may take no bytes until they
/// have the types of their features. Rows may all be there already, so others get their turn behind
/// each piece, and whoever gave the request up ends it there.
fn in_pieces<S>(batches: S) -> impl Stream<Item = Result<RecordBatch>>
where
    S: Stream<Item = Result<RecordBatch>>,
{
    let pieces = batches.flat_map(|batch| {
        let (batch, failed) = match batch {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(Err(error))),
        };
        let pieces = batch.into_iter().flat_map(|batch| {
            let rows = batch.num_rows();
            let starts = (0..rows.max(1)).step_by(PIECE_ROWS);
            starts.map(move |start| Ok(batch.slice(start, PIECE_ROWS.min(rows - start))))
        });
        futures::stream::iter(pieces.chain(failed))
    });
    pieces.then(async |piece| {
        tokio::task::yield_now().await;
        piece
    })
}

/// A key stands for one request: another one under it would be lost without a word.
///
/// # Errors
/// `FailedPrecondition` when it is not what was answered before, and what the rows fail with.
async fn check_repeat<S>(answer: &Answer, mut contents: Digester, batches: S) -> Result<()>
where
    S: Stream<Item = Result<RecordBatch>>,
{
    let mut rows = 0;
    let is_of_rows = contents.is_of_rows();
    if is_of_rows || answer.contents.is_none() {
        let mut batches = std::pin::pin!(in_pieces(batches));
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if is_of_rows {
                contents.rows(&batch)?;
            }
        }
    }
    let contents = contents.finish();
    let known = answer.contents.as_ref();
    let same = known.and_then(|before| before.same(&contents));
    // What another version answered is known by its rows alone.
    if same.unwrap_or_else(|| rows == answer.accepted + answer.refused.rows) {
        return Ok(());
    }
    Err(Error::precondition(
        "the idempotency key was used for another write: give every write a key of its own, and \
         repeat one unchanged",
    ))
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
