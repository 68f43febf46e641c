use serde_json::json;

use super::{group, lines, server, write_group};

#[tokio::test]
async fn every_group_is_listed_with_why_it_is_not_served() {
    let server = server().await;
    let rows = server
        .lines("SELECT name, status, serving, features FROM system.feature_groups ORDER BY name")
        .await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(rows[0], "Loyal-Customers Created served 4");
    assert!(
        rows[1].starts_with("creating Creating ") && !rows[1].contains("served 4"),
        "{rows:?}"
    );
    let fresh = "SELECT count(*) FROM system.feature_groups WHERE snapshot_age_seconds < 60";
    assert_eq!(server.lines(fresh).await, ["3"]);
}

#[tokio::test]
async fn glue_tables_without_a_group_are_listed() {
    let server = server().await;
    let mut table = json!({
        "Name": "orphan", "DatabaseName": "other",
        "StorageDescriptor": {
            "Location": "s3://bucket/orphan",
            "Columns": [{"Name": "a", "Type": "string"}],
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
            },
        },
    });
    let folder = server.dir.path().join("glue-tables");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("orphan.json"), table.to_string()).unwrap();
    table["DatabaseName"] = json!("history");
    std::fs::write(folder.join("hidden.json"), table.to_string()).unwrap();
    server.engine.catalog.refresh().await.unwrap();
    let rows = server
        .lines(
            "SELECT glue_database, glue_table, serving FROM system.feature_groups \
             WHERE name IS NULL ORDER BY glue_database",
        )
        .await;
    assert_eq!(
        rows,
        [
            "history orphan not served: the server has a schema of the database's name",
            "other orphan raw only: no feature group claims this table"
        ]
    );
    let shown = "SELECT table_schema FROM information_schema.tables WHERE table_name = 'orphan'";
    assert_eq!(server.lines(shown).await, ["other"]);
}

#[tokio::test]
async fn features_are_described_when_asked_for() {
    let server = server().await;
    let rows = server
        .lines(
            "SELECT name, type, ordinal_position, description FROM system.features \
             WHERE feature_group = 'customers' AND name IN ('age', 'Score')",
        )
        .await;
    assert_eq!(rows, ["Score Fractional 4", "age Integral 3 in years"]);
    let keys = "SELECT name FROM system.features WHERE is_record_identifier AND feature_group = 'customers'";
    assert_eq!(server.lines(keys).await, ["customer_id"]);
}

#[tokio::test]
async fn files_are_listed_and_pinned() {
    let server = server().await;
    let sql = "SELECT object_key, size_bytes > 0, hour FROM system.files WHERE feature_group = 'customers'";
    let query = server.pin(sql).await.unwrap();
    server.put(
        "customers",
        "second",
        &[("c1", "2026-01-03T10:00:00Z", 1, "2026-01-03T10:00:00Z")],
    );
    for _ in 0..2 {
        let rows = lines(&server.rows_of(&query).await.unwrap());
        assert_eq!(
            rows,
            [
                "store/customers/data/year=2026/month=01/day=01/hour=10/first.parquet true \
             2026-01-01T10:00:00Z"
            ]
        );
    }
    assert_eq!(
        server.lines("SELECT count(*) FROM system.files").await,
        ["2"]
    );
}

#[tokio::test]
async fn queries_show_themselves_and_no_session_id() {
    let server = server().await;
    server.rows("SELECT 42").await.unwrap();
    let rows = server
        .lines("SELECT statement, state, session FROM system.queries WHERE statement = 'SELECT 42'")
        .await;
    assert_eq!(rows.len(), 1);
    assert!(
        rows[0].starts_with("SELECT 42 succeeded session-"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn a_new_group_shows_after_a_refresh() {
    let server = server().await;
    write_group(&server.dir, &group("newcomers"));
    server.engine.catalog.refresh().await.unwrap();
    let rows = "SELECT count(*) FROM system.feature_groups WHERE name = 'newcomers'";
    assert_eq!(server.lines(rows).await, ["1"]);
}
