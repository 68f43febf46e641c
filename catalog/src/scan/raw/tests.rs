use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int8Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Field, Fields, Int32Type, Int64Type, Schema, TimestampMicrosecondType,
};
use datafusion::prelude::SessionContext;
use object_store::ObjectStore;

use super::*;
use crate::error::{Error, Kind};
use crate::instant::Instant;
use crate::scan::fixtures::*;
use crate::table::{FileSet, timestamp_type};

/// A table of these columns; the last `keys` are partition keys.
fn raw(store: &Arc<dyn ObjectStore>, columns: Vec<(&str, DataType)>, keys: usize) -> Arc<RawTable> {
    let fields: Vec<Field> = columns
        .into_iter()
        .map(|(name, kind)| Field::new(name, kind, true))
        .collect();
    Arc::new(RawTable {
        database: "sagemaker_featurestore".to_owned(),
        name: "customers_1".to_owned(),
        files: FileSet {
            hourly: false,
            ..file_set(store)
        },
        schema: Arc::new(Schema::new(fields)),
        partition_keys: keys,
        feature_group: None,
    })
}

async fn query(table: &Arc<RawTable>, sql: &str) -> Result<RecordBatch> {
    let session = SessionContext::new();
    session.register_table("r", raw_provider(Arc::clone(table), context()))?;
    let frame = session.sql(sql).await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// One column stored as `array`, declared as `kind`.
async fn column(array: ArrayRef, kind: DataType) -> Result<ArrayRef> {
    let store = memory();
    put(&store, "f.parquet", parquet(vec![("C", array)])).await;
    let table = raw(&store, vec![("c", kind)], 0);
    Ok(Arc::clone(
        query(&table, "SELECT c FROM r").await?.column(0),
    ))
}

async fn refused(array: ArrayRef, kind: DataType) -> String {
    let error = column(array, kind).await.expect_err("refused");
    let error = Error::find(&error).expect("ours");
    assert_eq!(error.kind, Kind::DataLoss, "{error}");
    assert!(
        error.message.contains("f.parquet") && error.message.contains("'c'"),
        "{error}"
    );
    error.message.clone()
}

const NOON: &str = "2026-01-31T12:00:00Z";

fn glue_columns() -> Vec<(&'static str, DataType)> {
    vec![
        ("id", DataType::Utf8View),
        ("eventtime", DataType::Utf8View),
        ("visits", DataType::Int64),
        ("score", DataType::Float64),
        ("write_time", timestamp_type()),
        ("api_invocation_time", timestamp_type()),
        ("is_deleted", DataType::Boolean),
    ]
}

#[tokio::test]
async fn a_feature_groups_table_as_it_stands() {
    let store = memory();
    let odd = "2026-01-31 12:00";
    let hour = "year=2026/month=01/day=31/hour=12";
    put(
        &store,
        &format!("{hour}/a.parquet"),
        customers(&[("a", odd, 1, NOON)]),
    )
    .await;
    let early = Instant::parse("1500-01-01T00:00:00.000001Z").expect("a time");
    put(
        &store,
        &format!("{hour}/b.parquet"),
        spark(&[("b", "not a time", 2.5, early)], true),
    )
    .await;
    put(&store, &format!("{hour}/_SUCCESS"), "x").await;
    put(&store, "customers.txt", "").await;
    let table = raw(&store, glue_columns(), 0);
    let rows = query(&table, "SELECT * FROM r ORDER BY id")
        .await
        .expect("rows");
    assert_eq!(rows.num_rows(), 2);
    let texts = rows.column(1).as_string_view();
    assert_eq!(
        (texts.value(0), texts.value(1)),
        (odd, "not a time"),
        "text stays text"
    );
    assert!(rows.column(2).is_null(1), "Spark's file has no visits");
    let written = rows.column(4).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(
        (written.value(0), written.value(1)),
        (micros(NOON), early.micros)
    );
    assert_eq!(rows.column(4).data_type(), &timestamp_type());
    let count = query(&table, "SELECT count(*) FROM r").await.expect("rows");
    assert_eq!(count.column(0).as_primitive::<Int64Type>().value(0), 2);
}

#[tokio::test]
async fn partition_keys_come_from_folders() {
    let store = memory();
    for folder in [
        "year=2026/month=01/Region=eu%2Dwest%2F1/day=2026-01-31",
        "year=2026/month=1/region=__HIVE_DEFAULT_PARTITION__/day=__HIVE_DEFAULT_PARTITION__",
        "other",
    ] {
        put(
            &store,
            &format!("{folder}/f.parquet"),
            customers(&[("a", NOON, 1, NOON)]),
        )
        .await;
    }
    let mut columns = glue_columns();
    columns.extend([
        ("year", DataType::Utf8View),
        ("month", DataType::Int32),
        ("region", DataType::Utf8View),
        ("day", DataType::Date32),
        ("at", timestamp_type()),
    ]);
    let table = raw(&store, columns, 5);
    let sql =
        "SELECT year, month, region, day, at FROM r ORDER BY region NULLS LAST, year NULLS LAST";
    let rows = query(&table, sql).await.expect("rows");
    assert_eq!(rows.num_rows(), 3);
    assert_eq!(rows.column(0).as_string_view().value(0), "2026");
    let months = rows.column(1).as_primitive::<Int32Type>();
    assert_eq!(
        (months.value(0), months.value(1), months.is_null(2)),
        (1, 1, true)
    );
    assert_eq!(rows.column(2).as_string_view().value(0), "eu-west/1");
    assert!(rows.column(2).is_null(1) && rows.column(3).is_null(1));
    assert_eq!(rows.column(3).data_type(), &DataType::Date32);
    assert_eq!(rows.column(4).null_count(), 3);
    let filtered = query(&table, "SELECT count(*) FROM r WHERE month = 1")
        .await
        .expect("rows");
    assert_eq!(filtered.column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(
        query(&table, "SELECT * FROM r LIMIT 2")
            .await
            .expect("rows")
            .num_rows(),
        2
    );
}

#[tokio::test]
async fn a_folder_that_is_not_its_key_s_type_is_an_error() {
    let store = memory();
    put(
        &store,
        "month=january/f.parquet",
        customers(&[("a", NOON, 1, NOON)]),
    )
    .await;
    let mut columns = glue_columns();
    columns.push(("month", DataType::Int32));
    let table = raw(&store, columns, 1);
    let error = query(&table, "SELECT month FROM r")
        .await
        .expect_err("refused");
    let error = Error::find(&error).expect("ours");
    assert_eq!(error.kind, Kind::DataLoss);
    assert!(
        error.message.contains("'month'") && error.message.contains("'january'"),
        "{error}"
    );
    query(&table, "SELECT id FROM r")
        .await
        .expect("the key is not asked for");
}

#[tokio::test]
async fn only_keys_are_read_from_folders() {
    let store = memory();
    put(&store, "id=z/f.parquet", customers(&[("a", NOON, 1, NOON)])).await;
    let rows = query(&raw(&store, glue_columns(), 0), "SELECT id FROM r")
        .await
        .expect("rows");
    assert_eq!(rows.column(0).as_string_view().value(0), "a");
    // A key that no folder names, in the file.
    let mut columns = glue_columns();
    columns.rotate_left(3);
    let rows = query(&raw(&store, columns, 1), "SELECT visits FROM r")
        .await
        .expect("rows");
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), 1);
}

