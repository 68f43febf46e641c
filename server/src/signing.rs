//! Signed bytes that clients carry for the server: tickets and prepared-statement handles.
//!
//! Form, fixed by a test: version (1 byte), key id (4 bytes), payload, HMAC-SHA256 (32 bytes) over
//! purpose, version, key id and payload. The purpose is not sent: bytes made for one use fail for
//! another.

use hmac::{Hmac, KeyInit, Mac};
use rand::RngCore;
use sha2::{Digest, Sha256};

use crate::config::Secret;

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const TAG_BYTES: usize = 32;

/// What sealed bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Ticket,
    PreparedStatement,
    Poll,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Ticket => b"featureflight ticket",
            Self::PreparedStatement => b"featureflight prepared statement",
            Self::Poll => b"featureflight poll",
        }
    }
}

/// Why sealed bytes cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another key or version made them: another server, or this one before its last start.
    Foreign,
    /// Not what was sealed.
    Damaged,
}

/// Seals and opens with one key.
pub(crate) struct Signer {
    mac: Hmac<Sha256>,
    key_id: [u8; KEY_ID_BYTES],
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Signer {
    /// With the configured key, or one that lives as long as the process.
    pub(crate) fn new(key: Option<&Secret>) -> Self {
        let key: [u8; 32] = if let Some(key) = key {
            Sha256::digest(key.reveal()).into()
        } else {
            let mut random = [0; 32];
            rand::rng().fill_bytes(&mut random);
            random
        };
        let id = Sha256::new_with_prefix(b"featureflight key id")
            .chain_update(key)
            .finalize();
        let mut key_id = [0; KEY_ID_BYTES];
        key_id.copy_from_slice(&id[..KEY_ID_BYTES]);
        // HMAC pads a key to its hash's block.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(&key);
        Self {
            mac: Hmac::new(&block.into()),
            key_id,
        }
    }

    pub(crate) fn seal(&self, purpose: Purpose, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + KEY_ID_BYTES + payload.len() + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key_id);
        bytes.extend_from_slice(payload);
        let tag = self.tag(purpose, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        bytes
    }

    /// The payload that was sealed for `purpose`.
    pub(crate) fn open<'a>(&self, purpose: Purpose, bytes: &'a [u8]) -> Result<&'a [u8], Refused> {
        let header = 1 + KEY_ID_BYTES;
        let Some(length) = bytes
            .len()
            .checked_sub(TAG_BYTES)
            .filter(|length| *length >= header)
        else {
            return Err(Refused::Damaged);
        };
        let (signed, tag) = bytes.split_at(length);
        if signed[0] != VERSION || signed[1..header] != self.key_id {
            return Err(Refused::Foreign);
        }
        match self.tag(purpose, signed).verify_slice(tag) {
            Ok(()) => Ok(&signed[header..]),
            Err(_) => Err(Refused::Damaged),
        }
    }

    fn tag(&self, purpose: Purpose, signed: &[u8]) -> Hmac<Sha256> {
        self.mac
            .clone()
            .chain_update(purpose.label())
            .chain_update(signed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_for_its_purpose_only() {
        let signer = Signer::new(None);
        let sealed = signer.seal(Purpose::Ticket, b"payload");
        assert_eq!(signer.open(Purpose::Ticket, &sealed), Ok(&b"payload"[..]));
        assert_eq!(
            signer.open(Purpose::PreparedStatement, &sealed),
            Err(Refused::Damaged)
        );
        assert_eq!(
            Signer::new(None).open(Purpose::Ticket, &sealed),
            Err(Refused::Foreign)
        );
    }

    #[test]
    fn no_changed_byte_passes() {
        let signer = Signer::new(None);
        let sealed = signer.seal(Purpose::Ticket, b"payload");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(
                signer.open(Purpose::Ticket, &changed).is_err(),
                "byte {position}"
            );
            assert!(signer.open(Purpose::Ticket, &sealed[..position]).is_err());
        }
    }
}
