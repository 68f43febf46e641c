//! `DROP TABLE` of feature groups in an owned warehouse: nothing of them is left, and a group of the
//! same name begins empty.

use std::path::Path;
use std::time::Duration;

use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::online::forwarded;
use super::uploads::messages;
use super::writes::{append, rows, start, writer};

const VISITORS: &str = "CREATE TABLE visitors (id VARCHAR, seen TIMESTAMP, score DOUBLE, \
                        PRIMARY KEY (id)) WITH (event_time = 'seen')";
const DROP: &str = "DROP TABLE visitors";
const ALL: &str = "SELECT id FROM visitors ORDER BY id";

async fn allow(client: &mut Client) {
    let set = "SET featureflight.allow_drop = true";
    client.update(set).await.unwrap();
}

async fn insert(client: &mut Client, id: &str) {
    let insert = format!("INSERT INTO visitors VALUES ('{id}', '2026-01-01', 1)");
    assert_eq!(client.update(&insert).await.unwrap(), 1);
}

/// Until everything that was accepted is in files.
pub(crate) async fn flushed(client: &mut Client) {
    for _ in 0..400 {
        let waiting = client
            .rows("SELECT coalesce(sum(waiting_offline), 0) FROM system.writes")
            .await;
        if waiting == ["0"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("rows are not in files");
}

/// What of a group is there, from every side.
async fn everywhere(client: &mut Client) -> [Vec<String>; 4] {
    let mut found = Vec::new();
    for sql in [
        ALL,
        "SELECT id FROM history.visitors ORDER BY id",
        "SELECT id FROM online('visitors') ORDER BY id",
        "SELECT record_identifier FROM system.quarantine",
    ] {
        found.push(client.rows(sql).await);
    }
    found.try_into().unwrap()
}

fn files_of(name: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_of(name, &path));
        }
        let path = path.display().to_string();
        found.extend(path.contains(name).then_some(path));
    }
    found
}

#[tokio::test]
async fn a_dropped_group_is_gone_everywhere_and_its_name_begins_empty() {
    let mut server = writer().await;
    let mut client = server.connect().await;
    client.update(VISITORS).await.unwrap();
    insert(&mut client, "old").await;
    forwarded(&mut client).await;
    let waiting = client.execute(ALL).await.unwrap();

    let refused = client.update(DROP).await.expect_err("it is not allowed");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let message = refused.message();
    assert!(
        message.contains("SET featureflight.allow_drop"),
        "{message}"
    );
    allow(&mut client).await;
    client.prepare(DROP).await.unwrap();
    assert_eq!(client.rows(ALL).await, ["old"], "preparing drops nothing");
    assert_eq!(client.rows(DROP).await, ["OK"]);

    for sql in [
        ALL,
        "SELECT id FROM history.visitors",
        "SELECT id FROM online('visitors')",
        DROP,
    ] {
        assert_eq!(code(client.query(sql).await), Code::NotFound, "{sql}");
    }
    assert_eq!(
        code(
            client
                .update("INSERT INTO visitors VALUES ('x', '2026-01-01', 1)")
                .await
        ),
        Code::NotFound
    );
    client
        .update("DROP TABLE IF EXISTS visitors")
        .await
        .unwrap();
    let lost = client.fetch(&only_ticket(&waiting)).await;
    assert_eq!(
        code(lost),
        Code::Aborted,
        "a pinned answer is not cut short"
    );
    assert!(files_of("visitors", server.directory.path()).is_empty());
    let listed = "SELECT name FROM system.feature_groups WHERE name = 'visitors'";
    assert!(client.rows(listed).await.is_empty());

    client.update(VISITORS).await.unwrap();
    let nothing: [Vec<String>; 4] = Default::default();
    assert_eq!(everywhere(&mut client).await, nothing);
    insert(&mut client, "new").await;
    forwarded(&mut client).await;
    let new = || vec!["new".to_owned()];
    let only_new = [new(), new(), new(), Vec::new()];
    assert_eq!(everywhere(&mut client).await, only_new);
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |_| {}).await;
    let mut client = server.connect().await;
    assert_eq!(everywhere(&mut client).await, only_new);
}

