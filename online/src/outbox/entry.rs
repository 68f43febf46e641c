//! Entries: what a frame's payload says. A JSON head of known length, then, for layouts and rows,
//! Arrow IPC.
//!
//! | kind | says |
//! |---|---|
//! | layout | the columns of rows that follow in this segment |
//! | rows | accepted rows of a request that is not committed yet |
//! | commit | the request counts, from now on and in this place of the order |
//! | abort | the request will not be committed |

use std::io::Cursor;
use std::io::Read;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use featureflight_catalog::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Stages;
use super::answer::{Answer, IdempotencyKey};
use crate::group::{Layout, Ttl};
use crate::record::{Block, Operation};

pub(super) const LAYOUT: u8 = 1;
pub(super) const ROWS: u8 = 2;
pub(super) const COMMIT: u8 = 3;
pub(super) const ABORT: u8 = 4;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayoutHead {
    /// Names the layout within its segment.
    pub(super) layout: u32,
    pub(super) group: String,
    pub(super) record_identifier: usize,
    pub(super) event_time: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RowsHead {
    pub(super) request: u64,
    /// Counts the blocks of the request.
    pub(super) part: u32,
    pub(super) layout: u32,
    pub(super) operation: Operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ttl: Option<Ttl>,
    pub(super) rows: usize,
    pub(super) stages: Stages,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CommitHead {
    pub(super) request: u64,
    pub(super) sequence: u64,
    /// Microseconds since the epoch.
    pub(super) accepted_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<IdempotencyKey>,
    pub(super) answer: Answer,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AbortHead {
    pub(super) request: u64,
}

pub(super) fn encode(head: &impl Serialize, body: &[u8]) -> Result<Vec<u8>> {
    let head = serde_json::to_vec(head)
        .map_err(|error| Error::internal("an entry has no JSON").with_source(error))?;
    let mut payload = Vec::with_capacity(4 + head.len() + body.len());
    payload.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
    payload.extend_from_slice(&head);
    payload.extend_from_slice(body);
    Ok(payload)
}

/// Head and body of a payload. What does not decode although its checksum is right was written by
/// another version.
pub(super) fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<(T, &[u8])> {
    let foreign = || Error::data_loss("an entry of the outbox is not of a form this version knows");
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(foreign)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (head, body) = rest.split_at_checked(length).ok_or_else(foreign)?;
    let head = serde_json::from_slice(head).map_err(|error| foreign().with_source(error))?;
    Ok((head, body))
}

/// The IPC message of a schema.
pub(super) fn encode_schema(schema: &Schema) -> Result<Vec<u8>> {
    Ok(writer(schema)?.get_ref().clone())
}

/// The IPC messages of rows, without their schema's.
pub(super) fn encode_rows(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = writer(rows.schema_ref())?;
    let schema = writer.get_ref().len();
    writer.write(rows).map_err(ipc)?;
    Ok(writer.get_ref().get(schema..).unwrap_or_default().to_vec())
}

fn writer(schema: &Schema) -> Result<StreamWriter<Vec<u8>>> {
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).map_err(ipc)?;
    StreamWriter::try_new_with_options(Vec::new(), schema, options).map_err(ipc)
}

fn ipc(error: arrow::error::ArrowError) -> Error {
    Error::internal("rows cannot be encoded for the outbox").with_source(error)
}

pub(super) fn decode_layout(payload: &[u8]) -> Result<(u32, Layout)> {
    let (head, body) = decode::<LayoutHead>(payload)?;
    let LayoutHead {
        layout,
        group,
        record_identifier,
        event_time,
    } = head;
    let schema = StreamReader::try_new(body, None)
        .map_err(|error| undecodable(&group).with_source(error))?
        .schema();
    let layout_of_rows = Layout {
        group,
        record_identifier,
        event_time,
        schema,
    };
    Ok((layout, layout_of_rows))
}

/// The rows of a rows entry.
pub(super) fn decode_rows(payload: &[u8], layout: &Arc<Layout>) -> Result<Block> {
    let (head, body) = decode::<RowsHead>(payload)?;
    block(&head, body, layout)
}

pub(super) fn block(head: &RowsHead, body: &[u8], layout: &Arc<Layout>) -> Result<Block> {
    let schema = encode_schema(&layout.schema)?;
    let broken = || undecodable(&layout.group);
    let mut reader = StreamReader::try_new(Cursor::new(schema).chain(body), None)
        .map_err(|error| broken().with_source(error))?;
    let rows = match reader.next() {
        Some(rows) => rows.map_err(|error| broken().with_source(error))?,
        None => return Err(broken()),
    };
    if rows.num_rows() != head.rows {
        return Err(broken());
    }
    Block::new(Arc::clone(layout), head.operation, head.ttl, rows)
}

fn undecodable(group: &str) -> Error {
    Error::data_loss(format!(
        "rows of feature group '{group}' in the outbox cannot be decoded"
    ))
}
