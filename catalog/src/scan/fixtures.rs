//! Test data: feature tables over any store, and Parquet files as their writers make them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type, Int96, Int96Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::error::Result;
use crate::instant::Instant;
use crate::listing::{DataFile, EventRange, Lister};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureType};
use crate::pin::Pin;
use crate::scan::history::ScanContext;
use crate::scan::versions::{Columns, FileReader, VersionBatch};
use crate::storage::Location;
use crate::table::{
    EventTimeForm, FeatureTable, FileSet, feature_type, system_fields, timestamp_type,
};

pub(crate) const PREFIX: &str = "account/offline-store/customers-1/data";

pub(crate) fn location(store: &Arc<dyn ObjectStore>) -> Location {
    Location {
        store: Arc::clone(store),
        prefix: Path::from(PREFIX),
        url: format!("s3://bucket/{PREFIX}"),
        rewritten: false,
    }
}

pub(crate) fn file_set(store: &Arc<dyn ObjectStore>) -> FileSet {
    FileSet {
        location: location(store),
        hourly: true,
        group: None,
    }
}

/// Integral, Fractional or String by the first letter.
fn definition((name, kind): &(&str, &str)) -> FeatureDefinition {
    let feature_type = match *kind {
        "i" => FeatureType::Integral,
        "f" => FeatureType::Fractional,
        "s" => FeatureType::String,
        other => FeatureType::Other(other.to_owned()),
    };
    FeatureDefinition {
        feature_name: (*name).to_owned(),
        feature_type,
        other: serde_json::Map::new(),
    }
}

/// The first feature is the record identifier, the second the event time.
pub(crate) fn table(store: &Arc<dyn ObjectStore>, features: &[(&str, &str)]) -> Arc<FeatureTable> {
    let definitions: Vec<_> = features.iter().map(definition).collect();
    let form = match definitions[1].feature_type {
        FeatureType::Fractional => EventTimeForm::Seconds,
        _ => EventTimeForm::Text,
    };
    let field = |(at, definition): (usize, &FeatureDefinition)| {
        let kind = if at == 1 {
            timestamp_type()
        } else {
            feature_type(&definition.feature_type).unwrap_or(arrow::datatypes::DataType::Null)
        };
        Field::new(&definition.feature_name, kind, at > 1)
    };
    let fields: Vec<Field> = definitions.iter().enumerate().map(field).collect();
    let history: Vec<Field> = fields.iter().cloned().chain(system_fields()).collect();
    Arc::new(FeatureTable {
        group: Arc::new(FeatureGroup {
            feature_group_name: "customers".to_owned(),
            record_identifier_feature_name: features[0].0.to_owned(),
            event_time_feature_name: features[1].0.to_owned(),
            feature_definitions: definitions,
            feature_group_arn: None,
            offline_store_config: None,
            feature_group_status: None,
            description: None,
            other: serde_json::Map::new(),
        }),
        files: file_set(store),
        event_time_form: form,
        record_identifier: 0,
        event_time: 1,
        state_schema: Arc::new(Schema::new(fields)),
        history_schema: Arc::new(Schema::new(history)),
    })
}

pub(crate) const CUSTOMERS: [(&str, &str); 4] = [
    ("Id", "s"),
    ("EventTime", "s"),
    ("Visits", "i"),
    ("Score", "f"),
];

pub(crate) fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

pub(crate) async fn put(store: &Arc<dyn ObjectStore>, key: &str, bytes: impl Into<Bytes>) {
    let path = Path::parse(format!("{PREFIX}/{key}")).expect("a path");
    store.put(&path, bytes.into().into()).await.expect("put");
}

pub(crate) fn micros(text: &str) -> i64 {
    Instant::parse(text).expect("a time").micros
}

/// A column of the system timestamps, as the service writes them.
pub(crate) fn utc(values: &[i64]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"))
}

/// A Parquet file of these columns.
pub(crate) fn parquet(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    parquet_with(columns, WriterProperties::builder().build())
}

pub(crate) fn parquet_with(columns: Vec<(&str, ArrayRef)>, properties: WriterProperties) -> Bytes {
    let nullable =
        |(name, array): &(&str, ArrayRef)| Field::new(*name, array.data_type().clone(), true);
    let schema = Schema::new(columns.iter().map(nullable).collect::<Vec<_>>());
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::new(schema), arrays).expect("a batch");
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("write");
    writer.close().expect("close");
    bytes.into()
}

/// A version for [`customers`]: id, event time, visits, write time.
pub(crate) type Version<'a> = (&'a str, &'a str, i64, &'a str);

