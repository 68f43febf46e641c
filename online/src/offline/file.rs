//! One Parquet file, whole or absent: written in a folder that no reader looks into, brought to
//! disk, then named.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::plan::Planned;
use crate::disk;
use crate::outbox::{Outbox, Position};

/// Where a file says which accepted rows it holds.
const POSITIONS: &str = "featureflight.accepted";

/// Below a group's prefix.
const UNFINISHED: &str = "_unfinished";

/// # Errors
/// `Unavailable` when the disk fails or is full; the file is not there then.
pub(super) fn write(
    outbox: &Outbox,
    table: &FeatureTable,
    planned: &Planned,
    root: &Path,
) -> Result<()> {
    let path = root.join(planned.path.as_ref());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::internal("a data file has no folder"));
    };
    let prefix = root.join(table.files.location.prefix.as_ref());
    let unfinished = Unfinished::new(&prefix, &name.to_string_lossy())?;
    fill(outbox, table, planned, unfinished.create()?)
        .map_err(|error| failed(&unfinished.0, &error))?;
    outbox.step("offline.unnamed");
    let named = disk::make_folders(folder)
        .and_then(|()| fs::rename(&unfinished.0, &path))
        .and_then(|()| disk::sync_folder(folder));
    if let Err(error) = named {
        // Named already, perhaps, but not known to be so after a power cut.
        fs::remove_file(&path).ok();
        return Err(failed(&path, &error));
    }
    outbox.step("offline.named");
    Ok(())
}

/// A file on its way. It is removed with this value, unless it got its name.
#[derive(Debug)]
pub(super) struct Unfinished(pub(super) PathBuf);

impl Unfinished {
    /// One that is to be called `name`, below a group's prefix.
    ///
    /// # Errors
    /// `Unavailable` when its folder cannot be made.
    pub(super) fn new(prefix: &Path, name: &str) -> Result<Self> {
        let folder = prefix.join(UNFINISHED);
        disk::make_folders(&folder).map_err(|error| failed(&folder, &error))?;
        Ok(Self(folder.join(format!("{name}.part"))))
    }

    pub(super) fn create(&self) -> Result<File> {
        File::create(&self.0).map_err(|error| failed(&self.0, &error))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

/// Removes what processes before this one began.
///
/// # Errors
/// `Unavailable` when it cannot.
pub(super) fn remove_unfinished(prefix: &Path) -> Result<()> {
    let folder = prefix.join(UNFINISHED);
    disk::unless_absent(fs::remove_dir_all(&folder)).map_err(|error| failed(&folder, &error))
}

/// `Unavailable`, for what the disk says of `path`.
pub(super) fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let path = path.display();
    Error::unavailable(format!("'{path}' cannot be written: {error}"))
}

fn fill(
    outbox: &Outbox,
    table: &FeatureTable,
    planned: &Planned,
    file: File,
) -> parquet::errors::Result<()> {
    let batch = &planned.batch;
    let identifier = &table.group.record_identifier_feature_name;
    let about = planned.positions().map(accepted_pair).into_iter().collect();
    let mut writer = writer(file, identifier, &batch.schema(), batch.num_rows(), about)?;
    let half = batch.num_rows() / 2;
    writer.write(&batch.slice(0, half))?;
    outbox.step("offline.half");
    writer.write(&batch.slice(half, batch.num_rows() - half))?;
    Ok(writer.into_inner()?.sync_all()?)
}

/// A writer of versions, where the column `identifier` is what they are looked up by.
///
/// # Errors
/// Those of the disk.
pub(super) fn writer(
    file: File,
    identifier: &str,
    schema: &SchemaRef,
    rows: usize,
    about: Vec<KeyValue>,
) -> parquet::errors::Result<ArrowWriter<File>> {
    let identifier = ColumnPath::new(vec![identifier.to_owned()]);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_column_bloom_filter_enabled(identifier.clone(), true)
        .set_column_bloom_filter_max_ndv(identifier, rows as u64)
        .set_key_value_metadata(Some(about).filter(|about| !about.is_empty()))
        .build();
    ArrowWriter::try_new(file, schema.clone(), Some(properties))
}

/// The first and the last place in the order of acceptance of what a file holds.
pub(super) fn accepted_pair((first, last): (Position, Position)) -> KeyValue {
    let place = |at: Position| format!("{}.{}", at.sequence, at.part);
    let range = format!("{}-{}", place(first), place(last));
    KeyValue::new(POSITIONS.to_owned(), range)
}

/// What [`accepted_pair`] says in the metadata of a file.
pub(super) fn accepted(about: Option<&Vec<KeyValue>>) -> Option<(Position, Position)> {
    let pair = about?.iter().find(|pair| pair.key == POSITIONS)?;
    let place = |text: &str| {
        let (sequence, part) = text.split_once('.')?;
        Some(Position {
            sequence: sequence.parse().ok()?,
            part: part.parse().ok()?,
        })
    };
    let (first, last) = pair.value.as_ref()?.split_once('-')?;
    Some((place(first)?, place(last)?))
}
