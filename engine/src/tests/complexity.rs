//! Each limit on what a statement comes to, met by a statement that no other limit refuses.

use std::fmt::Write as _;
use std::time::Duration;

use datafusion::scalar::ScalarValue;
use featureflight_catalog::Kind;

use super::{Server, server};

/// Far longer than a refusal takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn list(count: usize, one: impl Fn(usize) -> String, between: &str) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(between)
}

/// `levels` CTEs, each made of the one before, `below`, by `step`.
fn ladder(first: &str, step: &str, levels: usize) -> String {
    let mut sql = format!("WITH t0 AS ({first})");
    for level in 1..=levels {
        let step = step.replace("below", &format!("t{}", level - 1));
        write!(sql, ", t{level} AS ({step})").unwrap();
    }
    sql
}

async fn refused(server: &Server, sql: &str, words: &str) {
    let refused = tokio::time::timeout(PATIENCE, server.pin(sql)).await;
    let refused = refused.unwrap_or_else(|_| panic!("{words}: it goes on"));
    let error = refused.map(|_| ()).expect_err(words);
    assert_eq!(error.kind, Kind::ResourceExhausted, "{words}: {error}");
    assert!(error.message.contains(words), "{words}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relations_count_as_what_their_ctes_and_views_read() {
    let server = server().await;
    let many = list(200, |_| "SELECT 1 AS x FROM range(1)".into(), " UNION ALL ");
    let words = "reads more than 512 relations";
    let thrice = |of: &str| list(3, |_| format!("SELECT x FROM {of}"), " UNION ALL ");
    refused(
        &server,
        &format!("WITH t AS ({many}) {}", thrice("t")),
        words,
    )
    .await;
    let view = format!("CREATE TEMP VIEW many AS {many}");
    server.rows(&view).await.unwrap();
    refused(&server, &thrice("many"), words).await;
    let twice = "SELECT x FROM many UNION ALL SELECT x FROM Many";
    server.pin(twice).await.expect("400 are few enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_count_for_each_use_of_a_cte() {
    let server = server().await;
    let step = "SELECT DISTINCT x + 1 AS x FROM below WHERE x > 0";
    let ladder = ladder("SELECT value AS x FROM range(3)", step, 45);
    let arms = list(60, |_| "SELECT x FROM t45".into(), " UNION ALL ");
    refused(
        &server,
        &format!("{ladder} {arms}"),
        "more than 10000 steps",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_count_in_every_step() {
    let server = server().await;
    let columns = list(300, |n| format!("value AS c{n}"), ", ");
    let first = format!("SELECT {columns} FROM range(3)");
    let ladder = ladder(&first, "SELECT DISTINCT * FROM below WHERE c0 > 0", 20);
    let arms = list(60, |_| "SELECT * FROM t20".into(), " UNION ALL ");
    let words = "more than 1000000 columns together";
    refused(&server, &format!("{ladder} {arms}"), words).await;
}

/// Of each `SELECT`, squared, before the SQL planner compares them.
#[tokio::test(flavor = "multi_thread")]
async fn columns_of_a_wildcard_are_counted_before_they_are_planned() {
    let server = server().await;
    let columns = list(2_001, |n| format!("{n} AS c{n}"), ", ");
    let sql = format!("WITH t AS (SELECT {columns}) SELECT * FROM t a, t b, t c");
    refused(&server, &sql, "up to 6003 columns at once").await;
}

/// The parser stops far before; a ladder of short expressions becomes one where the optimizer moves
/// a condition below them.
#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_the_optimizer_makes_too_deep_is_refused() {
    let server = server().await;
    let step = format!(
        "SELECT {}x{} AS x FROM below",
        "abs(".repeat(20),
        ")".repeat(20)
    );
    let with = |levels| {
        let ladder = ladder("SELECT value AS x FROM range(3)", &step, levels);
        format!("{ladder} SELECT x FROM t{levels} WHERE x > 1")
    };
    refused(&server, &with(30), "an expression nests").await;
    assert_eq!(server.lines(&with(5)).await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_parameters_counts() {
    let server = server().await;
    let error = async |sql: &str, rows: i64| {
        let rows = (0..rows).map(|n| vec![ScalarValue::Int64(Some(n))]);
        let query = server.engine.pin(&server.session, sql, rows.collect());
        let refused = tokio::time::timeout(PATIENCE, query).await.expect("soon");
        let error = refused.map(|_| ()).expect_err("too much");
        assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
        error.message
    };
    let step = "SELECT DISTINCT x + 1 AS x FROM below WHERE x > 0";
    let ladder = ladder("SELECT $1 AS x", step, 20);
    let arms = list(5, |_| "SELECT x FROM t20".into(), " UNION ALL ");
    let sql = format!("{ladder} {arms}");
    let steps = error(&sql, 40).await;
    assert!(steps.contains("for each row of parameters"), "{steps}");
    let sql = format!("SELECT $1, '{}'", "x".repeat(10_000));
    let long = error(&sql, 30).await;
    assert!(long.contains("with 30 rows of parameters"), "{long}");
}

/// A digest takes its place before it has a row, and an allocation that fails ends the process.
#[tokio::test]
async fn a_percentile_keeps_so_many_centroids_and_no_more() {
    let server = server().await;
    for count in [10_001, 1_000_000_000_000_i64] {
        for call in [
            format!("approx_percentile_cont(value, 0.5, {count})"),
            format!("approx_percentile_cont(0.5, {count}) WITHIN GROUP (ORDER BY value)"),
            format!("approx_percentile_cont_with_weight(value, 1, 0.5, {count})"),
            format!("approx_percentile_cont(value, 0.5, CAST({count} AS BIGINT))"),
            format!("approx_percentile_cont(value, 0.5, {count}) OVER ()"),
        ] {
            let sql = format!("SELECT {call} FROM range(3)");
            refused(&server, &sql, "may keep 10000 centroids").await;
        }
    }
    let sql = "SELECT approx_percentile_cont(value, 0.5, 1000000 * 1000000) FROM range(3)";
    let error = server.error(sql).await;
    assert_eq!(error.kind, Kind::InvalidArgument, "{error}");
    let sql = "SELECT approx_percentile_cont(value, 0.5, 10000) FROM range(3)";
    assert_eq!(server.lines(sql).await, ["1.0"]);
}
