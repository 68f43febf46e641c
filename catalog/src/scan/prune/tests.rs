use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{Field, Int64Type, Schema};
use bytes::Bytes;
use datafusion::physical_plan::metrics::Count;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::ColumnOrder;
use parquet::data_type::{ByteArray, Int96};
use parquet::file::metadata::{
    FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::ValueStatistics;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::scan::fetch::Object;
use crate::scan::files::ScanMetrics;
use crate::scan::fixtures::*;
use crate::scan::versions::{Columns, FileReader};

const NOON: &str = "2026-01-31T12:00:00Z";

/// Positions of columns in the files below.
const ID: usize = 0;
const EVENT_TIME: usize = 1;

/// The columns of one row group.
#[derive(Clone)]
struct Group {
    id: ArrayRef,
    event_time: ArrayRef,
    write_time: ArrayRef,
    api_invocation_time: ArrayRef,
}

/// Versions at noon of these identifiers.
fn group(id: impl Array + 'static) -> Group {
    let rows = id.len();
    let noon = utc(&vec![micros(NOON); rows]);
    Group {
        id: Arc::new(id),
        event_time: Arc::new(StringArray::from(vec![NOON; rows])),
        write_time: Arc::clone(&noon),
        api_invocation_time: noon,
    }
}

fn texts(ids: &[&str]) -> Group {
    group(StringArray::from(ids.to_vec()))
}

fn event_times(times: impl Array + 'static) -> Group {
    Group {
        event_time: Arc::new(times.slice(0, times.len())),
        ..group(StringArray::from(vec!["a"; times.len()]))
    }
}

fn write_times(times: impl Array + 'static) -> Group {
    Group {
        write_time: Arc::new(times.slice(0, times.len())),
        ..group(StringArray::from(vec!["a"; times.len()]))
    }
}

/// A file of these row groups; `Visits` counts its rows.
fn file_of(groups: &[Group], properties: WriterProperties) -> Bytes {
    let mut writer: Option<ArrowWriter<Vec<u8>>> = None;
    let mut next = 0;
    for group in groups {
        let rows = group.id.len() as i64;
        let columns: [(&str, ArrayRef); 6] = [
            ("Id", Arc::clone(&group.id)),
            ("EventTime", Arc::clone(&group.event_time)),
            (
                "Visits",
                Arc::new(Int64Array::from_iter_values(next..next + rows)),
            ),
            ("write_time", Arc::clone(&group.write_time)),
            (
                "api_invocation_time",
                Arc::clone(&group.api_invocation_time),
            ),
            (
                "is_deleted",
                Arc::new(BooleanArray::from(vec![false; group.id.len()])),
            ),
        ];
        next += rows;
        let fields: Vec<_> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).expect("a batch");
        let writer = writer.get_or_insert_with(|| {
            ArrowWriter::try_new(Vec::new(), schema, Some(properties.clone())).expect("a writer")
        });
        writer.write(&batch).expect("write");
        writer.flush().expect("flush");
    }
    let writer = writer.expect("a row group");
    writer.into_inner().expect("close").into()
}

fn plain() -> WriterProperties {
    WriterProperties::builder().build()
}

/// The same file with other statistics of one column, in all row groups.
fn restated(file: &Bytes, column: usize, statistics: Option<&Statistics>) -> Bytes {
    rewritten(file, |metadata, group| {
        let mut builder = metadata.row_group(group).clone().into_builder();
        let mut columns = builder.take_columns();
        let one = columns[column].clone().into_builder();
        let one = match statistics {
            Some(statistics) => one.set_statistics(statistics.clone()),
            None => one.clear_statistics(),
        };
        columns[column] = one.build().expect("a column");
        builder
            .set_column_metadata(columns)
            .build()
            .expect("a row group")
    })
}

fn rewritten(
    file: &Bytes,
    row_group: impl Fn(
        &parquet::file::metadata::ParquetMetaData,
        usize,
    ) -> parquet::file::metadata::RowGroupMetaData,
) -> Bytes {
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(file)
        .expect("a footer");
    let mut builder = ParquetMetaDataBuilder::new(metadata.file_metadata().clone());
    for group in 0..metadata.num_row_groups() {
        builder = builder.add_row_group(row_group(&metadata, group));
    }
    with_footer(file, builder)
}

fn with_footer(file: &Bytes, builder: ParquetMetaDataBuilder) -> Bytes {
    let length = file[file.len() - 8..file.len() - 4].try_into();
    let length = u32::from_le_bytes(length.expect("4 bytes")) as usize;
    let mut bytes = file[..file.len() - 8 - length].to_vec();
    ParquetMetaDataWriter::new(&mut bytes, &builder.build())
        .finish()
        .expect("a footer");
    bytes.into()
}

/// Whether the first row group may hold `keys`, by the metadata of `file` with other column orders.
fn may_hold_under(kind: &str, file: &Bytes, orders: Option<ColumnOrder>, keys: SortedKeys) -> bool {
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(file)
        .expect("a footer");
    let old = metadata.file_metadata();
    let new = FileMetaData::new(
        old.version(),
        old.num_rows(),
        None,
        None,
        old.schema_descr_ptr(),
        orders.map(|order| vec![order; old.schema_descr().num_columns()]),
    );
    let mut builder = ParquetMetaDataBuilder::new(new);
    for group in metadata.row_groups() {
        builder = builder.add_row_group(group.clone());
    }
    let footer = Footer::try_new(builder.build()).expect("a footer");
    let table = table(&memory(), &[("Id", kind), ("EventTime", "s")]);
    let bounds = GroupBounds {
        table: &table,
        footer: &footer,
        places: Places {
            record_identifier: ID,
            event_time: EVENT_TIME,
            write_time: 3,
            api_invocation_time: 4,
        },
    };
    bounds.may_pass(0, &super::tests::keys(keys))
}

