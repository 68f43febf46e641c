//! From batches to Flight messages: announced schema first, no compression, about 2 MiB each.

use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::encode::{FlightDataEncoderBuilder, GRPC_TARGET_MAX_FLIGHT_SIZE_BYTES};
use arrow_flight::error::FlightError;
use arrow_flight::{
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, IpcMessage, SchemaAsIpc,
};
use featureflight_catalog::{Error, Result};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use prost::bytes::Bytes;
use prost_types::Timestamp;

use super::status;

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
    let encoder = FlightDataEncoderBuilder::new()
        .with_schema(SchemaRef::clone(&schema))
        .with_max_flight_data_size(GRPC_TARGET_MAX_FLIGHT_SIZE_BYTES)
        .build(
            batches
                .map(|batch| batch.map_err(|error| FlightError::from_external_error(error.into()))),
        );
    if encoder.known_schema().as_ref() != Some(&schema) {
        return Err(Error::internal(format!(
            "the wire cannot carry the announced schema {schema}"
        )));
    }
    Ok(encoder
        .map(|message| message.map_err(|error| status::of_result(&error)))
        .boxed())
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
