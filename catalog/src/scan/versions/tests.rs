use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, DictionaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeStringArray, ListArray,
    NullArray, StringArray, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray,
    UInt8Array, UInt32Array, UInt64Array,
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::physical_plan::metrics::Count;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::RowSelector;
use parquet::file::properties::WriterProperties;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::error::Kind;
use crate::scan::fixtures::*;

const NOON: &str = "2026-01-31T12:00:00Z";

/// [`columns`] of one version, with a column replaced.
fn replaced(name: &'static str, array: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    let mut columns = columns(&[("a", NOON, 1, NOON)]);
    match columns.iter_mut().find(|column| column.0 == name) {
        Some(column) => column.1 = array,
        None => columns.push((name, array)),
    }
    columns
}

async fn read(columns: Vec<(&str, ArrayRef)>) -> Result<VersionBatch> {
    let store = memory();
    put(&store, "f.parquet", parquet(columns)).await;
    let table = table(&store, &CUSTOMERS);
    let mut batches = read_only_file(&table, &everything(&table)).await?;
    assert_eq!(batches.len(), 1);
    Ok(batches.remove(0))
}

async fn refused(columns: Vec<(&str, ArrayRef)>) -> String {
    let error = read(columns).await.expect_err("refused");
    assert_eq!(error.kind, Kind::DataLoss, "{error}");
    assert!(
        error
            .message
            .contains("s3://bucket/account/offline-store/customers-1/data/f.parquet"),
        "{error}"
    );
    error.message
}

#[tokio::test]
async fn reads_what_the_service_writes() {
    let store = memory();
    let versions = [
        ("a", NOON, 1, NOON),
        ("b", "2026-01-31T12:00:00.000000001Z", 2, NOON),
    ];
    put(
        &store,
        "year=2026/month=01/day=31/hour=12/x.parquet",
        customers(&versions),
    )
    .await;
    let table = table(&store, &CUSTOMERS);
    let batches = read_only_file(&table, &everything(&table))
        .await
        .expect("rows");
    let [batch] = batches.as_slice() else {
        panic!("one batch")
    };
    assert_eq!((batch.first_row, batch.rows), (0, 2));
    assert_eq!(
        batch.features[0]
            .as_string_view()
            .iter()
            .collect::<Vec<_>>(),
        [Some("a"), Some("b")]
    );
    let noon = micros(NOON);
    assert_eq!(
        batch.features[1]
            .as_primitive::<TimestampMicrosecondType>()
            .values(),
        &[noon, noon]
    );
    assert_eq!(
        batch.features[2].as_primitive::<Int64Type>().values(),
        &[1, 2]
    );
    assert_eq!(
        batch.features[3].as_primitive::<Float64Type>().values(),
        &[0.5, 1.0]
    );
    for (feature, field) in batch.features.iter().zip(table.state_schema.fields()) {
        assert_eq!(feature.data_type(), field.data_type());
    }
    let event_time = batch.event_time.as_ref().expect("event time");
    assert_eq!(
        event_time.get(1),
        Instant {
            micros: noon,
            nanos: 1
        }
    );
    assert_eq!(
        event_time.get(0),
        Instant {
            micros: noon,
            nanos: 0
        }
    );
    assert_eq!(
        batch.write_time.as_ref().expect("write time").get(0).micros,
        noon
    );
    assert_eq!(
        batch.is_deleted.as_ref().expect("is_deleted").true_count(),
        0
    );
}

#[tokio::test]
async fn decodes_only_what_is_asked() {
    let store = memory();
    put(&store, "x.parquet", customers(&[("a", NOON, 7, NOON)])).await;
    let table = table(&store, &CUSTOMERS);
    let columns = Columns {
        features: vec![2, 1, 2],
        ..Columns::default()
    };
    let batch = read_only_file(&table, &columns)
        .await
        .expect("rows")
        .remove(0);
    assert_eq!(batch.features.len(), 3);
    assert_eq!(batch.features[0].as_primitive::<Int64Type>().value(0), 7);
    assert_eq!(batch.features[2].as_primitive::<Int64Type>().value(0), 7);
    assert!(batch.event_time.is_none() && batch.write_time.is_none() && batch.is_deleted.is_none());
    let none = read_only_file(&table, &Columns::default())
        .await
        .expect("rows");
    assert_eq!(none.iter().map(|batch| batch.rows).sum::<usize>(), 1);
}

