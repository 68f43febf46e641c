//! Tickets of executed statements. A ticket is opaque: a random handle and its expiry, sealed. The
//! pinned statement it names stays in this server's memory; once it is gone the answer is "run it
//! again", never newer data.
//!
//! The ticket of a statement with an effect holds its answer too, since "run it again" would have
//! the effect again.
//!
//! Whoever holds a ticket may fetch it, from any connection: that is how clients hand partitions of
//! a result to other processes.

mod sealed;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow_flight::Ticket;
use arrow_flight::sql::{Any, ProstMessageExt, TicketStatementQuery};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::query::{PinnedQuery, ResultStream};
use parking_lot::Mutex;
use prost::Message;
use rand::RngCore;

use self::sealed::{Part, Sealed};
use super::bounded::Bounded;
use super::headers::IDEMPOTENCY_KEY;
use crate::signing::{Purpose, Refused, Signer};

const HANDLE_BYTES: usize = 16;

type Handle = [u8; HANDLE_BYTES];

/// The pinned statements whose tickets can be fetched.
#[derive(Debug)]
pub(super) struct Statements {
    ttl: Duration,
    /// What a statement counts for at least, in bytes.
    least: usize,
    pinned: Mutex<Bounded<Handle, Arc<Executed>>>,
}

/// A pinned statement, and its rows where they are being computed already.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) query: Arc<PinnedQuery>,
    begun: Mutex<Option<ResultStream>>,
}

impl Executed {
    pub(super) fn new(query: Arc<PinnedQuery>) -> Arc<Self> {
        let begun = Mutex::default();
        Arc::new(Self { query, begun })
    }

    /// Keeps a run for the first who fetches the whole result within `ttl`.
    pub(super) fn begun(self: &Arc<Self>, run: ResultStream, ttl: Duration) {
        *self.begun.lock() = Some(run);
        let executed = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            if let Some(executed) = executed.upgrade() {
                executed.take();
            }
        });
    }

    pub(super) fn take(&self) -> Option<ResultStream> {
        self.begun.lock().take()
    }
}

/// What a ticket names.
#[derive(Debug)]
pub(super) enum Redeemed {
    /// A statement, and one slice of its result or the whole.
    Pinned(Arc<Executed>, Option<usize>),
    /// What a statement with an effect answered, which is forgotten but for its ticket.
    Answer(RecordBatch),
}

/// An endpoint's ticket and how long it can be fetched.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) ticket: Ticket,
    pub(super) expires: SystemTime,
}

impl Statements {
    /// Keeps `most` statements for `ttl`, fewer where they hold more than `memory` bytes together.
    pub(super) fn new(most: usize, memory: usize, ttl: Duration) -> Self {
        let least = (memory / most.max(1)).max(1);
        Self {
            ttl,
            least,
            pinned: Mutex::new(Bounded::new(least.saturating_mul(most), ttl)),
        }
    }

    /// Keeps a statement and makes its tickets, one for each slice.
    pub(super) fn issue(&self, signer: &Signer, executed: Arc<Executed>) -> Vec<Issued> {
        let mut handle = [0; HANDLE_BYTES];
        rand::rng().fill_bytes(&mut handle);
        let parts = match executed.query.slices {
            0 | 1 => vec![executed.query.answer().map_or(Part::Whole, Part::answer)],
            slices => (0..slices).map(Part::Slice).collect(),
        };
        let weight = self.weight(&executed);
        self.pinned.lock().insert(handle, executed, weight);
        let issued = parts.into_iter();
        issued
            .map(|part| self.issue_one(signer, handle, part))
            .collect()
    }

    /// Lets go of what can be fetched no longer, which may be the last to hold a temporary table or
    /// a session.
    pub(super) fn sweep(&self) {
        let expired = self.pinned.lock().take_expired();
        drop(expired);
    }

    fn weight(&self, executed: &Executed) -> usize {
        executed.query.held_bytes().max(self.least)
    }

    fn issue_one(&self, signer: &Signer, handle: Handle, part: Part) -> Issued {
        let expires = SystemTime::now() + self.ttl;
        let sealed = Sealed {
            handle,
            expiry: unix_seconds(expires),
            part,
        };
        Issued {
            ticket: seal(signer, &sealed),
            expires,
        }
    }

