//! From batches to Flight messages: announced schema first, no compression, about 1 MiB each, made
//! one at a time.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc,
};
use featureflight_catalog::{Error, Result, value_bytes};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use prost::bytes::Bytes;
use prost_types::Timestamp;

use super::status;

/// What a message carries, give or take a half: gRPC clients accept 4 MiB if they are not told
/// otherwise.
const MESSAGE_BYTES: usize = 1 << 20;

/// A stream of messages on its way out.
pub(super) type Messages = BoxStream<'static, Result<FlightData>>;

/// Encodes `batches`, whose types and nullability are `schema`'s; metadata may differ, the sent one
/// is `schema`'s. Dropping the result drops `batches`.
///
/// # Errors
/// `Internal` when the encoder would send another schema than the announced one.
pub(super) fn messages(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> Result<Messages> {
    let pieces = batches
        .map_ok(|batch| futures::stream::iter(Pieces(vec![batch]).map(Ok)))
        .try_flatten()
        .map_err(|error: Error| FlightError::from_external_error(error.into()));
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(SchemaRef::clone(&schema))
        // Its own way encodes all pieces of a batch before the first is sent, and measures the
        // buffers behind a slice instead of the slice.
        .with_max_flight_data_size(usize::MAX)
        .build(pieces);
    if encoder.known_schema().as_ref() != Some(&schema) {
        return Err(Error::internal(format!(
            "the wire cannot carry the announced schema {schema}"
        )));
    }
    Ok(encoder
        .map(|message| message.map_err(|error| status::of_result(&error)))
        .boxed())
}

/// The rows of batches, the last batch first, in slices of about one message each. A row by itself
/// may be larger.
struct Pieces(Vec<RecordBatch>);

impl Iterator for Pieces {
    type Item = RecordBatch;

    fn next(&mut self) -> Option<RecordBatch> {
        loop {
            let batch = self.0.pop()?;
            let (rows, bytes) = (batch.num_rows(), value_bytes(&batch));
            if rows <= 1 || bytes <= MESSAGE_BYTES + MESSAGE_BYTES / 2 {
                return Some(batch);
            }
            // Rows differ in size, so each piece is measured in its turn.
            let of_each = rows.div_ceil(bytes.div_ceil(MESSAGE_BYTES).min(rows));
            let starts = (0..rows).step_by(of_each).rev();
            self.0
                .extend(starts.map(|start| batch.slice(start, of_each.min(rows - start))));
        }
    }
}

/// One batch.
///
/// # Errors
/// Those of [`messages`].
pub(super) fn single(batch: RecordBatch) -> Result<Messages> {
    messages(batch.schema(), futures::stream::iter([Ok(batch)]))
}

/// An empty batch as one message.
///
/// # Errors
/// `Internal` when Arrow cannot write it.
pub(super) fn empty_batch(schema: &SchemaRef) -> Result<FlightData> {
    let batch = RecordBatch::new_empty(SchemaRef::clone(schema));
    let options = IpcWriteOptions::default();
    let (_, encoded) = IpcDataGenerator::default()
        .encode(
            &batch,
            &mut DictionaryTracker::new(false),
            &options,
            &mut IpcWriteContext::default(),
        )
        .map_err(|error| unwritable(&error))?;
    Ok(encoded.into())
}

/// Endpoints in their order, of unknown length.
///
/// # Errors
/// `Internal` when the schema cannot be written.
pub(super) fn info(
    schema: &Schema,
    endpoints: Vec<FlightEndpoint>,
    descriptor: FlightDescriptor,
    app_metadata: impl Into<Bytes>,
) -> Result<FlightInfo> {
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| unwritable(&error))?;
    // Slices have no order among them.
    let ordered = endpoints.len() <= 1;
    let info = endpoints.into_iter().fold(info, FlightInfo::with_endpoint);
    Ok(info
        .with_descriptor(descriptor)
        .with_ordered(ordered)
        .with_app_metadata(app_metadata))
}

/// Protobuf's form of a moment, in whole seconds.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

/// A schema as an encapsulated IPC message, the form that actions and `GetTables` carry.
///
/// # Errors
/// `Internal` when the schema cannot be written.
pub(super) fn schema_message(schema: &Schema) -> Result<Bytes> {
    let options = IpcWriteOptions::default();
    let IpcMessage(bytes) = SchemaAsIpc::new(schema, &options)
        .try_into()
        .map_err(|error| unwritable(&error))?;
    Ok(bytes)
}

fn unwritable(error: &arrow::error::ArrowError) -> Error {
    Error::internal(format!("cannot write a schema: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow_flight::decode::FlightRecordBatchStream;

    use super::*;

    async fn sent(batch: &RecordBatch) -> Vec<FlightData> {
        let mut sent: Vec<_> = single(batch.clone())
            .expect("a wire schema")
            .try_collect()
            .await
            .expect("no error");
        sent.remove(0);
        sent
    }

    #[tokio::test]
    async fn messages_are_small_and_lose_nothing() {
        let rows = 100_000;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        // The last thousandth has nearly all bytes.
        let texts = (0..rows).map(|row| "x".repeat(if row < rows - 100 { 1 } else { 200_000 }));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let even = RecordBatch::try_from_iter([("n", Arc::clone(&numbers))]).expect("a column");
        assert_eq!(sent(&even).await.len(), 1);
        let batch = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).expect("columns");
        // A slice of a buffer is measured by itself.
        let batch = batch.slice(1, 99_950);
        let messages = sent(&batch).await;
        let sizes: Vec<_> = messages.iter().map(|m| m.data_body.len()).collect();
        assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
        let data = single(batch.clone()).expect("a wire schema");
        let data = data.map_err(|error| FlightError::from_external_error(error.into()));
        let read: Vec<_> = FlightRecordBatchStream::new_from_flight_data(data)
            .try_collect()
            .await
            .expect("batches");
        let read = arrow::compute::concat_batches(&batch.schema(), &read).expect("one schema");
        assert_eq!(read, batch);
    }

    #[tokio::test]
    async fn one_row_is_one_message_and_no_row_is_none() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(10 << 20)]));
        let batch = RecordBatch::try_from_iter([("t", text)]).expect("a column");
        assert_eq!(sent(&batch).await.len(), 1);
        assert!(sent(&batch.slice(0, 0)).await.is_empty());
    }
}
