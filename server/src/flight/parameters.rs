//! Parameters bound by `DoPut`: one row of Arrow data, checked before Arrow decodes it.
//!
//! arrow-ipc trusts what a message says about itself: a small one can make it allocate a terabyte
//! (the length in front of a compressed buffer) or panic (a field without a type). So each message
//! is verified here first, and decoding cannot end more than this call.

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{StreamReader, read_record_batch};
use arrow::ipc::writer::StreamWriter;
use arrow::ipc::{Field, MessageHeader, Type, root_as_message};
use arrow_flight::FlightData;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::bytes::Bytes;

/// All parameters of one statement together.
const MAX_BYTES: usize = 1 << 20;
const MAX_COLUMNS: usize = 2_500;
const MAX_DEPTH: usize = 16;

/// The row a client sends, or `None` when it sends no row.
///
/// # Errors
/// `InvalidArgument` for more than one row or data that is not what it says it is,
/// `ResourceExhausted` for too much of it.
pub(super) async fn receive(
    mut messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Option<RecordBatch>> {
    let mut schema: Option<SchemaRef> = None;
    let mut row: Option<RecordBatch> = None;
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        bytes += message.data_header.len() + message.data_body.len();
        if bytes > MAX_BYTES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("the parameters of a statement may take at most {MAX_BYTES} bytes"),
            ));
        }
        // A descriptor alone, or a keep-alive.
        if message.data_header.is_empty() {
            continue;
        }
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(&message, schema.as_ref())));
        match decoded.unwrap_or_else(|_| Err(malformed("Arrow cannot decode it")))? {
            Decoded::Schema(found) if schema.is_none() => schema = Some(found),
            Decoded::Schema(_) => return Err(malformed("it has two schemas")),
            Decoded::Batch(batch) if batch.num_rows() == 0 => {}
            Decoded::Batch(batch) if row.is_none() && batch.num_rows() == 1 => row = Some(batch),
            Decoded::Batch(_) => {
                return Err(Error::invalid(
                    "more than one row of parameters is bound; a statement executes with one row \
                     at a time",
                ));
            }
        }
    }
    Ok(row)
}

enum Decoded {
    Schema(SchemaRef),
    Batch(RecordBatch),
}

fn decode(message: &FlightData, schema: Option<&SchemaRef>) -> Result<Decoded> {
    let header = root_as_message(&message.data_header)
        .map_err(|_| malformed("its header is not an Arrow message"))?;
    match header.header_type() {
        MessageHeader::Schema => {
            let schema = header
                .header_as_schema()
                .ok_or_else(|| malformed("it has no schema"))?;
            let fields = schema
                .fields()
                .ok_or_else(|| malformed("its schema has no fields"))?;
            if fields.len() > MAX_COLUMNS {
                return Err(malformed("it has too many columns"));
            }
            fields.iter().try_for_each(|field| check_field(&field, 0))?;
            Ok(Decoded::Schema(fb_to_schema(schema).into()))
        }
        MessageHeader::RecordBatch => {
            let schema = schema.ok_or_else(|| malformed("rows come before the schema"))?;
            let batch = header
                .header_as_record_batch()
                .ok_or_else(|| malformed("it has no rows"))?;
            if batch.compression().is_some() {
                return Err(malformed("it is compressed; send parameters uncompressed"));
            }
            let body = message.data_body.len();
            let inside = batch.buffers().is_none_or(|buffers| {
                buffers.iter().all(|buffer| {
                    let end = buffer.offset().checked_add(buffer.length());
                    buffer.offset() >= 0
                        && buffer.length() >= 0
                        && end
                            .and_then(|end| usize::try_from(end).ok())
                            .is_some_and(|e| e <= body)
                })
            });
            if !inside || batch.length() < 0 {
                return Err(malformed("its buffers lie outside of it"));
            }
            read_record_batch(
                &Buffer::from(message.data_body.as_ref()),
                batch,
                SchemaRef::clone(schema),
                &std::collections::HashMap::new(),
                None,
                &header.version(),
            )
            .map(Decoded::Batch)
            .map_err(|error| malformed(&error.to_string()))
        }
        MessageHeader::DictionaryBatch => {
            Err(malformed("it is dictionary-encoded; send plain columns"))
        }
        _ => Err(malformed("it is neither a schema nor rows")),
    }
}

fn check_field(field: &Field<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(malformed("its types nest too deeply"));
    }
    if field.type_type() == Type::NONE || field.type_type().variant_name().is_none() {
        return Err(malformed("a field has no type Arrow knows"));
    }
    if field.dictionary().is_some() {
        return Err(malformed("it is dictionary-encoded; send plain columns"));
    }
    let children = field.children();
    children
        .iter()
        .flatten()
        .try_for_each(|child| check_field(&child, depth + 1))
}

fn malformed(why: &str) -> Error {
    Error::invalid(format!("the bound parameters cannot be read: {why}"))
}

/// One value per column of a one-row batch.
///
/// # Errors
/// `InvalidArgument` for a type that cannot be a parameter.
pub(super) fn values(row: &RecordBatch) -> Result<Vec<ScalarValue>> {
    row.columns()
        .iter()
        .map(|column| {
            ScalarValue::try_from_array(column, 0).map_err(|error| {
                Error::invalid(format!(
                    "a parameter of type {} cannot be bound",
                    column.data_type()
                ))
                .with_source(error)
            })
        })
        .collect()
}

/// A row as an Arrow IPC stream.
///
/// # Errors
/// `Internal` when Arrow cannot write it.
pub(super) fn write(row: &RecordBatch) -> Result<Bytes> {
    let failed = |error| Error::internal(format!("cannot keep the parameters: {error}"));
    let mut writer = StreamWriter::try_new(Vec::new(), &row.schema()).map_err(failed)?;
    writer.write(row).map_err(failed)?;
    Ok(writer.into_inner().map_err(failed)?.into())
}

/// The values of a row that [`write`] wrote.
///
/// # Errors
/// `Internal` for anything else: handles are signed.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<ScalarValue>> {
    let failed = |error| Error::internal(format!("cannot read kept parameters: {error}"));
    let mut reader = StreamReader::try_new(bytes, None).map_err(failed)?;
    let row = reader
        .next()
        .ok_or_else(|| Error::internal("kept parameters without a row"))?;
    values(&row.map_err(failed)?)
}
