//! Queries with several rows of parameters. What each row gives alone is the oracle.

use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Kind, Result};

use super::{Server, server};

fn text(value: &str) -> ScalarValue {
    ScalarValue::Utf8(Some(value.into()))
}

fn number(value: i64) -> ScalarValue {
    ScalarValue::Int64(Some(value))
}

/// Lines in the order in which they came.
async fn in_order(server: &Server, sql: &str, rows: Vec<Vec<ScalarValue>>) -> Result<Vec<String>> {
    let query = server.engine.pin(&server.session, sql, rows).await?;
    let first = ordered_lines(&server.rows_of(&query).await?);
    let again = ordered_lines(&server.rows_of(&query).await?);
    assert_eq!(first, again, "the second run");
    Ok(first)
}

fn ordered_lines(batches: &[arrow::array::RecordBatch]) -> Vec<String> {
    let rows = batches.iter().filter(|batch| batch.num_rows() > 0);
    rows.flat_map(|batch| {
        (0..batch.num_rows()).flat_map(|row| super::lines(&[batch.slice(row, 1)]))
    })
    .collect()
}

#[tokio::test]
async fn results_follow_one_another_in_the_order_of_the_rows() {
    let server = server().await;
    let more: Vec<_> = (0..2_000)
        .map(|i| {
            (
                ["a", "b", "c"][i % 3],
                "2026-01-01T10:00:00Z",
                i as i64,
                "2026-01-01T10:30:00Z",
            )
        })
        .collect();
    server.put("customers", "more", &more);
    let statements = [
        "SELECT customer_id, age FROM history.customers WHERE customer_id = $1 AND age < $2 ORDER BY age DESC",
        "SELECT customer_id, sum(age) FROM history.customers WHERE customer_id = $1 OR age = $2 GROUP BY 1 ORDER BY 1",
        "SELECT age FROM history.customers WHERE customer_id = $1 AND age > $2 ORDER BY age LIMIT 3",
        "SELECT $1 AS a, $2 + 1 AS b",
        "SELECT count(*) FROM history.customers WHERE customer_id = $1 AND age >= $2",
    ];
    let rows: Vec<_> = [("c", 900), ("a", 30), ("nobody", 5), ("b", 12), ("c", 900)]
        .map(|(id, age)| vec![text(id), number(age)])
        .into();
    for sql in statements {
        let mut expected = Vec::new();
        for row in &rows {
            expected.extend(in_order(&server, sql, vec![row.clone()]).await.unwrap());
        }
        assert_eq!(
            in_order(&server, sql, rows.clone()).await.unwrap(),
            expected,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn clocks_are_parameters_and_all_rows_read_the_same_files() {
    let server = server().await;
    let sql =
        "SELECT customer_id, age FROM customers FOR SYSTEM_TIME AS OF $1 ORDER BY customer_id";
    let times = ["2026-01-02", "2026-01-01T10:40:00Z", "2026-01-01T00:00:00Z"];
    let rows: Vec<_> = times.map(|time| vec![text(time)]).into();
    let mut expected = Vec::new();
    for row in &rows {
        expected.extend(in_order(&server, sql, vec![row.clone()]).await.unwrap());
    }
    assert_eq!(in_order(&server, sql, rows).await.unwrap(), expected);
    assert!(expected.len() > 1, "{expected:?}");

    let sql = "SELECT count(*), $1 FROM history.customers";
    let rows = vec![vec![number(1)], vec![number(2)]];
    let query = server.engine.pin(&server.session, sql, rows).await.unwrap();
    server.put(
        "customers",
        "late",
        &[("c9", "2026-01-01T10:59:00Z", 9, "2026-01-01T12:00:00Z")],
    );
    let counted = ordered_lines(&server.rows_of(&query).await.unwrap());
    assert_eq!(counted, ["3 1", "3 2"]);
}

#[tokio::test]
async fn what_cannot_run_in_turn_says_why() {
    let server = server().await;
    let error = async |sql: &str, rows: Vec<Vec<ScalarValue>>| {
        let query = server.engine.pin(&server.session, sql, rows).await;
        query.err().unwrap_or_else(|| panic!("{sql}"))
    };
    let two = || vec![vec![number(1)], vec![number(2)]];
    let refused = error("SET featureflight.endpoints = $1", two()).await;
    assert_eq!(refused.kind, Kind::InvalidArgument);
    assert!(refused.message.contains("several rows"), "{refused}");
    let mixed = vec![vec![number(1)], vec![text("x")]];
    let refused = error("SELECT $1", mixed).await;
    assert_eq!(refused.kind, Kind::InvalidArgument, "{refused}");
    let missing = vec![vec![number(1)], vec![]];
    assert_eq!(
        error("SELECT $1", missing).await.kind,
        Kind::InvalidArgument
    );
    let failing = vec![vec![number(1)], vec![number(0)]];
    let sql = "SELECT 1 / $1";
    let query = server.engine.pin(&server.session, sql, failing).await;
    let late = match query {
        Ok(query) => server.rows_of(&query).await.unwrap_err(),
        Err(early) => early,
    };
    assert_eq!(late.kind, Kind::InvalidArgument, "{late}");
}
