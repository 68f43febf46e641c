//! `OPTIMIZE TABLE`: every answer is the same before and after, results executed before are read
//! on, and what cannot be optimized is refused by name.

use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tonic::Code;

use super::client::{Client, Server, only_ticket};
use super::fresh::{asked_state, everything, landed, state, write_some};
use super::writes::{append, rows, start, writer};

const OPTIMIZE: &str = "OPTIMIZE TABLE scores";

/// A server that makes a file of every request.
async fn many_files() -> Server {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = Duration::from_millis(1);
        // Lists are to be taken again because files were replaced.
        config.engine.list_cache_ttl.0 = Duration::from_secs(3_600);
    })
    .await;
    server
}

/// Names below the warehouse's bucket that end so.
fn names(folder: &Path, end: &str) -> usize {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            if path.is_dir() {
                names(&path, end)
            } else {
                usize::from(path.to_string_lossy().ends_with(end))
            }
        })
        .sum()
}

async fn joined(client: &mut Client) -> (i64, i64) {
    let mut sum = (0, 0);
    for line in client.rows(OPTIMIZE).await {
        let counts: Vec<i64> = line
            .split('|')
            .skip(1)
            .map(|count| count.parse().unwrap())
            .collect();
        assert!(counts[0] > counts[1] && counts[2] > 0, "{line}");
        sum = (sum.0 + counts[0], sum.1 + counts[1]);
    }
    sum
}

#[tokio::test]
async fn answers_are_the_same_before_and_after() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let server = many_files().await;
        let mut client = server.connect().await;
        let (mut next, mut accepted) = (0, Vec::new());
        for _ in 0..3 {
            accepted.extend(write_some(&mut client, &mut random, &mut next).await);
            landed(&mut client, accepted.len()).await;
        }
        let times = client
            .rows("SELECT DISTINCT write_time FROM history.scores ORDER BY write_time")
            .await;
        let cuts: Vec<String> = times.iter().step_by(5).cloned().collect();
        let before = everything(&mut client, &cuts).await;
        let pinned = [
            "SELECT * FROM history.scores ORDER BY at, id, visits, write_time",
            "SELECT * FROM scores ORDER BY id",
        ];
        let mut tickets = Vec::new();
        for sql in pinned {
            tickets.push(only_ticket(&client.execute(sql).await.unwrap()));
        }
        let folder = server.directory.path().join("s3");
        let files = names(&folder, ".parquet");
        let (files_before, files_after) = joined(&mut client).await;
        assert!(files_before > files_after, "seed {seed}");
        let now = names(&folder, ".parquet");
        let gone = usize::try_from(files_before - files_after).unwrap();
        assert_eq!(now, files - gone, "seed {seed}");
        assert_eq!(
            names(&folder, ".parquet.replaced"),
            usize::try_from(files_before).unwrap()
        );
        for (before, after) in before.iter().zip(everything(&mut client, &cuts).await) {
            assert_eq!(before, &after, "seed {seed}");
        }
        for (sql, ticket) in pinned.iter().zip(&tickets) {
            let read = client.fetch(ticket).await.unwrap().lines();
            assert_eq!(read, client.rows(sql).await, "seed {seed}: {sql}");
        }
        assert_eq!(joined(&mut client).await, (0, 0), "nothing is left to do");
        // And so it stays with what comes later, and after a restart.
        accepted.extend(write_some(&mut client, &mut random, &mut next).await);
        assert_eq!(asked_state(&mut client, "").await, state(&accepted, None));
        server.handle.stop().await.unwrap();
        let handle = start(server.directory.path(), |_| {}).await;
        let server = Server {
            handle,
            directory: server.directory,
        };
        let mut client = server.connect().await;
        assert_eq!(asked_state(&mut client, "").await, state(&accepted, None));
        assert_eq!(
            client.rows("SELECT count(*) FROM history.scores").await,
            [accepted.len().to_string()]
        );
    }
}

