//! `CREATE TABLE` and `ALTER TABLE ... ADD COLUMN` in an owned warehouse.

use tonic::Code;

use super::client::{Server, code};
use super::writes::{start, writer};

const VISITORS: &str = "CREATE TABLE features.Visitors (id BIGINT NOT NULL, seen TIMESTAMP, name \
                        VARCHAR(20), score DOUBLE, PRIMARY KEY (id)) WITH (ttl = '30 days')";

#[tokio::test]
async fn a_group_is_made_written_read_and_gains_features() {
    let mut server = writer().await;
    let mut client = server.connect().await;
    client.prepare(VISITORS).await.unwrap();
    assert_eq!(
        code(client.query("SELECT * FROM visitors").await),
        Code::NotFound,
        "preparing makes nothing"
    );
    assert_eq!(client.update(VISITORS).await.unwrap(), 0);
    let insert = "INSERT INTO visitors VALUES (7, TIMESTAMP '2026-11-01 10:00:00', 'ann', 0.5)";
    assert_eq!(client.update(insert).await.unwrap(), 1);
    let there = client.rows("SELECT * FROM visitors").await;
    assert_eq!(there, ["7|2026-11-01T10:00:00Z|ann|0.5"]);
    assert_eq!(code(client.update(VISITORS).await), Code::AlreadyExists);
    let again = VISITORS.replacen("TABLE", "TABLE IF NOT EXISTS", 1);
    client.update(&again).await.unwrap();

    client
        .update("ALTER TABLE visitors ADD COLUMN visits INT, ADD COLUMN city TEXT")
        .await
        .unwrap();
    let insert = "INSERT INTO visitors VALUES (8, '2026-11-02', 'bo', 1, 3, 'Ulm')";
    assert_eq!(client.update(insert).await.unwrap(), 1);
    let wanted = [
        "7|2026-11-01T10:00:00Z|ann|0.5||",
        "8|2026-11-02T00:00:00Z|bo|1.0|3|Ulm",
    ];
    let all = "SELECT * FROM visitors ORDER BY id";
    assert_eq!(client.rows(all).await, wanted, "rows of both definitions");
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = std::time::Duration::from_millis(10);
    })
    .await;
    let mut client = server.connect().await;
    assert_eq!(client.rows(all).await, wanted);
    client
        .update("SET featureflight.fresh = false")
        .await
        .unwrap();
    for _ in 0..200 {
        if client.rows(all).await.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    assert_eq!(client.rows(all).await, wanted, "from files");
    let raw = client
        .rows("SELECT glue_database, glue_table FROM system.feature_groups WHERE name = 'visitors'")
        .await;
    let raw = raw[0].replace('|', ".");
    assert_eq!(
        client
            .rows(&format!("SELECT id FROM {raw} ORDER BY id"))
            .await,
        ["7", "8"]
    );
    let found = std::fs::read(server.directory.path().join("feature-groups/visitors.json"));
    let group: serde_json::Value = serde_json::from_slice(&found.unwrap()).unwrap();
    assert_eq!(group["OnlineStoreConfig"]["EnableOnlineStore"], true);
    let ttl = &group["OnlineStoreConfig"]["TtlDuration"];
    assert_eq!((&ttl["Unit"], &ttl["Value"]), (&"Days".into(), &30.into()));
}

#[tokio::test]
async fn what_no_group_can_be_is_refused() {
    let server = writer().await;
    let mut client = server.connect().await;
    for wrong in [
        "CREATE TABLE g (id VARCHAR, at TIMESTAMP)",
        "CREATE TABLE g (id VARCHAR, b VARCHAR, at TIMESTAMP, PRIMARY KEY (id, b))",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, name VARCHAR)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, then TIMESTAMP)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, other TIMESTAMP) WITH (event_time = 'at')",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at BIGINT) WITH (event_time = 'at')",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, d DECIMAL(3, 1))",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, v INT NOT NULL)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, v INT DEFAULT 1)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, is_deleted INT)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP, v INT, V INT)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP) WITH (ttl = '1 month')",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP) WITH (online = false, ttl = '1 day')",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP) WITH (fillfactor = 7)",
        "CREATE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP) PARTITION BY (id)",
        "CREATE OR REPLACE TABLE g (id VARCHAR PRIMARY KEY, at TIMESTAMP)",
        "CREATE TABLE \"a b\" (id VARCHAR PRIMARY KEY, at TIMESTAMP)",
        "CREATE TABLE \"../g\" (id VARCHAR PRIMARY KEY, at TIMESTAMP)",
        "CREATE TABLE history.g (id VARCHAR PRIMARY KEY, at TIMESTAMP)",
        "CREATE TABLE g AS SELECT 1",
        "ALTER TABLE scores DROP COLUMN score",
        "ALTER TABLE scores ADD COLUMN score INT",
        "ALTER TABLE scores ADD COLUMN more DATE",
        "ALTER TABLE scores ADD COLUMN more INT DEFAULT 1",
        "ALTER TABLE history.scores ADD COLUMN more INT",
    ] {
        let refused = client.update(wrong).await.expect_err(wrong);
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong}: {refused}");
    }
    for taken in ["scores", "SCORES", "\"Scores\""] {
        let create = format!("CREATE TABLE {taken} (id VARCHAR PRIMARY KEY, at TIMESTAMP)");
        assert_eq!(
            code(client.update(&create).await),
            Code::AlreadyExists,
            "{taken}"
        );
    }
    assert_eq!(
        code(client.update("ALTER TABLE scoers ADD COLUMN x INT").await),
        Code::NotFound
    );
    let groups = std::fs::read_dir(server.directory.path().join("feature-groups"));
    assert_eq!(
        groups.unwrap().count(),
        1,
        "nothing was made, nothing is left over"
    );
    let others = Server::start().await;
    let mut client = others.connect().await;
    let refused = client.update(VISITORS).await.expect_err("not ours");
    assert!(refused.message().contains("--own"), "{}", refused.message());
}
