use datafusion::scalar::ScalarValue;
use featureflight_catalog::Kind;

use super::server;

const AGES: &str = "SELECT customer_id, age FROM customers";

#[tokio::test]
async fn a_session_clock_is_set_shown_and_reset() {
    let server = server().await;
    assert_eq!(server.lines(AGES).await, ["c1 31", "c2 40"]);
    let set = "SET featureflight.system_time = '2026-01-01T10:40:00Z'";
    assert_eq!(server.lines(set).await, ["OK"]);
    assert_eq!(server.lines(AGES).await, ["c1 30", "c2 40"]);
    let shown = server.lines("SHOW featureflight.system_time").await;
    assert_eq!(shown, ["featureflight.system_time 2026-01-01T10:40:00Z"]);
    server
        .rows("SET featureflight.valid_time = TIMESTAMP '2026-01-01 10:00:00'")
        .await
        .unwrap();
    assert_eq!(server.lines(AGES).await, ["c1 30"]);
    let all = crate::settings::Setting::ALL.len();
    assert_eq!(server.lines("SHOW ALL").await.len(), all);
    server
        .rows("RESET featureflight.system_time")
        .await
        .unwrap();
    server
        .rows("SET featureflight.valid_time = DEFAULT")
        .await
        .unwrap();
    assert_eq!(server.lines(AGES).await, ["c1 31", "c2 40"]);
}

#[tokio::test]
async fn a_clock_takes_any_constant() {
    let server = server().await;
    for value in [
        "'2026-01-01'",
        "DATE '2026-01-01'",
        "'2026-01-01T01:00:00+01:00'",
        "CAST('2026-01-01' AS TIMESTAMP)",
        "TIMESTAMP '2026-01-02' - INTERVAL '1 day'",
    ] {
        server
            .rows(&format!("SET featureflight.system_time = {value}"))
            .await
            .unwrap();
        let shown = server.lines("SHOW featureflight.system_time").await;
        assert_eq!(
            shown,
            ["featureflight.system_time 2026-01-01T00:00:00Z"],
            "{value}"
        );
    }
    let value = ScalarValue::Utf8(Some("2026-02-02".to_owned()));
    server
        .bound("SET featureflight.system_time = $1", vec![value])
        .await
        .unwrap();
    let shown = server.lines("SHOW featureflight.system_time").await;
    assert_eq!(shown, ["featureflight.system_time 2026-02-02T00:00:00Z"]);
    // Exact to the nanosecond, and beyond what a nanosecond timestamp of SQL holds.
    server
        .rows("SET featureflight.system_time = '9999-12-31T23:59:59.123456789Z'")
        .await
        .unwrap();
    let shown = server.lines("SHOW featureflight.system_time").await;
    assert_eq!(
        shown,
        ["featureflight.system_time 9999-12-31T23:59:59.123456789Z"]
    );
}

#[tokio::test]
async fn a_clock_that_cannot_be_read_leaves_the_old_one() {
    let server = server().await;
    server
        .rows("SET featureflight.system_time = '2026-01-01'")
        .await
        .unwrap();
    for wrong in [
        "'soon'",
        "5",
        "random()",
        "$1",
        "(SELECT max(write_time) FROM history.customers)",
    ] {
        let error = server
            .error(&format!("SET featureflight.system_time = {wrong}"))
            .await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{wrong}: {error}");
    }
    let shown = server.lines("SHOW featureflight.system_time").await;
    assert_eq!(shown, ["featureflight.system_time 2026-01-01T00:00:00Z"]);
}

#[tokio::test]
async fn no_other_setting_can_be_reached() {
    let server = server().await;
    for sql in [
        "SET datafusion.runtime.memory_limit = '100G'",
        "SET featureflight.nothing = 1",
        "RESET datafusion.execution.batch_size",
        "SHOW datafusion.execution.batch_size",
        "SET TIME ZONE 'Europe/Paris'",
    ] {
        assert_eq!(server.error(sql).await.kind, Kind::InvalidArgument, "{sql}");
    }
    let error = server.error("SET featureflight.nothing = 1").await;
    assert!(
        error.message.contains("featureflight.valid_time"),
        "{error}"
    );
}

#[tokio::test]
async fn now_follows_the_system_clock_and_stands_still() {
    let server = server().await;
    server
        .rows("SET featureflight.system_time = '2020-02-02T00:00:00Z'")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT now()").await, ["2020-02-02T00:00:00Z"]);
    server
        .rows("RESET featureflight.system_time")
        .await
        .unwrap();
    let query = server.pin("SELECT now()").await.unwrap();
    let first = super::lines(&server.rows_of(&query).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(super::lines(&server.rows_of(&query).await.unwrap()), first);
    assert_ne!(server.lines("SELECT now()").await, first);
}

#[tokio::test]
async fn use_moves_the_default_schema() {
    let server = server().await;
    server.rows("USE HISTORY").await.unwrap();
    assert_eq!(
        server.lines("SELECT age FROM customers").await,
        ["30", "31", "40"]
    );
    server.rows("USE featureflight.features").await.unwrap();
    assert_eq!(
        server.lines("SELECT age FROM customers").await,
        ["31", "40"]
    );
    let error = server.error("USE hystory").await;
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.message.contains("`history`"), "{error}");
}

