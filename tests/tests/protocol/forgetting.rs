//! `CALL forget('g', 'id')` in an owned warehouse: every version of a record goes, from everywhere, and
//! nobody sees an older one on the way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::dropping::flushed;
use super::online::forwarded;
use super::writes::{start, writer};

/// Sorts behind all others, so that statistics of files name it.
const PERSON: &str = "zz-the-person";

async fn insert(client: &mut Client, id: &str, day: u32, visits: i64) {
    let sql = format!("INSERT INTO scores VALUES ('{id}', '2026-01-{day:02}', 0.5, {visits})");
    assert_eq!(client.update(&sql).await.unwrap(), 1);
}

/// Begins the server anew, so that it writes files soon or only when it has to.
async fn restart(server: Server, soon: bool) -> (Server, Client) {
    let Server { handle, directory } = server;
    handle.stop().await.unwrap();
    let handle = start(directory.path(), |config| {
        let age = if soon { 10 } else { 3_600_000 };
        config.offline.max_age.0 = Duration::from_millis(age);
    })
    .await;
    let server = Server { handle, directory };
    let client = server.connect().await;
    (server, client)
}

/// What of a group is there, from every side: identifier and visits.
async fn everywhere(client: &mut Client) -> Vec<String> {
    let mut found = Vec::new();
    for from in ["scores", "history.scores", "online('scores')"] {
        let sql = format!(
            "SELECT '{}', id, visits FROM {from} ORDER BY 2, 3",
            &from[..1]
        );
        found.extend(client.rows(&sql).await);
    }
    found
}

/// Files that name the person in plain text, but for those of databases, whose free pages may.
fn naming(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(naming(&path));
        } else if path.extension().is_none_or(|extension| extension != "redb") {
            let bytes = std::fs::read(&path).unwrap();
            let mut windows = bytes.windows(PERSON.len());
            let named = windows.any(|window| window == PERSON.as_bytes());
            found.extend(named.then(|| path.display().to_string()));
        }
    }
    found
}

#[tokio::test]
async fn every_version_goes_from_everywhere_and_later_ones_stay() {
    let server = writer().await;
    let forget = format!("CALL forget('scores', '{PERSON}')");
    let (server, mut client) = restart(server, true).await;
    for day in 1..4 {
        insert(&mut client, PERSON, day, i64::from(day)).await;
        insert(&mut client, "other", day, i64::from(day)).await;
    }
    flushed(&mut client).await;
    let (server, mut client) = restart(server, false).await;
    let in_files = client
        .execute("SELECT id FROM scores WHERE visits > 0")
        .await
        .unwrap();
    insert(&mut client, PERSON, 4, 4).await;
    insert(&mut client, "other", 4, 4).await;
    let in_both = client.execute("SELECT id FROM scores").await.unwrap();
    forwarded(&mut client).await;
    assert!(
        naming(server.directory.path()).len() >= 2,
        "files and a segment"
    );

    client.prepare(&forget).await.unwrap();
    assert_eq!(
        client.rows("SELECT visits FROM scores ORDER BY id").await,
        ["4", "4"]
    );
    let answer = client.rows(&forget).await;
    assert_eq!(answer, ["1|3|3|true"]);
    let wanted = [
        "s|other|4",
        "h|other|1",
        "h|other|2",
        "h|other|3",
        "h|other|4",
        "o|other|4",
    ];
    assert_eq!(everywhere(&mut client).await, wanted);
    for pinned in [in_files, in_both] {
        let lost = client.fetch(&only_ticket(&pinned)).await;
        assert_eq!(code(lost), Code::Aborted);
    }
    assert_eq!(client.rows(&forget).await, ["0|0|0|false"], "again");

    // Older than what was forgotten: nothing of that is remembered.
    insert(&mut client, PERSON, 1, 9).await;
    forwarded(&mut client).await;
    let person = format!("SELECT visits FROM online('scores') WHERE id = '{PERSON}'");
    assert_eq!(client.rows(&person).await, ["9"]);
    let (server, mut client) = restart(server, true).await;
    flushed(&mut client).await;
    let person = format!("SELECT visits FROM history.scores WHERE id = '{PERSON}'");
    assert_eq!(client.rows(&person).await, ["9"]);
    assert_eq!(client.rows(&forget).await, ["0|1|1|true"]);
    assert_eq!(everywhere(&mut client).await, wanted);
    let Server { handle, directory } = server;
    handle.stop().await.unwrap();
    assert_eq!(naming(directory.path()), Vec::<String>::new());
}

