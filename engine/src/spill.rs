//! Where intermediate results go that do not fit in memory: a directory of this process alone, gone
//! when it ends. What a process left that was killed, the next one on the same directory removes.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use featureflight_catalog::{Error, Result};

const PREFIX: &str = "featureflight-spill-";

/// Beside each directory; locked by the process it belongs to, for as long as that lives.
const LOCK: &str = "lock";

/// See the module.
#[derive(Debug)]
pub(crate) struct SpillDirectory {
    path: PathBuf,
    lock: PathBuf,
    _locked: File,
}

impl SpillDirectory {
    /// Makes one below `root`, or below the system's temporary directory.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be made.
    pub(crate) fn make(root: Option<&Path>) -> Result<Self> {
        let root = root.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Self::make_below(&root).map_err(|error| {
            Error::unavailable(format!(
                "cannot make a directory for intermediate results below {}: {error}",
                root.display()
            ))
            .with_source(error)
        })
    }

    fn make_below(root: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        sweep(root);
        let path = root.join(format!("{PREFIX}{}", uuid::Uuid::new_v4()));
        let lock = path.with_extension(LOCK);
        let locked = File::create_new(&lock)?;
        locked.lock()?;
        // What is in it is the users' data.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self {
            path,
            lock,
            _locked: locked,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SpillDirectory {
    fn drop(&mut self) {
        remove(&self.path, &self.lock);
    }
}

/// Removes what nobody holds any more.
fn sweep(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for lock in entries.flatten().map(|entry| entry.path()) {
        let ours = lock
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(PREFIX));
        if !ours || lock.extension().is_none_or(|extension| extension != LOCK) {
            continue;
        }
        if let Ok(file) = File::open(&lock)
            && file.try_lock().is_ok()
        {
            let path = lock.with_extension("");
            tracing::info!(path = %path.display(), "removed what a killed process left");
            remove(&path, &lock);
        }
    }
}

fn remove(path: &Path, lock: &Path) {
    if let Err(error) = std::fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove intermediate results");
        return;
    }
    // Gone already where another process swept at the same time.
    let _ = std::fs::remove_file(lock);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_process_has_its_own_and_what_was_left_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let first = SpillDirectory::make(Some(root.path())).unwrap();
        let mode = std::fs::metadata(first.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        std::fs::write(first.path().join("rows"), b"x").unwrap();
        let left = root.path().join(format!("{PREFIX}left"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("rows"), b"x").unwrap();
        File::create(left.with_extension(LOCK)).unwrap();
        std::fs::write(root.path().join("another's"), b"x").unwrap();

        let second = SpillDirectory::make(Some(root.path())).unwrap();
        assert!(!left.exists());
        assert!(first.path().join("rows").exists(), "a living one's stays");
        drop((first, second));
        let entries = std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(entries, 1, "the other file");
    }

    #[test]
    fn what_cannot_be_made_is_said() {
        let root = tempfile::NamedTempFile::new().unwrap();
        let error = SpillDirectory::make(Some(root.path())).unwrap_err();
        assert!(error.message.contains("intermediate results"), "{error}");
    }
}