    /// The statement a ticket names.
    ///
    /// # Errors
    /// `InvalidArgument` for bytes that are no ticket of ours, `Aborted` for a ticket whose
    /// statement this server does not have (any more).
    pub(super) fn redeem(
        &self,
        signer: &Signer,
        ticket: &TicketStatementQuery,
    ) -> Result<Redeemed> {
        let Sealed { handle, part, .. } = open(signer, ticket)?;
        let mut pinned = self.pinned.lock();
        let Some(executed) = pinned.get(&handle).map(Arc::clone) else {
            return match part {
                Part::Answer(answer) => Ok(Redeemed::Answer(answer)),
                Part::Whole | Part::Slice(_) => Err(gone(
                    "too many statements were executed since, or it could be fetched only once",
                )),
            };
        };
        let slice = part.slice();
        if !executed.query.repeatable && slice.is_none() {
            pinned.remove(&handle);
        }
        Ok(Redeemed::Pinned(executed, slice))
    }

    /// The statement a ticket names, left where it is. None when all there is of it is an answer.
    ///
    /// # Errors
    /// As [`Statements::redeem`].
    pub(super) fn find(&self, signer: &Signer, ticket: &Ticket) -> Result<Option<Arc<Executed>>> {
        let Sealed { handle, part, .. } = open(signer, &statement_ticket(ticket)?)?;
        let found = self.pinned.lock().get(&handle).map(Arc::clone);
        match (found, part) {
            (None, Part::Whole | Part::Slice(_)) => Err(forgotten()),
            (found, _) => Ok(found),
        }
    }

    /// A ticket for the same rows that can be fetched for as long as a new one.
    ///
    /// # Errors
    /// As [`Statements::redeem`]; `FailedPrecondition` for one that is good only once.
    pub(super) fn renew(&self, signer: &Signer, ticket: &Ticket) -> Result<Issued> {
        let Sealed { handle, part, .. } = open(signer, &statement_ticket(ticket)?)?;
        let mut pinned = self.pinned.lock();
        let Some(executed) = pinned.get(&handle).map(Arc::clone) else {
            return match part {
                Part::Answer(_) => Ok(self.issue_one(signer, handle, part)),
                Part::Whole | Part::Slice(_) => Err(forgotten()),
            };
        };
        if !executed.query.repeatable {
            return Err(Error::precondition(
                "this statement may give other rows when it is read again, so its ticket cannot be \
                 renewed: run it again",
            ));
        }
        let weight = self.weight(&executed);
        pinned.insert(handle, executed, weight);
        Ok(self.issue_one(signer, handle, part))
    }
}

/// # Errors
/// `InvalidArgument` for the ticket of something else than a statement.
pub(super) fn statement_ticket(ticket: &Ticket) -> Result<TicketStatementQuery> {
    let any = Any::decode(ticket.ticket.as_ref()).map_err(|_| damaged())?;
    any.unpack().map_err(|_| damaged())?.ok_or_else(damaged)
}

fn open(signer: &Signer, ticket: &TicketStatementQuery) -> Result<Sealed> {
    let payload = signer
        .open(Purpose::Ticket, &ticket.statement_handle)
        .map_err(|why| match why {
            Refused::Foreign => foreign(),
            Refused::Damaged => damaged(),
        })?;
    let sealed = Sealed::decode(payload).ok_or_else(damaged)?;
    if sealed.expiry >= unix_seconds(SystemTime::now()) {
        return Ok(sealed);
    }
    Err(match sealed.part {
        Part::Answer(_) => answered(),
        Part::Whole | Part::Slice(_) => gone("it has expired"),
    })
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn seal(signer: &Signer, sealed: &Sealed) -> Ticket {
    let statement_handle = signer.seal(Purpose::Ticket, &sealed.encode()).into();
    Ticket::new(
        TicketStatementQuery { statement_handle }
            .as_any()
            .encode_to_vec(),
    )
}

fn forgotten() -> Error {
    gone("too many statements were executed since, or it was cancelled")
}

fn damaged() -> Error {
    Error::invalid("this ticket was not made by this server, or was changed on its way")
}

/// Of a ticket that is no write's.
fn gone(why: &str) -> Error {
    Error::new(
        Kind::Aborted,
        format!(
            "this ticket's result can no longer be reproduced ({why}); run the statement again"
        ),
    )
}

/// Nobody here knows whether it was a write's.
fn foreign() -> Error {
    Error::new(
        Kind::Aborted,
        format!(
            "this ticket's result can no longer be reproduced (another server, or this one before a \
             restart, made it); run a query again, but a write, which was done when the ticket was \
             made, only under the {IDEMPOTENCY_KEY} it had"
        ),
    )
}

fn answered() -> Error {
    Error::new(
        Kind::Aborted,
        format!(
            "this ticket has expired; what its statement did was done when the ticket was made, and a \
             write is done twice when it is sent again without the {IDEMPOTENCY_KEY} it had"
        ),
    )
}