#[tokio::test]
async fn views_are_made_replaced_and_dropped() {
    let server = server().await;
    server
        .rows("CREATE TEMP VIEW Young AS SELECT * FROM customers WHERE age < 35")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT customer_id FROM young").await, ["c1"]);
    // A session clock reaches into the view.
    server
        .rows("SET featureflight.system_time = '2026-01-01T10:40:00Z'")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT age FROM temp.young").await, ["30"]);
    server
        .rows("RESET featureflight.system_time")
        .await
        .unwrap();

    let again = "CREATE TEMP VIEW young AS SELECT 1 AS one";
    assert_eq!(server.error(again).await.kind, Kind::AlreadyExists);
    server
        .rows("CREATE TEMP VIEW IF NOT EXISTS young AS SELECT 1 AS one")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT customer_id FROM young").await, ["c1"]);
    server
        .rows("CREATE OR REPLACE TEMP VIEW young (two) AS SELECT 2")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT two FROM young").await, ["2"]);

    server.rows("DROP VIEW young").await.unwrap();
    assert_eq!(
        server.error("SELECT * FROM young").await.kind,
        Kind::NotFound
    );
    assert_eq!(server.error("DROP VIEW young").await.kind, Kind::NotFound);
    server.rows("DROP VIEW IF EXISTS young").await.unwrap();
}

#[tokio::test]
async fn views_that_cannot_be_are_refused_when_they_are_made() {
    let server = server().await;
    for (sql, kind) in [
        ("CREATE VIEW v AS SELECT 1", Kind::InvalidArgument),
        (
            "CREATE TEMP VIEW v AS SELECT nothing FROM customers",
            Kind::InvalidArgument,
        ),
        ("CREATE TEMP VIEW v AS SELECT $1", Kind::InvalidArgument),
        (
            "CREATE TEMP VIEW v (a, b) AS SELECT 1",
            Kind::InvalidArgument,
        ),
        (
            "CREATE TEMP VIEW v AS SELECT * FROM temp.v",
            Kind::InvalidArgument,
        ),
        (
            "CREATE TEMP VIEW features.v AS SELECT 1",
            Kind::InvalidArgument,
        ),
        (
            "CREATE TEMP VIEW customers AS SELECT 1",
            Kind::AlreadyExists,
        ),
        (
            "CREATE TEMP VIEW loyal_customers AS SELECT 1",
            Kind::AlreadyExists,
        ),
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, kind, "{sql}: {error}");
    }
    // A view may not come to read itself through another one.
    server
        .rows("CREATE TEMP VIEW a AS SELECT 1 AS x")
        .await
        .unwrap();
    server
        .rows("CREATE TEMP VIEW b AS SELECT * FROM a")
        .await
        .unwrap();
    let circle = server
        .error("CREATE OR REPLACE TEMP VIEW a AS SELECT * FROM b")
        .await;
    assert_eq!(circle.kind, Kind::InvalidArgument, "{circle}");
    assert_eq!(server.lines("SELECT x FROM b").await, ["1"]);
}

#[tokio::test]
async fn an_effect_happens_once_when_it_is_pinned() {
    let server = server().await;
    let create = server
        .pin("CREATE TEMP VIEW once AS SELECT 1 AS x")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT x FROM once").await, ["1"]);
    server.rows("DROP VIEW once").await.unwrap();
    // Fetching the answer, twice even, has no effect.
    for _ in 0..2 {
        assert_eq!(
            super::lines(&server.rows_of(&create).await.unwrap()),
            ["OK"]
        );
    }
    assert_eq!(
        server.error("SELECT x FROM once").await.kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn preparing_has_no_effect() {
    let server = server().await;
    for sql in [
        "SET featureflight.system_time = '2020-01-01'",
        "CREATE TEMP VIEW v AS SELECT 1 AS x",
    ] {
        let prepared = server.engine.prepare(&server.session, sql).await.unwrap();
        assert!(prepared.is_update);
        assert_eq!(prepared.schema.field(0).name(), "status");
    }
    assert_eq!(server.session.settings().clocks.system, None);
    assert_eq!(server.error("SELECT * FROM v").await.kind, Kind::NotFound);
    let set = "SET featureflight.system_time = $1";
    let prepared = server.engine.prepare(&server.session, set).await.unwrap();
    assert_eq!(prepared.parameters.fields().len(), 1);
}

#[tokio::test]
async fn other_statements_are_refused() {
    let server = server().await;
    for sql in [
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '/tmp/x.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO customers VALUES ('a')",
        "DELETE FROM customers",
        "DROP TABLE customers",
        "SELECT * FROM '/etc/passwd'",
        "BEGIN",
    ] {
        let error = server.error(sql).await;
        assert!(
            matches!(error.kind, Kind::InvalidArgument | Kind::NotFound),
            "{sql}: {error}"
        );
    }
}
