//! The rows of a raw table.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, try_unfold};
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::instant::Instant;
use crate::listing::DataFile;
use crate::scan::convert::Place;
use crate::scan::deal::Opened;
use crate::scan::decode::{FileScan, Rows};
use crate::scan::exec::Relation;
use crate::scan::fetch::{Object, Origin};
use crate::scan::files::{ScanMetrics, run_through};
use crate::scan::footer::{Footer, Found};
use crate::scan::history::ScanContext;
use crate::scan::versions::FileReader;
use crate::table::RawTable;

use super::cast::cast;

/// A projection of a raw table.
#[derive(Debug)]
pub(super) struct Raw {
    table: Arc<RawTable>,
    reader: Arc<FileReader>,
    /// Positions in the table's schema.
    projection: Arc<[usize]>,
    schema: SchemaRef,
}

impl Raw {
    pub(super) fn try_new(
        table: &Arc<RawTable>,
        context: &ScanContext,
        projection: Vec<usize>,
    ) -> Result<Self, ArrowError> {
        Ok(Self {
            table: Arc::clone(table),
            reader: Arc::clone(&context.reader),
            schema: Arc::new(table.schema.project(&projection)?),
            projection: projection.into(),
        })
    }
}

impl Relation for Raw {
    fn operator(&self) -> &'static str {
        "RawExec"
    }

    fn table(&self) -> &str {
        &self.table.name
    }

    fn details(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }

    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn read(
        &self,
        files: Vec<Arc<DataFile>>,
        metrics: &ScanMetrics,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let (table, reader) = (Arc::clone(&self.table), Arc::clone(&self.reader));
        let (projection, schema) = (Arc::clone(&self.projection), Arc::clone(&self.schema));
        let (settings, metrics) = (self.reader.settings(), metrics.clone());
        let origin = reader.origin(&table.files, Some(settings.requests_in_flight));
        run_through(files, settings.into(), move |_, file| {
            let request = Request {
                table: Arc::clone(&table),
                reader: Arc::clone(&reader),
                origin: Arc::clone(&origin),
                projection: Arc::clone(&projection),
                schema: Arc::clone(&schema),
                file: Arc::clone(file),
            };
            request.open(metrics.clone())
        })
        .map_ok(|(_, _, batch)| batch)
        .boxed()
    }
}

/// One file to read.
struct Request {
    table: Arc<RawTable>,
    reader: Arc<FileReader>,
    origin: Arc<Origin>,
    projection: Arc<[usize]>,
    schema: SchemaRef,
    file: Arc<DataFile>,
}

/// Where the values of one output column come from.
enum Source {
    /// A place among the decoded columns.
    Decoded(usize),
    /// The same value in every row.
    Constant(ScalarValue),
    Null,
}

/// A file being read.
struct Open {
    schema: SchemaRef,
    sources: Vec<Source>,
    scan: FileScan,
}