#[tokio::test]
async fn files_go_too_and_a_pinned_answer_that_needs_them_says_so() {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = Duration::from_millis(10);
    })
    .await;
    let mut client = server.connect().await;
    allow(&mut client).await;
    for id in ["first", "second", "third"] {
        client.update(VISITORS).await.unwrap();
        assert!(client.rows(ALL).await.is_empty());
        insert(&mut client, id).await;
        flushed(&mut client).await;
        let pinned = client.execute(ALL).await.unwrap();
        assert!(!files_of(".parquet", server.directory.path()).is_empty());
        assert_eq!(everywhere(&mut client).await[0], [id]);
        client.update("DROP TABLE features.Visitors").await.unwrap();
        assert!(files_of("visitors", server.directory.path()).is_empty());
        let lost = client.fetch(&only_ticket(&pinned)).await;
        assert_eq!(code(lost), Code::Aborted);
    }
}

#[tokio::test]
async fn an_upload_under_way_is_refused_when_its_group_is_dropped() {
    let server = writer().await;
    let mut client = server.connect().await;
    let row = |id: &str| rows(&[(id, "2026-01-01", 1.0, 1)]);
    let mut messages = messages(&append(), vec![row("a"), row("b")]).await;
    let last = messages.pop().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(messages.len() + 1);
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let mut uploading = client.clone();
    let upload = tokio::spawn(async move {
        let messages = futures::stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let answer = uploading.flight.do_put(messages).await?;
        answer.into_inner().message().await
    });
    let running = "SELECT rows FROM system.queries WHERE statement = 'ingest into scores'";
    while client.rows(running).await != ["1"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    allow(&mut client).await;
    client.update("DROP TABLE scores").await.unwrap();
    let again = "CREATE TABLE scores (id VARCHAR, at TIMESTAMP, score DOUBLE, visits BIGINT, \
                 PRIMARY KEY (id))";
    client.update(again).await.unwrap();
    sender.send(last).await.unwrap();
    drop(sender);
    let refused = upload.await.unwrap().expect_err("its group is gone");
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(
        client
            .rows("SELECT id FROM history.scores")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn what_cannot_be_dropped_is_refused() {
    let server = writer().await;
    let mut client = server.connect().await;
    client.update(VISITORS).await.unwrap();
    allow(&mut client).await;
    for wrong in [
        "DROP TABLE history.visitors",
        "DROP TABLE system.queries",
        "DROP TABLE visitors, scores",
        "DROP TABLE visitors CASCADE",
        "DROP VIEW visitors",
        "DROP TABLE a.b.c.d",
    ] {
        let refused = client.update(wrong).await.expect_err(wrong);
        let codes = [Code::InvalidArgument, Code::NotFound];
        assert!(codes.contains(&refused.code()), "{wrong}: {refused}");
    }
    client
        .update("SET featureflight.system_time = '2030-01-01'")
        .await
        .unwrap();
    assert_eq!(code(client.update(DROP).await), Code::FailedPrecondition);
    client
        .update("RESET featureflight.system_time")
        .await
        .unwrap();

    // Another group's files lie among this one's.
    let groups = server.directory.path().join("feature-groups");
    let json = std::fs::read_to_string(groups.join("visitors.json")).unwrap();
    let mut inner: serde_json::Value = serde_json::from_str(&json).unwrap();
    inner["FeatureGroupName"] = "inner".into();
    let location = &mut inner["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"];
    *location = format!("{}/inner", location.as_str().unwrap()).into();
    inner["OfflineStoreConfig"]["DataCatalogConfig"]["TableName"] = "inner_1".into();
    std::fs::write(groups.join("inner.json"), inner.to_string()).unwrap();
    client
        .update("ALTER TABLE visitors ADD COLUMN refreshed BIGINT")
        .await
        .unwrap();
    let refused = client.update(DROP).await.expect_err("they would go too");
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("inner"), "{refused}");
    assert!(client.rows(ALL).await.is_empty());

    let reader = Server::start().await;
    let mut client = reader.connect().await;
    allow(&mut client).await;
    let refused = client.update("DROP TABLE examples").await;
    assert_eq!(code(refused), Code::InvalidArgument);
}