/// What was read of one file.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The values of `Visits`, which are positions in the file.
    rows: Vec<i64>,
    groups_pruned: usize,
    files_pruned: usize,
    files_read: usize,
}

impl Outcome {
    fn new(rows: impl IntoIterator<Item = i64>, groups_pruned: usize) -> Self {
        let rows: Vec<_> = rows.into_iter().collect();
        let files_read = usize::from(!rows.is_empty());
        Self {
            rows,
            groups_pruned,
            files_pruned: 1 - files_read,
            files_read,
        }
    }
}

/// Reads a file of a group whose identifier and event time are of these kinds.
async fn read(kinds: (&str, &str), file: &Bytes, prune: &Prune) -> Outcome {
    read_counted(kinds, file, prune, &ScanMetrics::unobserved()).await
}

async fn read_counted(
    kinds: (&str, &str),
    file: &Bytes,
    prune: &Prune,
    metrics: &ScanMetrics,
) -> Outcome {
    let store = memory();
    put(&store, "f.parquet", file.clone()).await;
    let table = table(
        &store,
        &[("Id", kinds.0), ("EventTime", kinds.1), ("Visits", "i")],
    );
    let listed = files(&table).await.remove(0);
    let columns = Columns {
        features: vec![2],
        ..Columns::default()
    };
    let reader = Arc::new(FileReader::new(1 << 20));
    let run = reader
        .open_many(&table, [(0, listed)], &columns, metrics)
        .pruning(prune.clone());
    let batches: Vec<_> = run.streams(1).remove(0).try_collect().await.expect("rows");
    let mut rows = Vec::new();
    for (_, batch) in batches {
        let visits = batch.features[0].as_primitive::<Int64Type>().values();
        assert_eq!(visits.len(), batch.rows);
        for (row, &visits) in (batch.first_row..).zip(visits) {
            assert_eq!(row as i64, visits, "the position in the file");
            rows.push(visits);
        }
    }
    Outcome {
        rows,
        groups_pruned: metrics.row_groups_pruned.value(),
        files_pruned: metrics.files_pruned_by_statistics.value(),
        files_read: metrics.files_read.value(),
    }
}

fn keys(keys: SortedKeys) -> Prune {
    Prune {
        keys: Some(Arc::new(keys)),
        ..Prune::default()
    }
}

fn text_keys(wanted: &[&str]) -> Prune {
    keys(SortedKeys::texts(
        wanted.iter().map(|&key| key.into()).collect(),
    ))
}

fn at(text: &str) -> Instant {
    Instant::parse(text).expect("a time")
}

fn events(from: &str, to: &str) -> Prune {
    let bound = |text: &str| (!text.is_empty()).then(|| at(text));
    Prune {
        event_time: EventRange {
            from: bound(from),
            to: bound(to),
        },
        ..Prune::default()
    }
}

fn written_until(to: &str) -> Prune {
    Prune {
        write_time_at_most: Some(at(to)),
        ..Prune::default()
    }
}

#[tokio::test]
async fn row_groups_without_a_wanted_key_are_left_out() {
    let file = file_of(
        &[
            texts(&["a", "c"]),
            texts(&["d", "f"]),
            texts(&["g", "long text that is not inlined"]),
        ],
        plain(),
    );
    let read = async |wanted: &[&str]| read(("s", "s"), &file, &text_keys(wanted)).await;
    assert_eq!(read(&["e"]).await, Outcome::new(2..4, 2));
    assert_eq!(read(&["a", "i"]).await, Outcome::new([0, 1, 4, 5], 1));
    assert_eq!(read(&["cc", "", "m"]).await, Outcome::new([], 3));
    assert_eq!(read(&[]).await, Outcome::new([], 3));
    assert_eq!(
        read(&["long text that is not inlined", "b", "d"]).await,
        Outcome::new(0..6, 0)
    );

    let file = file_of(
        &[
            group(Int64Array::from(vec![i64::MIN, -3])),
            group(Int64Array::from(vec![-2, i64::MAX])),
        ],
        plain(),
    );
    for (wanted, expected) in [
        (vec![-2], Outcome::new(2..4, 1)),
        (vec![-3, 9], Outcome::new(0..4, 0)),
        (vec![i64::MIN], Outcome::new(0..2, 1)),
    ] {
        let prune = keys(SortedKeys::integers(wanted));
        assert_eq!(
            super::tests::read(("i", "s"), &file, &prune).await,
            expected
        );
    }
    // Keys of another type prove nothing.
    let prune = text_keys(&["a"]);
    let outcome = super::tests::read(("i", "s"), &file, &prune).await;
    assert_eq!(outcome, Outcome::new(0..4, 0));
}

