//! The one thread that writes segments. Requests that arrive while it waits for the disk are
//! written and fsynced together (group commit).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant as Clock};

use featureflight_catalog::{Error, Instant, Kind, Result};
use tokio::sync::oneshot;

use super::command::{Accepted, Append, Command, Commit, Encoded, Part};
use super::core::Core;
use super::entry::{self, AbortHead, CommitHead, LayoutHead};
use super::erase::Closed;
use super::frame;
use super::options::Durability;
use super::pending::{Held, Place};
use super::segment::{self, Segment};
use super::space::is_full;
use crate::group::Layout;

/// Written and fsynced at once, at most, unless one command is larger.
const GROUP_BYTES: usize = 16 << 20;

/// An append whose frames are in the buffer.
struct Staged {
    request: u64,
    framed: Framed,
    reply: oneshot::Sender<Result<Option<Accepted>>>,
}

/// The blocks of an append, and its commit if it has one.
type Framed = (Vec<Part>, Option<(Accepted, Commit)>);

pub(super) struct Writer {
    core: Arc<Core>,
    segment: Arc<Segment>,
    offset: u64,
    synced: u64,
    /// Layouts that stand in the segment, at the place of their number.
    layouts: Vec<Arc<Layout>>,
    open: HashMap<u64, Vec<Part>>,
    closed: Closed,
    next_sequence: u64,
    last_accepted_at: i64,
    buffer: Vec<u8>,
    /// When the oldest bytes that are not on disk were written.
    unsynced_since: Option<Clock>,
}

impl Writer {
    /// Begins segment `number`.
    pub(super) fn new(core: Arc<Core>, number: u64) -> io::Result<Self> {
        let segment = Arc::new(Segment::create(&core.dir, number, &core.options.probe)?);
        let reach = *core.reach.lock();
        let mut writer = Self {
            core,
            segment,
            offset: 0,
            synced: 0,
            layouts: Vec::new(),
            open: HashMap::new(),
            closed: Closed::default(),
            next_sequence: reach.next_sequence,
            last_accepted_at: reach.last_accepted_at,
            buffer: Vec::new(),
            unsynced_since: None,
        };
        writer.enter();
        Ok(writer)
    }

