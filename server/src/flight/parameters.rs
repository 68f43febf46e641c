//! Parameters bound by `DoPut`: one row of Arrow data, or several for an update.

#[cfg(test)]
mod tests;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::FlightData;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Kind, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::bytes::Bytes;

use super::ipc_check::{Decoded, Decoder};

/// All parameters of one statement together, and all rows of an update.
const MAX_BYTES: usize = 1 << 20;
const MAX_ROWS_BYTES: usize = 256 << 20;

/// The row a client sends, or `None` when it sends no row.
///
/// # Errors
/// `InvalidArgument` for more than one row or data that is not what it says it is,
/// `ResourceExhausted` for too much of it.
pub(super) async fn receive(
    messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Option<RecordBatch>> {
    let mut rows = receive_within(messages, MAX_BYTES).await?.into_iter();
    let row = rows.next();
    if rows.next().is_some() || row.as_ref().is_some_and(|row| row.num_rows() != 1) {
        return Err(Error::invalid(
            "more than one row of parameters is bound; a query executes with one row at a time",
        ));
    }
    Ok(row)
}

/// The rows a client sends; no batch of them is empty.
///
/// # Errors
/// As [`receive`], for any number of rows.
pub(super) async fn receive_rows(
    messages: BoxStream<'static, Result<FlightData>>,
) -> Result<Vec<RecordBatch>> {
    receive_within(messages, MAX_ROWS_BYTES).await
}

async fn receive_within(
    mut messages: BoxStream<'static, Result<FlightData>>,
    limit: usize,
) -> Result<Vec<RecordBatch>> {
    let mut decoder = Decoder::new("the bound parameters");
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        bytes += message.data_header.len() + message.data_body.len();
        if bytes > limit {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the parameters of a statement may take at most {limit} bytes: upload the rows \
                     instead"
                ),
            ));
        }
        match decoder.decode(&message)? {
            Decoded::Schema(_) | Decoded::Nothing => {}
            Decoded::Batch(batch) if batch.num_rows() == 0 => {}
            Decoded::Batch(batch) => rows.push(batch),
        }
    }
    Ok(rows)
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
    values(&read_row(bytes)?)
}

/// The row that [`write`] wrote.
///
/// # Errors
/// As [`read`].
pub(super) fn read_row(bytes: &[u8]) -> Result<RecordBatch> {
    let failed = |error| Error::internal(format!("cannot read kept parameters: {error}"));
    let mut reader = StreamReader::try_new(bytes, None).map_err(failed)?;
    let row = reader
        .next()
        .ok_or_else(|| Error::internal("kept parameters without a row"))?;
    row.map_err(failed)
}
