//! A request on its way in: blocks are written as they come and count all at once, when it is
//! committed, or not at all.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant as Clock;

use featureflight_catalog::{Error, Instant, Result};
use tokio::sync::{oneshot, watch};

use super::answer::{Answer, IdempotencyKey};
use super::command::{Accepted, Append, Command, Commit, Encoded};
use super::core::{Core, KeyState};
use super::entry::{self, RowsHead};
use super::stage::Stages;
use crate::contents::Contents;
use crate::record::Block;
use crate::validate::Refusals;

/// What one block holds at most, so that reading one takes little memory.
const BLOCK_ROWS: usize = 8_192;
const BLOCK_BYTES: usize = 4 << 20;

/// What a committed request got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub answer: Answer,
    /// When it was acknowledged: later for every later request. `None` for a repeat.
    pub accepted_at: Option<Instant>,
}

/// A request that is not committed. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    core: Arc<Core>,
    writer: Sender<Command>,
    request: u64,
    stages: Stages,
    key: Option<KeyGuard>,
    /// Not sent to the writer yet, so that a small request is written at once.
    held: Vec<Encoded>,
    parts: u32,
    rows: u64,
    contents: Option<Contents>,
    /// True once something of it was sent to the writer.
    begun: bool,
    broken: Option<Error>,
}

impl Draft {
    pub(super) fn new(
        core: Arc<Core>,
        writer: Sender<Command>,
        stages: Stages,
        key: Option<KeyGuard>,
    ) -> Self {
        Self {
            request: core.next_request(),
            core,
            writer,
            stages,
            key,
            held: Vec::new(),
            parts: 0,
            rows: 0,
            contents: None,
            begun: false,
            broken: None,
        }
    }

    /// Adds rows. They are not durable before the commit.
    ///
    /// # Errors
    /// `ResourceExhausted` when the outbox or its disk is full, `Unavailable` when it accepts
    /// nothing any more. The request cannot go on then.
    pub async fn push(&mut self, block: &Block) -> Result<()> {
        self.check()?;
        let bytes = block.bytes().max(1);
        let rows = (BLOCK_BYTES.saturating_mul(block.len()) / bytes).clamp(1, BLOCK_ROWS);
        for from in (0..block.len()).step_by(rows) {
            let held = std::mem::take(&mut self.held);
            if !held.is_empty() {
                self.send(held, None).await?;
            }
            let slice = block.slice(from, rows.min(block.len() - from));
            self.held.push(self.encode(&slice)?);
            self.parts += 1;
            self.rows += slice.len() as u64;
        }
        Ok(())
    }

    /// Says what the request holds, for the repeats of its key.
    pub fn holds(&mut self, contents: Contents) {
        self.contents = Some(contents);
    }

    /// Rows pushed so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Makes the request count. When this returns it is durable.
    ///
    /// # Errors
    /// As [`Self::push`]; then it does not count, except after `Unavailable`, when it may.
    pub async fn commit(mut self, refused: Refusals) -> Result<Receipt> {
        self.check()?;
        let answer = Answer {
            accepted: self.rows,
            refused,
            contents: self.contents.take(),
        };
        let held = std::mem::take(&mut self.held);
        let commit = Commit {
            answer: answer.clone(),
            key: self.key.take(),
        };
        let began = Clock::now();
        let accepted = self.send(held, Some(commit)).await?;
        self.core.figures.acknowledged(self.rows, began.elapsed());
        let accepted_at = accepted.map(|accepted| Instant::from_micros(accepted.at));
        Ok(Receipt {
            answer,
            accepted_at,
        })
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => self.core.check_accepting(),
        }
    }

    fn encode(&self, block: &Block) -> Result<Encoded> {
        Ok(Encoded {
            layout: Arc::clone(&block.layout),
            head: RowsHead {
                request: self.request,
                part: self.parts,
                layout: 0,
                operation: block.operation,
                ttl: block.ttl,
                rows: block.len(),
                stages: self.stages,
            },
            body: entry::encode_rows(&block.rows)?,
        })
    }

    async fn send(
        &mut self,
        blocks: Vec<Encoded>,
        commit: Option<Commit>,
    ) -> Result<Option<Accepted>> {
        let (reply, answer) = oneshot::channel();
        let last = commit.is_some();
        let append = Append {
            request: self.request,
            blocks,
            commit,
            reply,
        };
        self.begun = true;
        let gone = || Error::unavailable("the outbox is closed: the server is shutting down");
        let result = match self.writer.send(Command::Append(append)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        match &result {
            // Nothing is left to abort.
            Ok(_) if last => self.begun = false,
            Ok(_) => {}
            Err(error) => self.broken = Some(error.clone()),
        }
        result
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.begun {
            self.writer.send(Command::Abort(self.request)).ok();
        }
    }
}

/// A key whose first request goes on. Dropped without an answer, the next request with the key is
/// the first again.
#[derive(Debug)]
pub(super) struct KeyGuard {
    core: Arc<Core>,
    key: IdempotencyKey,
    answered: bool,
    /// Closes with the guard, for those who wait.
    _open: watch::Sender<()>,
}

/// What a key stands for at this moment.
pub(super) enum Claim {
    First(KeyGuard),
    Answered(Answer),
    /// Until the channel closes.
    Wait(watch::Receiver<()>),
}

impl KeyGuard {
    pub(super) fn claim(core: &Arc<Core>, key: &IdempotencyKey) -> Result<Claim> {
        let mut keys = core.keys.lock();
        match keys.get(key) {
            Some(KeyState::InFlight(open)) => return Ok(Claim::Wait(open.clone())),
            Some(KeyState::Answered(answer, at)) if *at >= core.oldest_key().micros => {
                return Ok(Claim::Answered(answer.clone()));
            }
            _ => {}
        }
        // Asked for under the lock: a checkpoint moves answers to the index before it forgets them.
        if let Some(answer) = core.index.answer(key, core.oldest_key())? {
            return Ok(Claim::Answered(answer));
        }
        let (open, waiting) = watch::channel(());
        keys.insert(key.clone(), KeyState::InFlight(waiting));
        Ok(Claim::First(Self {
            core: Arc::clone(core),
            key: key.clone(),
            answered: false,
            _open: open,
        }))
    }

    pub(super) fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    pub(super) fn answered(mut self, answer: Answer, at: i64) {
        self.answered = true;
        let state = KeyState::Answered(answer, at);
        self.core.keys.lock().insert(self.key.clone(), state);
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        if !self.answered {
            self.core.keys.lock().remove(&self.key);
        }
    }
}
