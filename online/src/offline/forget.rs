//! Removes a record's every version from the offline files: each file that has some is written
//! again without them, whole or not at all.
//!
//! What is written takes the place of the old file in the order of keys. The old file goes at once,
//! and so does every file that was replaced before and kept: statements that were to read them
//! answer "run it again".

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringViewArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use featureflight_catalog::listing::FileList;
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::prune::{Prune, SortedKeys};
use featureflight_catalog::scan::versions::{Columns, FileReader};
use featureflight_catalog::snapshot::CatalogSnapshot;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Kind, Result};
use futures::TryStreamExt;

use super::file::{self, Unfinished, failed};
use super::names;
use super::optimize::{check_apart, list};
use super::owned::{New, Old, OwnedFiles};
use super::plan::unfit;
use super::stored::Stored;
use crate::gateway::Gateway;

/// Looks at all files before it is given up: somebody else rewrites them all the time.
const ATTEMPTS: usize = 20;

const FOOTER_CACHE: usize = 8 << 20;

/// A file that had versions of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The key it had.
    pub file: String,
    /// The versions of the record that were in it.
    pub rows: u64,
}

/// Removes every version of the record `identifier` (as text: `7`, `0.5`, `c-1`) from the files of
/// `table`. Returns the files that had some, by their keys; a second call finds none.
///
/// Rows of it must not be flushed any more when this is called: it does not look into the outbox.
/// Dropping the future ends it between two files.
///
/// # Errors
/// `FailedPrecondition` where the files are not this server's alone, or a file cannot be written
/// again as it was; `Unavailable` when the disk fails or a flush has not ended; `DataLoss` for a file
/// that cannot be read. What was rewritten before stays so: call it again.
pub async fn forget_offline(
    gateway: &Arc<Gateway>,
    catalog: &CatalogSnapshot,
    table: &Arc<FeatureTable>,
    identifier: &str,
) -> Result<Vec<Rewritten>> {
    let files = Arc::clone(gateway.owned_files(table.name())?);
    check_apart(catalog, table)?;
    let Some(key) = key(table, identifier) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for _ in 0..ATTEMPTS {
        let list = list(table).await?;
        check_flushed(gateway, table, &list)?;
        let found = find(table, &list, &key).await?;
        if found.is_empty() {
            // Those that were kept until now may have some too.
            let work = (Arc::clone(gateway), Arc::clone(&files), Arc::clone(table));
            let remove = move || work.1.remove_kept(&work.0.outbox, &work.2);
            super::blocking(remove).await?;
            return Ok(all);
        }
        for (at, rows) in found {
            let work = Work {
                gateway: Arc::clone(gateway),
                files: Arc::clone(&files),
                table: Arc::clone(table),
                list: Arc::clone(&list),
            };
            all.extend(super::blocking(move || work.rewrite(at, &rows)).await?);
        }
    }
    let group = table.name();
    Err(Error::unavailable(format!(
        "the files of '{group}' change all the time: try again"
    )))
}

/// The identifier as a column of one row, in the type it has in the group; `None` for a text that
/// is no identifier of it.
fn key(table: &FeatureTable, text: &str) -> Option<ArrayRef> {
    let field = table.state_schema.field(table.record_identifier);
    Some(match field.data_type() {
        DataType::Int64 => Arc::new(Int64Array::from(vec![text.parse::<i64>().ok()?])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![text.parse::<f64>().ok()?])),
        _ => Arc::new(StringViewArray::from(vec![text])),
    })
}

/// A file whose rows a crash would make the outbox write again must not go.
fn check_flushed(gateway: &Gateway, table: &FeatureTable, list: &FileList) -> Result<()> {
    let noted = gateway.outbox.landings()?;
    let listed = list.files.iter().map(|file| file.meta.location.as_ref());
    let listed: HashSet<&str> = listed.collect();
    if noted
        .iter()
        .any(|landing| listed.contains(landing.file.as_str()))
    {
        let group = table.name();
        return Err(Error::unavailable(format!(
            "rows of '{group}' are being written to files: try again"
        )));
    }
    Ok(())
}

/// The files that have versions of the record, as places in the list, and their rows.
async fn find(
    table: &Arc<FeatureTable>,
    list: &FileList,
    key: &ArrayRef,
) -> Result<BTreeMap<usize, HashSet<u64>>> {
    let keys = SortedKeys::from_array(key).ok_or_else(|| Error::internal("no identifier"))?;
    let prune = Prune {
        keys: Some(Arc::new(keys)),
        ..Prune::default()
    };
    let columns = Columns {
        features: vec![table.record_identifier],
        ..Columns::default()
    };
    let files: Vec<_> = list.files.iter().cloned().enumerate().collect();
    let reader = Arc::new(FileReader::new(FOOTER_CACHE));
    let run = reader
        .open_many(table, files, &columns, &ScanMetrics::unobserved())
        .pruning(prune);
    let mut found: BTreeMap<usize, HashSet<u64>> = BTreeMap::new();
    for mut batches in run.streams(1) {
        while let Some((file, batch)) = batches.try_next().await? {
            let Some(identifiers) = batch.features.first() else {
                continue;
            };
            let same = (0..batch.rows).filter(|row| is_same(identifiers, *row, key));
            let rows: Vec<u64> = same.map(|row| batch.first_row + row as u64).collect();
            if !rows.is_empty() {
                found.entry(file).or_default().extend(rows);
            }
        }
    }
    Ok(found)
}

