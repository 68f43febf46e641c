//! Decodes the versions in one data file of a feature group, to the types its definition says.
//!
//! Column names match ignoring case, a feature the file lacks reads as null, widths are widened,
//! INT96 and INT64 timestamps become instants. A value that cannot be what its definition says is
//! a `DataLoss` error that names the object.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::buffer::ScalarBuffer;
use futures::StreamExt;
use futures::stream::{BoxStream, try_unfold};
use parquet::arrow::arrow_reader::RowSelection;

use crate::error::{Error, Result};
use crate::instant::Instant;
use crate::listing::{DataFile, Lister};
use crate::model::{FeatureType, SYSTEM_COLUMNS};
use crate::table::{FeatureTable, FileSet, feature_type};

use super::convert::{self, Place};
use super::decode::{FileScan, Rows};
use super::fetch::{Object, Origin};
use super::files::ScanMetrics;
use super::footer::{self, Footer, FooterCache, Found, Piece};
use super::prune::{self, FileBounds, GroupBounds, Places, Prune};
use super::unlanded;

/// Which columns of a file to decode.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each names a column of its own"
)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Positions in the group's definitions. The event time may be among them (as a timestamp).
    pub features: Vec<usize>,
    /// The event time as instants, for ranking.
    pub event_time: bool,
    pub write_time: bool,
    pub api_invocation_time: bool,
    pub is_deleted: bool,
}

/// Instants of a column without nulls.
#[derive(Debug, Clone)]
pub struct InstantColumn {
    pub micros: ScalarBuffer<i64>,
    /// Absent when every value is a whole microsecond.
    pub nanos: Option<Vec<u16>>,
}

impl InstantColumn {
    pub fn get(&self, row: usize) -> Instant {
        Instant {
            micros: self.micros[row],
            nanos: self.nanos.as_ref().map_or(0, |n| n[row]),
        }
    }

    pub fn len(&self) -> usize {
        self.micros.len()
    }

    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }
}

/// Consecutive rows of one file (with a selection: the selected ones, in file order). Never empty.
#[derive(Debug, Clone)]
pub struct VersionBatch {
    /// Position in the file of row 0; only meaningful without a row selection. Rows that were
    /// pruned count.
    pub first_row: u64,
    pub rows: usize,
    /// In the order of [`Columns::features`]: `Int64`, `Float64`, `Utf8View`, or the timestamp
    /// type for the event time.
    pub features: Vec<ArrayRef>,
    pub event_time: Option<InstantColumn>,
    pub write_time: Option<InstantColumn>,
    pub api_invocation_time: Option<InstantColumn>,
    pub is_deleted: Option<BooleanArray>,
}

/// How files are read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadSettings {
    /// Requests to the store in flight at once, and files opened ahead, in one run through files.
    pub requests_in_flight: usize,
    /// Bytes fetched in one run for files that nobody decodes yet, about; one file is always
    /// opened ahead.
    pub bytes_ahead: u64,
}

impl Default for ReadSettings {
    fn default() -> Self {
        Self {
            requests_in_flight: 32,
            bytes_ahead: 32 * 1024 * 1024,
        }
    }
}

/// Opens files, with footers cached by object identity (path, size, e-tag or modification time).
#[derive(Debug)]
pub struct FileReader {
    footers: FooterCache,
    lister: Option<Arc<Lister>>,
    settings: ReadSettings,
}

impl FileReader {
    /// Footers beyond `footer_cache_bytes` are forgotten, the least recently used first.
    pub fn new(footer_cache_bytes: usize) -> Self {
        Self {
            footers: FooterCache::new(footer_cache_bytes),
            lister: None,
            settings: ReadSettings::default(),
        }
    }

    /// Reads ahead as `settings` say.
    #[must_use]
    pub fn with_settings(mut self, settings: ReadSettings) -> Self {
        self.settings = settings;
        self
    }

    pub fn settings(&self) -> ReadSettings {
        self.settings
    }

    /// A file found removed or replaced makes `lister` forget what it has cached of its table, so
    /// that running the statement again works at once.
    #[must_use]
    pub fn correcting(mut self, lister: &Arc<Lister>) -> Self {
        self.lister = Some(Arc::clone(lister));
        self
    }

