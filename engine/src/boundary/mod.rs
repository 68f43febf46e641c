//! The types that leave the server: those old drivers read. No view types, no dictionaries, no
//! run-ends, no 64-bit offsets; timestamps in microseconds, UTC, or as text where the session wants
//! that; decimals of 128 bits or more.
//!
//! [`announced`] says what a schema becomes, [`Outlet`] makes batches of it: what is announced is
//! what is sent, nullability included.

mod convert;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef};
use featureflight_catalog::table::timestamp_type;
use featureflight_catalog::{Error, Result};

use convert::{ConvertError, convert};

use crate::settings::Settings;

/// Most rows of one batch that leaves.
pub const MAX_BATCH_ROWS: usize = 65_536;

/// `schema` as it is announced and sent.
pub fn announced(schema: &Schema) -> SchemaRef {
    let fields: Fields = schema.fields().iter().map(announced_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// The type values of `data_type` leave as.
///
/// A column that is only null (`SELECT NULL`) leaves as text, which every driver reads. Intervals
/// leave as months, days and nanoseconds, the one form all of them know. Unsigned integers leave in
/// the next wider signed type, since JDBC reads 255 as -1; 64 bits have none and stay.
pub fn announced_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Dictionary(_, values) => announced_type(values),
        DataType::RunEndEncoded(_, values) => announced_type(values.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(announced_field(item)),
        DataType::FixedSizeList(item, size) => {
            DataType::FixedSizeList(announced_field(item), *size)
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(announced_field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(announced_field(entries), *sorted),
        DataType::Timestamp(..) => timestamp_type(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        other => other.clone(),
    }
}

fn announced_field(field: &FieldRef) -> FieldRef {
    let announced = announced_type(field.data_type());
    if announced == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::clone(field).with_data_type(announced))
}

/// An announced `schema` as a session with these settings is sent it.
pub fn sent(schema: SchemaRef, settings: &Settings) -> SchemaRef {
    if !settings.text_timestamps {
        return schema;
    }
    let fields = texts(schema.fields());
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn texts(fields: &Fields) -> Fields {
    fields.iter().map(as_text).collect()
}

fn as_text(field: &FieldRef) -> FieldRef {
    let shown = match field.data_type() {
        DataType::Timestamp(..) => DataType::Utf8,
        DataType::List(item) => DataType::List(as_text(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(as_text(item), *size),
        DataType::Struct(fields) => DataType::Struct(texts(fields)),
        DataType::Map(entries, sorted) => DataType::Map(as_text(entries), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(shown))
}

/// Turns the engine's batches into batches of one announced schema.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    schema: SchemaRef,
}

impl Outlet {
    /// `schema` must be [`announced`], as it is or as it is [`sent`].
    pub(crate) fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }

    /// The rows of `batch`, in order, in batches of at most [`MAX_BATCH_ROWS`] rows that hold no
    /// buffer beyond their own rows' values. Columns go by position.
    ///
    /// # Errors
    /// `InvalidArgument` for a value the announced type cannot hold, `ResourceExhausted` for one
    /// value of more than two gigabytes, `Internal` for a null in a column announced without.
    pub(crate) fn send(&self, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let mut out = Vec::with_capacity(1);
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = MAX_BATCH_ROWS.min(batch.num_rows() - start);
            self.send_rows(&batch.slice(start, rows), &mut out)?;
            start += rows;
        }
        Ok(out)
    }

    fn send_rows(&self, batch: &RecordBatch, out: &mut Vec<RecordBatch>) -> Result<()> {
        match self.convert_batch(batch) {
            Ok(batch) => {
                out.push(batch);
                Ok(())
            }
            Err(ConvertError::TooLarge) if batch.num_rows() > 1 => {
                let half = batch.num_rows() / 2;
                self.send_rows(&batch.slice(0, half), out)?;
                self.send_rows(&batch.slice(half, batch.num_rows() - half), out)
            }
            Err(ConvertError::TooLarge) => Err(Error::new(
                featureflight_catalog::Kind::ResourceExhausted,
                "one row holds more than two gigabytes in one column: select less of it",
            )),
            Err(ConvertError::Arrow(error)) => Err(crate::error::from_arrow(error)),
        }
    }

    fn convert_batch(&self, batch: &RecordBatch) -> Result<RecordBatch, ConvertError> {
        if batch.num_columns() != self.schema.fields().len() {
            return Err(ConvertError::Arrow(arrow::error::ArrowError::SchemaError(
                format!(
                    "{} columns where {} were announced",
                    batch.num_columns(),
                    self.schema.fields().len()
                ),
            )));
        }
        let columns = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| convert(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        let options =
            arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| ConvertError::Arrow(mismatch(&error)))
    }
}

/// Arrow calls a null in a column announced without an invalid argument, but here it is our bug.
fn mismatch(error: &arrow::error::ArrowError) -> arrow::error::ArrowError {
    arrow::error::ArrowError::SchemaError(error.to_string())
}