#[tokio::test]
async fn reads_what_spark_writes() {
    for is_spark in [true, false] {
        let store = memory();
        let early = Instant::parse("0000-01-01T00:00:00.000001Z").expect("a time");
        let late = Instant::parse("9999-12-31T23:59:59.999999Z").expect("a time");
        let versions = [
            ("a", "2026-01-31 12:00", 1.5, early),
            ("b", "2026-01-31", 2.5, late),
        ];
        put(&store, "x.parquet", spark(&versions, is_spark)).await;
        let table = table(&store, &CUSTOMERS);
        let batch = read_only_file(&table, &everything(&table))
            .await
            .expect("rows")
            .remove(0);
        assert_eq!(batch.features[0].as_string_view().value(1), "b");
        assert_eq!(
            batch.features[2].null_count(),
            2,
            "a feature the file lacks"
        );
        assert_eq!(
            batch.features[3].as_primitive::<Float64Type>().value(1),
            2.5
        );
        let write_time = batch.write_time.as_ref().expect("write time");
        assert_eq!((write_time.get(0), write_time.get(1)), (early, late));
        let event_time = batch.event_time.as_ref().expect("event time");
        assert_eq!(event_time.get(0).micros, micros(NOON));
        assert_eq!(event_time.get(1).micros, micros("2026-01-31"));
    }
}

#[tokio::test]
async fn int96_keeps_nanoseconds() {
    let store = memory();
    let texts = [
        "2026-01-31T12:00:00.000000999Z",
        "0001-01-01T00:00:00.123456789Z",
        "9999-12-31T23:59:59.999999999Z",
    ];
    let times = texts.map(|text| Instant::parse(text).expect("a time"));
    let versions = times.map(|time| ("a", NOON, 1.0, time));
    put(&store, "x.parquet", spark(&versions, false)).await;
    let table = table(&store, &CUSTOMERS);
    let batch = read_only_file(&table, &everything(&table))
        .await
        .expect("rows")
        .remove(0);
    for column in [&batch.write_time, &batch.api_invocation_time] {
        let column = column.as_ref().expect("a time");
        assert_eq!([0, 1, 2].map(|row| column.get(row)), times);
    }
}

#[tokio::test]
async fn integral_widens_and_checks() {
    let stored: Vec<(ArrayRef, i64)> = vec![
        (Arc::new(Int8Array::from(vec![-7])), -7),
        (Arc::new(Int16Array::from(vec![-7])), -7),
        (Arc::new(Int32Array::from(vec![-7])), -7),
        (Arc::new(UInt8Array::from(vec![200])), 200),
        (
            Arc::new(UInt32Array::from(vec![4_000_000_000])),
            4_000_000_000,
        ),
        (Arc::new(UInt64Array::from(vec![i64::MAX as u64])), i64::MAX),
    ];
    for (array, expected) in stored {
        let batch = read(replaced("Visits", array)).await.expect("rows");
        assert_eq!(
            batch.features[2].as_primitive::<Int64Type>().value(0),
            expected
        );
    }
    let nulls = read(replaced("Visits", Arc::new(UInt64Array::from(vec![None]))))
        .await
        .expect("rows");
    assert_eq!(nulls.features[2].null_count(), 1);
    let nulls = read(replaced("Visits", Arc::new(NullArray::new(1))))
        .await
        .expect("rows");
    assert_eq!(nulls.features[2].null_count(), 1);

    let message = refused(replaced(
        "Visits",
        Arc::new(UInt64Array::from(vec![u64::MAX])),
    ))
    .await;
    assert!(
        message.contains("'Visits' in row 0") && message.contains("18446744073709551615"),
        "{message}"
    );
    for wrong in [
        Arc::new(Float64Array::from(vec![1.0])) as ArrayRef,
        Arc::new(StringArray::from(vec!["1"])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Date32Array::from(vec![1])),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([
            Some(1),
        ])])),
    ] {
        let message = refused(replaced("Visits", wrong)).await;
        assert!(message.contains("cannot be read as Integral"), "{message}");
    }
}

#[tokio::test]
async fn fractional_widens_and_checks() {
    let stored: Vec<(ArrayRef, f64)> = vec![
        (
            Arc::new(Float32Array::from(vec![0.1_f32])),
            f64::from(0.1_f32),
        ),
        (
            Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])),
            f64::NEG_INFINITY,
        ),
        (
            Arc::new(Int32Array::from(vec![i32::MIN])),
            f64::from(i32::MIN),
        ),
        (
            Arc::new(Int64Array::from(vec![-(1 << 53)])),
            -9_007_199_254_740_992.0,
        ),
        (
            Arc::new(UInt64Array::from(vec![1 << 63])),
            9_223_372_036_854_775_808.0,
        ),
    ];
    for (array, expected) in stored {
        let batch = read(replaced("Score", array)).await.expect("rows");
        assert_eq!(
            batch.features[3].as_primitive::<Float64Type>().value(0),
            expected
        );
    }
    let message = refused(replaced(
        "Score",
        Arc::new(Int64Array::from(vec![(1 << 53) + 1])),
    ))
    .await;
    assert!(
        message.contains("9007199254740993 has no exact value"),
        "{message}"
    );
    let message = refused(replaced("Score", Arc::new(StringArray::from(vec!["1.5"])))).await;
    assert!(
        message.contains("cannot be read as Fractional"),
        "{message}"
    );
}