#[tokio::test]
async fn doubles_are_equal_as_the_contract_says() {
    let file = file_of(
        &[
            group(Float64Array::from(vec![-0.0, -0.0])),
            group(Float64Array::from(vec![0.0, 0.0])),
            group(Float64Array::from(vec![1.5, f64::NAN])),
            group(Float64Array::from(vec![7.0, 8.0])),
        ],
        plain(),
    );
    let read = async |wanted: &[f64]| {
        let prune = keys(SortedKeys::doubles(wanted.to_vec()));
        read(("f", "s"), &file, &prune).await
    };
    for zero in [0.0, -0.0] {
        let outcome = read(&[zero]).await;
        assert_eq!(outcome.rows[..4], [0, 1, 2, 3], "{zero}");
        assert_eq!(outcome, Outcome::new(0..4, 2));
    }
    // Statistics do not tell of NaNs, whatever else they hold.
    assert_eq!(read(&[f64::NAN]).await, Outcome::new(0..8, 0));
    assert_eq!(read(&[f64::NAN, 7.5]).await, Outcome::new(0..8, 0));
    assert_eq!(read(&[7.5]).await, Outcome::new(6..8, 3));
    assert_eq!(read(&[f64::INFINITY]).await, Outcome::new([], 4));

    let only_nans = file_of(&[group(Float64Array::from(vec![f64::NAN]))], plain());
    let prune = keys(SortedKeys::doubles(vec![1.0]));
    let outcome = super::tests::read(("f", "s"), &only_nans, &prune).await;
    assert_eq!(outcome, Outcome::new(0..1, 0));
}

#[tokio::test]
async fn bounds_that_are_no_numbers_prove_nothing() {
    let file = file_of(&[group(Float64Array::from(vec![1.0, 9.0]))], plain());
    let prune = keys(SortedKeys::doubles(vec![20.0]));
    let with = async |min, max| {
        let statistics = Statistics::double(Some(min), Some(max), None, Some(0), false);
        let file = restated(&file, ID, Some(&statistics));
        super::tests::read(("f", "s"), &file, &prune)
            .await
            .groups_pruned
    };
    assert_eq!(with(1.0, 9.0).await, 1);
    assert_eq!(with(f64::NAN, 9.0).await, 0);
    assert_eq!(with(1.0, f64::NAN).await, 0);
    assert_eq!(with(9.0, 1.0).await, 0, "the wrong way round");
    let one_sided = Statistics::double(None, Some(9.0), None, Some(0), false);
    let file = restated(&file, ID, Some(&one_sided));
    assert_eq!(read(("f", "s"), &file, &prune).await.groups_pruned, 0);
}

#[tokio::test]
async fn bounds_the_wrong_way_round_prove_nothing() {
    let file = file_of(&[texts(&["b", "m"])], plain());
    let turned = restated(&file, ID, Some(&bytes("m", "b", Some(0), false)));
    for key in ["a", "c", "z"] {
        let found = read(("s", "s"), &turned, &text_keys(&[key])).await;
        assert_eq!(found, Outcome::new(0..2, 0), "{key}");
    }
    let turned = bytes("2026-03-31", "2026-01-31", Some(0), false);
    let turned = restated(&file, EVENT_TIME, Some(&turned));
    for (from, to) in [
        ("", "2026-02-10"),
        ("2026-02-20", "2026-02-21"),
        ("2026-02-10", ""),
    ] {
        let found = read(("s", "s"), &turned, &events(from, to)).await;
        assert_eq!(found, Outcome::new(0..2, 0), "{from} to {to}");
    }
}

#[tokio::test]
async fn event_times_as_numbers_are_bounds() {
    let noon = micros(NOON);
    let hour = 3_600_000_000;
    let seconds = |at: &[i64]| at.iter().map(|&at| at as f64 / 1e6).collect::<Vec<_>>();
    let times = [
        vec![noon, noon + hour],
        vec![noon + 2 * hour, noon + 3 * hour],
    ];
    let files = [
        (
            "f",
            times
                .clone()
                .map(|at| event_times(Float64Array::from(seconds(&at)))),
        ),
        (
            "f",
            times.clone().map(|at| {
                event_times(
                    utc(&at)
                        .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
                        .clone(),
                )
            }),
        ),
        (
            "s",
            times.clone().map(|at| {
                let millis: Vec<i64> = at.iter().map(|at| at / 1_000).collect();
                event_times(TimestampMillisecondArray::from(millis).with_timezone("UTC"))
            }),
        ),
        (
            "s",
            times.clone().map(|at| {
                let nanos: Vec<i64> = at.iter().map(|at| at * 1_000).collect();
                event_times(TimestampNanosecondArray::from(nanos))
            }),
        ),
    ];
    for (kind, groups) in files {
        let file = file_of(&groups, plain());
        for (from, to, expected) in [
            (
                "2026-01-31T13:00:00Z",
                "2026-01-31T14:00:00Z",
                Outcome::new(0..4, 0),
            ),
            (
                "2026-01-31T13:00:00.000001Z",
                "2026-01-31T14:00:00Z",
                Outcome::new(2..4, 1),
            ),
            (
                "2026-01-31T13:00:00Z",
                "2026-01-31T13:59:59.999999Z",
                Outcome::new(0..2, 1),
            ),
            (
                "2026-01-31T13:10:00Z",
                "2026-01-31T13:20:00Z",
                Outcome::new([], 2),
            ),
            ("", "2026-01-31T11:00:00Z", Outcome::new([], 2)),
            ("2026-02-01", "", Outcome::new([], 2)),
            ("", "2026-01-31T12:00:00Z", Outcome::new(0..2, 1)),
        ] {
            let found = read(("s", kind), &file, &events(from, to)).await;
            assert_eq!(found, expected, "{kind}: {from} to {to}");
        }
    }
}