#[tokio::test]
async fn widths_change_only_when_values_fit() {
    let stored = column(
        Arc::new(Int8Array::from(vec![Some(-1), None])),
        DataType::Int32,
    )
    .await
    .expect("rows");
    assert_eq!(
        (
            stored.as_primitive::<Int32Type>().value(0),
            stored.null_count()
        ),
        (-1, 1)
    );
    let narrowed = column(Arc::new(Int64Array::from(vec![7])), DataType::Int32)
        .await
        .expect("rows");
    assert_eq!(narrowed.as_primitive::<Int32Type>().value(0), 7);
    column(Arc::new(Float32Array::from(vec![0.5])), DataType::Float64)
        .await
        .expect("rows");
    column(Arc::new(UInt64Array::from(vec![7])), DataType::Int64)
        .await
        .expect("rows");
    let decimal = Decimal128Array::from(vec![12_345])
        .with_precision_and_scale(10, 2)
        .expect("a decimal");
    let wider = column(Arc::new(decimal.clone()), DataType::Decimal128(20, 4))
        .await
        .expect("rows");
    assert_eq!(
        wider
            .as_primitive::<arrow::datatypes::Decimal128Type>()
            .value(0),
        1_234_500
    );

    refused(
        Arc::new(Int64Array::from(vec![1_i64 << 40])),
        DataType::Int32,
    )
    .await;
    refused(Arc::new(UInt64Array::from(vec![u64::MAX])), DataType::Int64).await;
    refused(Arc::new(decimal.clone()), DataType::Decimal128(20, 1)).await;
    refused(Arc::new(decimal), DataType::Decimal128(4, 2)).await;
    for (array, kind) in [
        (
            Arc::new(Float64Array::from(vec![1.0])) as ArrayRef,
            DataType::Int64,
        ),
        (Arc::new(Float64Array::from(vec![1.0])), DataType::Float32),
        (Arc::new(StringArray::from(vec!["1"])), DataType::Int64),
        (Arc::new(StringArray::from(vec![NOON])), timestamp_type()),
        (Arc::new(Int64Array::from(vec![1])), DataType::Utf8View),
        (Arc::new(Int64Array::from(vec![1])), timestamp_type()),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1])),
            DataType::Utf8View,
        ),
        (
            Arc::new(TimestampMillisecondArray::from(vec![1])),
            DataType::Date32,
        ),
        (Arc::new(Date32Array::from(vec![1])), timestamp_type()),
        (Arc::new(BooleanArray::from(vec![true])), DataType::Int64),
    ] {
        refused(array, kind).await;
    }
}

