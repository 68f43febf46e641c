//! What `benches/run` measures of ours: one command per process, one JSON line each.
//!
//! - [`ours`]: one statement in process, from its text to a Parquet file.
//! - [`floor`]: every column of every file decoded once, the time no join can beat without
//!   skipping something.
//! - [`flight`]: a result over Flight SQL against the same batches served from memory.
//! - [`latency`]: a small query from a new connection to its last row.
//! - [`peer`]: the servers that these two read from.
//! - [`answer`]: what is in a Parquet file, in a form that does not depend on the order of rows.
//! - [`slow_s3`]: a folder as a read-only S3 with latency, to read from.
//! - [`online_service`]: a SageMaker runtime that costs next to nothing, to write to.
//!
//! [`sink`] writes the Parquet files; [`report`] knows the process's own figures.

mod answer;
mod flight;
mod floor;
mod latency;
mod online_service;
mod ours;
mod peer;
mod report;
mod sink;
mod slow_s3;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(about = "One measurement, printed as a JSON line; benches/run calls it")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads that compute.
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a statement in process into a Parquet file
    Ours(ours::Arguments),
    /// Decode every column of every Parquet file below the folders, once
    Floor(floor::Arguments),
    /// Read a result over Flight SQL, and the same batches served from memory, in turn
    Flight(flight::Arguments),
    /// Make connections, with a small query on each
    Latency(latency::Arguments),
    /// Serve a warehouse until standard input ends
    Gateway(peer::GatewayArguments),
    /// Serve the batches of an Arrow file until standard input ends
    Memory(peer::MemoryArguments),
    /// Count and hash the rows of a Parquet file
    Answer(answer::Arguments),
    /// Serve a folder as S3, every request delayed
    SlowS3(slow_s3::Arguments),
    /// Serve a SageMaker runtime that takes every record
    OnlineService,
}

fn main() -> ExitCode {
    let Arguments { command, threads } = Arguments::parse();
    // As the server does.
    featureflight_engine::few_arenas();
    let outcome = match &command {
        Command::Floor(arguments) => floor::run(arguments, threads),
        Command::Answer(arguments) => answer::run(arguments),
        Command::Ours(arguments) => block_on(threads, ours::run(arguments.clone(), threads)),
        Command::Flight(arguments) => block_on(threads, flight::run(arguments.clone(), threads)),
        Command::Latency(arguments) => block_on(threads, latency::run(arguments.clone(), threads)),
        Command::Gateway(arguments) => block_on(threads, peer::gateway(arguments.clone(), threads)),
        Command::Memory(arguments) => block_on(threads, peer::memory(arguments.clone())),
        Command::SlowS3(arguments) => block_on(threads, slow_s3::run(arguments.clone())),
        Command::OnlineService => block_on(threads, online_service::run()),
    };
    match outcome {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` on `threads` workers; this thread only waits.
fn block_on<T: Send + 'static>(
    threads: usize,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    runtime.block_on(runtime.spawn(work))?
}