#[tokio::test]
async fn event_times_as_text_are_bounds_to_the_day() {
    // The second lies between the others as text, and hours before both in time.
    let file = file_of(
        &[
            event_times(StringArray::from(vec![
                "2026-01-10T10:00:00Z",
                "2026-01-10T10:30:00+14:00",
                "2026-01-10T11:00:00Z",
            ])),
            event_times(StringArray::from(vec![
                "2026-01-20",
                "2026-01-20 23:59:59-23:59",
                "2026-01-20T00:00:00.000Z",
            ])),
        ],
        plain(),
    );
    for (from, to, expected) in [
        (
            "2026-01-09T20:30:00Z",
            "2026-01-09T20:30:00Z",
            Outcome::new(0..3, 1),
        ),
        (
            "2026-01-21T23:58:59Z",
            "2026-01-21T23:58:59Z",
            Outcome::new(3..6, 1),
        ),
        ("2026-01-13", "2026-01-18", Outcome::new([], 2)),
        ("2026-01-22T00:00:01Z", "", Outcome::new([], 2)),
    ] {
        let found = read(("s", "s"), &file, &events(from, to)).await;
        assert_eq!(found, expected, "{from} to {to}");
    }
    for (min, max) in [
        ("2026-01-1", "2026-01-2"),
        ("soon", "then"),
        ("2026-01-10", "2026-01-1:"),
    ] {
        let statistics = bytes(min, max, Some(0), false);
        let file = restated(&file, EVENT_TIME, Some(&statistics));
        let found = read(("s", "s"), &file, &events("2027-01-01", "")).await;
        assert_eq!(found.groups_pruned, 0, "{min} to {max}");
    }
}

#[tokio::test]
async fn the_other_times_are_bounds() {
    let later = micros(NOON) + 1;
    let file = file_of(
        &[
            texts(&["a"]),
            Group {
                write_time: utc(&[later]),
                ..texts(&["a"])
            },
            Group {
                api_invocation_time: utc(&[later]),
                ..texts(&["a"])
            },
        ],
        plain(),
    );
    let kinds = ("s", "s");
    assert_eq!(
        read(kinds, &file, &written_until(NOON)).await,
        Outcome::new([0, 2], 1)
    );
    let known = Prune {
        api_invocation_time_at_most: Some(at(NOON)),
        ..Prune::default()
    };
    assert_eq!(read(kinds, &file, &known).await, Outcome::new([0, 1], 1));
    let both = Prune {
        write_time_at_most: Some(at(NOON)),
        ..known
    };
    assert_eq!(read(kinds, &file, &both).await, Outcome::new([0], 2));
    assert_eq!(
        read(kinds, &file, &Prune::default()).await,
        Outcome::new(0..3, 0)
    );
    let nanos = TimestampNanosecondArray::from(vec![micros(NOON) * 1_000 + 1]);
    let file = file_of(&[write_times(nanos)], plain());
    assert_eq!(
        read(kinds, &file, &written_until(NOON)).await,
        Outcome::new([], 1)
    );
}

fn bytes(min: &str, max: &str, nulls: Option<u64>, deprecated: bool) -> Statistics {
    let value = |text: &str| Some(ByteArray::from(text));
    Statistics::ByteArray(ValueStatistics::new(
        value(min),
        value(max),
        None,
        nulls,
        deprecated,
    ))
}

#[tokio::test]
async fn columns_that_may_hold_nulls_prove_nothing() {
    let file = file_of(&[texts(&["a", "b"])], plain());
    for (nulls, pruned) in [(Some(0), 1), (Some(1), 0), (None, 0)] {
        let file = restated(&file, ID, Some(&bytes("a", "b", nulls, false)));
        let found = read(("s", "s"), &file, &text_keys(&["z"])).await;
        assert_eq!(found.groups_pruned, pruned, "{nulls:?} nulls");
    }
    let file = restated(&file, ID, None);
    let found = read(("s", "s"), &file, &text_keys(&["z"])).await;
    assert_eq!(found.groups_pruned, 0, "no statistics");
}

#[tokio::test]
async fn statistics_under_another_order_prove_nothing() {
    let orders = |kind, file: &Bytes, wanted: &SortedKeys| {
        [
            Some(ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::SIGNED)),
            Some(ColumnOrder::TYPE_DEFINED_ORDER(SortOrder::UNSIGNED)),
            Some(ColumnOrder::UNKNOWN),
            None,
        ]
        .map(|order| may_hold_under(kind, file, order, wanted.clone()))
    };

    let file = file_of(&[texts(&["a", "b"])], plain());
    let wanted = SortedKeys::texts(vec!["z".into()]);
    assert_eq!(orders("s", &file, &wanted), [true, false, true, true]);
    let deprecated = restated(&file, ID, Some(&bytes("a", "b", Some(0), true)));
    let found = read(("s", "s"), &deprecated, &keys(wanted)).await;
    assert_eq!(found, Outcome::new(0..2, 0));

    let file = file_of(&[group(Float64Array::from(vec![1.0]))], plain());
    let wanted = SortedKeys::doubles(vec![5.0]);
    assert_eq!(orders("f", &file, &wanted), [false, true, true, false]);
    let deprecated = Statistics::double(Some(1.0), Some(1.0), None, Some(0), true);
    let deprecated = restated(&file, ID, Some(&deprecated));
    let found = read(("f", "s"), &deprecated, &keys(wanted)).await;
    assert_eq!(found, Outcome::new([0], 0));

    // Every writer has compared signed whole numbers as such.
    let file = file_of(&[group(Int64Array::from(vec![1]))], plain());
    let wanted = SortedKeys::integers(vec![5]);
    assert_eq!(orders("i", &file, &wanted), [false, true, true, false]);
    let deprecated = Statistics::int64(Some(1), Some(1), None, Some(0), true);
    let deprecated = restated(&file, ID, Some(&deprecated));
    let found = read(("i", "s"), &deprecated, &keys(wanted)).await;
    assert_eq!(found, Outcome::new([], 1));
}

