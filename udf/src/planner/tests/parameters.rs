//! Parameters in every position.

use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::Kind;
use featureflight_catalog::table::timestamp_type;

use super::rig::{EVENTS, Rig, run};

fn micros(second: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(second * 1_000_000), Some("UTC".into()))
}

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.to_owned()))
}

#[tokio::test]
async fn in_clauses_arguments_and_expressions() {
    let rig = Rig::new().await;
    let travelled = ["A a2b", "B b1", "C c1"];
    for (sql, parameters) in [
        (
            "SELECT id, v FROM customers FOR SYSTEM_TIME AS OF $1",
            vec![micros(1150)],
        ),
        (
            "SELECT id, v FROM customers FOR SYSTEM_TIME AS OF ?",
            vec![micros(1150)],
        ),
        (
            "SELECT id, v FROM customers FOR SYSTEM_TIME AS OF $1",
            vec![text("1970-01-01T00:19:10Z")],
        ),
        (
            "SELECT id, v FROM customers FOR SYSTEM_TIME AS OF CAST($1 AS TIMESTAMP)",
            vec![text("1970-01-01T00:19:10Z")],
        ),
        (
            "SELECT id, v FROM as_of('customers', known_at => $1)",
            vec![micros(1150)],
        ),
        (
            "SELECT id, v FROM customers FOR VALID_TIME AS OF $2 FOR SYSTEM_TIME AS OF $1",
            vec![micros(1150), micros(9999)],
        ),
        (
            "SELECT id, v FROM (SELECT * FROM customers FOR SYSTEM_TIME AS OF $1) c WHERE id < $2",
            vec![micros(1150), text("Z")],
        ),
    ] {
        let prepared = rig
            .plan(sql, None)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(prepared.parameters.len(), parameters.len(), "{sql}");
        assert_eq!(rig.rows_with(sql, parameters).await, travelled, "{sql}");
        let columns: Vec<_> = prepared
            .plan
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        assert_eq!(columns, ["id", "v"], "{sql}");
    }
}

#[tokio::test]
async fn of_point_in_time_joins() {
    let rig = Rig::new().await;
    let sql = format!(
        "SELECT e, v FROM point_in_time_join(({EVENTS} WHERE s < $1), 'customers', \
         event_time => 'ts', known_at => $2, max_age => $3)"
    );
    let prepared = rig.plan(&sql, None).await.unwrap();
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    assert_eq!(
        prepared.parameters[1..],
        [Some(timestamp_type()), Some(interval)]
    );
    let age = ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 1, 0)));
    let rows = rig
        .rows_with(&sql, vec![ScalarValue::Int64(Some(250)), micros(1150), age])
        .await;
    assert_eq!(rows, ["e1 a1", "e2 a2b", "e8 -"]);
}

#[tokio::test]
async fn types_are_told_before_values_are_known() {
    let rig = Rig::new().await;
    let types = async |sql: &str| rig.plan(sql, None).await.unwrap().parameters;
    let sql = "SELECT * FROM customers FOR SYSTEM_TIME AS OF $2 WHERE \"Age\" > $1";
    assert_eq!(
        types(sql).await,
        [Some(DataType::Int64), Some(timestamp_type())]
    );
    assert_eq!(types("SELECT $1").await, [None]);
    assert!(types("SELECT 1").await.is_empty());
    let sql = "SELECT * FROM customers WHERE event_time >= $1";
    assert_eq!(types(sql).await, [Some(timestamp_type())]);
}

#[tokio::test]
async fn a_prepared_plan_cannot_run() {
    let rig = Rig::new().await;
    for sql in [
        "SELECT * FROM customers FOR SYSTEM_TIME AS OF $1",
        "SELECT * FROM history('customers', to => $1)",
        "SELECT * FROM point_in_time_join((SELECT 'A' AS id, now() AS ts), 'customers', known_at => $1)",
        "SELECT * FROM customers WHERE id = $1",
    ] {
        let planned = rig.plan(sql, None).await.unwrap();
        let error = run(planned.plan).await;
        assert!(
            error.is_err(),
            "{sql} ran without its parameters: {error:?}"
        );
    }
}

#[tokio::test]
async fn wrong_counts_and_types_are_errors() {
    let rig = Rig::new().await;
    for (sql, parameters, part) in [
        ("SELECT $1", vec![], "1 parameters, 0 values"),
        ("SELECT $2", vec![text("a")], "2 parameters, 1 values"),
        ("SELECT 1", vec![text("a")], "0 parameters, 1 values"),
        (
            "SELECT * FROM customers FOR SYSTEM_TIME AS OF $1",
            vec![],
            "has no value",
        ),
        (
            "SELECT * FROM customers FOR SYSTEM_TIME AS OF $1",
            vec![ScalarValue::Boolean(Some(true))],
            "FOR SYSTEM_TIME",
        ),
        (
            "SELECT * FROM customers FOR SYSTEM_TIME AS OF $1",
            vec![ScalarValue::TimestampMicrosecond(None, None)],
            "FOR SYSTEM_TIME",
        ),
        (
            "SELECT * FROM latest($1)",
            vec![text("customers")],
            "as a string",
        ),
    ] {
        let error = rig.try_rows(sql, parameters).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_view_has_none() {
    let mut rig = Rig::new().await;
    rig.view("then", "SELECT * FROM customers FOR SYSTEM_TIME AS OF $1");
    rig.view("some", "SELECT * FROM customers WHERE id = $1");
    for sql in ["SELECT * FROM then", "SELECT * FROM some"] {
        let error = rig.try_rows(sql, vec![micros(1)]).await.unwrap_err();
        assert!(error.message.contains("parameters"), "{error}");
    }
}