#[tokio::test]
async fn text_in_every_encoding() {
    let long = "a text of more than twelve bytes";
    for array in [
        Arc::new(StringViewArray::from(vec![long])) as ArrayRef,
        Arc::new(LargeStringArray::from(vec![long])),
        Arc::new(BinaryArray::from_vec(vec![long.as_bytes()])),
        Arc::new(DictionaryArray::<Int32Type>::from_iter([Some(long)])),
    ] {
        let batch = read(replaced("Id", array)).await.expect("rows");
        assert_eq!(batch.features[0].as_string_view().value(0), long);
    }
    let message = refused(replaced(
        "Id",
        Arc::new(BinaryArray::from_vec(vec![b"\xff\xfe"])),
    ))
    .await;
    assert!(message.contains("UTF-8"), "{message}");
    let message = refused(replaced("Id", Arc::new(Int64Array::from(vec![1])))).await;
    assert!(message.contains("cannot be read as String"), "{message}");
}

#[tokio::test]
async fn names_match_ignoring_case_but_never_guess() {
    let renamed = |from: &str, to: &'static str| {
        let mut columns = columns(&[("a", NOON, 1, NOON)]);
        for column in &mut columns {
            if column.0 == from {
                column.0 = to;
            }
        }
        columns
    };
    for (from, to) in [
        ("Id", "ID"),
        ("EventTime", "eventtime"),
        ("write_time", "Write_Time"),
    ] {
        read(renamed(from, to)).await.expect("rows");
    }
    // The exact name wins over another case of it.
    let mut both = columns(&[("a", NOON, 1, NOON)]);
    both.insert(
        0,
        ("visits", Arc::new(Int64Array::from(vec![99])) as ArrayRef),
    );
    let batch = read(both).await.expect("rows");
    assert_eq!(batch.features[2].as_primitive::<Int64Type>().value(0), 1);
    let mut neither = renamed("Visits", "VISITS");
    neither.insert(
        0,
        ("visits", Arc::new(Int64Array::from(vec![99])) as ArrayRef),
    );
    let message = refused(neither).await;
    assert!(
        message.contains("several columns are called 'Visits'"),
        "{message}"
    );
}