#[tokio::test]
async fn values_that_are_widened_prove_nothing() {
    let integers = keys(SortedKeys::integers(vec![5]));
    for array in [
        Arc::new(Int32Array::from(vec![1])) as ArrayRef,
        Arc::new(UInt64Array::from(vec![1])),
    ] {
        let file = file_of(
            &[Group {
                id: array,
                ..texts(&["a"])
            }],
            plain(),
        );
        assert_eq!(
            read(("i", "s"), &file, &integers).await,
            Outcome::new([0], 0)
        );
    }
    let doubles = keys(SortedKeys::doubles(vec![5.0]));
    for array in [
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
        Arc::new(Float32Array::from(vec![1.0])),
    ] {
        let file = file_of(
            &[Group {
                id: array,
                ..texts(&["a"])
            }],
            plain(),
        );
        assert_eq!(
            read(("f", "s"), &file, &doubles).await,
            Outcome::new([0], 0)
        );
    }
    let binary = arrow::array::BinaryArray::from_vec(vec![b"a"]);
    let file = file_of(&[group(binary)], plain());
    assert_eq!(
        read(("s", "s"), &file, &text_keys(&["z"])).await,
        Outcome::new([0], 0)
    );
    // Event times in seconds, but not as doubles.
    let file = file_of(&[event_times(Float32Array::from(vec![1.0]))], plain());
    assert_eq!(
        read(("s", "f"), &file, &events("2026-01-01", "")).await,
        Outcome::new([0], 0)
    );
    let file = file_of(&[event_times(Int64Array::from(vec![1]))], plain());
    assert_eq!(
        read(("s", "f"), &file, &events("2026-01-01", "")).await,
        Outcome::new([0], 0)
    );
}

#[tokio::test]
async fn bounds_that_were_cut_off_still_hold() {
    let ids = ["customer-17", "customer-19"];
    let properties = WriterProperties::builder()
        .set_statistics_truncate_length(Some(9))
        .build();
    let file = file_of(&[texts(&ids)], properties);
    // Some writers cut the upper bound off without rounding it up.
    let inexact = match bytes("customer-1", "customer-1", Some(0), false) {
        Statistics::ByteArray(values) => {
            Statistics::ByteArray(values.with_min_is_exact(false).with_max_is_exact(false))
        }
        other => other,
    };
    let cut = restated(&file, ID, Some(&inexact));
    for (file, cut_at) in [(&file, 9), (&cut, 10)] {
        for id in ids {
            let found = read(("s", "s"), file, &text_keys(&[id])).await;
            assert_eq!(
                found,
                Outcome::new(0..2, 0),
                "{id} under bounds of {cut_at} bytes"
            );
        }
        for id in ["customer", "customer/", "customes", "z"] {
            let found = read(("s", "s"), file, &text_keys(&[id])).await;
            assert_eq!(
                found,
                Outcome::new([], 1),
                "{id} under bounds of {cut_at} bytes"
            );
        }
    }
    assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
    assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(after_prefix(b"\xff"), None);
    assert_eq!(after_prefix(b""), None);
    // An upper bound that is said to be whole is one.
    let whole = restated(&file, ID, Some(&bytes("a", "customer-1", Some(0), false)));
    let found = read(("s", "s"), &whole, &text_keys(&["customer-1"])).await;
    assert_eq!(found, Outcome::new(0..2, 0));
    let found = read(("s", "s"), &whole, &text_keys(&["customer-10"])).await;
    assert_eq!(found, Outcome::new([], 1));
}

#[tokio::test]
async fn int96_statistics_prove_nothing() {
    let late = spark(&[("a", NOON, 1.0, at("2030-01-01"))], false);
    let mut value = Int96::new();
    value.set_data(0, 0, 2_462_503);
    let statistics = Statistics::int96(Some(value), Some(value), None, Some(0), false);
    // Its fifth column is the write time.
    let late = restated(&late, 4, Some(&statistics));
    let store = memory();
    put(&store, "f.parquet", late).await;
    let table = table(&store, &CUSTOMERS);
    let file = files(&table).await.remove(0);
    let metrics = ScanMetrics::unobserved();
    let reader = Arc::new(FileReader::new(0));
    let run = reader
        .open_many(
            &table,
            [(0, Arc::clone(&file))],
            &everything(&table),
            &metrics,
        )
        .pruning(written_until(NOON));
    let batches: Vec<_> = run.streams(1).remove(0).try_collect().await.expect("rows");
    assert_eq!(batches.len(), 1);
    let bounds = reader
        .bounds(&table, &file, &metrics)
        .await
        .expect("bounds");
    assert_eq!((bounds.rows, bounds.write_time), (1, None));
}

#[tokio::test]
async fn broken_statistics_do_not_break_a_file() {
    let file = file_of(&[group(Int64Array::from(vec![1, 2]))], plain());
    // Four bytes where eight belong.
    let broken = Statistics::int32(Some(1), Some(2), None, Some(0), false);
    let file = restated(&file, ID, Some(&broken));
    assert!(
        ParquetMetaDataReader::new()
            .parse_and_finish(&file)
            .is_err()
    );
    let prune = keys(SortedKeys::integers(vec![5]));
    assert_eq!(read(("i", "s"), &file, &prune).await, Outcome::new(0..2, 0));
}