pub(crate) fn columns(versions: &[Version<'_>]) -> Vec<(&'static str, ArrayRef)> {
    let write: Vec<i64> = versions.iter().map(|v| micros(v.3)).collect();
    vec![
        (
            "Id",
            Arc::new(StringArray::from_iter_values(versions.iter().map(|v| v.0))) as ArrayRef,
        ),
        (
            "EventTime",
            Arc::new(StringArray::from_iter_values(versions.iter().map(|v| v.1))),
        ),
        (
            "Visits",
            Arc::new(Int64Array::from_iter_values(versions.iter().map(|v| v.2))),
        ),
        (
            "Score",
            Arc::new(Float64Array::from_iter_values(
                versions.iter().map(|v| 0.5 * v.2 as f64),
            )),
        ),
        ("write_time", utc(&write)),
        ("api_invocation_time", utc(&write)),
        (
            "is_deleted",
            Arc::new(BooleanArray::from(vec![false; versions.len()])),
        ),
    ]
}

/// A file as the service writes it.
pub(crate) fn customers(versions: &[Version<'_>]) -> Bytes {
    parquet(columns(versions))
}

/// INT96 of days and nanoseconds.
pub(crate) fn int96(instant: Instant) -> Int96 {
    let day = instant.micros.div_euclid(86_400_000_000) + 2_440_588;
    let nanos = instant.micros.rem_euclid(86_400_000_000) * 1_000 + i64::from(instant.nanos);
    let mut value = Int96::new();
    value.set_data(nanos as u32, (nanos >> 32) as u32, day as u32);
    value
}

/// A file as the Spark connector writes it: columns in another order and case, system columns
/// REQUIRED, both times INT96. `spark` adds Spark's key to the footer.
pub(crate) fn spark(versions: &[(&str, &str, f64, Instant)], spark: bool) -> Bytes {
    let schema = "message spark_schema {
        optional double score; optional binary eventtime (UTF8); optional binary id (UTF8);
        required int96 api_invocation_time; required int96 write_time;
        required boolean is_deleted; }";
    let pairs = spark.then(|| {
        vec![parquet::file::metadata::KeyValue::new(
            "org.apache.spark.version".to_owned(),
            "3.5.1".to_owned(),
        )]
    });
    let properties = WriterProperties::builder()
        .set_key_value_metadata(pairs)
        .build();
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let present = vec![1_i16; versions.len()];
    let times: Vec<Int96> = versions.iter().map(|v| int96(v.3)).collect();
    let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
    let mut place = 0;
    while let Some(mut column) = group.next_column().expect("a column") {
        match place {
            0 => {
                let values: Vec<f64> = versions.iter().map(|v| v.2).collect();
                column
                    .typed::<DoubleType>()
                    .write_batch(&values, Some(&present), None)
            }
            1 | 2 => {
                let pick =
                    |v: &(&str, &str, f64, Instant)| text(if place == 1 { v.1 } else { v.0 });
                let values: Vec<ByteArray> = versions.iter().map(pick).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&present), None)
            }
            3 | 4 => column.typed::<Int96Type>().write_batch(&times, None, None),
            _ => column
                .typed::<BoolType>()
                .write_batch(&vec![false; versions.len()], None, None),
        }
        .expect("write");
        column.close().expect("close");
        place += 1;
    }
    group.close().expect("close");
    writer.close().expect("close");
    bytes.into()
}

/// One INT64 column with this annotation, for timestamps the Arrow writer does not make.
pub(crate) fn int64_file(annotation: &str, values: &[i64]) -> Bytes {
    let schema = format!("message m {{ required int64 t {annotation}; }}");
    let schema = Arc::new(parse_message_type(&schema).expect("a schema"));
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let mut column = group.next_column().expect("a column").expect("one column");
    column
        .typed::<Int64Type>()
        .write_batch(values, None, None)
        .expect("write");
    column.close().expect("close");
    group.close().expect("close");
    writer.close().expect("close");
    bytes.into()
}

pub(crate) fn context() -> ScanContext {
    let lister = Arc::new(Lister::new(std::time::Duration::ZERO));
    ScanContext {
        pin: Arc::new(Pin::new(lister, Instant::now())),
        reader: Arc::new(FileReader::new(1 << 20)),
    }
}

pub(crate) async fn files(table: &FeatureTable) -> Vec<Arc<DataFile>> {
    let lister = Lister::new(std::time::Duration::ZERO);
    lister
        .list(&table.files, EventRange::ALL, None)
        .await
        .expect("a list")
        .files
        .clone()
}

/// Every column of a table.
pub(crate) fn everything(table: &FeatureTable) -> Columns {
    Columns {
        features: (0..table.state_schema.fields().len()).collect(),
        event_time: true,
        write_time: true,
        api_invocation_time: true,
        is_deleted: true,
    }
}

/// All batches of the only file.
pub(crate) async fn read_only_file(
    table: &Arc<FeatureTable>,
    columns: &Columns,
) -> Result<Vec<VersionBatch>> {
    let files = files(table).await;
    assert_eq!(files.len(), 1, "one file");
    let reader = Arc::new(FileReader::new(0));
    reader
        .read(table, &files[0], columns, None)
        .try_collect()
        .await
}