    /// Decodes `columns` of `file`, only the rows of `selection` if given.
    ///
    /// Rows come in file order, at most 8,192 to a batch; batches end at row groups, so without a
    /// selection `first_row` of a batch is `first_row + rows` of the one before, and the last ends
    /// at the file's row count. A selection counts from the first row of the file and may end
    /// early, but must not select rows the file does not have; row groups it leaves out are not
    /// fetched. A stream that ends without an error has given every selected row. Nothing is read
    /// before the stream is polled; dropping it stops all work.
    ///
    /// # Errors
    /// `Aborted` when the object was removed or replaced since it was listed (never newer data),
    /// `Unavailable` when the store fails, `DataLoss` when the file or a value in it is not what
    /// the definition says. The stream ends after an error.
    pub fn read(
        self: &Arc<Self>,
        table: &Arc<FeatureTable>,
        file: &Arc<DataFile>,
        columns: &Columns,
        selection: Option<RowSelection>,
    ) -> BoxStream<'static, Result<VersionBatch>> {
        let request = ReadRequest {
            reader: Arc::clone(self),
            origin: self.origin(&table.files, None),
            table: Arc::clone(table),
            file: Arc::clone(file),
            columns: columns.clone(),
            selection,
            prune: Prune::default(),
            metrics: ScanMetrics::unobserved(),
        };
        request.into_stream()
    }

    /// What the objects of a set share in one run, with a bound on the requests in flight.
    pub(crate) fn origin(&self, set: &FileSet, requests: Option<usize>) -> Arc<Origin> {
        Origin::new(set, self.lister.as_ref(), requests)
    }

    /// What the footer of `file` says of all its rows together.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn bounds(
        self: &Arc<Self>,
        table: &FeatureTable,
        file: &Arc<DataFile>,
        metrics: &ScanMetrics,
    ) -> Result<FileBounds> {
        let origin = self.origin(&table.files, None);
        let object = Object::new(&origin, file, metrics.bytes_scanned.clone());
        let (footer, _) = self.footer(&object, &prune::kept(table)).await?;
        let places = Required::new(table, &footer, &object)?.places();
        let bounds = GroupBounds {
            table,
            footer: &footer,
            places,
        };
        Ok(bounds.of_file())
    }

    /// The footer of `object` with the statistics of the columns named `kept`, and the end of the
    /// file when it had to be fetched.
    pub(crate) async fn footer(
        &self,
        object: &Object,
        kept: &[&str],
    ) -> Result<(Arc<Footer>, Option<Piece>)> {
        let identity = object.identity();
        if let Some(footer) = self.footers.get(&identity)
            && footer.keeps(kept)
        {
            return Ok((footer, None));
        }
        let (footer, tail) = footer::read(object, kept).await?;
        let footer = Arc::new(footer);
        self.footers.put(identity, &footer);
        Ok((footer, Some(tail)))
    }
}

/// What [`FileReader::read`] was asked for.
pub(crate) struct ReadRequest {
    pub(crate) reader: Arc<FileReader>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) table: Arc<FeatureTable>,
    pub(crate) file: Arc<DataFile>,
    pub(crate) columns: Columns,
    pub(crate) selection: Option<RowSelection>,
    pub(crate) prune: Prune,
    pub(crate) metrics: ScanMetrics,
}