#[tokio::test]
async fn a_footer_read_without_statistics_is_read_again() {
    let store = memory();
    put(&store, "f.parquet", file_of(&[texts(&["a"])], plain())).await;
    let table = table(&store, &[("Id", "s"), ("EventTime", "s"), ("Visits", "i")]);
    let file = files(&table).await.remove(0);
    let reader = Arc::new(FileReader::new(1 << 20));
    let origin = reader.origin(&table.files, None);
    let fetched = Count::new();
    let object = Object::new(&origin, &file, fetched.clone());
    reader.footer(&object, &[]).await.expect("a footer");
    for again in [true, false] {
        let before = fetched.value();
        let metrics = ScanMetrics {
            bytes_scanned: fetched.clone(),
            ..ScanMetrics::unobserved()
        };
        let run = reader
            .open_many(
                &table,
                [(0, Arc::clone(&file))],
                &Columns::default(),
                &metrics,
            )
            .pruning(text_keys(&["z"]));
        let batches: Vec<_> = run.streams(1).remove(0).try_collect().await.expect("rows");
        assert!(batches.is_empty());
        assert_eq!(metrics.files_pruned_by_statistics.value(), 1);
        assert_eq!(metrics.files_read.value(), 0);
        assert_eq!(fetched.value() > before, again);
    }
}

#[tokio::test]
async fn bounds_of_a_file_are_those_of_all_its_rows() {
    let times = |at: &[i64]| Group {
        write_time: utc(at),
        ..texts(&vec!["a"; at.len()])
    };
    let noon = at(NOON);
    let micros = Instant::from_micros;
    let unknown =
        write_times(TimestampMicrosecondArray::from(vec![None::<i64>]).with_timezone("UTC"));
    for (groups, rows, write_time) in [
        (
            vec![times(&[5, 6]), times(&[-7]), times(&[6, 9])],
            5,
            Some((micros(-7), micros(9))),
        ),
        (vec![times(&[5]), unknown.clone()], 2, None),
        (vec![unknown, times(&[5])], 2, None),
    ] {
        let store = memory();
        put(&store, "f.parquet", file_of(&groups, plain())).await;
        let table = table(&store, &[("Id", "s"), ("EventTime", "s")]);
        let file = files(&table).await.remove(0);
        let reader = Arc::new(FileReader::new(1 << 20));
        let metrics = ScanMetrics::unobserved();
        let bounds = reader.bounds(&table, &file, &metrics).await;
        assert_eq!(
            bounds.expect("bounds"),
            FileBounds {
                rows,
                event_time: Some((at("2026-01-30"), at("2026-02-02"))),
                write_time,
                api_invocation_time: Some((noon, noon)),
            }
        );
        assert!(metrics.bytes_scanned.value() > 0);
    }
}

/// Whatever is left out has no row that passes, for random files and random wishes.
#[tokio::test]
async fn nothing_that_passes_is_left_out() {
    let mut rng = StdRng::seed_from_u64(5);
    let (mut pruned, mut kept) = (0, 0);
    for _ in 0..300 {
        let kind = ["i", "f", "s"][rng.random_range(0..3)];
        let as_text = rng.random_bool(0.5);
        let groups = rng.random_range(1..6);
        let mut file_groups = Vec::new();
        let mut rows: Vec<(i64, Instant, Instant)> = Vec::new();
        for _ in 0..groups {
            let (key, hour) = (rng.random_range(-20..20_i64), rng.random_range(0..200_i64));
            let count = rng.random_range(1..6);
            let made: Vec<(i64, Instant, Instant)> = (0..count)
                .map(|_| {
                    let event = (hour + rng.random_range(0..30)) * 3_600_000_000;
                    (
                        key + rng.random_range(0..6),
                        Instant::from_micros(event),
                        Instant::from_micros(rng.random_range(0..100)),
                    )
                })
                .collect();
            let id: ArrayRef = match kind {
                "i" => Arc::new(Int64Array::from_iter_values(made.iter().map(|row| row.0))),
                "f" => Arc::new(Float64Array::from_iter_values(
                    made.iter().map(|row| row.0 as f64 * 0.5),
                )),
                _ => Arc::new(StringViewArray::from_iter_values(
                    made.iter().map(|row| format!("{:+04}", row.0)),
                )),
            };
            let zones = ["Z", "+14:00", "-11:30"];
            let event_time: ArrayRef = if as_text {
                let text = made.iter().map(|row| {
                    let zone = rng.random_range(0..3);
                    let shift = [0, 14 * 60, -(11 * 60 + 30)][zone] * 60_000_000;
                    let local = Instant::from_micros(row.1.micros + shift).to_string();
                    format!("{}{}", local.trim_end_matches('Z'), zones[zone])
                });
                Arc::new(StringArray::from_iter_values(text.collect::<Vec<_>>()))
            } else {
                let seconds = made.iter().map(|row| row.1.micros as f64 / 1e6);
                Arc::new(Float64Array::from_iter_values(seconds))
            };
            let writes: Vec<i64> = made.iter().map(|row| row.2.micros).collect();
            file_groups.push(Group {
                id,
                event_time,
                write_time: utc(&writes),
                api_invocation_time: utc(&writes),
            });
            rows.extend(made);
        }
        let properties = if rng.random_bool(0.5) {
            with_filters()
        } else {
            plain()
        };
        let file = file_of(&file_groups, properties);
        for _ in 0..4 {
            let mut bound = |share| {
                rng.random_bool(share)
                    .then(|| Instant::from_micros(rng.random_range(0..240) * 3_600_000_000))
            };
            let event_time = EventRange {
                from: bound(0.4),
                to: bound(0.4),
            };
            let until = rng
                .random_bool(0.4)
                .then(|| Instant::from_micros(rng.random_range(0..100)));
            let wanted: Option<Vec<i64>> = rng.random_bool(0.5).then(|| {
                (0..rng.random_range(1..4))
                    .map(|_| rng.random_range(-25..30))
                    .collect()
            });
            let sorted = wanted.clone().map(|wanted| -> Arc<dyn KeyBounds> {
                Arc::new(match kind {
                    "i" => SortedKeys::integers(wanted),
                    "f" => {
                        SortedKeys::doubles(wanted.iter().map(|&key| key as f64 * 0.5).collect())
                    }
                    _ => SortedKeys::texts(
                        wanted
                            .iter()
                            .map(|key| format!("{key:+04}").into())
                            .collect(),
                    ),
                })
            });
            let prune = Prune {
                event_time,
                write_time_at_most: until,
                api_invocation_time_at_most: None,
                keys: sorted,
            };
            let found = read((kind, if as_text { "s" } else { "f" }), &file, &prune).await;
            pruned += found.groups_pruned;
            kept += groups - found.groups_pruned;
            for (row, (key, event, write)) in rows.iter().enumerate() {
                let passes = event_time.contains(*event)
                    && until.is_none_or(|until| *write <= until)
                    && wanted.as_ref().is_none_or(|wanted| wanted.contains(key));
                assert!(
                    !passes || found.rows.contains(&(row as i64)),
                    "row {row} of {rows:?} under {prune:?}"
                );
            }
        }
    }
    assert!(pruned > 500 && kept > 500, "{pruned} left out, {kept} kept");
}

