//! Deals the files of one run to the streams that decode them: in the order given, each file to
//! whichever stream is free, the next ones opened ahead.
//!
//! What is open ahead is bounded in files, in requests to the store and in bytes. How much of a
//! file is fetched depends on the columns asked for, which are the same for every file of a run:
//! files not yet opened are taken to need the share of their size that the opened ones did.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, try_unfold};
use parking_lot::Mutex;
use tokio::task::coop;

use crate::error::{Error, Kind, Result};
use crate::listing::DataFile;

/// A file whose first rows can be decoded without waiting.
pub(crate) struct Opened<T> {
    /// Bytes in memory for it.
    pub(crate) held: u64,
    pub(crate) items: BoxStream<'static, Result<T>>,
}

/// What a run opens ahead at most; one file always is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// The files of a run, each with its position in some list of the caller's.
type Files = Box<dyn Iterator<Item = (usize, Arc<DataFile>)> + Send>;
/// Does what has to wait for the store.
type Open<T> = Box<dyn Fn(usize, &Arc<DataFile>) -> BoxFuture<'static, Result<Opened<T>>> + Send>;
/// Whether the file of this position is still of use.
pub(crate) type Wanted = Box<dyn Fn(usize) -> bool + Send>;

/// See the module.
pub(crate) struct Deal<T> {
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    files: Files,
    open: Open<T>,
    wanted: Wanted,
    limit: Ahead,
    ahead: VecDeque<Dealt<T>>,
    /// What the files ahead were taken to need.
    ahead_bytes: u64,
    /// Bytes of the files opened so far, and of those in memory for them.
    opened_bytes: u64,
    held_bytes: u64,
}

/// A file that is being opened in a task of its own, which ends when this is dropped.
struct Dealt<T> {
    position: usize,
    file: Arc<DataFile>,
    bytes: u64,
    opening: SpawnedTask<Result<Opened<T>>>,
}

impl<T> fmt::Debug for Deal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ahead = self.queue.lock().ahead.len();
        f.debug_struct("Deal").field("ahead", &ahead).finish()
    }
}

impl<T: Send + 'static> Deal<T> {
    /// `wanted` is asked before a file is opened and again before it is dealt; once it says no
    /// for a position it must not say yes.
    pub(crate) fn new(
        files: impl Iterator<Item = (usize, Arc<DataFile>)> + Send + 'static,
        limit: Ahead,
        wanted: Wanted,
        open: impl Fn(usize, &Arc<DataFile>) -> BoxFuture<'static, Result<Opened<T>>> + Send + 'static,
    ) -> Arc<Self> {
        let queue = Queue {
            files: Box::new(files),
            open: Box::new(open),
            wanted,
            limit,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            opened_bytes: 0,
            held_bytes: 0,
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
        })
    }

    /// The items of the files dealt to this stream, file by file, each with the file's position
    /// and the file. Must be polled inside a Tokio runtime. Files that were opened ahead are let
    /// go with the last stream.
    pub(crate) fn stream(
        self: &Arc<Self>,
    ) -> BoxStream<'static, Result<(usize, Arc<DataFile>, T)>> {
        let stream = Stream {
            deal: Arc::clone(self),
            current: None,
        };
        try_unfold(stream, |mut stream| async move {
            Ok(stream.next().await?.map(|item| (item, stream)))
        })
        .boxed()
    }
}

struct Stream<T> {
    deal: Arc<Deal<T>>,
    current: Option<(usize, Arc<DataFile>, BoxStream<'static, Result<T>>)>,
}

impl<T: Send + 'static> Stream<T> {
    async fn next(&mut self) -> Result<Option<(usize, Arc<DataFile>, T)>> {
        loop {
            // Everything may be in memory already: let other tasks have their turn.
            coop::consume_budget().await;
            if let Some((position, file, items)) = &mut self.current {
                match items.next().await {
                    Some(item) => return Ok(Some((*position, Arc::clone(file), item?))),
                    None => self.current = None,
                }
            }
            let Some(dealt) = self.deal.queue.lock().next() else {
                return Ok(None);
            };
            let opened = dealt.opening.await.map_err(interrupted)??;
            self.deal.queue.lock().learn(&dealt.file, opened.held);
            self.current = Some((dealt.position, dealt.file, opened.items));
        }
    }
}

impl<T: Send + 'static> Queue<T> {
    fn next(&mut self) -> Option<Dealt<T>> {
        loop {
            self.open_ahead();
            let next = self.ahead.pop_front()?;
            self.ahead_bytes = self.ahead_bytes.saturating_sub(next.bytes);
            if (self.wanted)(next.position) {
                self.open_ahead();
                return Some(next);
            }
        }
    }

    fn open_ahead(&mut self) {
        while self.ahead.is_empty()
            || (self.ahead.len() < self.limit.files && self.ahead_bytes < self.limit.bytes)
        {
            let Some((position, file)) = self.files.next() else {
                return;
            };
            if !(self.wanted)(position) {
                continue;
            }
            let bytes = self.estimate(file.meta.size);
            self.ahead_bytes += bytes;
            let opening = SpawnedTask::spawn((self.open)(position, &file));
            self.ahead.push_back(Dealt {
                position,
                file,
                bytes,
                opening,
            });
        }
    }

    fn estimate(&self, size: u64) -> u64 {
        let share = u128::from(size) * u128::from(self.held_bytes);
        match share.checked_div(u128::from(self.opened_bytes)) {
            Some(bytes) => u64::try_from(bytes).unwrap_or(u64::MAX).min(size),
            None => size,
        }
    }

    fn learn(&mut self, file: &DataFile, held: u64) {
        self.opened_bytes += file.meta.size;
        self.held_bytes += held;
    }
}

fn interrupted(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        Error::internal("a task that opens files ended unexpectedly").with_source(error)
    } else {
        Error::new(Kind::Cancelled, "the statement was cancelled")
    }
}