#[tokio::test]
async fn text_bytes_and_timestamps() {
    let text = column(
        Arc::new(BinaryArray::from_vec(vec![b"abc"])),
        DataType::Utf8View,
    )
    .await
    .expect("rows");
    assert_eq!(text.as_string_view().value(0), "abc");
    refused(
        Arc::new(BinaryArray::from_vec(vec![b"\xff"])),
        DataType::Utf8View,
    )
    .await;
    let bytes = column(
        Arc::new(StringArray::from(vec!["abc"])),
        DataType::BinaryView,
    )
    .await
    .expect("rows");
    assert_eq!(bytes.as_binary_view().value(0), b"abc");
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), None]);
    let floored = column(Arc::new(nanos), timestamp_type())
        .await
        .expect("rows");
    assert_eq!(
        floored.as_primitive::<TimestampMicrosecondType>().value(0),
        -1
    );
    assert!(floored.is_null(1));
    let millis = TimestampMillisecondArray::from(vec![Some(5), None]);
    let scaled = column(Arc::new(millis), timestamp_type())
        .await
        .expect("rows");
    assert_eq!(
        scaled.as_primitive::<TimestampMicrosecondType>().value(0),
        5_000
    );
    refused(
        Arc::new(TimestampMillisecondArray::from(vec![i64::MAX])),
        timestamp_type(),
    )
    .await;
}

#[tokio::test]
async fn nested_columns() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let read = column(Arc::new(list), DataType::new_list(DataType::Int64, true))
        .await
        .expect("rows");
    let list = read.as_list::<i32>();
    assert_eq!(list.len(), 3);
    assert_eq!(list.value(0).as_primitive::<Int64Type>().value(0), 1);
    assert!(list.is_null(1) && list.value(2).is_empty());

    let fields = Fields::from(vec![
        Field::new("A", DataType::Utf8, true),
        Field::new("unasked", DataType::Boolean, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["x"])),
        Arc::new(BooleanArray::from(vec![true])),
    ];
    let stored = StructArray::new(fields, columns, None);
    let wanted = DataType::Struct(Fields::from(vec![
        Field::new("a", DataType::Utf8View, true),
        Field::new("absent", DataType::Int64, true),
    ]));
    let read = column(Arc::new(stored.clone()), wanted)
        .await
        .expect("rows");
    let pair = read.as_struct();
    assert_eq!(pair.column(0).as_string_view().value(0), "x");
    assert!(pair.column(1).is_null(0));
    refused(Arc::new(stored), DataType::Int64).await;
}

#[tokio::test]
async fn a_raw_table_is_pinned_too() {
    let store = memory();
    put(&store, "a.parquet", customers(&[("a", NOON, 1, NOON)])).await;
    let table = raw(&store, glue_columns(), 0);
    let session = SessionContext::new();
    session
        .register_table("r", raw_provider(Arc::clone(&table), context()))
        .expect("registers");
    let plan = session
        .sql("SELECT id FROM r")
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("a plan");
    let shown = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    assert!(
        shown.contains("RawExec: table=customers_1, files=1, pruned=0, columns=[id]"),
        "{shown}"
    );
    put(&store, "a.parquet", customers(&[("b", NOON, 1, NOON)])).await;
    let error = datafusion::physical_plan::collect(plan, session.task_ctx())
        .await
        .expect_err("replaced");
    assert_eq!(Error::find(&error).expect("ours").kind, Kind::Aborted);
}

#[tokio::test]
async fn names_that_differ_in_case_only_are_an_error() {
    let store = memory();
    let twice = |value| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    put(
        &store,
        "f.parquet",
        parquet(vec![
            ("A", twice(1)),
            ("a", twice(2)),
            ("B", twice(3)),
            ("Ab", twice(4)),
            ("aB", twice(5)),
        ]),
    )
    .await;
    let table = raw(
        &store,
        vec![
            ("a", DataType::Int64),
            ("b", DataType::Int64),
            ("ab", DataType::Int64),
        ],
        0,
    );
    let rows = query(&table, "SELECT a, b FROM r").await.expect("rows");
    assert_eq!(
        rows.column(0).as_primitive::<Int64Type>().value(0),
        2,
        "the exact name"
    );
    assert_eq!(rows.column(1).as_primitive::<Int64Type>().value(0), 3);
    let error = query(&table, "SELECT ab FROM r")
        .await
        .expect_err("ambiguous");
    assert_eq!(Error::find(&error).expect("ours").kind, Kind::DataLoss);
}
