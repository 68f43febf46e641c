//! Arrow data of a client, checked before Arrow decodes it.
//!
//! arrow-ipc trusts what a message says about itself: a small one can make it allocate a terabyte
//! (the length in front of a compressed buffer), panic (a field without a type), or hold thousands
//! of columns that are all the same bytes. So each message is verified here first; what is decoded
//! is validated in full, and a panic of the decoder ends no more than the call.

#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, SchemaRef,
};
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::{
    Field, Message, MessageHeader, RecordBatch as Rows, Schema, Type, root_as_message_with_opts,
};
use arrow_flight::FlightData;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::width;
use flatbuffers::VerifierOptions;

use super::in_utc;

/// A message's header: 2,500 columns with long names take some hundred kilobytes.
const MAX_HEADER_BYTES: usize = 1 << 20;

/// What a header stands for when what it shares is written out.
const MAX_APPARENT_BYTES: usize = 16 << 20;

/// Columns of one schema: a feature group has at most as many features.
pub(super) const MAX_COLUMNS: usize = 2_500;

/// Columns and all that is nested in them.
const MAX_FIELDS: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// Rows of one message. Those of some types take no bytes.
const MAX_ROWS: i64 = 1 << 24;

/// Elements of a list of fixed size, and bytes of a binary of fixed size.
const MAX_FIXED_SIZE: i32 = 1 << 16;

/// What a message holds.
#[derive(Debug)]
pub(super) enum Decoded {
    Schema(SchemaRef),
    Batch(RecordBatch),
    /// A descriptor alone, or a keep-alive.
    Nothing,
}

/// Decodes the messages of one stream: a schema, then rows, with [timestamps in UTC](in_utc).
/// Uncompressed and without dictionaries.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Names the data in errors: `the bound parameters`.
    what: &'static str,
    /// As it was sent, and in UTC.
    schemas: Option<(SchemaRef, SchemaRef)>,
}

impl Decoder {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            schemas: None,
        }
    }

    /// # Errors
    /// `InvalidArgument` for a message that is not what it says it is, that comes out of its order or
    /// that holds what is not taken; `ResourceExhausted` for one beyond the limits of this module.
    pub(super) fn decode(&mut self, message: &FlightData) -> Result<Decoded> {
        if message.data_header.is_empty() {
            return Ok(Decoded::Nothing);
        }
        let sent = self.schemas.as_ref().map(|(sent, _)| sent);
        let decoded = catch_unwind(AssertUnwindSafe(|| decode(message, sent)));
        let decoded = decoded.unwrap_or_else(|_| Err(malformed("Arrow cannot decode it")));
        let decoded = decoded.map_err(|error| Error {
            message: format!("{} cannot be read: {}", self.what, error.message),
            ..error
        })?;
        match (decoded, &self.schemas) {
            (Decoded::Schema(sent), _) => {
                let schema = in_utc::schema(&sent);
                self.schemas = Some((sent, SchemaRef::clone(&schema)));
                Ok(Decoded::Schema(schema))
            }
            (Decoded::Batch(batch), Some((_, schema))) => {
                in_utc::rows(&batch, schema).map(Decoded::Batch)
            }
            (decoded, _) => Ok(decoded),
        }
    }
}

fn decode(message: &FlightData, schema: Option<&SchemaRef>) -> Result<Decoded> {
    if message.data_header.len() > MAX_HEADER_BYTES {
        return Err(too_much(format!(
            "a header has {} bytes, the limit is {MAX_HEADER_BYTES}",
            message.data_header.len()
        )));
    }
    let options = VerifierOptions {
        max_apparent_size: MAX_APPARENT_BYTES,
        ..VerifierOptions::default()
    };
    let header = root_as_message_with_opts(&options, &message.data_header)
        .map_err(|_| malformed("its header is not an Arrow message"))?;
    match (header.header_type(), schema) {
        (MessageHeader::Schema, None) => {
            let schema = header
                .header_as_schema()
                .ok_or_else(|| malformed("it has no schema"))?;
            check_schema(schema)?;
            let schema = fb_to_schema(schema);
            // A null of a fixed size takes its place all the same, in each row that a join adds.
            width::check_schema(&schema)?;
            width::check_types(&schema)?;
            Ok(Decoded::Schema(schema.into()))
        }
        (MessageHeader::Schema, Some(_)) => Err(malformed("it has two schemas")),
        (MessageHeader::RecordBatch, Some(schema)) => rows(message, header, schema),
        (MessageHeader::RecordBatch, None) => Err(malformed("rows come before the schema")),
        (MessageHeader::DictionaryBatch, _) => Err(dictionary(None)),
        _ => Err(malformed("it is neither a schema nor rows")),
    }
}

fn check_schema(schema: Schema<'_>) -> Result<()> {
    let fields = schema
        .fields()
        .ok_or_else(|| malformed("its schema has no fields"))?;
    if fields.len() > MAX_COLUMNS {
        return Err(too_much(format!(
            "it has {} columns, the limit is {MAX_COLUMNS}",
            fields.len()
        )));
    }
    let mut seen = 0;
    fields
        .iter()
        .try_for_each(|field| check_field(&field, 0, &mut seen))
}

