//! A data file as it is stored, to be written again: its columns in their own types, but for INT96,
//! which becomes a timestamp.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use featureflight_catalog::{Error, Result};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};

/// What Spark says of itself: its timestamps are whole microseconds.
const SPARK: &str = "org.apache.spark.version";

/// Rows read and written together.
pub(super) const BATCH: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(super) struct Stored {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

impl Stored {
    /// `None` for a file that is not there any more.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails, `DataLoss` for what is no Parquet file, and
    /// `FailedPrecondition` for one that would not say the same when it is written again.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let path = path.display();
                return Err(Error::unavailable(format!(
                    "'{path}' cannot be read: {error}"
                )));
            }
        };
        let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let load = |options| ArrowReaderMetadata::load(&file, options);
        let mut metadata = load(options()).map_err(|error| undecodable(&path, error))?;
        if let Some(micros) = without_int96(&metadata) {
            if !says(&metadata, SPARK) {
                let path = path.display();
                return Err(Error::precondition(format!(
                    "'{path}' has INT96 timestamps that may be finer than microseconds, so it \
                     cannot be written again: rewrite it with what wrote it"
                )));
            }
            let hinted = load(options().with_schema(micros));
            metadata = hinted.map_err(|error| undecodable(&path, error))?;
        }
        Ok(Some(Self {
            path,
            file,
            metadata,
        }))
    }

    pub(super) fn rows(&self) -> usize {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        usize::try_from(rows).unwrap_or_default()
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// What the file says beside its rows, but for the schema in another form.
    pub(super) fn about(&self) -> Vec<KeyValue> {
        let about = self.metadata.metadata().file_metadata();
        let about = about.key_value_metadata().into_iter().flatten();
        let kept = about.filter(|pair| pair.key != parquet::arrow::ARROW_SCHEMA_META_KEY);
        kept.cloned().collect()
    }

    /// Whether it has these columns, and no other, in these types. It may lack some that may be null.
    pub(super) fn fits(&self, schema: &Schema) -> bool {
        let fields = self.schema().fields();
        let known = fields.iter().all(|field| {
            let wanted = schema.field_with_name(field.name());
            wanted.is_ok_and(|wanted| wanted.data_type() == field.data_type())
        });
        let mut needed = schema.fields().iter().filter(|field| !field.is_nullable());
        known && needed.all(|field| self.schema().field_with_name(field.name()).is_ok())
    }

    /// What its rows take in memory, about.
    pub(super) fn memory(&self) -> u64 {
        let groups = self.metadata.metadata().row_groups().iter();
        groups.flat_map(|group| group.columns()).map(memory).sum()
    }

    /// Its rows, in order.
    ///
    /// # Errors
    /// As [`Self::open`]; so is every batch.
    pub(super) fn read(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'_>> {
        let file = self
            .file
            .try_clone()
            .map_err(|error| undecodable(&self.path, error))?;
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let reader: ParquetRecordBatchReader = builder
            .with_batch_size(BATCH)
            .build()
            .map_err(|error| undecodable(&self.path, error))?;
        Ok(reader.map(|batch| batch.map_err(|error| undecodable(&self.path, error))))
    }

    /// Its rows in the columns of a schema that it [fits](Self::fits).
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn read_as(
        &self,
        schema: &SchemaRef,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'_>> {
        let schema = Arc::clone(schema);
        let batches = self.read()?;
        Ok(batches.map(move |batch| {
            let batch = batch?;
            let column = |field: &Arc<Field>| -> ArrayRef {
                let found = batch.column_by_name(field.name());
                found.map_or_else(
                    || new_null_array(field.data_type(), batch.num_rows()),
                    Arc::clone,
                )
            };
            let columns = schema.fields().iter().map(column).collect();
            RecordBatch::try_new(Arc::clone(&schema), columns)
                .map_err(|error| undecodable(&self.path, error))
        }))
    }
}

fn undecodable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    let path = path.display();
    Error::data_loss(format!("'{path}' cannot be decoded: {error}")).with_source(error)
}

fn memory(column: &ColumnChunkMetaData) -> u64 {
    let rows = column.num_values().max(0).cast_unsigned();
    let of_type = match column.column_type() {
        Type::BOOLEAN => rows / 8,
        Type::INT32 | Type::FLOAT => rows * 4,
        Type::INT64 | Type::DOUBLE | Type::INT96 => rows * 8,
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => {
            let plain = column.unencoded_byte_array_data_bytes();
            // Where it does not say: dictionaries are that much smaller, often.
            let plain = plain.unwrap_or_else(|| column.uncompressed_size().saturating_mul(8));
            rows * 4 + plain.max(0).cast_unsigned()
        }
    };
    // Nulls have a bit for each row.
    of_type + rows / 8
}

fn says(metadata: &ArrowReaderMetadata, key: &str) -> bool {
    let about = metadata.metadata().file_metadata().key_value_metadata();
    about.is_some_and(|pairs| pairs.iter().any(|pair| pair.key == key))
}

/// The file's columns with INT96 in microseconds, if it has any.
fn without_int96(metadata: &ArrowReaderMetadata) -> Option<SchemaRef> {
    let columns = metadata.parquet_schema();
    let is_int96 = |root: usize| {
        (0..columns.num_columns())
            .filter(|leaf| columns.get_column_root_idx(*leaf) == root)
            .any(|leaf| columns.column(leaf).physical_type() == Type::INT96)
    };
    let fields = metadata.schema().fields().iter().enumerate();
    let mut found = false;
    let fields: Vec<Arc<Field>> = fields
        .map(|(root, field)| match field.data_type() {
            DataType::Timestamp(_, zone) if is_int96(root) => {
                found = true;
                let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                Arc::new(Field::clone(field).with_data_type(micros))
            }
            _ => Arc::clone(field),
        })
        .collect();
    found.then(|| Arc::new(Schema::new(fields)))
}
