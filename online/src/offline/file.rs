//! One Parquet file, whole or absent: written under another name, brought to disk, then named.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::plan::Planned;
use crate::outbox::Outbox;

/// Where a file says which accepted rows it holds.
const POSITIONS: &str = "featureflight.accepted";

/// # Errors
/// `Unavailable` when the disk fails or is full; the file is not there then, though an unfinished
/// one that no reader looks at may be.
pub(super) fn write(
    outbox: &Outbox,
    table: &FeatureTable,
    planned: &Planned,
    root: &Path,
) -> Result<()> {
    let path = root.join(planned.path.as_ref());
    let unavailable = |error: &dyn std::fmt::Display| {
        let path = path.display();
        Error::unavailable(format!("'{path}' cannot be written: {error}"))
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal("a data file has no folder"));
    };
    make_folders(folder).map_err(|error| unavailable(&error))?;
    let unfinished = folder.join(format!(".{}", name.to_string_lossy()));
    let written = File::create(&unfinished)
        .map_err(|error| unavailable(&error))
        .and_then(|file| {
            let file = fill(outbox, table, planned, file).map_err(|error| unavailable(&error))?;
            outbox.step("offline.unnamed");
            let named = file
                .sync_all()
                .and_then(|()| fs::rename(&unfinished, &path))
                .and_then(|()| File::open(folder)?.sync_all());
            named.map_err(|error| unavailable(&error))
        });
    if written.is_err() {
        // Named already, perhaps, but not known to be so after a power cut.
        fs::remove_file(&path).ok();
        fs::remove_file(&unfinished).ok();
        return written;
    }
    outbox.step("offline.named");
    Ok(())
}

fn fill(
    outbox: &Outbox,
    table: &FeatureTable,
    planned: &Planned,
    file: File,
) -> parquet::errors::Result<File> {
    let batch = &planned.batch;
    let identifier = batch.schema_ref().field(table.record_identifier).name();
    let identifier = ColumnPath::new(vec![identifier.clone()]);
    let positions = planned.positions().map(|(first, last)| {
        let place = |at: crate::outbox::Position| format!("{}.{}", at.sequence, at.part);
        KeyValue::new(
            POSITIONS.to_owned(),
            format!("{}-{}", place(first), place(last)),
        )
    });
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_bloom_filter_enabled(identifier.clone(), true)
        .set_column_bloom_filter_max_ndv(identifier, batch.num_rows() as u64)
        .set_key_value_metadata(positions.map(|positions| vec![positions]))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    let half = batch.num_rows() / 2;
    writer.write(&batch.slice(0, half))?;
    outbox.step("offline.half");
    writer.write(&batch.slice(half, batch.num_rows() - half))?;
    writer.into_inner()
}

/// The folder and those above it, with their names on disk.
fn make_folders(folder: &Path) -> io::Result<()> {
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
    File::open(above)?.sync_all()
}