fn check_field(field: &Field<'_>, depth: usize, seen: &mut usize) -> Result<()> {
    *seen += 1;
    if depth > MAX_DEPTH || *seen > MAX_FIELDS {
        return Err(too_much(format!(
            "its types nest more than {MAX_DEPTH} levels deep, or have more than {MAX_FIELDS} fields"
        )));
    }
    if field.dictionary().is_some() {
        return Err(dictionary(field.name()));
    }
    let children = field.children().map_or(0, |children| children.len());
    let wanted = match field.type_type() {
        Type::Null
        | Type::Int
        | Type::FloatingPoint
        | Type::Binary
        | Type::Utf8
        | Type::Bool
        | Type::Decimal
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::Interval
        | Type::Duration
        | Type::LargeBinary
        | Type::LargeUtf8
        | Type::BinaryView
        | Type::Utf8View => 0..=0,
        Type::FixedSizeBinary => {
            let size = field.type_as_fixed_size_binary().map(|t| t.byteWidth());
            check_fixed_size(size)?;
            0..=0
        }
        Type::FixedSizeList => {
            check_fixed_size(field.type_as_fixed_size_list().map(|t| t.listSize()))?;
            1..=1
        }
        Type::List | Type::LargeList | Type::Map => 1..=1,
        Type::Struct_ => 0..=MAX_FIELDS,
        other => {
            return Err(malformed(&format!(
                "{} has a type this server does not take ({}): send it as another",
                column(field.name()),
                other.variant_name().unwrap_or("unknown"),
            )));
        }
    };
    if !wanted.contains(&children) {
        return Err(malformed(
            "a field's type does not fit what is nested in it",
        ));
    }
    field
        .children()
        .iter()
        .flatten()
        .try_for_each(|child| check_field(&child, depth + 1, seen))
}

fn check_fixed_size(size: Option<i32>) -> Result<()> {
    match size {
        Some(size) if (0..=MAX_FIXED_SIZE).contains(&size) => Ok(()),
        _ => Err(too_much(format!(
            "a type has a fixed size that is not between 0 and {MAX_FIXED_SIZE}"
        ))),
    }
}

fn rows(message: &FlightData, header: Message<'_>, schema: &SchemaRef) -> Result<Decoded> {
    let batch = header
        .header_as_record_batch()
        .ok_or_else(|| malformed("it has no rows"))?;
    check_rows(batch, message.data_body.len())?;
    let rows = read_record_batch(
        &Buffer::from(message.data_body.as_ref()),
        batch,
        SchemaRef::clone(schema),
        &HashMap::new(),
        None,
        &header.version(),
    );
    let rows = rows.map_err(|error| malformed(&error.to_string()))?;
    rows.columns().iter().try_for_each(check_decimals)?;
    Ok(Decoded::Batch(rows))
}

/// Arrow does not look whether decimals have the digits their type has. At any depth, since queries
/// take out what is nested.
fn check_decimals(column: &ArrayRef) -> Result<()> {
    let checked = match *column.data_type() {
        DataType::Decimal32(digits, _) => {
            let column = column.as_primitive::<Decimal32Type>();
            column.validate_decimal_precision(digits)
        }
        DataType::Decimal64(digits, _) => {
            let column = column.as_primitive::<Decimal64Type>();
            column.validate_decimal_precision(digits)
        }
        DataType::Decimal128(digits, _) => {
            let column = column.as_primitive::<Decimal128Type>();
            column.validate_decimal_precision(digits)
        }
        DataType::Decimal256(digits, _) => {
            let column = column.as_primitive::<Decimal256Type>();
            column.validate_decimal_precision(digits)
        }
        ref nested if nested.is_nested() => {
            let data = column.to_data();
            let mut inner = data.child_data().iter().cloned().map(make_array);
            return inner.try_for_each(|inner| check_decimals(&inner));
        }
        _ => Ok(()),
    };
    checked.map_err(|error| malformed(&error.to_string()))
}

fn check_rows(batch: Rows<'_>, body: usize) -> Result<()> {
    if batch.compression().is_some() {
        return Err(malformed(
            "it is compressed, and a compressed message may be thousands of times larger inside; \
             send it uncompressed",
        ));
    }
    let many = |length: i64| !(0..=MAX_ROWS).contains(&length);
    let nodes = batch.nodes();
    let lengths = nodes.iter().flatten().map(arrow::ipc::FieldNode::length);
    if many(batch.length()) || lengths.into_iter().any(many) {
        return Err(too_much(format!(
            "one message holds at most {MAX_ROWS} rows or elements; send several"
        )));
    }
    let mut total = 0_usize;
    for buffer in batch.buffers().iter().flatten() {
        let (Ok(start), Ok(length)) = (
            usize::try_from(buffer.offset()),
            usize::try_from(buffer.length()),
        ) else {
            return Err(malformed("a buffer has a negative place"));
        };
        if start.checked_add(length).is_none_or(|end| end > body) {
            return Err(malformed("a buffer lies outside of it"));
        }
        total = total.saturating_add(length);
    }
    // Buffers that overlap hold more than was sent.
    if total > body {
        return Err(malformed("its buffers overlap"));
    }
    let variadic = batch.variadicBufferCounts();
    let mut counts = variadic.iter().flatten();
    if counts.any(|count| !(0..=MAX_ROWS).contains(&count)) {
        return Err(malformed("a count of buffers is out of range"));
    }
    Ok(())
}

fn dictionary(name: Option<&str>) -> Error {
    malformed(&format!(
        "{} is dictionary-encoded; send plain columns (of pandas, convert categories to text)",
        column(name)
    ))
}

fn column(name: Option<&str>) -> String {
    name.map_or_else(|| "a column".to_owned(), |name| format!("column `{name}`"))
}

fn malformed(why: &str) -> Error {
    Error::invalid(why)
}

fn too_much(why: String) -> Error {
    Error::new(Kind::ResourceExhausted, why)
}
