//! `system.writes` and `system.quarantine`.

use std::time::Duration;

use tonic::Code;

use super::client::{Client, Server, code};
use super::uploads::messages;
use super::writes::{append, rows, writer};

async fn eventually(client: &mut Client, sql: &str, wanted: &[&str]) {
    let mut found = Vec::new();
    for _ in 0..200 {
        found = client.rows(sql).await;
        if found == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{sql}: {found:?} is not {wanted:?}");
}

#[tokio::test]
async fn what_waits_and_what_was_sent_shows() {
    let server = writer().await;
    let mut client = server.connect().await;
    assert!(client.rows("SELECT * FROM system.writes").await.is_empty());
    let batch = rows(&[("a", "2026-01-01", 1.0, 1), ("b", "2026-01-01", 1.0, 1)]);
    client.ingest(&append(), vec![batch]).await.unwrap();
    let sql = "SELECT feature_group, store, waiting_writes, waiting_online, waiting_offline, \
               oldest_waiting_online IS NULL, waited_seconds < 60, sent, quarantined, trouble \
               FROM system.writes";
    let shown = ["scores|embedded|1|0|2|true|true|2|0|"];
    eventually(&mut client, sql, &shown).await;
}

#[tokio::test]
async fn a_long_upload_says_how_far_it_is() {
    let server = writer().await;
    let mut client = server.connect().await;
    let row = |id: &str| rows(&[(id, "2026-01-01", 1.0, 1), ("x", "2026-01-01", 1.0, 1)]);
    let batches = vec![row("a"), row("b"), row("c")];
    let mut messages = messages(&append(), batches).await;
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
    let sql = "SELECT state, rows, bytes > 0, progress FROM system.queries \
               WHERE statement = 'ingest into scores'";
    eventually(&mut client, sql, &["running|4|true|"]).await;
    let there = client.rows("SELECT count(*) FROM scores").await;
    assert_eq!(there, ["0"], "nothing counts before all of it does");
    sender.send(last).await.unwrap();
    drop(sender);
    upload.await.unwrap().unwrap();
    let sql = sql.replace("bytes > 0, ", "");
    eventually(&mut client, &sql, &["succeeded|6|1.0"]).await;
}

/// A hard delete that is overtaken on its way is refused by the online store.
#[tokio::test]
async fn a_refused_record_is_kept_sent_again_or_discarded() {
    let server = writer().await;
    let mut client = server.connect().await;
    client
        .update("SET featureflight.deletion = 'hard'")
        .await
        .unwrap();
    // Not in the offline state any more, but online: the soft delete's time is newer.
    let batch = rows(&[("a", "2026-01-01", 1.0, 1)]);
    client.ingest(&append(), vec![batch]).await.unwrap();
    client
        .update("SET featureflight.deletion = 'soft'")
        .await
        .unwrap();
    client
        .update("DELETE FROM scores WHERE id = 'a' AND at = '2026-01-05'")
        .await
        .unwrap();
    client
        .update("SET featureflight.deletion = 'hard'")
        .await
        .unwrap();
    client
        .update("DELETE FROM scores WHERE id = 'a' AND at = '2026-01-03'")
        .await
        .unwrap();
    let sql = "SELECT id, feature_group, record_identifier, event_time, operation, attempts \
               FROM system.quarantine";
    let shown = ["1|scores|a|2026-01-03T00:00:00Z|hard delete|1"];
    eventually(&mut client, sql, &shown).await;
    let reason = client.rows("SELECT reason FROM system.quarantine").await;
    assert!(reason[0].contains("not newer"), "{reason:?}");
    client.update("CALL redrive(1)").await.unwrap();
    let shown = ["2|scores|a|2026-01-03T00:00:00Z|hard delete|1"];
    eventually(&mut client, sql, &shown).await;
    client.update("CALL system.discard(2)").await.unwrap();
    assert!(client.rows(sql).await.is_empty());
    assert_eq!(code(client.update("CALL discard(2)").await), Code::NotFound);
    assert_eq!(code(client.update("CALL redrive(2)").await), Code::NotFound);
    for wrong in [
        "CALL redrive()",
        "CALL discard('all')",
        "CALL discard(1, 2)",
    ] {
        assert_eq!(
            code(client.update(wrong).await),
            Code::InvalidArgument,
            "{wrong}"
        );
    }
    let reader = Server::start().await;
    let mut client = reader.connect().await;
    assert!(
        client
            .rows("SELECT * FROM system.quarantine")
            .await
            .is_empty()
    );
    assert_eq!(code(client.update("CALL discard(1)").await), Code::NotFound);
}