#[tokio::test]
async fn what_must_be_there_is_demanded() {
    for name in [
        "Id",
        "EventTime",
        "write_time",
        "api_invocation_time",
        "is_deleted",
    ] {
        let mut columns = columns(&[("a", NOON, 1, NOON)]);
        columns.retain(|column| column.0 != name);
        let store = memory();
        put(&store, "f.parquet", parquet(columns)).await;
        let table = table(&store, &CUSTOMERS);
        // Also where the column itself is not asked for.
        for wanted in [
            everything(&table),
            Columns {
                features: vec![2],
                ..Columns::default()
            },
        ] {
            let error = read_only_file(&table, &wanted)
                .await
                .expect_err("incomplete");
            assert_eq!(error.kind, Kind::DataLoss);
            assert!(
                error.message.contains(&format!("'{name}' is missing")),
                "{error}"
            );
            assert!(error.message.contains("f.parquet"), "{error}");
        }
    }
    let mut absent = columns(&[("a", NOON, 1, NOON)]);
    absent.retain(|column| column.0 != "Visits");
    assert_eq!(
        read(absent).await.expect("rows").features[2].null_count(),
        1
    );

    let null_time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![None::<i64>]));
    for (name, null) in [
        (
            "Id",
            Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef,
        ),
        ("EventTime", Arc::new(StringArray::from(vec![None::<&str>]))),
        ("write_time", Arc::clone(&null_time)),
        ("api_invocation_time", null_time),
        ("is_deleted", Arc::new(BooleanArray::from(vec![None]))),
        ("EventTime", Arc::new(NullArray::new(1))),
    ] {
        let message = refused(replaced(name, null)).await;
        assert!(
            message.contains(&format!("'{name}' in row 0")) && message.contains("null"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn event_times_of_every_form() {
    let micros_of = |batch: &VersionBatch| batch.event_time.as_ref().map(|column| column.get(0));
    let noon = Some(Instant::from_micros(micros(NOON)));
    for array in [
        Arc::new(StringArray::from(vec!["2026-01-31T13:00:00.000+01:00"])) as ArrayRef,
        Arc::new(BinaryArray::from_vec(vec![NOON.as_bytes()])),
        Arc::new(DictionaryArray::<Int32Type>::from_iter([Some(NOON)])),
        Arc::new(TimestampMillisecondArray::from(vec![micros(NOON) / 1_000]).with_timezone("UTC")),
        utc(&[micros(NOON)]),
        Arc::new(TimestampNanosecondArray::from(vec![micros(NOON) * 1_000])),
    ] {
        let stored = array.data_type().clone();
        let batch = read(replaced("EventTime", array)).await.expect("rows");
        assert_eq!(micros_of(&batch), noon, "{stored}");
    }
    let day = read(replaced("EventTime", Arc::new(Date32Array::from(vec![1]))))
        .await
        .expect("rows");
    assert_eq!(micros_of(&day), Some(Instant::from_micros(86_400_000_000)));
    let nanos = Arc::new(TimestampNanosecondArray::from(vec![-1]));
    let batch = read(replaced("EventTime", nanos)).await.expect("rows");
    assert_eq!(
        micros_of(&batch),
        Some(Instant {
            micros: -1,
            nanos: 999
        })
    );

    let message = refused(replaced(
        "EventTime",
        Arc::new(StringArray::from(vec!["soon"])),
    ))
    .await;
    assert!(
        message.contains("'EventTime' in row 0: 'soon' is not a point in time"),
        "{message}"
    );
    let message = refused(replaced(
        "EventTime",
        Arc::new(Float64Array::from(vec![1.0])),
    ))
    .await;
    assert!(message.contains("String event time"), "{message}");
}

#[tokio::test]
async fn event_times_as_seconds() {
    let read = async |array: ArrayRef| {
        let store = memory();
        put(&store, "f.parquet", parquet(replaced("EventTime", array))).await;
        let table = table(&store, &[("Id", "s"), ("EventTime", "f")]);
        read_only_file(&table, &everything(&table))
            .await
            .map(|mut batches| batches.remove(0))
    };
    for (array, expected) in [
        (
            Arc::new(Float64Array::from(vec![1.000_000_4])) as ArrayRef,
            1_000_000,
        ),
        (Arc::new(Float32Array::from(vec![0.5_f32])), 500_000),
        (Arc::new(Int32Array::from(vec![-3])), -3_000_000),
        (utc(&[17]), 17),
    ] {
        let batch = read(array).await.expect("rows");
        assert_eq!(
            batch.features[1]
                .as_primitive::<TimestampMicrosecondType>()
                .value(0),
            expected
        );
    }
    for wrong in [f64::NAN, f64::INFINITY, 1e18] {
        let error = read(Arc::new(Float64Array::from(vec![wrong])))
            .await
            .expect_err("refused");
        assert_eq!(error.kind, Kind::DataLoss);
        assert!(error.message.contains("'EventTime' in row 0"), "{error}");
    }
    let error = read(Arc::new(Int64Array::from(vec![i64::MAX])))
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::DataLoss);
    let error = read(Arc::new(StringArray::from(vec![NOON])))
        .await
        .expect_err("refused");
    assert!(error.message.contains("Fractional event time"), "{error}");
}

#[tokio::test]
async fn timestamps_of_every_annotation() {
    let noon = Instant::from_micros(micros(NOON));
    for (annotation, factor) in [
        ("(TIMESTAMP(MILLIS,true))", 1_000),
        ("(TIMESTAMP(MILLIS,false))", 1_000),
        ("(TIMESTAMP(MICROS,true))", 1),
        ("(TIMESTAMP(MICROS,false))", 1),
    ] {
        let store = memory();
        let bytes = int64_file(annotation, &[noon.micros / factor]);
        put(&store, "f.parquet", bytes).await;
        let table = table(&store, &CUSTOMERS);
        let file = &files(&table).await[0];
        let origin = Origin::new(&table.files, None, None);
        let object = Object::new(&origin, file, Count::new());
        let (footer, tail) = footer::read(&object, &[]).await.expect("a footer");
        let mut scan = FileScan::new(object.clone(), Arc::new(footer), Some(tail), vec![0], None);
        let rows = scan.next().await.expect("decodes").expect("rows");
        let place = Place {
            object: &object,
            column: "t",
            first_row: Some(0),
        };
        let column = convert::timestamp(&rows.columns[0], None, place).expect("instants");
        assert_eq!(column.get(0), noon, "{annotation}");
    }
    let far: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![i64::MAX / 2]));
    let message = refused(replaced("write_time", far)).await;
    assert!(message.contains("out of range"), "{message}");
    let message = refused(replaced(
        "write_time",
        Arc::new(StringArray::from(vec![NOON])),
    ))
    .await;
    assert!(
        message.contains("cannot be read as a timestamp"),
        "{message}"
    );
    let message = refused(replaced("is_deleted", Arc::new(Int32Array::from(vec![0])))).await;
    assert!(message.contains("cannot be read as boolean"), "{message}");
}

