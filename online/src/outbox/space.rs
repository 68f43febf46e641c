//! Room on the outbox's disk.

use std::io;

use featureflight_catalog::{Error, Kind, Result};

use super::core::Core;

impl Core {
    /// # Errors
    /// `ResourceExhausted` when `bytes` more would leave too little of the disk.
    pub(super) fn check_space(&self, bytes: u64) -> Result<()> {
        let free = rustix::fs::statvfs(&self.dir)
            .map_or(u64::MAX, |stats| stats.f_bavail * stats.f_frsize); // Else writing will tell.
        if free >= bytes + self.options.reserve_bytes {
            return Ok(());
        }
        Err(self.full(&format!("{free} bytes are free")))
    }

    pub(super) fn full(&self, how: &str) -> Error {
        let dir = self.dir.display();
        Error::new(
            Kind::ResourceExhausted,
            format!(
                "the disk of the outbox '{dir}' is full ({how}): free some space and try again; what \
                 was acknowledged is kept"
            ),
        )
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
