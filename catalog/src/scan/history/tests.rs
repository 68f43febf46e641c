use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{cast, col, lit};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::error::{Error, Kind};
use crate::listing::Lister;
use crate::scan::fixtures::*;
use crate::table::timestamp_type;

fn at(text: &str) -> Instant {
    Instant::parse(text).expect("a time")
}

fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3))
}

fn with_history(table: &Arc<FeatureTable>, cut: Cut, context: &ScanContext) -> SessionContext {
    let session = session();
    let provider = history_provider(Arc::clone(table), cut, context.clone());
    session.register_table("h", provider).expect("registers");
    session
}

/// The `Visits` of the rows a query returns, sorted.
async fn visits(session: &SessionContext, sql: &str) -> Result<Vec<i64>> {
    let batches = session.sql(sql).await?.collect().await?;
    let mut visits: Vec<i64> = batches
        .iter()
        .flat_map(|batch| {
            batch
                .column(0)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        })
        .collect();
    visits.sort_unstable();
    Ok(visits)
}

/// Three hours of two days, a file of Spark's in a folder of another time zone, and a stray.
async fn store() -> Arc<dyn ObjectStore> {
    let store = memory();
    let early = "2026-01-10T00:30:00Z";
    for (folder, versions) in [
        (
            "year=2026/month=01/day=10/hour=00",
            vec![("a", early, 1, "2026-01-10T01:00:00Z")],
        ),
        (
            "year=2026/month=01/day=10/hour=01",
            vec![
                (
                    "a",
                    "2026-01-10T01:00:00.000000001Z",
                    2,
                    "2026-01-10T02:00:00Z",
                ),
                (
                    "b",
                    "2026-01-10T01:00:00Z",
                    3,
                    "2026-01-10T02:00:00.000001Z",
                ),
            ],
        ),
        (
            "year=2026/month=01/day=20/hour=05",
            vec![("a", "2026-01-20T05:00:00Z", 4, "2026-01-20T06:00:00Z")],
        ),
        // New York's hour of 2026-01-10T01:10Z.
        (
            "year=2026/month=01/day=09/hour=20",
            vec![("c", "2026-01-10T01:10:00Z", 5, "2026-01-10T02:00:00Z")],
        ),
        (
            "backfill",
            vec![("d", "2026-01-10T01:20:00Z", 6, "2026-03-01T00:00:00Z")],
        ),
    ] {
        put(&store, &format!("{folder}/f.parquet"), customers(&versions)).await;
    }
    store
}