impl ReadRequest {
    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<VersionBatch>> {
        futures::stream::once(self.open())
            .map(|opened| match opened {
                Ok(open) => open.into_stream(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            })
            .flatten()
            .boxed()
    }

    /// Reads the footer and the first row group that is wanted, so that decoding can begin.
    pub(crate) async fn open(self) -> Result<OpenFile> {
        if let Some(unlanded) = &self.file.unlanded {
            let unlanded = Arc::clone(unlanded);
            return Ok(OpenFile::Unlanded(unlanded::read(
                unlanded,
                self.table,
                self.columns,
                self.selection,
                self.prune,
            )));
        }
        let fetched = self.metrics.bytes_scanned.clone();
        let object = Object::new(&self.origin, &self.file, fetched);
        let kept = prune::kept(&self.table);
        let (footer, tail) = self.reader.footer(&object, &kept).await?;
        // A file without these is not a file of this group, whatever is asked of it.
        let required = Required::new(&self.table, &footer, &object)?;
        let plan = Plan::new(&self.table, &self.columns, &required, &footer, &object)?;
        let bounds = GroupBounds {
            table: &self.table,
            footer: &footer,
            places: required.places(),
        };
        let mut left_out = bounds.left_out(&self.prune);
        if let Some(keys) = &self.prune.keys {
            let (keys, tail) = (keys.as_ref(), tail.as_ref());
            bounds
                .rule_out(keys, &plan.roots, &object, tail, &mut left_out)
                .await?;
        }
        left_out.count(&self.metrics);
        let consecutive = self.selection.is_none();
        let roots = plan.roots.clone();
        let mut scan = FileScan::new(object, footer, tail, roots, self.selection);
        scan.leave_out(left_out);
        scan.load().await?;
        Ok(OpenFile::Object(Box::new(OpenObject {
            table: self.table,
            plan,
            consecutive,
            scan,
        })))
    }
}

/// A file whose first rows can be decoded without waiting.
pub(crate) enum OpenFile {
    Object(Box<OpenObject>),
    Unlanded(BoxStream<'static, Result<VersionBatch>>),
}

impl OpenFile {
    pub(crate) fn held(&self) -> u64 {
        match self {
            Self::Object(open) => open.scan.held(),
            Self::Unlanded(_) => 0,
        }
    }

    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<VersionBatch>> {
        match self {
            Self::Object(open) => open.into_stream(),
            Self::Unlanded(batches) => batches,
        }
    }
}

/// See [`OpenFile`].
pub(crate) struct OpenObject {
    table: Arc<FeatureTable>,
    plan: Plan,
    consecutive: bool,
    scan: FileScan,
}

impl OpenObject {
    fn into_stream(self) -> BoxStream<'static, Result<VersionBatch>> {
        try_unfold(self, |mut open| async move {
            let Some(rows) = open.scan.next().await? else {
                return Ok(None);
            };
            let batch = open.convert(&rows)?;
            Ok(Some((batch, open)))
        })
        .boxed()
    }

    fn convert(&self, rows: &Rows) -> Result<VersionBatch> {
        let event_time = self
            .plan
            .event_time
            .map(|at| self.event_time(rows, at))
            .transpose()?;
        let mut features = Vec::with_capacity(self.plan.features.len());
        for (feature, place) in &self.plan.features {
            features.push(match (place, &event_time) {
                (None, _) => self.missing(*feature, rows.len)?,
                (Some(_), Some(instants)) if *feature == self.table.event_time => {
                    convert::timestamps(instants)
                }
                (Some(at), _) => self.feature(rows, *feature, *at)?,
            });
        }
        let system = |at: Option<usize>, name| {
            at.map(|at| {
                let nanos = rows.nanos[at].as_ref();
                convert::timestamp(&rows.columns[at], nanos, self.place(rows, name))
            })
            .transpose()
        };
        let [write_time, api_invocation_time, is_deleted] = SYSTEM_COLUMNS;
        let deleted = |at: usize| convert::boolean(&rows.columns[at], self.place(rows, is_deleted));
        Ok(VersionBatch {
            first_row: rows.first_row,
            rows: rows.len,
            features,
            event_time: event_time.filter(|_| self.plan.wants_event_time),
            write_time: system(self.plan.write_time, write_time)?,
            api_invocation_time: system(self.plan.api_invocation_time, api_invocation_time)?,
            is_deleted: self.plan.is_deleted.map(deleted).transpose()?,
        })
    }

    fn place<'a>(&'a self, rows: &Rows, column: &'a str) -> Place<'a> {
        let first_row = self.consecutive.then_some(rows.first_row);
        Place {
            object: self.scan.object(),
            column,
            first_row,
        }
    }

    fn name(&self, feature: usize) -> &str {
        &self.table.group.feature_definitions[feature].feature_name
    }

    fn event_time(&self, rows: &Rows, at: usize) -> Result<InstantColumn> {
        let place = self.place(rows, self.name(self.table.event_time));
        let nanos = rows.nanos[at].as_ref();
        convert::event_time(&rows.columns[at], nanos, self.table.event_time_form, place)
    }

    fn feature(&self, rows: &Rows, feature: usize, at: usize) -> Result<ArrayRef> {
        let place = self.place(rows, self.name(feature));
        let array = &rows.columns[at];
        let array = match &self.table.group.feature_definitions[feature].feature_type {
            FeatureType::Integral => convert::integral(array, place),
            FeatureType::Fractional => convert::fractional(array, place),
            FeatureType::String => convert::text(array, place),
            FeatureType::Other(other) => Err(unknown_type(place.column, other)),
        }?;
        if feature == self.table.record_identifier {
            place.no_nulls(&array)?;
        }
        Ok(array)
    }

