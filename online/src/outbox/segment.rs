//! Segment files: `NUMBER.segment`, a header and frames. A process only ever appends to the
//! segment it began itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use featureflight_catalog::{Error, Result};

use super::frame;
use super::options::Probe;

const MAGIC: [u8; 8] = *b"FFoutbox";
const VERSION: u32 = 1;
/// Magic, version u32, number u64, CRC-32 of these.
pub(super) const HEADER: usize = 24;

/// An open segment file, readable at any offset.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl Segment {
    /// A new file with its header, on disk with its name when this returns.
    pub(super) fn create(dir: &Path, number: u64, probe: &Probe) -> io::Result<Self> {
        let path = dir.join(format!("{number:020}.segment"));
        probe.at("segment.create")?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let segment = Self { number, path, file };
        let written = probe
            .at("segment.header")
            .and_then(|()| segment.file.write_all_at(&header(number), 0))
            .and_then(|()| segment.file.sync_all())
            .and_then(|()| probe.at("segment.name"))
            .and_then(|()| sync_dir(dir));
        match written {
            Ok(()) => Ok(segment),
            Err(error) => {
                // The next attempt takes the same number.
                std::fs::remove_file(&segment.path).ok();
                Err(error)
            }
        }
    }

    pub(super) fn open(path: PathBuf, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { number, path, file })
    }

    /// The payload of the frame at `offset`, of `length` bytes.
    ///
    /// # Errors
    /// `DataLoss` when it is not there any more as it was written; `Unavailable` when the disk fails.
    pub(super) fn payload(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; frame::HEADER + length];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| {
                let path = self.path.display();
                Error::unavailable(format!("'{path}' cannot be read at byte {offset}: {error}"))
            })?;
        if frame::read(&bytes, self.number, offset).is_none() {
            return Err(self.damaged(offset, offset + bytes.len() as u64));
        }
        bytes.drain(..frame::HEADER);
        Ok(bytes)
    }

    pub(super) fn damaged(&self, from: u64, to: u64) -> Error {
        Error::data_loss(format!(
            "'{}' is damaged in bytes {from} to {to}, which were acknowledged",
            self.path.display()
        ))
    }
}

fn header(number: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    let checksum = crc32fast::hash(&header[..20]);
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// What the first bytes of a segment file say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    Good,
    /// The file is not longer than a header that is not whole: a crash cut its creation short.
    Unfinished,
    Damaged,
    /// Written by a newer version.
    Newer(u32),
}

pub(super) fn check_header(bytes: &[u8], number: u64) -> Header {
    let Some(found) = bytes.first_chunk::<HEADER>() else {
        return Header::Unfinished;
    };
    if *found == header(number) {
        return Header::Good;
    }
    let (covered, stored) = found.split_at(20);
    let version = covered.get(8..).and_then(|rest| rest.first_chunk());
    let version = version.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if covered.starts_with(&MAGIC)
        && stored == crc32fast::hash(covered).to_le_bytes()
        && version > VERSION
    {
        return Header::Newer(version);
    }
    if bytes.len() == HEADER {
        Header::Unfinished
    } else {
        Header::Damaged
    }
}

/// Numbers and paths of the segment files in `dir`, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".segment")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Makes creations and removals in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