fn is_same(identifiers: &ArrayRef, row: usize, key: &ArrayRef) -> bool {
    match identifiers.data_type() {
        DataType::Int64 => {
            let of = |array: &ArrayRef, row| array.as_primitive::<Int64Type>().value(row);
            of(identifiers, row) == of(key, 0)
        }
        DataType::Float64 => {
            let of = |array: &ArrayRef, row| array.as_primitive::<Float64Type>().value(row);
            let (one, other) = (of(identifiers, row), of(key, 0));
            one == other || (one.is_nan() && other.is_nan())
        }
        _ => identifiers.as_string_view().value(row) == key.as_string_view().value(0),
    }
}

/// The rewriting of one file.
struct Work {
    gateway: Arc<Gateway>,
    files: Arc<OwnedFiles>,
    table: Arc<FeatureTable>,
    list: Arc<FileList>,
}

impl Work {
    /// `None` when the file is not any more what it was listed as.
    fn rewrite(&self, at: usize, gone: &HashSet<u64>) -> Result<Option<Rewritten>> {
        let file = &self.list.files[at];
        let Some(stored) = Stored::open(self.files.place(file))? else {
            return Ok(None);
        };
        let new = if gone.len() == stored.rows() {
            None
        } else {
            match self.write(at, &stored, gone) {
                Err(error) if error.kind == Kind::Aborted => return Ok(None),
                new => Some(new?),
            }
        };
        let outbox = &self.gateway.outbox;
        outbox.step("replace.unnamed");
        let old = Old {
            files: std::slice::from_ref(file),
            keep: false,
        };
        if !self.files.replace(outbox, &self.table, &old, new)? {
            return Ok(None);
        }
        self.gateway.landed.note(self.table.name());
        Ok(Some(Rewritten {
            file: file.meta.location.as_ref().to_owned(),
            rows: gone.len() as u64,
        }))
    }

    fn write(&self, at: usize, stored: &Stored, gone: &HashSet<u64>) -> Result<New> {
        let name = self.name(at)?;
        let file = Unfinished::new(&self.files.folder(&self.table), &name)?;
        let written = |error: &dyn std::fmt::Display| failed(&file.0, error);
        let rows = stored.rows() - gone.len();
        let identifier = self.identifier(stored);
        let writer = file::writer(
            file.create()?,
            &identifier,
            stored.schema(),
            rows,
            stored.about(),
        );
        let mut writer = writer.map_err(|error| written(&error))?;
        let mut first = 0;
        for (number, batch) in stored.read()?.enumerate() {
            let batch = batch?;
            let end = first + batch.num_rows() as u64;
            let keep: BooleanArray = (first..end).map(|row| Some(!gone.contains(&row))).collect();
            first = end;
            let kept = filter_record_batch(&batch, &keep).map_err(unfit)?;
            writer.write(&kept).map_err(|error| written(&error))?;
            if number == 0 {
                self.gateway.outbox.step("replace.half");
            }
        }
        let done = writer.into_inner().map_err(|error| written(&error))?;
        done.sync_all().map_err(|error| written(&error))?;
        Ok(New { name, file })
    }

    /// The record identifier as the file spells it.
    fn identifier(&self, stored: &Stored) -> String {
        let name = &self.table.group.record_identifier_feature_name;
        let fields = stored.schema().fields().iter();
        let mut same = fields.filter(|field| field.name().eq_ignore_ascii_case(name));
        let found = same
            .find(|field| field.name() == name)
            .or_else(|| same.next());
        found.map_or_else(|| name.clone(), |field| field.name().clone())
    }

    /// A name at the file's place in the order of keys.
    fn name(&self, at: usize) -> Result<String> {
        let key = |at: usize| self.list.files.get(at).map(|file| &file.meta.location);
        let own = &self.list.files[at].meta.location;
        let name = own.filename().unwrap_or_default();
        let stem = name.strip_suffix(".parquet").unwrap_or(name);
        let number: u64 = rand::random();
        let names = [
            names::before(name),
            Some(format!("{stem}-{number:016x}.parquet")),
            Some(format!("{stem}_{number:016x}.parquet")),
        ];
        let folder = &own.as_ref()[..own.as_ref().len() - name.len()];
        let fits = |name: &String| {
            let place = format!("{folder}{name}");
            let last = at.checked_sub(1).and_then(key);
            last.is_none_or(|last| last.as_ref() < place.as_str())
                && key(at + 1).is_none_or(|next| place.as_str() < next.as_ref())
        };
        names.into_iter().flatten().find(fits).ok_or_else(|| {
            Error::precondition(format!("'{own}' leaves no name for what is left of it"))
        })
    }
}