/// What bloom filters left of a file.
async fn filtered(kind: &str, file: &Bytes, keys: SortedKeys) -> (Outcome, usize, usize) {
    let metrics = ScanMetrics::unobserved();
    let prune = super::tests::keys(keys);
    let outcome = read_counted((kind, "s"), file, &prune, &metrics).await;
    let row_groups = metrics.row_groups_pruned_by_bloom_filter.value();
    (outcome, row_groups, metrics.bytes_scanned.value())
}

fn with_filters() -> WriterProperties {
    WriterProperties::builder()
        .set_column_bloom_filter_enabled("Id".into(), true)
        .set_column_bloom_filter_max_ndv("Id".into(), 50)
        .set_column_bloom_filter_fpp("Id".into(), 0.001)
        .build()
}

fn ruled_out(rows: impl IntoIterator<Item = i64>) -> Outcome {
    let mut outcome = Outcome::new(rows, 0);
    outcome.files_pruned = 0;
    outcome
}

#[tokio::test]
async fn bloom_filters_rule_row_groups_out() {
    let file = file_of(
        &[texts(&["a", "z"]), texts(&["b", "y"]), texts(&["", "zz"])],
        with_filters(),
    );
    let read = async |wanted: &[&str]| {
        let wanted = SortedKeys::texts(wanted.iter().map(|&key| key.into()).collect());
        let (outcome, row_groups, _) = filtered("s", &file, wanted).await;
        (outcome, row_groups)
    };
    assert_eq!(read(&["b", "c"]).await, (ruled_out(2..4), 2));
    assert_eq!(read(&["a", "zz"]).await, (Outcome::new([0, 1, 4, 5], 1), 0));
    assert_eq!(read(&["c", "d"]).await, (ruled_out([]), 3));

    let file = file_of(
        &[
            group(Int64Array::from(vec![-5, 5])),
            group(Int64Array::from(vec![-4, 4])),
        ],
        with_filters(),
    );
    let (outcome, row_groups, _) = filtered("i", &file, SortedKeys::integers(vec![4])).await;
    assert_eq!((outcome, row_groups), (ruled_out(2..4), 1));
}

#[tokio::test]
async fn bloom_filters_hold_the_bits_of_doubles() {
    let file = file_of(
        &[
            group(Float64Array::from(vec![-0.0, 9.0, -9.0])),
            group(Float64Array::from(vec![0.0, 9.0, -9.0])),
            group(Float64Array::from(vec![f64::NAN, 9.0, -9.0])),
        ],
        with_filters(),
    );
    for zero in [0.0, -0.0] {
        let (outcome, row_groups, _) = filtered("f", &file, SortedKeys::doubles(vec![zero])).await;
        assert_eq!((outcome, row_groups), (ruled_out(0..6), 1), "{zero}");
    }
    let wanted = SortedKeys::doubles(vec![f64::NAN]);
    let (outcome, ..) = filtered("f", &file, wanted).await;
    assert_eq!(outcome, ruled_out(0..9));
    let (outcome, ..) = filtered("f", &file, SortedKeys::doubles(vec![4.5])).await;
    assert_eq!(outcome, ruled_out([]));
}

/// From a filter's offset and length to what the footer says of them.
type Change = fn(i64, i32) -> (Option<i64>, Option<i32>);

/// The same file with another place of the filters in its footer.
fn refiltered(file: &Bytes, change: impl Fn(i64, i32) -> (Option<i64>, Option<i32>)) -> Bytes {
    rewritten(file, |metadata, group| {
        let mut builder = metadata.row_group(group).clone().into_builder();
        let mut columns = builder.take_columns();
        let old = &columns[ID];
        let offset = old.bloom_filter_offset().expect("a filter");
        let length = old.bloom_filter_length().expect("its length");
        let (offset, length) = change(offset, length);
        columns[ID] = columns[ID]
            .clone()
            .into_builder()
            .set_bloom_filter_offset(offset)
            .set_bloom_filter_length(length)
            .build()
            .expect("a column");
        builder
            .set_column_metadata(columns)
            .build()
            .expect("a row group")
    })
}

