//! Prepared-statement handles. A handle is the statement itself: its text and the parameters bound
//! so far, sealed, so that any server with the signing key can execute it and nobody can change it.
//!
//! Binding answers with a new handle. Older clients go on using the one they had, so what was bound
//! last to a handle is remembered beside it for a while, on the server that bound it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use featureflight_catalog::{Error, Kind, Result};
use parking_lot::Mutex;
use prost::Message;
use prost::bytes::Bytes;
use rand::RngCore;
use sha2::{Digest, Sha256};

use super::bounded::Bounded;
use crate::signing::{Purpose, Refused, Signer};

/// A handle travels with every call of its statement.
const MAX_HANDLE_BYTES: usize = 1 << 20;

/// What a handle says.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Statement {
    #[prost(string, tag = "1")]
    pub(super) sql: String,
    /// The bound rows as an Arrow IPC stream; absent until something is bound.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) parameters: Option<Bytes>,
    /// Tells two preparations of one text apart.
    #[prost(bytes = "bytes", tag = "3")]
    nonce: Bytes,
}

impl Statement {
    pub(super) fn new(sql: String) -> Self {
        let mut nonce = [0; 16];
        rand::rng().fill_bytes(&mut nonce);
        Self {
            sql,
            parameters: None,
            nonce: Bytes::copy_from_slice(&nonce),
        }
    }

    /// # Errors
    /// `ResourceExhausted` when text and parameters are too long together.
    pub(super) fn seal(&self, signer: &Signer) -> Result<Bytes> {
        let handle = signer.seal(Purpose::PreparedStatement, &self.encode_to_vec());
        if handle.len() > MAX_HANDLE_BYTES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the statement and its parameters take {} bytes; a prepared statement holds \
                     at most {MAX_HANDLE_BYTES}",
                    handle.len()
                ),
            ));
        }
        Ok(handle.into())
    }

    /// # Errors
    /// `InvalidArgument` for bytes that are no handle of ours, `FailedPrecondition` for those of a
    /// server with another key.
    pub(super) fn open(signer: &Signer, handle: &[u8]) -> Result<Self> {
        let damaged = || {
            Error::invalid(
                "this prepared-statement handle was not made by this server, or was changed on \
                 its way",
            )
        };
        let payload = signer.open(Purpose::PreparedStatement, handle).map_err(|why| match why {
            Refused::Foreign => Error::precondition(
                "another server, or this one before a restart, prepared this statement; prepare \
                 it again",
            ),
            Refused::Damaged => damaged(),
        })?;
        Self::decode(payload).map_err(|_| damaged())
    }
}

/// The parameters bound last to each handle.
#[derive(Debug)]
pub(super) struct Bindings(Mutex<Bounded<[u8; 32], Bytes>>);

impl Bindings {
    /// At most `capacity` bytes.
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        Self(Mutex::new(Bounded::new(capacity, ttl)))
    }

    pub(super) fn remember(&self, handle: &[u8], parameters: Bytes) {
        let weight = parameters.len();
        self.0.lock().insert(key(handle), parameters, weight);
    }

    pub(super) fn of(&self, handle: &[u8]) -> Option<Bytes> {
        self.0.lock().get(&key(handle)).cloned()
    }

    pub(super) fn sweep(&self) {
        self.0.lock().take_expired();
    }

    pub(super) fn forget(&self, handle: &[u8]) {
        self.0.lock().remove(&key(handle));
    }
}

fn key(handle: &[u8]) -> [u8; 32] {
    Sha256::digest(handle).into()
}