/// A file of 30,000 rows in row groups of 7,000; `Visits` is the row's position.
async fn big_file() -> (Arc<dyn ObjectStore>, Arc<FeatureTable>) {
    let rows = 30_000;
    let ids: Vec<String> = (0..rows).map(|row| format!("customer-{row:09}")).collect();
    let versions: Vec<Version<'_>> = ids
        .iter()
        .enumerate()
        .map(|(row, id)| (id.as_str(), NOON, row as i64, NOON))
        .collect();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(7_000))
        .build();
    let store = memory();
    put(
        &store,
        "f.parquet",
        parquet_with(columns(&versions), properties),
    )
    .await;
    let table = table(&store, &CUSTOMERS);
    (store, table)
}

#[tokio::test]
async fn positions_are_exact() {
    let (_store, table) = big_file().await;
    let columns = Columns {
        features: vec![2],
        ..Columns::default()
    };
    for columns in [columns, Columns::default()] {
        let batches = read_only_file(&table, &columns).await.expect("rows");
        let mut next = 0;
        for batch in &batches {
            assert_eq!(batch.first_row, next);
            assert!(batch.rows > 0 && batch.rows <= 8_192);
            if let Some(visits) = batch.features.first() {
                let visits = visits.as_primitive::<Int64Type>();
                assert_eq!(visits.len(), batch.rows);
                assert_eq!(visits.value(0), batch.first_row as i64);
            }
            next += batch.rows as u64;
        }
        assert_eq!(next, 30_000);
    }
}

#[tokio::test]
async fn selections_pick_rows_of_the_whole_file() {
    let (_store, table) = big_file().await;
    let file = &files(&table).await[0];
    let context = context();
    let mut rng = StdRng::seed_from_u64(3);
    for case in 0..40 {
        let mut wanted: Vec<usize> = match case {
            0 => Vec::new(),
            1 => vec![29_999],
            2 => (0..30_000).collect(),
            3 => (6_998..7_002).collect(),
            _ => (0..rng.random_range(1..50))
                .map(|_| rng.random_range(0..30_000))
                .collect(),
        };
        wanted.sort_unstable();
        wanted.dedup();
        let ranges = wanted.iter().map(|&row| row..row + 1);
        let mut selection = RowSelection::from_consecutive_ranges(ranges, 30_000);
        if case == 4 {
            // A selection may end early: the rest is not selected.
            let last = wanted[wanted.len() - 1];
            let mut selectors: Vec<RowSelector> = selection.into();
            while selectors.last().is_some_and(|selector| selector.skip) {
                selectors.pop();
            }
            selection = RowSelection::from(selectors);
            assert!(selection.row_count() + selection.skipped_row_count() == last + 1);
        }
        let columns = Columns {
            features: vec![2],
            ..Columns::default()
        };
        for columns in [columns, Columns::default()] {
            let batches: Vec<_> = context
                .reader
                .read(&table, file, &columns, Some(selection.clone()))
                .try_collect()
                .await
                .expect("rows");
            assert_eq!(
                batches.iter().map(|batch| batch.rows).sum::<usize>(),
                wanted.len()
            );
            if !columns.features.is_empty() {
                let visits: Vec<usize> = batches
                    .iter()
                    .flat_map(|batch| {
                        batch.features[0]
                            .as_primitive::<Int64Type>()
                            .values()
                            .iter()
                    })
                    .map(|&visits| visits as usize)
                    .collect();
                assert_eq!(visits, wanted, "case {case}");
            }
        }
    }
}

