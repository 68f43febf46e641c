//! One process per outbox: an advisory lock on a file, which the operating system frees when the
//! process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use featureflight_catalog::{Error, Result};

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// # Errors
    /// `FailedPrecondition` when another process, or this one, holds it.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let broken = |error| {
            let path = path.display();
            Error::precondition(format!("the outbox cannot be locked at '{path}': {error}"))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(broken(error)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).ok();
                return Err(Error::precondition(format!(
                    "the outbox '{}' is in use by process {}: stop it, or give this server another \
                     directory",
                    dir.display(),
                    owner.trim(),
                )));
            }
        }
        // Only for the message above: a lock without a name is as good.
        let named = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = named {
            tracing::warn!(%error, "the outbox's lock file does not name this process");
        }
        Ok(Self { _file: file })
    }
}
