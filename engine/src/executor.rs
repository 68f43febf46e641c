//! Where queries run: on threads of their own, more of them than there are cores.
//!
//! Operators compute for long between two awaits. On the threads that serve the network a few of
//! them would hold up every other client, and on as many threads as cores a lookup would wait for
//! its turn at each of its steps. With more threads the kernel divides the cores fairly.

use std::future::Future;

use featureflight_catalog::{Error, Kind, Result};
use tokio::runtime::{Builder, Runtime};

/// Operators and expressions recurse over their plans.
const STACK_BYTES: usize = 16 << 20;

const MOST_THREADS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Executor {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Executor {
    /// Threads for `queries` at once that use `partitions` each.
    ///
    /// # Errors
    /// `ResourceExhausted` when there are no threads left.
    pub(crate) fn new(queries: usize, partitions: usize) -> Result<Self> {
        let threads = queries.saturating_add(partitions).clamp(2, MOST_THREADS);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_stack_size(STACK_BYTES)
            .thread_name("query")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(
                    Kind::ResourceExhausted,
                    format!("the server cannot have {threads} threads for queries"),
                )
                .with_source(error)
            })?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// Tasks that were begun and have not ended.
    pub(crate) fn tasks(&self) -> usize {
        let runtime = self.runtime.as_ref();
        runtime.map_or(0, |runtime| runtime.metrics().num_alive_tasks())
    }

    /// Runs `work` to its end, whether anybody waits for it or not.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(work);
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for its threads is not allowed where the server itself runs.
            runtime.shutdown_background();
        }
    }
}