#[tokio::test]
async fn a_selection_fetches_only_its_row_groups() {
    let rows = 60_000;
    let ids: Vec<String> = (0..rows)
        .map(|row| format!("{:x}", (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let versions: Vec<Version<'_>> = ids.iter().map(|id| (id.as_str(), NOON, 1, NOON)).collect();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(10_000))
        .build();
    let store = memory();
    put(
        &store,
        "f.parquet",
        parquet_with(columns(&versions), properties),
    )
    .await;
    let table = table(&store, &CUSTOMERS);
    let file = &files(&table).await[0];
    assert!(file.meta.size > 1_000_000);
    let context = context();
    let columns = Columns {
        features: vec![0],
        ..Columns::default()
    };
    let metrics = crate::scan::files::ScanMetrics::unobserved();
    let selection = RowSelection::from_consecutive_ranges(std::iter::once(5..6), rows);
    let files = vec![Arc::clone(file)];
    let select = move |_| selection.clone();
    let batches: Vec<_> = context
        .reader
        .read_selected(&table, files, select, &columns, 1, &metrics)
        .try_collect()
        .await
        .expect("rows");
    assert_eq!(batches.len(), 1);
    assert!((metrics.bytes_scanned.value() as u64) < file.meta.size / 2);
}

#[tokio::test]
async fn a_replaced_file_is_never_read() {
    let store = memory();
    put(&store, "f.parquet", customers(&[("old", NOON, 1, NOON)])).await;
    let table = table(&store, &CUSTOMERS);
    let file = files(&table).await.remove(0);
    let context = context();
    let read = async |file: &Arc<DataFile>| {
        let stream = context.reader.read(&table, file, &everything(&table), None);
        stream.try_collect::<Vec<_>>().await
    };
    // With and without the footer in the cache.
    for warm in [false, true] {
        if warm {
            let listed = files(&table).await.remove(0);
            read(&listed).await.expect("rows");
            put(&store, "f.parquet", customers(&[("newer", NOON, 2, NOON)])).await;
            let error = read(&listed).await.expect_err("replaced");
            assert_eq!(error.kind, Kind::Aborted, "{error}");
        } else {
            put(&store, "f.parquet", customers(&[("new", NOON, 2, NOON)])).await;
            let error = read(&file).await.expect_err("replaced");
            assert_eq!(error.kind, Kind::Aborted, "{error}");
            assert!(
                error
                    .message
                    .contains("f.parquet changed after the statement was pinned; run it again")
            );
        }
    }
    store.delete(&file.meta.location).await.expect("delete");
    let error = read(&file).await.expect_err("gone");
    assert_eq!(error.kind, Kind::Aborted);
    assert!(error.message.contains("run it again"), "{error}");
}

#[tokio::test]
async fn a_replaced_local_file_is_never_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<dyn ObjectStore> = Arc::new(
        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("a store"),
    );
    put(&store, "f.parquet", customers(&[("old", NOON, 1, NOON)])).await;
    let table = table(&store, &CUSTOMERS);
    let file = files(&table).await.remove(0);
    let reader = Arc::new(FileReader::new(1 << 20));
    let read = || {
        reader
            .read(&table, &file, &everything(&table), None)
            .try_collect::<Vec<_>>()
    };
    assert_eq!(
        read().await.expect("rows")[0].features[0]
            .as_string_view()
            .value(0),
        "old"
    );
    put(&store, "f.parquet", customers(&[("new", NOON, 1, NOON)])).await;
    assert_eq!(read().await.expect_err("replaced").kind, Kind::Aborted);
}

#[tokio::test]
async fn damaged_files_are_errors_and_never_shorter() {
    let ids: Vec<String> = (0..3_000).map(|row| format!("customer-{row}")).collect();
    let versions: Vec<Version<'_>> = ids
        .iter()
        .enumerate()
        .map(|(row, id)| (id.as_str(), NOON, row as i64, NOON))
        .collect();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(1_000))
        .build();
    let good = parquet_with(columns(&versions), properties);
    let footer = u32::from_le_bytes(
        good[good.len() - 8..good.len() - 4]
            .try_into()
            .expect("4 bytes"),
    );
    let footer_start = good.len() - 8 - footer as usize;
    let mut rng = StdRng::seed_from_u64(11);
    let (mut errors, mut complete) = (0, 0);
    for case in 0..300 {
        let mut bytes = good.to_vec();
        match case % 4 {
            0 => bytes.truncate(rng.random_range(1..bytes.len())),
            1 => bytes[rng.random_range(footer_start..good.len())] ^= 1 << rng.random_range(0..8),
            2 => bytes[rng.random_range(0..footer_start)] ^= 1 << rng.random_range(0..8),
            _ => {
                let start = rng.random_range(0..bytes.len() - 512);
                bytes[start..start + 512].fill(0);
            }
        }
        let store = memory();
        put(&store, "f.parquet", bytes).await;
        let table = table(&store, &CUSTOMERS);
        match read_only_file(&table, &everything(&table)).await {
            Ok(batches) => {
                let rows: usize = batches.iter().map(|batch| batch.rows).sum();
                assert_eq!(rows, 3_000, "case {case}");
                complete += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::DataLoss, "case {case}: {error}");
                assert!(error.message.contains("f.parquet"), "case {case}: {error}");
                errors += 1;
            }
        }
    }
    assert!(
        errors > 100 && complete > 10,
        "{errors} errors, {complete} complete"
    );
}

