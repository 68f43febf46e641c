//! How long a small query takes over Flight SQL from a new connection to its last row, for one
//! client and for many at once.

use std::path::PathBuf;
use std::time::Instant;

use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::Result;
use crate::flight::Client;
use crate::peer::Peer;
use crate::report::rounded;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) warehouse: PathBuf,
    #[arg(long)]
    pub(crate) sql: String,
    /// Clients at once.
    #[arg(long, default_value_t = 1)]
    pub(crate) clients: usize,
    /// Connections that each of them makes, one after the other.
    #[arg(long, default_value_t = 100)]
    pub(crate) connections: usize,
}

pub(crate) async fn run(arguments: Arguments, threads: usize) -> Result<Value> {
    let Arguments {
        warehouse,
        sql,
        clients,
        connections,
    } = arguments;
    let gateway = Peer::gateway(&warehouse, threads)?;
    let port = gateway.port;
    // Listings and footers are a matter of the first query.
    once(port, &sql).await?;
    let started = Instant::now();
    let client = async || -> Result<Vec<f64>> {
        let mut milliseconds = Vec::with_capacity(connections);
        for _ in 0..connections {
            milliseconds.push(once(port, &sql).await?);
        }
        Ok(milliseconds)
    };
    let milliseconds = try_join_all((0..clients).map(|_| client())).await?;
    let seconds = started.elapsed().as_secs_f64();
    let mut milliseconds = milliseconds.concat();
    milliseconds.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let at = (milliseconds.len() * percent / 100).min(milliseconds.len().saturating_sub(1));
        milliseconds.get(at).copied().map(rounded)
    };
    #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
    let rate = milliseconds.len() as f64 / seconds;
    Ok(json!({
        "engine": "latency", "clients": clients, "queries": milliseconds.len(),
        "p50_ms": at(50), "p99_ms": at(99), "queries_per_second": rounded(rate),
    }))
}

/// Milliseconds from the connection to the end of the result.
async fn once(port: u16, sql: &str) -> Result<f64> {
    let started = Instant::now();
    let mut client = Client::connect(port).await?;
    let ticket = client.ticket(sql).await?;
    client.drained(ticket).await?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
