//! Statements this server does not have, in every way a client can send one: nothing is opened,
//! written or set.

use super::child::{Child, flight_status};

/// What reaches for files, the network, the engine's settings or data. `DIR` is a directory the
/// server may write, with the file `secret.csv` in it.
const FORBIDDEN: [&str; 62] = [
    "COPY (SELECT 1) TO 'DIR/out.parquet'",
    "COPY (SELECT 1) TO 'DIR/out' STORED AS CSV",
    "COPY orders TO 'DIR/out.csv'",
    "COPY orders FROM 'DIR/secret.csv'",
    "EXPLAIN COPY (SELECT 1) TO 'DIR/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO 'DIR/out.csv'",
    "EXPLAIN ANALYZE VERBOSE COPY (SELECT 1) TO 'DIR/out.csv' STORED AS JSON",
    "EXPLAIN ANALYZE INSERT INTO orders VALUES (1)",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "EXPLAIN EXPLAIN ANALYZE COPY (SELECT 1) TO 'DIR/out.csv'",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'DIR/secret.csv'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://bucket/key'",
    "CREATE EXTERNAL TABLE t STORED AS JSON LOCATION 'http://169.254.169.254/latest/meta-data'",
    "CREATE UNBOUNDED EXTERNAL TABLE t STORED AS CSV LOCATION 'DIR/secret.csv'",
    "CREATE OR REPLACE EXTERNAL TABLE t STORED AS ARROW LOCATION 'file://DIR/secret.csv'",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TABLE t (a INT)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE OR REPLACE VIEW features.orders AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f(a INT) RETURNS INT RETURN a + 1",
    "CREATE INDEX i ON orders (order_id)",
    "CREATE ROLE r",
    "DROP TABLE orders",
    "DROP SCHEMA features",
    "DROP FUNCTION abs",
    "DROP VIEW features.orders",
    "ALTER TABLE orders ADD COLUMN x INT",
    "TRUNCATE TABLE orders",
    "INSERT INTO orders VALUES (1)",
    "INSERT OVERWRITE orders SELECT * FROM orders",
    "UPDATE orders SET amount = 1",
    "DELETE FROM orders",
    "MERGE INTO orders USING orders o ON true WHEN MATCHED THEN DELETE",
    "WITH t AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM t",
    "SET datafusion.execution.target_partitions = 100000",
    "SET datafusion.runtime.memory_limit = '100G'",
    "SET SESSION featureflight.system_time = '2026-01-01'",
    "SET TIME ZONE 'UTC'",
    "SET search_path = temp",
    "RESET datafusion.runtime.memory_limit",
    "SHOW datafusion.execution.target_partitions",
    "PREPARE p AS COPY (SELECT 1) TO 'DIR/out.csv'",
    "EXECUTE p",
    "DEALLOCATE p",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "GRANT SELECT ON orders TO public",
    "CALL f()",
    "LOAD DATA INPATH 'DIR/secret.csv' INTO TABLE orders",
    "INSTALL httpfs",
    "ATTACH 'DIR/secret.csv' AS a",
    "KILL 1",
    "ANALYZE TABLE orders",
    "VACUUM",
    "SELECT 1 INTO t",
    "SELECT 1; COPY (SELECT 1) TO 'DIR/out.csv'",
    "ASSERT 1 = 2",
];

/// Relations that name a file or an address, or show the engine's settings.
const NO_SUCH_RELATION: [&str; 19] = [
    "'DIR/secret.csv'",
    "\"DIR/secret.csv\"",
    "\"file://DIR/secret.csv\"",
    "'s3://bucket/key.parquet'",
    "\"http://169.254.169.254/latest/meta-data\"",
    "'/etc/passwd'",
    "\"../../secret.csv\"",
    "datafusion.public.t",
    "read_csv('DIR/secret.csv')",
    "read_parquet('DIR/secret.csv')",
    "parquet_metadata('DIR/secret.csv')",
    "metadata_cache()",
    "statistics_cache()",
    "list_files_cache()",
    "glob('DIR/*')",
    "latest('DIR/secret.csv')",
    "latest('orders; DROP TABLE orders')",
    "as_of('orders'' OR ''1''=''1', event_time => now())",
    "history('\"orders')",
];

#[tokio::test]
async fn what_is_no_query_of_ours_is_refused_however_it_is_sent() {
    let mut child = Child::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    let secret = "a,b\nthe canary,2\n";
    std::fs::write(directory.path().join("secret.csv"), secret).unwrap();
    let place = directory.path().to_string_lossy().into_owned();
    let statements = FORBIDDEN.iter().map(|sql| (*sql).to_owned());
    let relations = NO_SUCH_RELATION.iter().flat_map(|relation| {
        [
            format!("SELECT * FROM {relation}"),
            format!("WITH t AS (SELECT * FROM {relation}) SELECT count(*) FROM t"),
            format!("SELECT 1 WHERE EXISTS (SELECT * FROM {relation})"),
            format!("EXPLAIN ANALYZE SELECT * FROM {relation}"),
            format!("DESCRIBE {relation}"),
            format!("CREATE TEMP VIEW stolen AS SELECT * FROM {relation}"),
        ]
    });
    let mut accepted = Vec::new();
    for sql in statements.chain(relations) {
        let sql = sql.replace("DIR", &place);
        let mut client = child.connect().await;
        let mut outcomes = Vec::new();
        let queried = client.batches(&sql).await;
        outcomes.push(("query", queried.map(drop)));
        let updated = client.0.execute_update(sql.clone(), None).await;
        outcomes.push(("update", updated.map(drop).map_err(flight_status)));
        let prepared = client.0.prepare(sql.clone(), None).await;
        outcomes.push(("prepared", prepared.map(drop).map_err(flight_status)));
        let nested = format!("EXPLAIN {sql}");
        outcomes.push(("explained", client.batches(&nested).await.map(drop)));
        let nested = format!("CREATE TEMP VIEW nested AS {sql}");
        outcomes.push(("as a view", client.batches(&nested).await.map(drop)));
        for (way, outcome) in outcomes {
            match outcome {
                Ok(()) => accepted.push(format!("{way}: {sql}")),
                Err(status) => {
                    assert_ne!(
                        status.code(),
                        tonic::Code::Internal,
                        "{way}: {sql}: {status}"
                    );
                    assert!(
                        !status.message().contains("canary"),
                        "{way}: {sql}: {status}"
                    );
                }
            }
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["secret.csv"], "nothing was written");
    child.assert_well("forbidden statements").await;
}