#[tokio::test]
async fn footers_are_kept_by_identity() {
    let (store, table) = big_file().await;
    let file = &files(&table).await[0];
    let context = context();
    let columns = Columns::default();
    let bytes = async |file: &Arc<DataFile>| {
        let metrics = crate::scan::files::ScanMetrics::unobserved();
        let stream = context.read_files(
            &table,
            vec![Arc::clone(file)],
            &columns,
            &Prune::default(),
            &metrics,
        );
        stream.try_collect::<Vec<_>>().await.expect("rows");
        metrics.bytes_scanned.value()
    };
    assert!(bytes(file).await > 0);
    assert_eq!(
        bytes(file).await,
        0,
        "only the footer was needed, and it is cached"
    );
    let again = store
        .get(&file.meta.location)
        .await
        .expect("get")
        .bytes()
        .await
        .expect("bytes");
    put(&store, "f.parquet", again).await;
    let file = &files(&table).await[0];
    assert!(bytes(file).await > 0, "another object under the same key");
}

#[tokio::test]
async fn the_footer_cache_stays_small() {
    let store = memory();
    for at in 0..20 {
        put(
            &store,
            &format!("{at}.parquet"),
            customers(&[("a", NOON, 1, NOON)]),
        )
        .await;
    }
    let table = table(&store, &CUSTOMERS);
    let reader = Arc::new(FileReader::new(20_000));
    for file in files(&table).await {
        reader
            .read(&table, &file, &Columns::default(), None)
            .try_collect::<Vec<_>>()
            .await
            .expect("rows");
        assert!(reader.footers.bytes() <= 20_000);
    }
    assert!(reader.footers.bytes() > 0);
}

#[tokio::test]
async fn columns_that_are_not_asked_for_do_not_matter() {
    let schema = "message m {
        optional binary Id (UTF8) = 1; optional binary EventTime (UTF8) = 2;
        required int96 write_time = 3; required int96 api_invocation_time = 4;
        required boolean is_deleted = 5; optional fixed_len_byte_array(16) uuid (UUID) = 6;
        optional binary json (JSON) = 7; optional binary bytes = 8;
        optional fixed_len_byte_array(12) span (INTERVAL) = 9;
        optional int32 price (DECIMAL(9,2)) = 10; optional int32 void (UNKNOWN) = 11;
        optional group tags (LIST) = 12 { repeated group list { optional int96 element = 13; } }
        optional int64 clock (TIME(NANOS,true)) = 14; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).expect("a schema"));
    let mut bytes = Vec::new();
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(&mut bytes, schema, properties)
            .expect("a writer");
    let mut group = writer.next_row_group().expect("a row group");
    let noon = int96(Instant::parse(NOON).expect("a time"));
    let mut place = 0;
    while let Some(mut column) = group.next_column().expect("a column") {
        use parquet::data_type as kinds;
        let absent: (Option<&[i16]>, Option<&[i16]>) = (Some(&[0]), Some(&[0]));
        match place {
            0 | 1 => {
                let text = kinds::ByteArray::from(if place == 0 { "a" } else { NOON });
                column
                    .typed::<kinds::ByteArrayType>()
                    .write_batch(&[text], Some(&[1]), None)
            }
            2 | 3 => column
                .typed::<kinds::Int96Type>()
                .write_batch(&[noon], None, None),
            4 => column
                .typed::<kinds::BoolType>()
                .write_batch(&[true], None, None),
            5 | 8 => {
                column
                    .typed::<kinds::FixedLenByteArrayType>()
                    .write_batch(&[], absent.0, None)
            }
            6 | 7 => {
                let broken = kinds::ByteArray::from(vec![0xff, 0xfe]);
                column
                    .typed::<kinds::ByteArrayType>()
                    .write_batch(&[broken], Some(&[1]), None)
            }
            9 | 10 => column
                .typed::<kinds::Int32Type>()
                .write_batch(&[], absent.0, None),
            11 => column
                .typed::<kinds::Int96Type>()
                .write_batch(&[], absent.0, absent.1),
            _ => column
                .typed::<kinds::Int64Type>()
                .write_batch(&[], absent.0, None),
        }
        .expect("write");
        column.close().expect("close");
        place += 1;
    }
    group.close().expect("close");
    writer.close().expect("close");
    let store = memory();
    put(&store, "f.parquet", bytes).await;
    let plain = table(&store, &CUSTOMERS);
    let batch = read_only_file(&plain, &everything(&plain))
        .await
        .expect("rows")
        .remove(0);
    assert_eq!(batch.features[0].as_string_view().value(0), "a");
    assert_eq!(batch.is_deleted.expect("is_deleted").true_count(), 1);
    // Bytes that are not UTF-8 under an annotation the decoder takes on trust, and under none.
    for feature in ["json", "bytes"] {
        let odd = table(&store, &[("Id", "s"), ("EventTime", "s"), (feature, "s")]);
        let error = read_only_file(&odd, &everything(&odd))
            .await
            .expect_err("not text");
        assert_eq!(error.kind, Kind::DataLoss, "{error}");
        assert!(error.message.contains("UTF-8"), "{error}");
    }
    for feature in ["uuid", "span", "price", "tags", "clock"] {
        for kind in ["s", "i", "f"] {
            let odd = table(&store, &[("Id", "s"), ("EventTime", "s"), (feature, kind)]);
            let error = read_only_file(&odd, &everything(&odd))
                .await
                .expect_err("another type");
            assert_eq!(error.kind, Kind::DataLoss, "{feature}: {error}");
            assert!(error.message.contains(&format!("'{feature}'")), "{error}");
        }
    }
    let void = table(&store, &[("Id", "s"), ("EventTime", "s"), ("void", "i")]);
    let batch = read_only_file(&void, &everything(&void))
        .await
        .expect("rows")
        .remove(0);
    assert_eq!(batch.features[2].null_count(), 1);
}

