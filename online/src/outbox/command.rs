//! What is asked of the writer, and what it remembers of a request until its commit.

use std::sync::Arc;

use featureflight_catalog::{Instant, Result};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::draft::KeyGuard;
use super::entry::RowsHead;
use super::pending::{PendingBlock, Place};
use super::stage::Position;
use crate::group::Layout;

/// A block, encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) layout: Arc<Layout>,
    /// Its layout's number is the writer's to set.
    pub(super) head: RowsHead,
    pub(super) body: Vec<u8>,
}

/// A request's last words.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) answer: Answer,
    pub(super) key: Option<KeyGuard>,
}

/// Where in the order of requests one was accepted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) sequence: u64,
    pub(super) at: i64,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) request: u64,
    pub(super) blocks: Vec<Encoded>,
    pub(super) commit: Option<Commit>,
    /// Answered once written, a commit once it is durable.
    pub(super) reply: oneshot::Sender<Result<Option<Accepted>>>,
}

#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    Abort(u64),
    /// Later requests are accepted after this time; earlier ones are visible when it is answered.
    Barrier(Instant, oneshot::Sender<()>),
    /// See [`Outbox::place`](super::Outbox::place).
    Place {
        closes: Option<String>,
        reply: oneshot::Sender<u64>,
    },
    /// See [`Outbox::reopen`](super::Outbox::reopen).
    Reopen(String, u64),
    Stop,
}

impl Command {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append(append) => append.bytes(),
            Self::Abort(_)
            | Self::Barrier(..)
            | Self::Place { .. }
            | Self::Reopen(..)
            | Self::Stop => 0,
        }
    }
}

impl Append {
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.body.len() + 512).sum()
    }
}

/// A written block of a request that is not committed yet.
pub(super) struct Part {
    pub(super) layout: Arc<Layout>,
    pub(super) head: RowsHead,
    pub(super) place: Place,
}

impl Part {
    pub(super) fn committed(self, accepted: Accepted, recovered: bool) -> PendingBlock {
        let position = Position {
            sequence: accepted.sequence,
            part: self.head.part,
        };
        let at = Instant::from_micros(accepted.at);
        PendingBlock::new(position, at, self.layout, self.head, self.place, recovered)
    }
}
