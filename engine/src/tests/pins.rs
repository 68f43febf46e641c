use std::collections::BTreeSet;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::Kind;
use featureflight_catalog::table::timestamp_type;

use super::{Server, lines, server};

#[tokio::test]
async fn the_same_ticket_gives_the_same_rows_while_files_arrive() {
    let server = server().await;
    let everything = "SELECT customer_id, age FROM history.customers";
    let query = server.pin(everything).await.unwrap();
    // Before the first run ...
    server.put(
        "customers",
        "late",
        &[("c1", "2026-01-01T10:59:00Z", 99, "2026-01-01T12:00:00Z")],
    );
    let expected = ["c1 30", "c1 31", "c2 40"];
    assert_eq!(lines(&server.rows_of(&query).await.unwrap()), expected);
    // ... and between two runs.
    server.put(
        "customers",
        "later",
        &[("c9", "2026-01-01T10:59:00Z", 9, "2026-01-01T12:00:00Z")],
    );
    assert_eq!(lines(&server.rows_of(&query).await.unwrap()), expected);
    let now = server.lines(everything).await;
    assert_eq!(now, ["c1 30", "c1 31", "c1 99", "c2 40", "c9 9"]);
}

#[tokio::test]
async fn state_and_subqueries_are_pinned_too() {
    let server = server().await;
    let query = server
        .pin(
            "SELECT customer_id, age, (SELECT count(*) FROM history.customers) AS n FROM customers \
             WHERE age > (SELECT min(age) FROM history.customers)",
        )
        .await
        .unwrap();
    server.put(
        "customers",
        "late",
        &[("c1", "2026-01-01T12:00:00Z", 1, "2026-01-01T12:00:00Z")],
    );
    for _ in 0..2 {
        assert_eq!(
            lines(&server.rows_of(&query).await.unwrap()),
            ["c1 31 3", "c2 40 3"]
        );
    }
}

#[tokio::test]
async fn a_ticket_whose_file_was_replaced_is_aborted() {
    let server = server().await;
    let query = server
        .pin("SELECT age FROM history.customers")
        .await
        .unwrap();
    assert_eq!(server.rows_of(&query).await.unwrap().len(), 1);
    server.put(
        "customers",
        "first",
        &[
            ("c1", "2026-01-01T10:00:00Z", 77, "2026-01-01T10:05:00Z"),
            ("c5", "2026-01-01T10:00:00Z", 78, "2026-01-01T10:05:00Z"),
        ],
    );
    let error = server.rows_of(&query).await.unwrap_err();
    assert_eq!(error.kind, Kind::Aborted, "{error}");
    assert_eq!(
        server.lines("SELECT age FROM history.customers").await,
        ["77", "78"]
    );
}

#[tokio::test]
async fn a_ticket_whose_file_is_gone_is_aborted() {
    let server = server().await;
    let query = server
        .pin("SELECT age FROM history.customers")
        .await
        .unwrap();
    let path = server.put(
        "customers",
        "first",
        &[("c1", "2026-01-01T10:00:00Z", 1, "2026-01-01")],
    );
    std::fs::remove_file(path).unwrap();
    let error = server.rows_of(&query).await.unwrap_err();
    assert_eq!(error.kind, Kind::Aborted, "{error}");
}

#[tokio::test]
async fn what_does_not_repeat_is_good_once() {
    let server = server().await;
    for sql in [
        "SELECT random() AS x",
        "SELECT uuid() AS x",
        "SELECT age FROM history.customers LIMIT 1",
        "SELECT age, row_number() OVER (ORDER BY customer_id) FROM history.customers",
        "SELECT first_value(age) FROM history.customers",
        "EXPLAIN ANALYZE SELECT 1",
    ] {
        let query = server.pin(sql).await.unwrap();
        assert!(!query.repeatable, "{sql}");
        server.rows_of(&query).await.unwrap();
        let error = server.rows_of(&query).await.unwrap_err();
        assert_eq!(error.kind, Kind::Aborted, "{sql}");
    }
}

#[tokio::test]
async fn ties_at_a_limit_are_settled() {
    let server = server().await;
    let versions: Vec<String> = (0..400).map(|n| format!("k{n:03}")).collect();
    for (file, part) in versions.chunks(50).enumerate() {
        let rows: Vec<_> = part
            .iter()
            .map(|key| {
                (
                    key.as_str(),
                    "2026-01-02T10:00:00Z",
                    7,
                    "2026-01-02T10:00:00Z",
                )
            })
            .collect();
        server.put("Loyal-Customers", &format!("f{file}"), &rows);
    }
    let sql = "SELECT customer_id FROM history.\"Loyal-Customers\" ORDER BY age LIMIT 5";
    let query = server.pin(sql).await.unwrap();
    assert!(query.repeatable);
    let mut answers = BTreeSet::new();
    for _ in 0..5 {
        answers.insert(lines(&server.rows_of(&query).await.unwrap()));
    }
    assert_eq!(answers.len(), 1);
    assert_eq!(
        answers.pop_first().unwrap(),
        ["k000", "k001", "k002", "k003", "k004"]
    );
}

async fn unsettled(server: &Server, sql: &str) -> bool {
    server.pin(sql).await.unwrap().unsettled
}

