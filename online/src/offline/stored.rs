//! A data file as it is stored, to be written again: its columns in their own types, but for INT96,
//! which becomes a timestamp.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use featureflight_catalog::{Error, Kind, Result};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type;
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue, RowGroupMetaData};

/// What Spark says of itself: its timestamps are whole microseconds.
const SPARK: &str = "org.apache.spark.version";

/// Rows read and written together.
pub(super) const BATCH: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(super) struct Stored {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Stored {
    /// `None` for a file that is not there any more.
    ///
    /// # Errors
    /// `Unavailable` when the disk fails, `DataLoss` for what is no Parquet file, and
    /// `FailedPrecondition` for one that would not say the same when it is written again.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>> {
        let Some(file) = opened(&path)? else {
            return Ok(None);
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
        Ok(Some(Self { path, metadata }))
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
        groups.flat_map(RowGroupMetaData::columns).map(memory).sum()
    }

    /// Its rows, in order.
    ///
    /// # Errors
    /// As [`Self::open`]; so is every batch. `Aborted` when it is not there any more.
    pub(super) fn read(&self) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<'_>> {
        let file = opened(&self.path)?.ok_or_else(|| {
            let path = self.path.display();
            Error::new(Kind::Aborted, format!("'{path}' was removed; run it again"))
        })?;
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

fn opened(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let path = path.display();
            Err(Error::unavailable(format!(
                "'{path}' cannot be read: {error}"
            )))
        }
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

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    use parquet::data_type::{Int96, Int96Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Noon of the first day of 2026, and 7 nanoseconds.
    fn int96(about: Option<&str>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let schema = parse_message_type("message m { required int96 t; }").expect("a schema");
        let about = about.map(|key| vec![KeyValue::new(key.to_owned(), "3.5".to_owned())]);
        let properties = WriterProperties::builder().set_key_value_metadata(about);
        let mut writer = SerializedFileWriter::new(
            file.reopen().expect("a file"),
            Arc::new(schema),
            Arc::new(properties.build()),
        )
        .expect("a writer");
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("a column").expect("one");
        let mut noon = Int96::new();
        let nanos: u64 = 43_200_000_000_000;
        noon.set_data(nanos as u32, (nanos >> 32) as u32, 2_461_042);
        column
            .typed::<Int96Type>()
            .write_batch(&[noon], None, None)
            .expect("a value");
        column.close().expect("the column");
        group.close().expect("the group");
        writer.close().expect("the file");
        file
    }

    #[test]
    fn int96_is_written_again_where_it_says_the_same() {
        let file = int96(Some(SPARK));
        let stored = Stored::open(file.path().to_owned())
            .expect("it opens")
            .expect("it is there");
        let batch = stored
            .read()
            .expect("rows")
            .next()
            .expect("a batch")
            .expect("it reads");
        let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_767_268_800_000_000);
        assert_eq!(stored.about().len(), 1);

        let file = int96(None);
        let error = Stored::open(file.path().to_owned()).expect_err("it may be finer");
        assert_eq!(error.kind, Kind::FailedPrecondition);
        assert!(error.message.contains("INT96"), "{error}");
    }

    #[test]
    fn a_file_that_is_gone_is_no_damage() {
        assert!(
            Stored::open(PathBuf::from("/nowhere/x.parquet"))
                .expect("no error")
                .is_none()
        );
        let file = int96(Some(SPARK));
        let stored = Stored::open(file.path().to_owned())
            .expect("it opens")
            .expect("it is there");
        drop(file);
        let error = stored.read().map(drop).expect_err("it is gone");
        assert_eq!(error.kind, Kind::Aborted);
    }
}
