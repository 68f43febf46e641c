//! What is a statement here, and what `SHOW`, `DESCRIBE` and `EXPLAIN` answer.

use super::rig::{Rig, at};

#[tokio::test]
async fn only_queries_are_planned() {
    let rig = Rig::new().await;
    for sql in [
        "CREATE TABLE t (a INT)",
        "CREATE VIEW v AS SELECT 1",
        "DROP TABLE customers",
        "INSERT INTO customers VALUES (1)",
        "DELETE FROM customers",
        "UPDATE customers SET v = 'x'",
        "COPY customers TO '/tmp/x.parquet'",
        "EXPLAIN COPY customers TO '/tmp/x.parquet'",
        "EXPLAIN INSERT INTO customers VALUES (1)",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/etc'",
        "SET datafusion.execution.batch_size = 1",
        "BEGIN",
        "PREPARE p AS SELECT 1",
        "SELECT 1 INTO t",
        "TRUNCATE customers",
        "EXPLAIN customers",
    ] {
        rig.invalid(sql).await;
    }
}

#[tokio::test]
async fn clauses_that_nothing_reads_are_errors() {
    let rig = Rig::new().await;
    for sql in [
        "SELECT * FROM customers TABLESAMPLE (10)",
        "SELECT * FROM customers PREWHERE id = 'A'",
        "SELECT * FROM customers FOR UPDATE",
        "SELECT id, count(*) FROM customers GROUP BY id WITH ROLLUP",
        "SELECT * FROM customers FETCH FIRST 1 ROWS ONLY",
    ] {
        rig.invalid(sql).await;
    }
}

#[tokio::test]
async fn show_lists_what_there_is() {
    let mut rig = Rig::new().await;
    rig.view("labels", "SELECT id FROM customers");
    let tables = rig.rows("SHOW TABLES").await;
    for row in [
        "features customers BASE TABLE",
        "features Orders BASE TABLE",
        "history my-group BASE TABLE",
        "sagemaker_featurestore customers_1 BASE TABLE",
        "system feature_groups BASE TABLE",
        "temp labels VIEW",
    ] {
        assert!(
            tables.iter().any(|table| table == row),
            "{row} in {tables:?}"
        );
    }
    assert!(
        !tables.iter().any(|table| table.contains("broken")),
        "{tables:?}"
    );
    assert_eq!(
        rig.rows("SHOW TABLES FROM Temp").await,
        ["temp labels VIEW"]
    );
    assert_eq!(
        rig.rows("SHOW TABLES IN features LIKE 'cust%'").await,
        ["features customers BASE TABLE"]
    );
    let schemas = rig.rows("SHOW SCHEMAS").await;
    for schema in [
        "features",
        "history",
        "temp",
        "system",
        "sagemaker_featurestore",
    ] {
        assert!(
            schemas.iter().any(|found| found == schema),
            "{schema} in {schemas:?}"
        );
    }
}

#[tokio::test]
async fn describe_shows_columns() {
    let mut rig = Rig::new().await;
    rig.view("labels", "SELECT id, v FROM customers");
    let expected = [
        "At Timestamp(µs, \"UTC\") NO",
        "orderId Int64 NO",
        "total Float64 YES",
        "v Utf8View YES",
    ];
    for sql in [
        "DESCRIBE orders",
        "DESC features.\"Orders\"",
        "SHOW COLUMNS FROM orders",
    ] {
        assert_eq!(rig.rows(sql).await, expected, "{sql}");
    }
    assert_eq!(
        rig.rows("DESCRIBE labels").await,
        ["id Utf8View NO", "v Utf8View YES"]
    );
    let sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'temp'";
    assert_eq!(rig.rows(sql).await, ["id", "v"]);
    // Clocks hide no columns.
    rig.clocks.system = Some(at(10));
    let sql = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'customers_1'";
    assert_eq!(rig.rows(sql).await, ["7"]);
}

#[tokio::test]
async fn explain_shows_clocks() {
    let rig = Rig::new().await;
    let plan = rig
        .rows("EXPLAIN SELECT id FROM customers FOR SYSTEM_TIME AS OF '1970-01-01T00:19:10Z' WHERE id = 'A'")
        .await
        .join("\n");
    assert!(
        plan.contains("FOR SYSTEM_TIME AS OF 1970-01-01T00:19:10Z"),
        "{plan}"
    );
    let analyzed = rig
        .rows("EXPLAIN ANALYZE SELECT count(*) FROM customers")
        .await
        .join("\n");
    assert!(analyzed.contains("output_rows"), "{analyzed}");
}
