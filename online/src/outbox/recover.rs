//! What the segments say after a start: requests that were committed are pending again, as far as
//! the index has no marks; writes that a crash cut short are cut off; damage to what was
//! acknowledged is an error that names the place.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use featureflight_catalog::{Error, Result};

use super::answer::IdempotencyKey;
use super::command::{Accepted, Part};
use super::core::KeyState;
use super::entry::{self, AbortHead, CommitHead, RowsHead};
use super::frame::{self, Frame};
use super::index::{Index, Marks, Reach};
use super::options::OutboxOptions;
use super::pending::{Held, Pending, Place};
use super::segment::{self, Header, Segment};
use crate::group::Layout;

/// What is there after a start.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) pending: Pending,
    pub(super) keys: HashMap<IdempotencyKey, KeyState>,
    pub(super) reach: Reach,
    pub(super) next_request: u64,
    open: HashMap<u64, Vec<Part>>,
    marks: Marks,
}

impl Recovered {
    /// The number of the next segment.
    pub(super) fn next_segment(&self) -> u64 {
        self.reach.active + 1
    }
}

pub(super) fn recover(dir: &Path, index: &Index, options: &OutboxOptions) -> Result<Recovered> {
    let reach = index.reach()?;
    let mut recovered = Recovered {
        reach: Reach {
            first: reach.first.max(1),
            ..reach
        },
        marks: index.marks()?,
        ..Recovered::default()
    };
    let files = needed(dir, recovered.reach.first)?;
    check_complete(dir, &files, recovered.reach, options)?;
    let last = files.last().map_or(0, |(number, _)| *number);
    for (number, path) in files {
        recovered.segment(dir, number, path, number == last, reach, options)?;
    }
    // A segment whose creation was cut short is gone: its number is used again.
    let newest = recovered.pending.segments.keys().next_back();
    let newest = newest.copied().unwrap_or_default();
    recovered.reach.active = recovered.reach.active.max(newest);
    for (_, parts) in std::mem::take(&mut recovered.open) {
        for part in parts {
            recovered.pending.release(part.place.segment.number);
        }
    }
    Ok(recovered)
}

/// The segments from `first` on. Older ones were spent; a crash came before their removal.
fn needed(dir: &Path, first: u64) -> Result<Vec<(u64, PathBuf)>> {
    let files = segment::list(dir).map_err(|error| unreadable(dir, &error))?;
    let (spent, needed): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(number, _)| *number < first);
    for (_, path) in spent {
        fs::remove_file(&path).map_err(|error| unreadable(&path, &error))?;
    }
    Ok(needed)
}

fn check_complete(
    dir: &Path,
    files: &[(u64, PathBuf)],
    reach: Reach,
    options: &OutboxOptions,
) -> Result<()> {
    let last = files.last().map_or(0, |(number, _)| *number);
    let last = last.max(reach.active);
    let there = |number| files.binary_search_by_key(&number, |(n, _)| *n).is_ok();
    let missing: Vec<_> = (reach.first..=last)
        .filter(|number| !there(*number))
        .collect();
    let Some(number) = missing.first() else {
        return Ok(());
    };
    lost(
        options,
        format!(
            "the outbox '{}' lacks segment {number}{}, which may hold acknowledged writes",
            dir.display(),
            if missing.len() > 1 { " and others" } else { "" },
        ),
    )
}

/// Acknowledged data is gone: an error, unless the operator accepts it.
fn lost(options: &OutboxOptions, what: String) -> Result<()> {
    if options.accept_damage {
        tracing::error!(what, "acknowledged writes are lost");
        return Ok(());
    }
    Err(Error::data_loss(format!(
        "{what}: restore it from a backup, or set outbox.accept_damage to go on with what is left"
    )))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let path = path.display();
    Error::unavailable(format!("the outbox's '{path}' cannot be read: {error}"))
}

