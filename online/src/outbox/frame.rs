//! Frames: how entries lie in a segment file, one after the other.
//!
//! ```text
//! magic u32 | payload length u32 | kind u8, 3 zeros | synced u64 | checksum u32 | payload
//! ```
//!
//! Numbers are little-endian. The checksum (CRC-32) covers the rest of the frame, the segment's
//! number and the frame's offset, so that bytes of another place or another file never pass. `synced`
//! is how much of this file was known to be on disk when the frame was written: damage before the
//! largest one has hit acknowledged data, damage behind it is a write that a crash cut short.

use std::ops::Range;

const MAGIC: u32 = u32::from_le_bytes(*b"FFob");
pub(super) const HEADER: usize = 24;
/// Larger than any entry the outbox writes.
pub(super) const MAX_PAYLOAD: usize = 256 << 20;

/// A frame as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) offset: u64,
    pub(super) kind: u8,
    pub(super) synced: u64,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    fn end(&self) -> usize {
        self.offset as usize + HEADER + self.payload.len()
    }
}

/// Appends a frame that will stand at `offset` of segment `segment`.
pub(super) fn append(
    out: &mut Vec<u8>,
    segment: u64,
    offset: u64,
    synced: u64,
    kind: u8,
    payload: &[u8],
) {
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&synced.to_le_bytes());
    let checksum = checksum(segment, offset, &out[start..], payload);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(payload);
}

fn checksum(segment: u64, offset: u64, head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// The frame at the start of `bytes`, which stand at `offset` of segment `segment`; `None` unless
/// it is whole and undamaged.
pub(super) fn read(bytes: &[u8], segment: u64, offset: u64) -> Option<Frame<'_>> {
    let (head, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (covered, stored) = head.split_last_chunk::<4>()?;
    let number = |from: usize| Some(u32::from_le_bytes(*covered.get(from..)?.first_chunk()?));
    let length = number(4)? as usize;
    if number(0)? != MAGIC || length > MAX_PAYLOAD {
        return None;
    }
    let payload = rest.get(..length)?;
    if checksum(segment, offset, covered, payload) != u32::from_le_bytes(*stored) {
        return None;
    }
    Some(Frame {
        offset,
        kind: covered[8],
        synced: u64::from_le_bytes(*covered.get(12..)?.first_chunk()?),
        payload,
    })
}

/// All frames of a segment, and the ranges between them that are none.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    pub(super) frames: Vec<Frame<'a>>,
    pub(super) damage: Vec<Range<u64>>,
}

/// Reads the frames of segment `segment`, whose file is `bytes` and whose first frame stands at
/// `start`. After damage it goes on at the next frame that is whole.
pub(super) fn scan(bytes: &[u8], segment: u64, start: usize) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut at = start;
    while at < bytes.len() {
        let frame = read(&bytes[at..], segment, at as u64);
        let Some(frame) = frame.or_else(|| next(bytes, segment, at + 1)) else {
            scan.damage.push(at as u64..bytes.len() as u64);
            break;
        };
        if frame.offset > at as u64 {
            scan.damage.push(at as u64..frame.offset);
        }
        at = frame.end();
        scan.frames.push(frame);
    }
    scan
}

fn next(bytes: &[u8], segment: u64, from: usize) -> Option<Frame<'_>> {
    let magic = MAGIC.to_le_bytes();
    let candidates = bytes.get(from..)?.windows(magic.len()).enumerate();
    candidates
        .filter(|(_, window)| **window == magic)
        .find_map(|(at, _)| read(&bytes[from + at..], segment, (from + at) as u64))
}