#[tokio::test]
async fn rows_the_file_does_not_have_cannot_be_selected() {
    let store = memory();
    put(&store, "f.parquet", customers(&[("a", NOON, 1, NOON)])).await;
    let table = table(&store, &CUSTOMERS);
    let file = &files(&table).await[0];
    let reader = Arc::new(FileReader::new(0));
    let selection = RowSelection::from(vec![RowSelector::skip(1), RowSelector::select(1)]);
    let rows: Result<Vec<_>> = reader
        .read(&table, file, &everything(&table), Some(selection))
        .try_collect()
        .await;
    assert_eq!(rows.expect_err("no such row").kind, Kind::Internal);
    // What lies past the end and is not selected does no harm.
    let selection = RowSelection::from(vec![RowSelector::select(1), RowSelector::skip(9)]);
    let rows: Result<Vec<_>> = reader
        .read(&table, file, &everything(&table), Some(selection))
        .try_collect()
        .await;
    assert_eq!(rows.expect("rows").len(), 1);
}

#[tokio::test]
async fn a_file_without_rows_has_none() {
    let store = memory();
    put(&store, "f.parquet", customers(&[])).await;
    let table = table(&store, &CUSTOMERS);
    assert!(
        read_only_file(&table, &everything(&table))
            .await
            .expect("rows")
            .is_empty()
    );
    assert!(
        read_only_file(&table, &Columns::default())
            .await
            .expect("rows")
            .is_empty()
    );
}

/// The metadata of a file with other row counts: of its only row group, and in all.
fn with_row_counts(
    good: &bytes::Bytes,
    group_rows: i64,
    file_rows: i64,
) -> parquet::file::metadata::ParquetMetaData {
    use parquet::file::metadata::{FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader};
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(good)
        .expect("a footer");
    let file = metadata.file_metadata();
    let file = FileMetaData::new(
        file.version(),
        file_rows,
        None,
        None,
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let group = metadata.row_group(0).clone().into_builder();
    let group = group.set_num_rows(group_rows).build().expect("a row group");
    ParquetMetaDataBuilder::new(file)
        .add_row_group(group)
        .build()
}

#[tokio::test]
async fn a_footer_that_lies_about_rows_is_an_error() {
    let good = customers(&[
        ("a", NOON, 1, NOON),
        ("b", NOON, 2, NOON),
        ("c", NOON, 3, NOON),
    ]);
    let footer = u32::from_le_bytes(
        good[good.len() - 8..good.len() - 4]
            .try_into()
            .expect("4 bytes"),
    );
    for (claimed, right) in [(3, true), (2, false), (4, false), (-1, false)] {
        let mut lying = good[..good.len() - 8 - footer as usize].to_vec();
        let metadata = with_row_counts(&good, claimed, claimed);
        parquet::file::metadata::ParquetMetaDataWriter::new(&mut lying, &metadata)
            .finish()
            .expect("a footer");
        let store = memory();
        put(&store, "f.parquet", lying).await;
        let table = table(&store, &CUSTOMERS);
        for columns in [
            everything(&table),
            Columns {
                features: vec![2],
                ..Columns::default()
            },
        ] {
            match read_only_file(&table, &columns).await {
                Ok(_) => assert!(right, "{claimed}"),
                Err(error) => {
                    assert!(!right, "{claimed}: {error}");
                    assert_eq!(error.kind, Kind::DataLoss, "{error}");
                }
            }
        }
    }
    assert!(Footer::try_new(with_row_counts(&good, 3, 3)).is_ok());
    for file_rows in [2, 4, -3] {
        let error = Footer::try_new(with_row_counts(&good, 3, file_rows)).expect_err("unequal");
        assert!(error.to_string().contains("hold 3 rows"), "{error}");
    }
}