#[tokio::test]
async fn a_result_is_read_until_its_files_go_and_then_run_again() {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = Duration::from_millis(1);
        config.offline.grace.0 = Duration::from_secs(1);
        config.engine.list_cache_ttl.0 = Duration::from_secs(3_600);
    })
    .await;
    let mut client = server.connect().await;
    for visits in 1..4 {
        let batch = rows(&[("a", "2026-01-01", 1.0, visits)]);
        client.ingest(&append(), vec![batch]).await.unwrap();
        landed(&mut client, usize::try_from(visits).unwrap()).await;
    }
    let sql = "SELECT visits FROM history.scores ORDER BY visits";
    let ticket = only_ticket(&client.execute(sql).await.unwrap());
    assert_eq!(joined(&mut client).await, (3, 1));
    let folder = server.directory.path().join("s3");
    for _ in 0..200 {
        if names(&folder, ".parquet.replaced") == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = client.fetch(&ticket).await.unwrap_err();
    assert_eq!(refused.code(), Code::Aborted);
    assert!(refused.message().contains("run it again"), "{refused}");
    assert_eq!(client.rows(sql).await, ["1", "2", "3"]);
}

/// Another server that only reads the warehouse sees the same, while this one goes on.
#[tokio::test]
async fn a_server_that_only_reads_sees_each_row_once() {
    let server = many_files().await;
    let mut client = server.connect().await;
    for visits in 0..12 {
        let batch = rows(&[("a", "2026-01-01", 1.0, visits)]);
        client.ingest(&append(), vec![batch]).await.unwrap();
        landed(&mut client, usize::try_from(visits + 1).unwrap()).await;
    }
    let handle = start(server.directory.path(), |config| {
        config.outbox.enabled = false;
        config.engine.list_cache_ttl.0 = Duration::ZERO;
    })
    .await;
    let other = Server {
        handle,
        directory: tempfile::tempdir().unwrap(),
    };
    let mut reader = other.connect().await;
    let sql = "SELECT count(*), count(DISTINCT visits) FROM history.scores";
    assert_eq!(reader.rows(sql).await, ["12|12"]);
    let ticket = only_ticket(&reader.execute(sql).await.unwrap());
    assert_eq!(joined(&mut client).await, (12, 1));
    assert_eq!(reader.rows(sql).await, ["12|12"]);
    assert_eq!(reader.fetch(&ticket).await.unwrap().lines(), ["12|12"]);
    let refused = reader.execute(OPTIMIZE).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("only reads"), "{refused}");
    other.handle.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_optimized_is_refused_by_name() {
    let server = writer().await;
    let mut client = server.connect().await;
    for (sql, expected, part) in [
        ("OPTIMIZE TABLE nothing", Code::NotFound, "nothing"),
        (
            "OPTIMIZE TABLE history.scores",
            Code::InvalidArgument,
            "history.scores",
        ),
        (
            "OPTIMIZE TABLE scores FINAL",
            Code::InvalidArgument,
            "OPTIMIZE TABLE group",
        ),
        (
            "OPTIMIZE scores WHERE id = 'a'",
            Code::InvalidArgument,
            "OPTIMIZE TABLE group",
        ),
        (
            "OPTIMIZE scores ZORDER BY (id)",
            Code::InvalidArgument,
            "OPTIMIZE TABLE group",
        ),
        ("EXPLAIN OPTIMIZE TABLE scores", Code::InvalidArgument, ""),
    ] {
        let refused = client.execute(sql).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{sql}: {refused}");
        assert!(refused.message().contains(part), "{sql}: {refused}");
    }
    // Drivers that run it as an update would not show what it answers.
    let refused = client.update(OPTIMIZE).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(refused.message().contains("returns rows"), "{refused}");
    assert!(client.rows("OPTIMIZE features.Scores").await.is_empty());
}
