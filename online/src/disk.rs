//! Files and folders that are on disk when a call returns, power cuts included.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// A file that is whole or absent.
///
/// # Errors
/// Those of the disk; the file is as it was before then, or as it is to be.
pub(crate) fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(name))?;
    sync_folder(folder)
}

/// The folder and those above it.
///
/// # Errors
/// Those of the disk.
pub(crate) fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else {
        return Ok(());
    };
    make_folders(above)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(above)
}

/// The names in a folder.
///
/// # Errors
/// Those of the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// `done`, also when there was nothing to do it to.
///
/// # Errors
/// Any other than that.
pub(crate) fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
