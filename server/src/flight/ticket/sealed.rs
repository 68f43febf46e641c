//! What a ticket holds under its seal. Clients keep tickets, and servers of two versions may see the
//! same one: the bytes are a format, fixed by a test.
//!
//! Handle (16 bytes), expiry (8), then nothing, a slice (4) or an answer (`A` and an IPC stream).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::{HANDLE_BYTES, Handle};

/// No value has 4 bytes with it, which a slice has.
const ANSWER: u8 = b'A';

/// Of an answer's texts, the reasons for which rows were refused: tickets have to stay small.
const MAX_TEXT_BYTES: usize = 3_000;

/// Of a whole answer; a longer one is not sealed.
const MAX_ANSWER_BYTES: usize = 4_096;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sealed {
    pub(super) handle: Handle,
    /// Unix seconds.
    pub(super) expiry: u64,
    pub(super) part: Part,
}

/// Which rows of the statement a ticket is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Whole,
    Slice(usize),
    /// All of them, here: those of a statement that had its effect, which must not be sent again
    /// only because the server has forgotten what it answered.
    Answer(RecordBatch),
}

impl Part {
    /// `answer` as it can be sealed: long texts end early. The whole where that is still too long.
    pub(super) fn answer(answer: &RecordBatch) -> Self {
        let short = answer.columns().iter().map(shortened).collect();
        let short = RecordBatch::try_new(answer.schema(), short);
        let fits =
            |short: &RecordBatch| write(short).is_ok_and(|bytes| bytes.len() <= MAX_ANSWER_BYTES);
        short.ok().filter(fits).map_or(Self::Whole, Self::Answer)
    }

    pub(super) fn slice(&self) -> Option<usize> {
        match self {
            Self::Slice(slice) => Some(*slice),
            Self::Whole | Self::Answer(_) => None,
        }
    }
}

impl Sealed {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut payload = self.handle.to_vec();
        payload.extend_from_slice(&self.expiry.to_be_bytes());
        match &self.part {
            Part::Whole => {}
            Part::Slice(slice) => payload.extend_from_slice(&(*slice as u32).to_be_bytes()),
            Part::Answer(answer) => {
                if let Ok(answer) = write(answer) {
                    payload.push(ANSWER);
                    payload.extend_from_slice(&answer);
                }
            }
        }
        payload
    }

    /// `None` for bytes of another form.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (handle, rest) = payload.split_at_checked(HANDLE_BYTES)?;
        let (expiry, part) = rest.split_at_checked(size_of::<u64>())?;
        let part = match part {
            [] => Part::Whole,
            [a, b, c, d] => Part::Slice(u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            [ANSWER, answer @ ..] => Part::Answer(read(answer)?),
            _ => return None,
        };
        Some(Self {
            handle: handle.try_into().ok()?,
            expiry: u64::from_be_bytes(expiry.try_into().ok()?),
            part,
        })
    }
}

fn write(answer: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    // Buffers are small: the usual alignment would be most of them.
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &answer.schema(), options)?;
    writer.write(answer)?;
    writer.into_inner()
}

fn read(bytes: &[u8]) -> Option<RecordBatch> {
    StreamReader::try_new(bytes, None).ok()?.next()?.ok()
}

fn shortened(column: &ArrayRef) -> ArrayRef {
    let Some(texts) = column.as_string_opt::<i32>() else {
        return Arc::clone(column);
    };
    let short = |text: &str| {
        if text.len() <= MAX_TEXT_BYTES {
            return text.to_owned();
        }
        format!("{} ...", &text[..text.floor_char_boundary(MAX_TEXT_BYTES)])
    };
    let texts = texts.iter().map(|text| text.map(short));
    Arc::new(texts.collect::<StringArray>())
}