#[tokio::test]
async fn damaged_bloom_filters_say_nothing() {
    let file = file_of(&[texts(&["a", "z"])], with_filters());
    let wanted = || SortedKeys::texts(vec!["k".into()]);
    let rows = async |file: &Bytes| filtered("s", file, wanted()).await.0.rows.len();
    assert_eq!(rows(&file).await, 0);
    let no_length = refiltered(&file, |offset, _| (Some(offset), None));
    assert_eq!(
        rows(&no_length).await,
        0,
        "the filter says itself how long it is"
    );

    let changes: [Change; 11] = [
        |_, _| (None, None),
        |offset, length| (Some(offset), Some(length - 1)),
        |offset, length| (Some(offset), Some(length + 1)),
        |offset, _| (Some(offset), Some(0)),
        |offset, _| (Some(offset), Some(-1)),
        |offset, _| (Some(offset), Some(i32::MAX)),
        |_, length| (Some(-1), Some(length)),
        |_, length| (Some(i64::MAX), Some(length)),
        |_, _| (Some(i64::MAX), None),
        |_, length| (Some(4), Some(length)),
        |_, _| (Some(4), None),
    ];
    for (case, change) in changes.into_iter().enumerate() {
        assert_eq!(rows(&refiltered(&file, change)).await, 2, "case {case}");
    }
    // Every byte of its header, replaced.
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file);
    let metadata = metadata.expect("a footer");
    let column = metadata.row_group(0).column(ID);
    let start = column.bloom_filter_offset().expect("a filter") as usize;
    let length = column.bloom_filter_length().expect("its length") as usize;
    assert!(length > 32 && length < 60);
    for file in [&file, &no_length] {
        for at in start..start + length - 32 {
            for byte in [0, 0x15, 0xff] {
                let mut bytes = file.to_vec();
                if bytes[at] != byte {
                    bytes[at] = byte;
                    let rows = rows(&bytes.into()).await;
                    assert!(rows == 2 || rows == 0);
                }
            }
        }
    }
}

#[tokio::test]
async fn bloom_filters_are_of_no_use_where_values_are_not_what_they_hold() {
    let integers = Int32Array::from(vec![1, 9]);
    let file = file_of(&[group(integers)], with_filters());
    let (outcome, ..) = filtered("i", &file, SortedKeys::integers(vec![5])).await;
    assert_eq!(outcome, Outcome::new(0..2, 0));
    let file = file_of(&[group(Int64Array::from(vec![1, 9]))], with_filters());
    let (outcome, ..) = filtered("f", &file, SortedKeys::doubles(vec![5.0])).await;
    assert_eq!(outcome, Outcome::new(0..2, 0));
    let floats = Float32Array::from(vec![1.0, 9.0]);
    let file = file_of(&[group(floats)], with_filters());
    let (outcome, ..) = filtered("f", &file, SortedKeys::doubles(vec![5.0])).await;
    assert_eq!(outcome, Outcome::new(0..2, 0));
    // Nulls have to be met.
    let file = file_of(&[texts(&["a", "z"])], with_filters());
    for (statistics, rows) in [
        (Some(bytes("a", "z", Some(0), false)), 0),
        (Some(bytes("a", "z", Some(1), false)), 2),
        (Some(bytes("a", "z", None, false)), 2),
        (None, 2),
    ] {
        let file = restated(&file, ID, statistics.as_ref());
        let (outcome, ..) = filtered("s", &file, SortedKeys::texts(vec!["k".into()])).await;
        assert_eq!(outcome.rows.len(), rows, "{statistics:?}");
    }
}

#[tokio::test]
async fn bloom_filters_are_read_where_that_is_cheaper() {
    // Identifiers that do not compress, in a file that does not come with its footer.
    let mut rng = StdRng::seed_from_u64(8);
    let mut ids = || {
        let ids = (0..100_000).map(|_| format!("{:032x}", rng.random::<u128>()));
        group(StringArray::from_iter_values(ids))
    };
    let id = || parquet::schema::types::ColumnPath::from("Id");
    let properties = WriterProperties::builder()
        .set_column_dictionary_enabled(id(), false)
        .set_column_bloom_filter_enabled(id(), true)
        .set_column_bloom_filter_max_ndv(id(), 100_000)
        .set_column_bloom_filter_fpp(id(), 0.01)
        .build();
    let file = file_of(&[ids(), ids()], properties);
    assert!(file.len() > 7_000_000);
    let absent = || SortedKeys::texts(vec!["5".into(), "7".into()]);
    let (outcome, row_groups, bytes) = filtered("s", &file, absent()).await;
    assert_eq!((outcome, row_groups), (ruled_out([]), 2));
    assert!(bytes < 600_000, "{bytes} bytes");
    let no_length = refiltered(&file, |offset, _| (Some(offset), None));
    let (outcome, row_groups, bytes) = filtered("s", &no_length, absent()).await;
    assert_eq!((outcome, row_groups), (ruled_out([]), 2));
    assert!(bytes < 600_000, "{bytes} bytes");

    // Nothing is fetched that is no smaller than what it may save.
    let costly = refiltered(&file, |offset, _| {
        (Some(offset - 2_000_000), Some(2_000_000))
    });
    let (outcome, row_groups, bytes) = filtered("s", &costly, absent()).await;
    assert_eq!((outcome.rows.len(), row_groups), (200_000, 0));
    assert!(bytes < 2_500_000, "{bytes} bytes");

    // Nor for more keys than are tried.
    let many = (0..5_000).map(|key| format!("{key:04x}").into());
    let (outcome, row_groups, _) = filtered("s", &file, SortedKeys::texts(many.collect())).await;
    assert_eq!((outcome.rows.len(), row_groups), (200_000, 0));
}