    /// Makes the segment the one written to.
    fn enter(&mut self) {
        self.offset = segment::HEADER as u64;
        self.synced = self.offset;
        self.layouts.clear();
        self.unsynced_since = None;
        let held = Held {
            segment: Arc::clone(&self.segment),
            bytes: self.offset,
            live: 0,
            positions: Vec::new(),
        };
        self.core
            .pending
            .lock()
            .segments
            .insert(self.segment.number, held);
        self.note_reach();
    }

    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let Some(first) = self.next(commands) else {
                continue;
            };
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(command) = commands.try_recv()
            {
                bytes += command.bytes();
                group.push(command);
            }
            if self.handle(group) {
                self.sync().ok();
                return;
            }
        }
    }

    /// `None` when it was time to bring written bytes to the disk instead.
    fn next(&mut self, commands: &Receiver<Command>) -> Option<Command> {
        let (Durability::Written(interval), Some(since)) =
            (self.core.options.durability, self.unsynced_since)
        else {
            return Some(commands.recv().unwrap_or(Command::Stop));
        };
        let wait = interval.saturating_sub(since.elapsed());
        match commands.recv_timeout(wait) {
            Ok(command) if wait > Duration::ZERO => Some(command),
            Err(RecvTimeoutError::Disconnected) => Some(Command::Stop),
            taken => {
                self.sync().ok();
                taken.ok()
            }
        }
    }

    /// True after a stop.
    fn handle(&mut self, group: Vec<Command>) -> bool {
        let mut stop = false;
        let mut staged = Vec::new();
        let mut barriers = Vec::new();
        let mut places = Vec::new();
        let mut aborted = Vec::new();
        self.buffer.clear();
        let layouts = self.layouts.len();
        let room = self.prepare(&group);
        let layouts = layouts.min(self.layouts.len());
        for command in group {
            match command {
                Command::Append(append) => match &room {
                    Ok(()) => staged.extend(self.stage(append)),
                    Err(error) => drop(append.reply.send(Err(error.clone()))),
                },
                Command::Abort(request) => {
                    aborted.push(request);
                    if room.is_ok() {
                        self.frame(entry::ABORT, &AbortHead { request }, &[]).ok();
                    }
                }
                Command::Barrier(cut, reply) => {
                    self.last_accepted_at = self.last_accepted_at.max(cut.micros);
                    barriers.push(reply);
                }
                Command::Place { closes, reply } => {
                    if let Some(group) = closes {
                        self.closed.until(group, u64::MAX);
                    }
                    places.push((self.next_sequence, reply));
                }
                Command::Reopen(group, from) => self.closed.until(group, from),
                Command::Stop => stop = true,
            }
        }
        match self.persist(staged.iter().any(|staged| staged.framed.1.is_some())) {
            Ok(()) => self.publish(staged),
            Err(error) => {
                self.layouts.truncate(layouts);
                for staged in staged {
                    staged.reply.send(Err(error.clone())).ok();
                }
            }
        }
        for request in aborted {
            self.abort(request);
        }
        for barrier in barriers {
            barrier.send(()).ok();
        }
        if !places.is_empty() && self.offset > segment::HEADER as u64 {
            // Else what is erased goes with the segment, later.
            self.roll().ok();
        }
        for (place, reply) in places {
            reply.send(place).ok();
        }
        stop
    }

    /// # Errors
    /// Why nothing of this group can be written.
    fn prepare(&mut self, group: &[Command]) -> Result<()> {
        self.core.check_accepting()?;
        let bytes = group
            .iter()
            .map(|command| command.bytes() as u64)
            .sum::<u64>();
        if bytes == 0 {
            return Ok(());
        }
        self.check_size(bytes)?;
        self.core.check_space(bytes)?;
        if self.offset >= self.core.options.segment_bytes {
            self.roll()?;
        }
        Ok(())
    }

    fn check_size(&mut self, bytes: u64) -> Result<()> {
        let limit = self.core.options.max_bytes;
        let (used, idle) = {
            let pending = self.core.pending.lock();
            let active = pending.segments.get(&self.segment.number);
            (pending.bytes(), active.is_none_or(|held| held.live == 0))
        };
        if used + bytes <= limit {
            return Ok(());
        }
        if idle && self.offset > segment::HEADER as u64 {
            self.roll()?; // So that the next checkpoint can remove what it held.
        }
        Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "the outbox is full: {used} of {limit} bytes wait to be forwarded; try again later, \
                 and see in system.writes what holds them up"
            ),
        ))
    }

    /// Closes the segment and begins the next.
    fn roll(&mut self) -> Result<()> {
        self.sync()?;
        let number = self.segment.number + 1;
        let probe = &self.core.options.probe;
        let next = Segment::create(&self.core.dir, number, probe).map_err(|error| {
            if is_full(&error) {
                return self.core.full("no segment can be begun");
            }
            let dir = self.core.dir.display();
            Error::unavailable(format!("no segment can be begun in '{dir}': {error}"))
        })?;
        self.segment = Arc::new(next);
        self.enter();
        Ok(())
    }

    /// Puts the frames of an append into the buffer.
    fn stage(&mut self, append: Append) -> Option<Staged> {
        let Append {
            request,
            blocks,
            commit,
            reply,
        } = append;
        let before = (self.buffer.len(), self.layouts.len());
        match self.frames(request, blocks, commit) {
            Ok(framed) => Some(Staged {
                request,
                framed,
                reply,
            }),
            Err(error) => {
                self.buffer.truncate(before.0);
                self.layouts.truncate(before.1);
                reply.send(Err(error)).ok();
                None
            }
        }
    }

    fn frames(
        &mut self,
        request: u64,
        blocks: Vec<Encoded>,
        commit: Option<Commit>,
    ) -> Result<Framed> {
        if commit.is_some() {
            let earlier = self.open.get(&request).into_iter().flatten();
            let layouts = earlier.map(|part| &part.layout);
            let layouts = layouts.chain(blocks.iter().map(|block| &block.layout));
            self.closed.check(request, layouts)?;
        }
        let mut parts = Vec::with_capacity(blocks.len());
        for Encoded {
            layout,
            mut head,
            body,
        } in blocks
        {
            head.layout = self.layout(&layout)?;
            let place = self.frame(entry::ROWS, &head, &body)?;
            parts.push(Part {
                layout,
                head,
                place,
            });
        }
        let Some(commit) = commit else {
            return Ok((parts, None));
        };
        let accepted = Accepted {
            sequence: self.next_sequence,
            at: Instant::now().micros.max(self.last_accepted_at + 1),
        };
        let head = CommitHead {
            request,
            sequence: accepted.sequence,
            accepted_at: accepted.at,
            key: commit.key.as_ref().map(|guard| guard.key().clone()),
            answer: commit.answer.clone(),
        };
        self.frame(entry::COMMIT, &head, &[])?;
        self.next_sequence += 1;
        self.last_accepted_at = accepted.at;
        Ok((parts, Some((accepted, commit))))
    }

    /// The number of a layout in this segment, where it is written once.
    fn layout(&mut self, layout: &Arc<Layout>) -> Result<u32> {
        let known = self.layouts.iter().rposition(|known| {
            Arc::ptr_eq(known, layout) || (known.group == layout.group && known == layout)
        });
        if let Some(known) = known {
            return Ok(known as u32);
        }
        let number = self.layouts.len() as u32;
        let Layout {
            group,
            record_identifier,
            event_time,
            schema,
        } = layout.as_ref();
        let head = LayoutHead {
            layout: number,
            group: group.clone(),
            record_identifier: *record_identifier,
            event_time: *event_time,
        };
        self.frame(entry::LAYOUT, &head, &entry::encode_schema(schema)?)?;
        self.layouts.push(Arc::clone(layout));
        Ok(number)
    }

    fn frame(&mut self, kind: u8, head: &impl serde::Serialize, body: &[u8]) -> Result<Place> {
        let payload = entry::encode(head, body)?;
        if payload.len() > frame::MAX_PAYLOAD {
            return Err(Error::internal("a block is larger than a frame can be"));
        }
        let offset = self.offset + self.buffer.len() as u64;
        let number = self.segment.number;
        frame::append(
            &mut self.buffer,
            number,
            offset,
            self.synced,
            kind,
            &payload,
        );
        Ok(Place {
            segment: Arc::clone(&self.segment),
            offset,
            length: payload.len(),
        })
    }

    /// Writes the buffer, and has it on disk if `durably`.
    fn persist(&mut self, durably: bool) -> Result<()> {
        if !self.buffer.is_empty() {
            self.write()?;
            self.offset += self.buffer.len() as u64;
            self.unsynced_since.get_or_insert_with(Clock::now);
        }
        match self.core.options.durability {
            Durability::Synced if durably => self.sync(),
            _ => Ok(()),
        }
    }

    fn write(&self) -> Result<()> {
        let probe = &self.core.options.probe;
        let half = self.buffer.len() / 2;
        let file = &self.segment.file;
        let written = probe
            .at("append.write")
            .and_then(|()| file.write_all_at(&self.buffer[..half], self.offset))
            .and_then(|()| probe.at("append.half"))
            .and_then(|()| file.write_all_at(&self.buffer[half..], self.offset + half as u64));
        let Err(error) = written else {
            return Ok(());
        };
        // A frame cut short must not stand before those to come.
        match file.set_len(self.offset) {
            Ok(()) if is_full(&error) => Err(self.core.full(&error.to_string())),
            Ok(()) => Err(self
                .core
                .fail(&format!("writing a segment failed ({error})"))),
            Err(also) => {
                let why =
                    format!("writing a segment failed ({error}), and cutting it back ({also})");
                Err(self.core.fail(&why))
            }
        }
    }

    /// A failed fsync is never tried again: the kernel may have dropped what it could not write.
    fn sync(&mut self) -> Result<()> {
        if self.synced == self.offset {
            return Ok(());
        }
        let probe = &self.core.options.probe;
        let began = Clock::now();
        let synced = probe
            .at("append.sync")
            .and_then(|()| self.segment.file.sync_data())
            .and_then(|()| probe.at("append.synced"));
        if let Err(error) = synced {
            return Err(self.core.fail(&format!("an fsync failed ({error})")));
        }
        self.core
            .figures
            .fsync_seconds
            .observe(began.elapsed().as_secs_f64());
        self.synced = self.offset;
        self.unsynced_since = None;
        self.note_reach();
        Ok(())
    }

    fn note_reach(&self) {
        let mut reach = self.core.reach.lock();
        reach.active = self.segment.number;
        reach.synced = self.synced;
        reach.next_sequence = self.next_sequence;
        reach.last_accepted_at = self.last_accepted_at;
    }

    /// Makes what was written visible, and says so.
    fn publish(&mut self, staged: Vec<Staged>) {
        let mut replies = Vec::with_capacity(staged.len());
        let mut pending = self.core.pending.lock();
        if let Some(held) = pending.segments.get_mut(&self.segment.number) {
            held.bytes = self.offset;
            held.live += staged
                .iter()
                .map(|staged| staged.framed.0.len())
                .sum::<usize>();
        }
        for staged in staged {
            let parts = self.open.entry(staged.request).or_default();
            let (written, commit) = staged.framed;
            parts.extend(written);
            let Some((accepted, commit)) = commit else {
                replies.push((staged.reply, None, None));
                continue;
            };
            for part in self.open.remove(&staged.request).unwrap_or_default() {
                pending.insert(part.committed(accepted, false));
            }
            let key = commit.key.map(|guard| (guard, commit.answer));
            replies.push((staged.reply, Some(accepted), key));
        }
        drop(pending);
        self.note_reach();
        for (reply, accepted, key) in replies {
            if let (Some(accepted), Some((guard, answer))) = (accepted, key) {
                guard.answered(answer, accepted.at);
            }
            if accepted.is_some() && self.core.options.probe.at("acknowledge").is_err() {
                continue; // The reply is lost.
            }
            reply.send(Ok(accepted)).ok();
        }
        self.core.note_change();
    }

    fn abort(&mut self, request: u64) {
        let parts = self.open.remove(&request).unwrap_or_default();
        let mut pending = self.core.pending.lock();
        for part in parts {
            pending.release(part.place.segment.number);
        }
    }
}