impl Request {
    fn open(self, metrics: ScanMetrics) -> BoxFuture<'static, Result<Opened<RecordBatch>>> {
        async move {
            let object = Object::new(&self.origin, &self.file, metrics.bytes_scanned);
            let (footer, tail) = self.reader.footer(&object, &[]).await?;
            let (roots, sources) = self.plan(&footer, &object)?;
            let mut scan = FileScan::new(object, footer, tail, roots, None);
            scan.load().await?;
            metrics.files_read.add(1);
            let held = scan.held();
            let open = Open {
                schema: self.schema,
                sources,
                scan,
            };
            let items = try_unfold(open, |mut open| async move {
                let Some(rows) = open.scan.next().await? else {
                    return Ok(None);
                };
                Ok(Some((open.batch(&rows)?, open)))
            });
            Ok(Opened {
                held,
                items: items.boxed(),
            })
        }
        .boxed()
    }

    /// The root columns to decode, ascending, and where each output column comes from.
    fn plan(&self, footer: &Footer, object: &Object) -> Result<(Vec<usize>, Vec<Source>)> {
        let first_key = self.table.schema.fields().len() - self.table.partition_keys;
        let folders = folders(&self.table, &self.file);
        let mut found = Vec::with_capacity(self.projection.len());
        for &at in self.projection.iter() {
            let field = self.table.schema.field(at);
            let folder = folders
                .iter()
                .find(|(key, _)| at >= first_key && key == field.name());
            found.push(match folder {
                Some((_, value)) => Err(Source::Constant(partition_value(
                    field,
                    value.as_deref(),
                    object,
                )?)),
                None => match footer.find(field.name()) {
                    Found::At(root) if footer.is_unsafe_nested(root) => {
                        return Err(Error::data_loss(format!(
                            "{}: column '{}': it nests INT96 timestamps or unchecked text, \
                             which cannot be read faithfully",
                            object.name(),
                            field.name()
                        )));
                    }
                    Found::At(root) => Ok(root),
                    Found::Missing => Err(Source::Null),
                    Found::Ambiguous => {
                        return Err(Error::data_loss(format!(
                            "{}: several columns are called '{}' when case is ignored",
                            object.name(),
                            field.name()
                        )));
                    }
                },
            });
        }
        let mut roots: Vec<usize> = found
            .iter()
            .filter_map(|one| one.as_ref().ok().copied())
            .collect();
        roots.sort_unstable();
        roots.dedup();
        let place = |found: Result<usize, Source>| match found {
            Ok(root) => roots
                .binary_search(&root)
                .map_or(Source::Null, Source::Decoded),
            Err(source) => source,
        };
        let sources = found.into_iter().map(place).collect();
        Ok((roots, sources))
    }
}

impl Open {
    fn batch(&self, rows: &Rows) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.sources.len());
        for (source, field) in self.sources.iter().zip(self.schema.fields()) {
            let place = Place {
                object: self.scan.object(),
                column: field.name(),
                first_row: Some(rows.first_row),
            };
            columns.push(match source {
                Source::Decoded(at) => cast(&rows.columns[*at], field.data_type(), place)?,
                Source::Null => new_null_array(field.data_type(), rows.len),
                Source::Constant(value) => value
                    .to_array_of_size(rows.len)
                    .map_err(|error| place.wrong(error.strip_backtrace()))?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(
            |error| Error::internal("decoded columns do not fit the table").with_source(error),
        )
    }
}

/// Lowercase keys and decoded values of the `key=value` folders below the table's prefix.
fn folders(table: &RawTable, file: &DataFile) -> Vec<(String, Option<String>)> {
    let path = file.meta.location.as_ref();
    let relative = path
        .strip_prefix(table.files.location.prefix.as_ref())
        .unwrap_or(path);
    let Some((folders, _)) = relative.rsplit_once('/') else {
        return Vec::new();
    };
    folders
        .split('/')
        .filter_map(|folder| {
            let (key, value) = folder.split_once('=')?;
            let value = (value != "__HIVE_DEFAULT_PARTITION__").then(|| unescape(value));
            Some((unescape(key).to_lowercase(), value))
        })
        .collect()
}

/// Undoes Hive's escapes in folder names, `%` and two hexadecimal digits for a byte. What is not
/// an escape stays.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// A folder's value as the type of its key.
fn partition_value(field: &Field, value: Option<&str>, object: &Object) -> Result<ScalarValue> {
    let kind = field.data_type();
    let wrong = |reason: String| {
        Error::data_loss(format!(
            "{}: the partition key '{}' is {kind}: {reason}",
            object.name(),
            field.name()
        ))
    };
    let Some(value) = value else {
        return ScalarValue::try_new_null(kind).map_err(|error| wrong(error.strip_backtrace()));
    };
    match kind {
        DataType::Timestamp(_, zone) => {
            let instant = Instant::parse(value).map_err(|error| wrong(error.message))?;
            Ok(ScalarValue::TimestampMicrosecond(
                Some(instant.micros),
                zone.clone(),
            ))
        }
        kind => ScalarValue::try_from_string(value.to_owned(), kind)
            .map_err(|_| wrong(format!("'{value}' cannot be read as that"))),
    }
}