#[tokio::test]
async fn every_version_with_its_system_columns() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let session = with_history(&table, Cut::default(), &context());
    assert_eq!(
        visits(&session, r#"SELECT "Visits" FROM h"#)
            .await
            .expect("rows"),
        [1, 2, 3, 4, 5, 6]
    );
    let batches = session
        .sql("SELECT * FROM h")
        .await
        .expect("plans")
        .collect()
        .await
        .expect("rows");
    for batch in &batches {
        assert_eq!(batch.schema().fields(), table.history_schema.fields());
        assert_eq!(batch.schema().field(1).data_type(), &timestamp_type());
    }
    // Columns in any order, twice, and none at all.
    let sql = r#"SELECT is_deleted, "Visits", write_time, "EventTime", "Visits" AS v FROM h WHERE "Id" = 'c'"#;
    let batches = session
        .sql(sql)
        .await
        .expect("plans")
        .collect()
        .await
        .expect("rows");
    let row = batches
        .iter()
        .find(|batch| batch.num_rows() > 0)
        .expect("a row");
    assert_eq!(row.column(1).as_primitive::<Int64Type>().value(0), 5);
    assert_eq!(row.column(4).as_primitive::<Int64Type>().value(0), 5);
    assert_eq!(
        visits(&session, "SELECT count(*) FROM h")
            .await
            .expect("rows"),
        [6]
    );
    let limited = visits(&session, r#"SELECT "Visits" FROM h LIMIT 2"#)
        .await
        .expect("rows");
    assert_eq!(limited.len(), 2);
}

#[tokio::test]
async fn cuts_are_inclusive_and_exact_to_the_nanosecond() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let rows = async |cut| {
        let session = with_history(&table, cut, &context());
        visits(&session, r#"SELECT "Visits" FROM h"#)
            .await
            .expect("rows")
    };
    let to = |text| Cut {
        event_time: EventRange {
            from: None,
            to: Some(at(text)),
        },
        system_time: None,
    };
    assert_eq!(rows(to("2026-01-10T01:00:00Z")).await, [1, 3]);
    assert_eq!(rows(to("2026-01-10T01:00:00.000000001Z")).await, [1, 2, 3]);
    let from = EventRange {
        from: Some(at("2026-01-10T01:00:00.000000001Z")),
        to: Some(at("2026-01-10T01:10:00Z")),
    };
    assert_eq!(
        rows(Cut {
            event_time: from,
            system_time: None
        })
        .await,
        [2, 5]
    );
    let system = |text| Cut {
        system_time: Some(at(text)),
        ..Cut::default()
    };
    assert_eq!(rows(system("2026-01-10T02:00:00Z")).await, [1, 2, 5]);
    assert_eq!(
        rows(system("2026-01-10T02:00:00.000000999Z")).await,
        [1, 2, 5]
    );
    assert_eq!(
        rows(system("2026-01-10T02:00:00.000001Z")).await,
        [1, 2, 3, 5]
    );
    assert_eq!(rows(system("2025-01-01")).await, [0; 0]);
    let both = Cut {
        event_time: from,
        system_time: Some(at("2026-01-10T02:00:00Z")),
    };
    assert_eq!(rows(both).await, [2, 5]);
}

#[tokio::test]
async fn int96_system_times_are_cut_to_the_nanosecond() {
    let store = memory();
    let written = at("2026-01-10T02:00:00.000000500Z");
    put(
        &store,
        "f.parquet",
        spark(&[("a", "2026-01-10", 1.0, written)], false),
    )
    .await;
    let table = table(&store, &CUSTOMERS);
    for (cut, expected) in [
        ("2026-01-10T02:00:00.000000499Z", 0),
        ("2026-01-10T02:00:00.0000005Z", 1),
    ] {
        let cut = Cut {
            system_time: Some(at(cut)),
            ..Cut::default()
        };
        let session = with_history(&table, cut, &context());
        assert_eq!(
            visits(&session, "SELECT count(*) FROM h")
                .await
                .expect("rows"),
            [expected]
        );
    }
}

#[tokio::test]
async fn predicates_on_event_time_choose_folders_and_lose_nothing() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let session = with_history(&table, Cut::default(), &context());
    for (predicate, expected, files) in [
        (
            r#""EventTime" >= '2026-01-10T01:00:00Z' AND "EventTime" < '2026-01-11'"#,
            vec![2, 3, 5, 6],
            4,
        ),
        (r#""EventTime" > TIMESTAMP '2026-01-15'"#, vec![4], 2),
        (
            r#""EventTime" BETWEEN TIMESTAMP '2026-01-20' AND TIMESTAMP '2026-01-21'"#,
            vec![4],
            2,
        ),
        (
            r#""EventTime" = TIMESTAMP '2026-01-10T01:10:00'"#,
            vec![5],
            4,
        ),
        (
            r#""EventTime" IN (TIMESTAMP '2026-01-10T01:10:00', TIMESTAMP '2026-01-20T05:00:00')"#,
            vec![4, 5],
            5,
        ),
        (r#""EventTime"::date = DATE '2026-01-20'"#, vec![4], 2),
        (
            r#"DATE '2026-01-20' <= CAST("EventTime" AS DATE)"#,
            vec![4],
            2,
        ),
        (
            r#"CAST("EventTime" AS TIMESTAMP(0)) >= TIMESTAMP '2026-01-20'"#,
            vec![4],
            2,
        ),
        (
            r#""EventTime" >= '2026-01-20' OR "Id" = 'd'"#,
            vec![4, 6],
            5,
        ),
        (
            r#""EventTime" >= '2026-01-20' OR "EventTime" >= '2026-01-21'"#,
            vec![4],
            2,
        ),
        (
            r#""EventTime" > '2026-01-30' AND "EventTime" < '2026-01-01'"#,
            vec![],
            0,
        ),
        (r#"NOT ("EventTime" < '2026-01-20')"#, vec![4], 2),
        (r"write_time >= TIMESTAMP '2026-02-01'", vec![6], 5),
    ] {
        let sql = format!(r#"SELECT "Visits" FROM h WHERE {predicate}"#);
        assert_eq!(
            visits(&session, &sql).await.expect("rows"),
            expected,
            "{predicate}"
        );
        let plan = session
            .sql(&sql)
            .await
            .expect("plans")
            .create_physical_plan()
            .await
            .expect("a plan");
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        if files > 0 {
            assert!(shown.contains("HistoryExec: table=customers"), "{shown}");
            assert!(
                shown.contains(&format!("files={files}, ")),
                "{predicate}: {shown}"
            );
        }
    }
}

#[tokio::test]
async fn explain_shows_the_cut_and_analyze_counts() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let cut = Cut {
        event_time: EventRange {
            from: None,
            to: Some(at("2026-01-12")),
        },
        system_time: Some(at("2026-02-01")),
    };
    let session = with_history(&table, cut, &context());
    let plan = session
        .sql("SELECT * FROM h")
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("a plan");
    let shown = displayable(plan.as_ref()).indent(true).to_string();
    assert!(shown.contains("files=4, pruned=1"), "{shown}");
    assert!(
        shown.contains("event_time<=2026-01-12T00:00:00Z, write_time<=2026-02-01T00:00:00Z"),
        "{shown}"
    );
    collect(Arc::clone(&plan), session.task_ctx())
        .await
        .expect("rows");
    let leaf = {
        let mut node = plan;
        while let Some(child) = node.children().first().map(|child| Arc::clone(child)) {
            node = child;
        }
        node
    };
    let metrics = leaf.metrics().expect("metrics");
    let count = |name: &str| metrics.sum_by_name(name).map(|value| value.as_usize());
    assert_eq!(count("files_listed"), Some(5));
    assert_eq!(count("files_pruned"), Some(1));
    assert_eq!(count("files_pruned_by_statistics"), Some(1));
    assert_eq!(count("files_read"), Some(3));
    assert_eq!(metrics.output_rows(), Some(4));
    assert!(count("bytes_scanned") > Some(4_000));
}

#[tokio::test]
async fn errors_keep_their_kind_through_a_query() {
    let store = store().await;
    put(
        &store,
        "year=2026/month=01/day=10/hour=02/bad.parquet",
        "not a file",
    )
    .await;
    let table = table(&store, &CUSTOMERS);
    let session = with_history(&table, Cut::default(), &context());
    let error = visits(&session, r#"SELECT "Visits" FROM h"#)
        .await
        .expect_err("a bad file");
    let found = Error::find(&error).expect("ours");
    assert_eq!(found.kind, Kind::DataLoss);
    assert!(found.message.contains("bad.parquet"), "{found}");
    // Even where the file's rows would not matter.
    visits(&session, r#"SELECT sum("Visits") FROM h WHERE "Id" = 'a'"#)
        .await
        .expect_err("a bad file");
}

#[tokio::test]
async fn a_file_replaced_after_the_pin_fails_the_query_and_the_next_run_sees_it() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let lister = Arc::new(Lister::new(Duration::from_mins(10)));
    let pinned = || ScanContext {
        pin: Arc::new(Pin::new(Arc::clone(&lister), Instant::now())),
        reader: Arc::new(FileReader::new(1 << 20).correcting(&lister)),
    };
    let session = with_history(&table, Cut::default(), &pinned());
    let plan = session
        .sql(r#"SELECT "Visits" FROM h"#)
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("a plan");
    let newer = customers(&[("d", "2026-01-10T01:20:00Z", 60, "2026-03-01T00:00:00Z")]);
    put(&store, "backfill/f.parquet", newer).await;
    let error = collect(plan, session.task_ctx())
        .await
        .expect_err("replaced");
    assert_eq!(Error::find(&error).expect("ours").kind, Kind::Aborted);
    let session = with_history(&table, Cut::default(), &pinned());
    assert_eq!(
        visits(&session, r#"SELECT "Visits" FROM h"#)
            .await
            .expect("rows"),
        [1, 2, 3, 4, 5, 60]
    );

    let plan = session
        .sql(r#"SELECT "Visits" FROM h"#)
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("a plan");
    let list = lister
        .list(&table.files, EventRange::ALL, None)
        .await
        .expect("a list");
    store
        .delete(&list.files[0].meta.location)
        .await
        .expect("delete");
    let error = collect(plan, session.task_ctx()).await.expect_err("gone");
    assert_eq!(Error::find(&error).expect("ours").kind, Kind::Aborted);
    let session = with_history(&table, Cut::default(), &pinned());
    assert_eq!(
        visits(&session, "SELECT count(*) FROM h")
            .await
            .expect("rows"),
        [5]
    );
}

#[tokio::test]
async fn the_same_plan_gives_the_same_rows_twice() {
    let store = store().await;
    let table = table(&store, &CUSTOMERS);
    let context = context();
    let session = with_history(&table, Cut::default(), &context);
    let plan = session
        .sql(r#"SELECT "Visits" FROM h"#)
        .await
        .expect("plans")
        .create_physical_plan()
        .await
        .expect("a plan");
    context.pin.freeze();
    put(
        &store,
        "late.parquet",
        customers(&[("z", "2026-01-10", 9, "2026-01-10")]),
    )
    .await;
    for _ in 0..2 {
        let batches = collect(Arc::clone(&plan), session.task_ctx())
            .await
            .expect("rows");
        assert_eq!(
            batches
                .iter()
                .map(arrow::array::RecordBatch::num_rows)
                .sum::<usize>(),
            6
        );
    }
    // Planned again against the frozen pin, also for fewer rows.
    assert_eq!(
        visits(&session, r#"SELECT "Visits" FROM h"#)
            .await
            .expect("rows")
            .len(),
        6
    );
    let narrow = visits(
        &session,
        r#"SELECT "Visits" FROM h WHERE "EventTime" > '2026-01-15'"#,
    )
    .await;
    assert_eq!(narrow.expect("rows"), [4]);
}

#[tokio::test]
async fn an_empty_group_has_no_rows() {
    let store = memory();
    put(&store, "customers2026.txt", "").await;
    let table = table(&store, &CUSTOMERS);
    let session = with_history(&table, Cut::default(), &context());
    assert_eq!(
        visits(&session, "SELECT count(*) FROM h")
            .await
            .expect("rows"),
        [0]
    );
    assert!(
        visits(&session, r#"SELECT "Visits" FROM h"#)
            .await
            .expect("rows")
            .is_empty()
    );
}

#[tokio::test]
async fn files_of_many_writers_in_one_hour() {
    let store = memory();
    let folder = "year=2026/month=01/day=10/hour=00";
    let time = "2026-01-10T00:30:00Z";
    put(
        &store,
        &format!("{folder}/20260110T003000Z_0123456789abcdef.parquet"),
        customers(&[("a", time, 1, time)]),
    )
    .await;
    put(
        &store,
        &format!("{folder}/part-00000-x.c000.parquet"),
        spark(&[("b", "2026-01-10 00:30", 2.0, at(time))], true),
    )
    .await;
    put(&store, &format!("{folder}/_SUCCESS"), "x").await;
    let table = table(&store, &CUSTOMERS);
    let session = with_history(&table, Cut::default(), &context());
    let sql = r#"SELECT count(*) FROM h WHERE "EventTime" = '2026-01-10T00:30:00Z' AND write_time = '2026-01-10T00:30:00Z'"#;
    assert_eq!(visits(&session, sql).await.expect("rows"), [2]);
    let nulls = visits(&session, r#"SELECT count(*) FROM h WHERE "Visits" IS NULL"#)
        .await
        .expect("rows");
    assert_eq!(nulls, [1]);
}

#[test]
fn ranges_from_predicates_never_exclude_a_match() {
    let column = "t";
    let time = |text: &str| {
        let instant = at(text);
        lit(ScalarValue::TimestampNanosecond(
            Some(instant.micros * 1_000 + i64::from(instant.nanos)),
            None,
        ))
    };
    let noon = "2026-01-31T12:00:00Z";
    // A stored nanosecond is floored away before SQL compares.
    let range = event_range(&col("t").lt_eq(time(noon)), column);
    assert!(range.contains(Instant {
        micros: micros(noon),
        nanos: 999
    }));
    let equal = event_range(&time(noon).eq(col("t")), column);
    assert!(equal.contains(at(noon)) && !equal.contains(at("2026-02-01")));
    let turned = event_range(&time(noon).lt(col("t")), column);
    assert_eq!((turned.from.is_some(), turned.to), (true, None));
    let day = event_range(
        &cast(col("t"), arrow::datatypes::DataType::Date32)
            .eq(lit(ScalarValue::Date32(Some(20_484)))),
        column,
    );
    for text in ["2026-01-31", "2026-01-31T23:59:59.999999999Z"] {
        assert!(day.contains(at(text)), "{text}");
    }
    assert!(!day.contains(at("2026-02-03")));
    for says_nothing in [
        col("other").eq(time(noon)),
        col("t").not_eq(time(noon)),
        col("t").eq(col("other")),
        col("t").is_not_null(),
        col("t").eq(lit(ScalarValue::TimestampNanosecond(None, None))),
        col("t").in_list(vec![time(noon), col("other")], false),
        col("t").in_list(vec![time(noon)], true),
        col("t").between(col("other"), col("other")),
        col("t").gt(time(noon)).or(col("other").gt(lit(1))),
        !(col("t").gt(time(noon)).and(col("t").gt(time(noon)))),
        lit(true),
        cast(col("t"), arrow::datatypes::DataType::Utf8).eq(lit("2026-01-31")),
        cast(
            col("t"),
            arrow::datatypes::DataType::Timestamp(
                arrow::datatypes::TimeUnit::Second,
                Some("+05:00".into()),
            ),
        )
        .gt(time(noon)),
    ] {
        assert_eq!(
            event_range(&says_nothing, column),
            EventRange::ALL,
            "{says_nothing}"
        );
    }
    let both = event_range(&col("t").gt(time(noon)).and(col("x").gt(lit(1))), column);
    assert!(both.from.is_some());
}