impl Recovered {
    fn segment(
        &mut self,
        dir: &Path,
        number: u64,
        path: PathBuf,
        is_last: bool,
        reach: Reach,
        options: &OutboxOptions,
    ) -> Result<()> {
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, &error))?;
        match segment::check_header(&bytes, number) {
            Header::Good => {}
            Header::Newer(version) => {
                return Err(Error::precondition(format!(
                    "'{}' has format {version}, of a newer version of this server: start that one",
                    path.display()
                )));
            }
            Header::Unfinished if is_last && reach.active < number => {
                fs::remove_file(&path).map_err(|error| unreadable(&path, &error))?;
                return segment::sync_dir(dir).map_err(|error| unreadable(dir, &error));
            }
            Header::Unfinished | Header::Damaged => {
                return lost(
                    options,
                    format!("'{}' has a damaged header", path.display()),
                );
            }
        }
        let segment = Segment::open(path, number)
            .map(Arc::new)
            .map_err(|error| unreadable(dir, &error))?;
        let scan = frame::scan(&bytes, number, segment::HEADER);
        let length = bytes.len() as u64;
        let synced = if is_last {
            let frames = scan.frames.iter().map(|frame| frame.synced);
            let known = if reach.active == number {
                reach.synced
            } else {
                0
            };
            frames.max().unwrap_or(0).max(known)
        } else {
            length
        };
        let mut end = length;
        for damage in &scan.damage {
            if damage.start >= synced {
                end = damage.start;
                break;
            }
            lost(options, segment.damaged(damage.start, damage.end).message)?;
        }
        if length < synced {
            lost(options, segment.damaged(length, synced).message)?;
        }
        if end < length {
            cut(&segment, end, length)?;
        }
        self.pending.segments.insert(
            number,
            Held {
                segment: Arc::clone(&segment),
                bytes: end,
                live: 0,
                positions: Vec::new(),
            },
        );
        self.frames(
            &segment,
            scan.frames.iter().take_while(|frame| frame.offset < end),
            options,
        )
    }

    fn frames<'a>(
        &mut self,
        segment: &Arc<Segment>,
        frames: impl Iterator<Item = &'a Frame<'a>>,
        options: &OutboxOptions,
    ) -> Result<()> {
        let mut layouts: HashMap<u32, Arc<Layout>> = HashMap::new();
        for frame in frames {
            match frame.kind {
                entry::LAYOUT => {
                    let (number, layout) = entry::decode_layout(frame.payload)?;
                    layouts.insert(number, Arc::new(layout));
                }
                entry::ROWS => match layouts.get(&decode_head(frame)?.layout) {
                    Some(layout) => self.rows(segment, frame, layout)?,
                    None => lost(
                        options,
                        format!(
                            "'{}' has rows at byte {} whose layout is damaged",
                            segment.path.display(),
                            frame.offset
                        ),
                    )?,
                },
                entry::COMMIT => self.commit(entry::decode::<CommitHead>(frame.payload)?.0)?,
                entry::ABORT => self.abort(entry::decode::<AbortHead>(frame.payload)?.0.request),
                kind => {
                    return Err(Error::precondition(format!(
                        "'{}' has an entry of kind {kind} at byte {}, of a newer version of this \
                         server: start that one",
                        segment.path.display(),
                        frame.offset
                    )));
                }
            }
        }
        Ok(())
    }

    fn rows(
        &mut self,
        segment: &Arc<Segment>,
        frame: &Frame<'_>,
        layout: &Arc<Layout>,
    ) -> Result<()> {
        let head = decode_head(frame)?;
        self.next_request = self.next_request.max(head.request + 1);
        if let Some(held) = self.pending.segments.get_mut(&segment.number) {
            held.live += 1;
        }
        self.open.entry(head.request).or_default().push(Part {
            layout: Arc::clone(layout),
            place: Place {
                segment: Arc::clone(segment),
                offset: frame.offset,
                length: frame.payload.len(),
            },
            head,
        });
        Ok(())
    }

    fn commit(&mut self, head: CommitHead) -> Result<()> {
        let CommitHead {
            request,
            sequence,
            accepted_at,
            key,
            answer,
        } = head;
        self.next_request = self.next_request.max(request + 1);
        self.reach.next_sequence = self.reach.next_sequence.max(sequence + 1);
        self.reach.last_accepted_at = self.reach.last_accepted_at.max(accepted_at);
        let accepted = Accepted {
            sequence,
            at: accepted_at,
        };
        for part in self.open.remove(&request).unwrap_or_default() {
            let block = part.committed(accepted, true);
            for (stage, marks) in self.marks.remove(&block.position).unwrap_or_default() {
                block.restore(stage, &marks)?;
            }
            self.pending.insert(block);
        }
        if let Some(key) = key {
            self.keys
                .insert(key, KeyState::Answered(answer, accepted_at));
        }
        Ok(())
    }

    fn abort(&mut self, request: u64) {
        self.next_request = self.next_request.max(request + 1);
        for part in self.open.remove(&request).unwrap_or_default() {
            self.pending.release(part.place.segment.number);
        }
    }
}

fn decode_head(frame: &Frame<'_>) -> Result<RowsHead> {
    Ok(entry::decode(frame.payload)?.0)
}

/// Cuts off a write that a crash cut short: it was never acknowledged.
fn cut(segment: &Segment, end: u64, length: u64) -> Result<()> {
    let path = segment.path.display();
    tracing::warn!(%path, from = end, to = length, "an unfinished write is cut off");
    segment
        .file
        .set_len(end)
        .and_then(|()| segment.file.sync_all())
        .map_err(|error| unreadable(&segment.path, &error))
}