#[tokio::test]
async fn young_cuts_are_flagged() {
    let server = server().await;
    assert!(
        unsettled(&server, "SELECT * FROM customers").await,
        "no cut at all"
    );
    assert!(
        !unsettled(
            &server,
            "SELECT * FROM customers FOR SYSTEM_TIME AS OF '2026-01-02'"
        )
        .await
    );
    assert!(
        unsettled(
            &server,
            "SELECT * FROM customers FOR SYSTEM_TIME AS OF now()"
        )
        .await
    );
    assert!(
        unsettled(
            &server,
            "SELECT * FROM customers FOR VALID_TIME AS OF '2026-01-02'"
        )
        .await
    );
    let mixed = "SELECT * FROM customers FOR SYSTEM_TIME AS OF '2026-01-02', history.customers h";
    assert!(
        unsettled(&server, mixed).await,
        "one of two relations has no cut"
    );
    assert!(!unsettled(&server, "SELECT 1").await);
    server
        .rows("SET featureflight.system_time = '2026-01-02'")
        .await
        .unwrap();
    assert!(!unsettled(&server, "SELECT * FROM customers").await);
    let younger = "SELECT * FROM customers FOR SYSTEM_TIME AS OF '2999-01-01'";
    assert!(
        unsettled(&server, younger).await,
        "an explicit clause wins over the session's clock"
    );
}

#[tokio::test]
async fn what_is_announced_is_what_is_sent() {
    let server = server().await;
    let sql = "SELECT customer_id, event_time, age, 'text' AS t, NULL AS n, \
               arrow_cast('a', 'Dictionary(Int32, Utf8)') AS d, [1, 2] AS l, \
               CAST('2026-01-01' AS TIMESTAMP) AS ts, sum(age) OVER () AS s FROM customers";
    let prepared = server.engine.prepare(&server.session, sql).await.unwrap();
    let query = server.pin(sql).await.unwrap();
    let names = |schema: &arrow::datatypes::Schema| {
        schema
            .fields()
            .iter()
            .map(|f| (f.name().clone(), f.data_type().clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&prepared.schema), names(&query.schema));
    assert_eq!(query.schema.field(0).data_type(), &DataType::Utf8);
    assert_eq!(query.schema.field(1).data_type(), &timestamp_type());
    assert_eq!(query.schema.field(4).data_type(), &DataType::Utf8);
    assert_eq!(query.schema.field(5).data_type(), &DataType::Utf8);
    assert_eq!(query.schema.field(7).data_type(), &timestamp_type());
    for batch in server.rows_of(&query).await.unwrap() {
        assert_eq!(batch.schema(), query.schema);
    }
    assert!(
        !query.schema.field(0).is_nullable(),
        "a record identifier is never null"
    );
    assert!(query.schema.field(2).is_nullable());
}

/// What plans say of nulls changes while they are optimized.
#[tokio::test]
async fn what_a_statement_is_prepared_with_is_sent() {
    let server = server().await;
    for sql in [
        "SELECT customer_id, (SELECT count(*) FROM history.customers h WHERE h.customer_id = c.customer_id) n \
         FROM customers c",
        "SELECT DISTINCT ON (customer_id) customer_id, event_time FROM history.customers ORDER BY \
         customer_id, event_time DESC",
        "SELECT [1, NULL] AS l, {a: 1} AS s, count(*) AS n FROM customers",
        "SELECT a.customer_id, b.customer_id FROM customers a LEFT JOIN customers b ON a.age = b.age + 1",
        "SELECT customer_id FROM customers UNION ALL SELECT NULL",
        "SELECT x FROM (SELECT customer_id AS x FROM customers LIMIT 3) WHERE x > '' ORDER BY x",
        "WITH c AS (SELECT customer_id FROM customers) SELECT * FROM c WHERE customer_id = $1",
        "DESCRIBE customers",
        "SHOW TABLES",
    ] {
        let prepared = server.engine.prepare(&server.session, sql).await.unwrap();
        let parameter = if sql.contains("$1") {
            vec![vec!["a".into()]]
        } else {
            Vec::new()
        };
        let query = server
            .engine
            .pin(&server.session, sql, parameter)
            .await
            .unwrap();
        assert_eq!(prepared.schema, query.schema, "{sql}");
        for batch in server.rows_of(&query).await.unwrap() {
            assert_eq!(batch.schema(), query.schema, "{sql}");
        }
    }
}

#[tokio::test]
async fn parameters_are_described_and_bound() {
    let server = server().await;
    let sql = "SELECT customer_id FROM customers FOR SYSTEM_TIME AS OF $2 WHERE age > $1";
    let prepared = server.engine.prepare(&server.session, sql).await.unwrap();
    assert!(!prepared.is_update);
    assert_eq!(prepared.schema.field(0).name(), "customer_id");
    let types: Vec<_> = prepared
        .parameters
        .fields()
        .iter()
        .map(|f| (f.name().as_str(), f.data_type()))
        .collect();
    let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    assert_eq!(types, [("$1", &DataType::Int64), ("$2", &millis)]);
    let at = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    let age = ScalarValue::Int64(Some(30));
    let rows = server
        .bound(sql, vec![age.clone(), at("2026-01-01T10:40:00Z")])
        .await
        .unwrap();
    assert_eq!(rows, ["c2"]);
    let rows = server
        .bound(sql, vec![age.clone(), at("2026-01-02")])
        .await
        .unwrap();
    assert_eq!(rows, ["c1", "c2"]);
    assert_eq!(
        server.bound(sql, vec![age]).await.unwrap_err().kind,
        Kind::InvalidArgument
    );
    assert_eq!(server.error(sql).await.kind, Kind::InvalidArgument);
    let error = server.bound("SHOW ALL", vec![at("x")]).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidArgument);
}
