//! Arrow data of a client, checked before Arrow decodes it.
//!
//! arrow-ipc trusts what a message says about itself: a small one can make it allocate a terabyte
//! (the length in front of a compressed buffer) or panic (a field without a type). So each message
//! is verified here first, and a panic of the decoder ends no more than the call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::{Field, MessageHeader, Type, root_as_message};
use arrow_flight::FlightData;
use featureflight_catalog::{Error, Result};

const MAX_COLUMNS: usize = 2_500;
const MAX_DEPTH: usize = 16;

/// What a message holds.
#[derive(Debug)]
pub(super) enum Decoded {
    Schema(SchemaRef),
    Batch(RecordBatch),
    /// A descriptor alone, or a keep-alive.
    Nothing,
}

/// Decodes the messages of one stream: a schema, then rows. Uncompressed and without dictionaries.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Names the data in errors: `the bound parameters`.
    what: &'static str,
    schema: Option<SchemaRef>,
}

impl Decoder {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, schema: None }
    }

    /// # Errors
    /// `InvalidArgument` for a message that is not what it says it is, or comes out of its order.
    pub(super) fn decode(&mut self, message: &FlightData) -> Result<Decoded> {
        if message.data_header.is_empty() {
            return Ok(Decoded::Nothing);
        }
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(message, self.schema.as_ref())));
        let decoded = decoded.unwrap_or_else(|_| Err(malformed("Arrow cannot decode it")));
        let decoded = decoded.map_err(|error| Error {
            message: format!("{} cannot be read: {}", self.what, error.message),
            ..error
        })?;
        if let Decoded::Schema(schema) = &decoded {
            self.schema = Some(SchemaRef::clone(schema));
        }
        Ok(decoded)
    }
}

fn decode(message: &FlightData, schema: Option<&SchemaRef>) -> Result<Decoded> {
    let header = root_as_message(&message.data_header)
        .map_err(|_| malformed("its header is not an Arrow message"))?;
    match header.header_type() {
        MessageHeader::Schema if schema.is_some() => Err(malformed("it has two schemas")),
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
                return Err(malformed("it is compressed; send it uncompressed"));
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
    Error::invalid(why)
}
