//! Flight SQL: one file per command, each a function for what it announces and one for what it
//! answers. [`rpc`] is the gRPC service, [`dispatch`] finds the command in a request, [`call`] is
//! what every handler knows of its caller, and [`status`] turns errors into gRPC's.
//!
//! The service implements Flight's own trait, not arrow-flight's `FlightSqlService`: that one fixes
//! GetSchema, PollFlightInfo and ListActions, has no place for fields newer than it, and answers
//! malformed requests as internal errors with debug text.

mod actions;
mod bounded;
mod call;
mod cancel;
mod catalogs;
mod column_metadata;
mod db_schemas;
pub(crate) mod descriptor;
mod dispatch;
mod encode;
mod foreign_keys;
mod handle;
mod handshake;
mod headers;
mod in_utc;
mod ingest;
mod ipc_check;
mod keep_alive;
mod outgoing;
mod parameters;
mod pattern;
mod poll;
mod prepared_statement;
mod primary_keys;
mod rpc;
mod session_options;
mod sql_info;
mod statement_query;
mod statement_update;
pub(crate) mod status;
mod table_types;
mod tables;
mod ticket;
mod xdbc_type_info;

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use featureflight_catalog::Result;
use featureflight_engine::Engine;

use crate::calls::Calls;
use crate::config::ServerConfig;
use crate::sessions::Sessions;
use crate::signing::Signer;

/// Parameters bound to a handle are kept this long for clients that go on using the old handle.
const BINDING_TTL: Duration = Duration::from_secs(15 * 60);
const MAX_BINDING_BYTES: usize = 64 << 20;

/// The gRPC service.
#[derive(Debug, Clone)]
pub(crate) struct FlightServer(Arc<Service>);

/// What all calls share.
pub(crate) struct Service {
    engine: Arc<Engine>,
    sessions: Arc<Sessions>,
    calls: Calls,
    signer: Signer,
    statements: ticket::Statements,
    bindings: handle::Bindings,
    sql_info: SqlInfoData,
    type_info: XdbcTypeInfoData,
    polls: poll::Polls,
    stall_timeout: Duration,
    given_up: Arc<outgoing::GivenUp>,
    keep_alive: Duration,
    advertised_address: Option<String>,
    ticket_ttl: Duration,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl FlightServer {
    /// # Errors
    /// `Internal` when the fixed tables cannot be built.
    pub(crate) fn new(
        engine: Arc<Engine>,
        sessions: Arc<Sessions>,
        calls: Calls,
        config: &ServerConfig,
    ) -> Result<Self> {
        let sql_info = sql_info::table(&engine.options, engine.gateway().is_some())?;
        Ok(Self(Arc::new(Service {
            engine,
            sessions,
            calls,
            signer: Signer::new(config.signing_key.as_ref()),
            statements: ticket::Statements::new(
                config.max_tickets,
                usize::try_from(config.ticket_memory.0).unwrap_or(usize::MAX),
                config.ticket_ttl.0,
            ),
            bindings: handle::Bindings::new(MAX_BINDING_BYTES, BINDING_TTL),
            sql_info,
            type_info: xdbc_type_info::table()?,
            polls: poll::Polls::new(config.max_tickets, config.poll_ttl.0),
            stall_timeout: config.stall_timeout.0,
            given_up: Arc::default(),
            keep_alive: config.keep_alive.0,
            advertised_address: config.advertised_address.clone(),
            ticket_ttl: config.ticket_ttl.0,
        })))
    }

    /// Forgets tickets and bound parameters when their time is over. Never ends.
    pub(crate) async fn sweep_for_ever(&self) {
        let pause = self.0.ticket_ttl / 4;
        let pause = pause.clamp(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            tokio::time::sleep(pause).await;
            self.0.statements.sweep();
            self.0.bindings.sweep();
        }
    }
}
