//! Every format over several batches, none, and a reader that goes away.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use futures::StreamExt;
use futures::stream;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    let names = ids
        .clone()
        .map(|id| (id != 2).then(|| format!("n{id}")))
        .collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids)),
        Arc::new(StringArray::from(names)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn rows(batches: Vec<RecordBatch>) -> Rows {
    Rows {
        schema: schema(),
        batches: stream::iter(batches.into_iter().map(Ok)).boxed(),
    }
}

async fn text(format: Format, max_rows: MaxRows, batches: Vec<RecordBatch>) -> (String, Printed) {
    let mut out = Vec::new();
    let printer = Printer::new(format, max_rows, true, false);
    let printed = printer.print(&mut out, rows(batches)).await.unwrap();
    (String::from_utf8(out).unwrap(), printed)
}

#[tokio::test]
async fn csv_has_one_header_whatever_the_batches() {
    let batches = vec![batch(0..0), batch(1..3), batch(3..4)];
    let (csv, printed) = text(Format::Csv, MaxRows::Limited(1), batches).await;
    assert_eq!(csv, "id,name\n1,n1\n2,\n3,n3\n");
    assert_eq!(
        printed,
        Printed {
            rows: 3,
            more: false
        }
    );
    assert_eq!(
        text(Format::Csv, MaxRows::Unlimited, vec![]).await.0,
        "id,name\n"
    );
    let (tsv, _) = text(Format::Tsv, MaxRows::Unlimited, vec![batch(1..2)]).await;
    assert_eq!(tsv, "id\tname\n1\tn1\n");
    assert_eq!(
        text(Format::Tsv, MaxRows::Unlimited, vec![batch(0..0)])
            .await
            .0,
        "id\tname\n"
    );
}

#[tokio::test]
async fn json_is_one_array_and_ndjson_one_object_per_line() {
    let batches = || vec![batch(1..3), batch(3..4)];
    let (json, printed) = text(Format::Json, MaxRows::Limited(1), batches()).await;
    assert_eq!(
        json,
        "[{\"id\":1,\"name\":\"n1\"},{\"id\":2,\"name\":null},{\"id\":3,\"name\":\"n3\"}]\n"
    );
    assert_eq!(printed.rows, 3);
    assert_eq!(
        text(Format::Json, MaxRows::Unlimited, vec![]).await.0,
        "[]\n"
    );
    let (ndjson, _) = text(Format::Ndjson, MaxRows::Unlimited, batches()).await;
    assert_eq!(ndjson.lines().count(), 3);
    assert_eq!(text(Format::Ndjson, MaxRows::Unlimited, vec![]).await.0, "");
}

#[tokio::test]
async fn a_table_shows_no_more_rows_than_asked_and_knows_it() {
    let (table, printed) = text(
        Format::Table,
        MaxRows::Limited(2),
        vec![batch(1..2), batch(2..5)],
    )
    .await;
    assert_eq!(
        printed,
        Printed {
            rows: 2,
            more: true
        }
    );
    assert!(table.contains("| 2  | NULL |"), "{table}");
    assert!(!table.contains("n3"), "{table}");

    let (_, printed) = text(Format::Table, MaxRows::Limited(3), vec![batch(1..4)]).await;
    assert_eq!(
        printed,
        Printed {
            rows: 3,
            more: false
        }
    );
    let batches = vec![batch(1..4), batch(0..0), batch(4..5)];
    let (_, printed) = text(Format::Table, MaxRows::Limited(3), batches).await;
    assert_eq!(
        printed,
        Printed {
            rows: 3,
            more: true
        }
    );
    let (table, _) = text(Format::Table, MaxRows::Unlimited, vec![]).await;
    assert!(table.contains("| id | name |"), "{table}");
}

#[tokio::test]
async fn a_limited_table_stops_reading() {
    let endless = stream::iter(0..).map(|at| Ok(batch(at..at + 1))).boxed();
    let printer = Printer::new(Format::Table, MaxRows::Limited(5), true, false);
    let rows = Rows {
        schema: schema(),
        batches: endless,
    };
    let printed = printer.print(&mut Vec::new(), rows).await.unwrap();
    assert_eq!(
        printed,
        Printed {
            rows: 5,
            more: true
        }
    );
}

struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

#[tokio::test]
async fn a_reader_that_went_away_is_told_from_a_bad_result() {
    for format in [Format::Table, Format::Csv, Format::Json, Format::Ndjson] {
        let mut out = Sink::new(Gone);
        let printer = Printer::new(format, MaxRows::Unlimited, true, false);
        let printed = printer.print(&mut out, rows(vec![batch(1..3)])).await;
        match out.blame(printed) {
            Err(CliError::Output(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{format:?}");
            }
            other => panic!("{format:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_error_midway_is_an_error_not_a_shorter_result() {
    for format in [Format::Table, Format::Csv, Format::Json, Format::Ndjson] {
        let failing = vec![Ok(batch(1..3)), Err(CliError::Protocol("cut".to_owned()))];
        let rows = Rows {
            schema: schema(),
            batches: stream::iter(failing).boxed(),
        };
        let printer = Printer::new(format, MaxRows::Unlimited, true, false);
        assert!(
            printer.print(&mut Vec::new(), rows).await.is_err(),
            "{format:?}"
        );
    }
}