    fn missing(&self, feature: usize, rows: usize) -> Result<ArrayRef> {
        let definition = &self.table.group.feature_definitions[feature];
        match (
            feature_type(&definition.feature_type),
            &definition.feature_type,
        ) {
            (Some(kind), _) => Ok(new_null_array(&kind, rows)),
            (None, FeatureType::Other(other)) => Err(unknown_type(self.name(feature), other)),
            (None, _) => Err(unknown_type(self.name(feature), "unknown")),
        }
    }
}

fn unknown_type(feature: &str, kind: &str) -> Error {
    Error::precondition(format!(
        "feature '{feature}' has the type {kind}, which cannot be read yet"
    ))
}

/// Which columns of one file are decoded, and where each wanted column is among them.
struct Plan {
    /// Root columns, ascending.
    roots: Vec<usize>,
    /// Definition positions and where each is; `None` for a feature the file lacks.
    features: Vec<(usize, Option<usize>)>,
    /// Decoded when wanted as instants or as a feature.
    event_time: Option<usize>,
    wants_event_time: bool,
    write_time: Option<usize>,
    api_invocation_time: Option<usize>,
    is_deleted: Option<usize>,
}

/// Where the columns are that every file of a group has: root columns.
struct Required {
    record_identifier: usize,
    event_time: usize,
    write_time: usize,
    api_invocation_time: usize,
    is_deleted: usize,
}

impl Required {
    fn new(table: &FeatureTable, footer: &Footer, object: &Object) -> Result<Self> {
        let [write_time, api_invocation_time, is_deleted] =
            SYSTEM_COLUMNS.map(|column| required(footer, object, column));
        Ok(Self {
            record_identifier: required(footer, object, name(table, table.record_identifier)?)?,
            event_time: required(footer, object, name(table, table.event_time)?)?,
            write_time: write_time?,
            api_invocation_time: api_invocation_time?,
            is_deleted: is_deleted?,
        })
    }

    fn places(&self) -> Places {
        Places {
            record_identifier: self.record_identifier,
            event_time: self.event_time,
            write_time: self.write_time,
            api_invocation_time: self.api_invocation_time,
        }
    }
}

fn name(table: &FeatureTable, feature: usize) -> Result<&str> {
    let definition = table.group.feature_definitions.get(feature);
    definition
        .map(|definition| definition.feature_name.as_str())
        .ok_or_else(|| Error::internal(format!("feature {feature} is not in the definition")))
}

impl Plan {
    fn new(
        table: &FeatureTable,
        columns: &Columns,
        required: &Required,
        footer: &Footer,
        object: &Object,
    ) -> Result<Self> {
        let &Required {
            record_identifier,
            event_time,
            write_time,
            api_invocation_time,
            is_deleted,
        } = required;
        let mut features = Vec::with_capacity(columns.features.len());
        for &feature in &columns.features {
            let root = if feature == table.record_identifier {
                Some(record_identifier)
            } else if feature == table.event_time {
                Some(event_time)
            } else {
                optional(footer, object, name(table, feature)?)?
            };
            features.push((feature, root));
        }
        let event_time = (columns.event_time || columns.features.contains(&table.event_time))
            .then_some(event_time);
        let write_time = columns.write_time.then_some(write_time);
        let api_invocation_time = columns.api_invocation_time.then_some(api_invocation_time);
        let is_deleted = columns.is_deleted.then_some(is_deleted);

        let mut roots: Vec<usize> = features.iter().filter_map(|&(_, root)| root).collect();
        roots.extend(
            [event_time, write_time, api_invocation_time, is_deleted]
                .into_iter()
                .flatten(),
        );
        roots.sort_unstable();
        roots.dedup();
        let at = |root: Option<usize>| root.and_then(|root| roots.binary_search(&root).ok());
        Ok(Self {
            features: features
                .into_iter()
                .map(|(feature, root)| (feature, at(root)))
                .collect(),
            event_time: at(event_time),
            wants_event_time: columns.event_time,
            write_time: at(write_time),
            api_invocation_time: at(api_invocation_time),
            is_deleted: at(is_deleted),
            roots,
        })
    }
}

fn optional(footer: &Footer, object: &Object, column: &str) -> Result<Option<usize>> {
    match footer.find(column) {
        Found::At(root) => Ok(Some(root)),
        Found::Missing => Ok(None),
        Found::Ambiguous => Err(Error::data_loss(format!(
            "{}: several columns are called '{column}' when case is ignored",
            object.name()
        ))),
    }
}

fn required(footer: &Footer, object: &Object, column: &str) -> Result<usize> {
    optional(footer, object, column)?.ok_or_else(|| {
        Error::data_loss(format!(
            "{}: the column '{column}' is missing",
            object.name()
        ))
    })
}
