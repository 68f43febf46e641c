//! Parameters bound by `DoPut`: rows of Arrow data.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow_flight::FlightData;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::Kept;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::bytes::Bytes;

use super::ipc_check::{Decoded, Decoder};

/// All rows of a query together, which its handle holds, and all rows of an update.
const MAX_BYTES: usize = 1 << 20;
const MAX_ROWS_BYTES: usize = 256 << 20;

/// Rows bound to one statement: those of some types take no bytes. A record has an identifier and a
/// time, of which so many fill what may be sent.
const MAX_ROWS: usize = 1 << 24;

/// Bytes of memory that columns take for each byte of a header that describes them, at most.
const BYTES_PER_HEADER_BYTE: usize = 8;

/// The rows a client sends for a query: no batch of them is empty, but for a single one where there
/// are columns and no rows. None where nothing is bound.
///
/// # Errors
/// `InvalidArgument` for data that is not what it says it is, `ResourceExhausted` for too much of
/// it, and when the server has no memory for it, which is taken from `kept`.
pub(super) async fn receive(
    messages: BoxStream<'static, Result<FlightData>>,
    kept: &Kept,
) -> Result<Vec<RecordBatch>> {
    receive_within(messages, MAX_BYTES, kept).await
}

/// As [`receive`], for an update.
pub(super) async fn receive_rows(
    messages: BoxStream<'static, Result<FlightData>>,
    kept: &Kept,
) -> Result<Vec<RecordBatch>> {
    receive_within(messages, MAX_ROWS_BYTES, kept).await
}

async fn receive_within(
    mut messages: BoxStream<'static, Result<FlightData>>,
    limit: usize,
    kept: &Kept,
) -> Result<Vec<RecordBatch>> {
    let mut decoder = Decoder::new("the bound parameters");
    let mut rows = Vec::new();
    let mut columns = None;
    let (mut bytes, mut number) = (0, 0);
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
            Decoded::Schema(schema) => columns = Some(schema),
            Decoded::Nothing => {}
            Decoded::Batch(batch) if batch.num_rows() == 0 => {}
            Decoded::Batch(batch) => {
                number += batch.num_rows();
                if number > MAX_ROWS {
                    return Err(Error::new(
                        Kind::ResourceExhausted,
                        format!(
                            "a statement takes at most {MAX_ROWS} bound rows: bind them in parts"
                        ),
                    ));
                }
                let columns = message.data_header.len() * BYTES_PER_HEADER_BYTE;
                kept.grow(message.data_body.len() + columns)?;
                rows.push(batch);
            }
        }
    }
    let columns = columns.filter(|schema| rows.is_empty() && !schema.fields().is_empty());
    rows.extend(columns.map(RecordBatch::new_empty));
    Ok(rows)
}

/// Rows as an Arrow IPC stream.
///
/// # Errors
/// `Internal` when Arrow cannot write them.
pub(super) fn write(rows: &[RecordBatch]) -> Result<Bytes> {
    let failed = |error| Error::internal(format!("cannot keep the parameters: {error}"));
    let schema = rows
        .first()
        .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
    for batch in rows {
        writer.write(batch).map_err(failed)?;
    }
    Ok(writer.into_inner().map_err(failed)?.into())
}

/// The rows that [`write`] wrote.
///
/// # Errors
/// `Internal` for anything else: handles are signed.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let failed = |error| Error::internal(format!("cannot read kept parameters: {error}"));
    let reader = StreamReader::try_new(bytes, None).map_err(failed)?;
    reader.map(|batch| batch.map_err(failed)).collect()
}
