//! Tickets of executed statements. A ticket is opaque: a random handle and its expiry, sealed. The
//! pinned statement it names stays in this server's memory; once it is gone the answer is "run it
//! again", never newer data.
//!
//! Whoever holds a ticket may fetch it, from any connection: that is how clients hand partitions of
//! a result to other processes.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow_flight::Ticket;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::query::PinnedQuery;
use parking_lot::Mutex;
use prost::Message;
use rand::RngCore;

use super::bounded::Bounded;
use crate::signing::{Purpose, Refused, Signer};

const HANDLE_BYTES: usize = 16;

type Handle = [u8; HANDLE_BYTES];

/// The pinned statements whose tickets can be fetched.
#[derive(Debug)]
pub(super) struct Statements {
    ttl: Duration,
    pinned: Mutex<Bounded<Handle, Arc<PinnedQuery>>>,
}

impl Statements {
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        Self {
            ttl,
            pinned: Mutex::new(Bounded::new(capacity, ttl)),
        }
    }

    /// Keeps `query` and makes its ticket.
    pub(super) fn issue(&self, signer: &Signer, query: Arc<PinnedQuery>) -> Ticket {
        let mut handle = [0; HANDLE_BYTES];
        rand::rng().fill_bytes(&mut handle);
        self.pinned.lock().insert(handle, query, 1);
        encode(signer, handle, now().saturating_add(self.ttl.as_secs()))
    }

    /// The statement a ticket names. One that cannot be repeated is given out once.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that are no ticket of ours, `Aborted` for a ticket whose
    /// statement this server does not have (any more).
    pub(super) fn redeem(
        &self,
        signer: &Signer,
        ticket: &TicketStatementQuery,
    ) -> Result<Arc<PinnedQuery>> {
        let payload = signer
            .open(Purpose::Ticket, &ticket.statement_handle)
            .map_err(|why| match why {
                Refused::Foreign => gone("another server, or this one before a restart, made it"),
                Refused::Damaged => damaged(),
            })?;
        let (handle, expiry) = decode(payload).ok_or_else(damaged)?;
        if expiry < now() {
            self.pinned.lock().remove(&handle);
            return Err(gone("it has expired"));
        }
        let mut pinned = self.pinned.lock();
        let query = pinned.get(&handle).map(Arc::clone).ok_or_else(|| {
            gone("too many statements were executed since, or it could be fetched only once")
        })?;
        if !query.repeatable {
            pinned.remove(&handle);
        }
        Ok(query)
    }
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn encode(signer: &Signer, handle: Handle, expiry: u64) -> Ticket {
    let mut payload = handle.to_vec();
    payload.extend_from_slice(&expiry.to_be_bytes());
    let statement_handle = signer.seal(Purpose::Ticket, &payload).into();
    Ticket::new(
        TicketStatementQuery { statement_handle }
            .as_any()
            .encode_to_vec(),
    )
}

fn decode(payload: &[u8]) -> Option<(Handle, u64)> {
    let (handle, expiry) = payload.split_at_checked(HANDLE_BYTES)?;
    Some((
        handle.try_into().ok()?,
        u64::from_be_bytes(expiry.try_into().ok()?),
    ))
}

fn damaged() -> Error {
    Error::invalid("this ticket was not made by this server, or was changed on its way")
}

fn gone(why: &str) -> Error {
    Error::new(
        Kind::Aborted,
        format!(
            "this ticket's result can no longer be reproduced ({why}); run the statement again"
        ),
    )
}