/// The files have a version, the outbox a later one or a tombstone: whoever reads meanwhile sees the
/// later one or nothing, never the one in the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_sees_an_older_version_come_back() {
    let mut server = writer().await;
    for (round, deleted) in [false, true, false, true].into_iter().enumerate() {
        let (restarted, mut client) = restart(server, true).await;
        let day = u32::try_from(round).unwrap() * 4 + 1;
        insert(&mut client, PERSON, day, 1).await;
        insert(&mut client, "other", day, 1).await;
        flushed(&mut client).await;
        let (restarted, mut client) = restart(restarted, false).await;
        server = restarted;
        if deleted {
            let delete = format!("DELETE FROM scores WHERE id = '{PERSON}'");
            client.update(&delete).await.unwrap();
        } else {
            insert(&mut client, PERSON, day + 1, 2).await;
        }
        let done = Arc::new(AtomicBool::new(false));
        let mut readers = Vec::new();
        for _ in 0..3 {
            let (mut reader, done) = (server.connect().await, Arc::clone(&done));
            readers.push(tokio::spawn(async move {
                let sql = format!("SELECT visits FROM scores WHERE id = '{PERSON}'");
                let mut seen: Vec<Vec<String>> = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    match reader.query(&sql).await {
                        Ok(answer) => seen.push(answer.lines()),
                        Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
                    }
                }
                seen
            }));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        client
            .rows(&format!("CALL forget('scores', '{PERSON}')"))
            .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            let seen = reader.await.unwrap();
            let there = |rows: &Vec<String>| !deleted && *rows == ["2"];
            let gone = seen
                .iter()
                .position(|rows| !there(rows))
                .unwrap_or(seen.len());
            let after = &seen[gone..];
            assert!(after.iter().all(Vec::is_empty), "round {round}: {seen:?}");
            assert!(!after.is_empty(), "it went");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_forgotten_is_refused() {
    let server = writer().await;
    let mut client = server.connect().await;
    client
        .update("CREATE TABLE numbers (id BIGINT, at TIMESTAMP, PRIMARY KEY (id))")
        .await
        .unwrap();
    client
        .update("INSERT INTO numbers VALUES (-7, '2026-01-01')")
        .await
        .unwrap();
    for wrong in [
        "CALL forget()",
        "CALL forget('scores')",
        "CALL forget('scores', 'a', 'b')",
        "CALL forget('scores:score', 'a')",
        "CALL forget('scores', 7)",
        "CALL forget('scores', id)",
        "CALL forget('scores', NULL)",
        "CALL forget('numbers', 'a')",
        "CALL forget('numbers', 1.5)",
        "CALL forget(DISTINCT 'scores', 'a')",
        "CALL forget(a => 'scores', b => 'a')",
    ] {
        let refused = client.update(wrong).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{wrong}");
    }
    let unknown = client.update("CALL forget('scoers', 'a')").await;
    assert_eq!(code(unknown), Code::NotFound);
    client
        .update("SET featureflight.valid_time = '2030-01-01'")
        .await
        .unwrap();
    let past = client.update("CALL forget('scores', 'a')").await;
    assert_eq!(code(past), Code::FailedPrecondition);
    client
        .update("RESET featureflight.valid_time")
        .await
        .unwrap();
    assert_eq!(client.rows("SELECT id FROM numbers").await, ["-7"]);
    let answer = client
        .rows("CALL system.forget('Features.Numbers', -07)")
        .await;
    assert!(answer[0].starts_with("1|0|0|"), "{answer:?}");
    assert!(
        client
            .rows("SELECT id FROM history.numbers")
            .await
            .is_empty()
    );
    assert_eq!(
        client.update("CALL forget('numbers', '-7')").await.unwrap(),
        0
    );

    let reader = Server::start().await;
    let mut client = reader.connect().await;
    let refused = client.update("CALL forget('examples', 'a')").await;
    assert_eq!(code(refused), Code::InvalidArgument);
}
