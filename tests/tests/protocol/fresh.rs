//! Read your writes: what was acknowledged is in every answer, once, whether it is in the outbox, in
//! files, or on its way from one to the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::client::{Client, only_ticket};
use super::writes::{append, rows, start, writer};

/// One row that was written.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    id: String,
    /// Minutes after the beginning of 2026.
    minute: i64,
    /// `None` for a delete.
    visits: Option<i64>,
}

fn time(minute: i64) -> String {
    let seconds = 1_767_225_600 + minute * 60;
    let at = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes at random; returns what was accepted, in order. A request holds rows that tie.
pub(super) async fn write_some(
    client: &mut Client,
    random: &mut StdRng,
    next: &mut i64,
) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for _ in 0..12 {
        if random.random_bool(0.2) {
            // Later than all that is there.
            let (id, minute) = (format!("r{}", random.random_range(0..4)), 1_000 + *next);
            *next += 1;
            let delete = format!(
                "DELETE FROM scores WHERE id = '{id}' AND at = '{}'",
                time(minute)
            );
            assert_eq!(client.update(&delete).await.unwrap(), 1, "{delete}");
            accepted.push(Accepted {
                id,
                minute,
                visits: None,
            });
            continue;
        }
        let mut request = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let late = random.random_bool(0.3);
            request.push(Accepted {
                id: format!("r{}", random.random_range(0..4)),
                minute: if late {
                    1_000 + *next
                } else {
                    random.random_range(0..8) * 20
                },
                visits: Some(*next),
            });
            *next += 1;
        }
        let texts: Vec<_> = request.iter().map(|row| time(row.minute)).collect();
        let sent: Vec<_> = request
            .iter()
            .zip(&texts)
            .map(|(row, at)| (row.id.as_str(), at.as_str(), 0.5, row.visits.unwrap()))
            .collect();
        let written = client.ingest(&append(), vec![rows(&sent)]).await.unwrap();
        assert_eq!(written, i64::try_from(request.len()).unwrap());
        accepted.extend(request);
    }
    accepted
}

/// The state by the plainest rule: the latest event time, then the latest acceptance.
pub(super) fn state(accepted: &[Accepted], until: Option<i64>) -> Vec<String> {
    let mut newest: BTreeMap<&str, &Accepted> = BTreeMap::new();
    for row in accepted {
        let beaten = |best: &&Accepted| best.minute > row.minute;
        if until.is_none_or(|until| row.minute <= until)
            && !newest.get(&*row.id).is_some_and(beaten)
        {
            newest.insert(&row.id, row);
        }
    }
    let there = newest.values().filter_map(|row| {
        let visits = row.visits?;
        Some(format!("{}|{}|{visits}", row.id, time(row.minute)))
    });
    there.collect()
}

pub(super) async fn asked_state(client: &mut Client, clause: &str) -> Vec<String> {
    client
        .rows(&format!(
            "SELECT id, at, visits FROM scores {clause} ORDER BY id"
        ))
        .await
}

/// Every answer there is, to be compared over time.
pub(super) async fn everything(client: &mut Client, cuts: &[String]) -> Vec<Vec<String>> {
    let mut answers = vec![
        client
            .rows("SELECT * FROM history.scores ORDER BY at, id, visits, write_time, is_deleted")
            .await,
        asked_state(client, "").await,
        client.rows("SELECT * FROM scores WHERE id = 'r1'").await,
        client
            .rows("SELECT * FROM history.scores WHERE id IN ('r2') AND visits > 3 ORDER BY visits")
            .await,
    ];
    for cut in cuts {
        let spine = "(SELECT v.id, CAST(v.ts AS TIMESTAMP) AS ts FROM (VALUES ('r0', '2026-01-01T01:00:00'), \
                     ('r1', '2026-01-01T02:00:00'), ('r2', '2026-01-03'), ('r3', '2026-01-03')) AS v (id, ts))";
        for sql in [
            format!(
                "SELECT id, visits FROM scores FOR SYSTEM_TIME AS OF TIMESTAMP '{cut}' ORDER BY id"
            ),
            format!(
                "SELECT count(*), max(visits) FROM history.scores WHERE write_time <= TIMESTAMP '{cut}'"
            ),
            format!(
                "SELECT * FROM point_in_time_join({spine}, 'scores:visits', known_at => TIMESTAMP \
                 '{cut}') ORDER BY id"
            ),
        ] {
            answers.push(client.rows(&sql).await);
        }
    }
    answers
}

pub(super) async fn landed(client: &mut Client, wanted: usize) {
    for _ in 0..400 {
        client
            .update("SET featureflight.fresh = false")
            .await
            .unwrap();
        let found = client.rows("SELECT count(*) FROM history.scores").await;
        client.update("RESET featureflight.fresh").await.unwrap();
        if found == [wanted.to_string()] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{wanted} rows did not get into files");
}

#[tokio::test]
async fn answers_do_not_depend_on_where_rows_are() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut server = writer().await;
        let (mut next, mut accepted) = (0, Vec::new());
        let mut client = server.connect().await;
        accepted.extend(write_some(&mut client, &mut random, &mut next).await);
        assert_eq!(asked_state(&mut client, "").await, state(&accepted, None));

        // All of it in files, then more in the outbox.
        server.handle.stop().await.unwrap();
        let soon = |config: &mut featureflight_server::Config| {
            config.offline.max_age.0 = Duration::from_millis(10);
        };
        server.handle = start(server.directory.path(), soon).await;
        landed(&mut server.connect().await, accepted.len()).await;
        server.handle.stop().await.unwrap();
        server.handle = start(server.directory.path(), |_| {}).await;
        let mut client = server.connect().await;
        assert_eq!(asked_state(&mut client, "").await, state(&accepted, None));
        accepted.extend(write_some(&mut client, &mut random, &mut next).await);
        assert_eq!(asked_state(&mut client, "").await, state(&accepted, None));
        let valid = format!("FOR VALID_TIME AS OF TIMESTAMP '{}'", time(60));
        assert_eq!(
            asked_state(&mut client, &valid).await,
            state(&accepted, Some(60))
        );
        let times = client
            .rows("SELECT DISTINCT write_time FROM history.scores ORDER BY write_time")
            .await;
        let cuts: Vec<String> = times.iter().step_by(3).cloned().collect();
        let split = everything(&mut client, &cuts).await;
        assert_eq!(split[0].len(), accepted.len());

        server.handle.stop().await.unwrap();
        server.handle = start(server.directory.path(), soon).await;
        let mut client = server.connect().await;
        landed(&mut client, accepted.len()).await;
        let whole = everything(&mut client, &cuts).await;
        for (split, whole) in split.iter().zip(&whole) {
            assert_eq!(split, whole, "seed {seed}");
        }
        server.handle.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_ticket_gives_the_same_rows_after_they_landed() {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = Duration::from_millis(500);
    })
    .await;
    let mut client = server.connect().await;
    let batch = rows(&[("a", "2026-01-01", 1.0, 1), ("b", "2026-01-01", 1.0, 2)]);
    client.ingest(&append(), vec![batch]).await.unwrap();
    let sql = "SELECT * FROM history.scores ORDER BY id";
    let info = client.execute(sql).await.unwrap();
    let first = client.fetch(&only_ticket(&info)).await.unwrap().lines();
    assert_eq!(first.len(), 2);
    landed(&mut client, 2).await;
    let again = client.fetch(&only_ticket(&info)).await.unwrap().lines();
    assert_eq!(again, first);
    assert_eq!(client.rows(sql).await, first);
}

/// A writer, the offline writer and readers at once; listings are cached for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_on_their_way_are_seen_once() {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |config| {
        config.offline.max_age.0 = Duration::from_millis(1);
        config.engine.list_cache_ttl.0 = Duration::from_secs(3_600);
    })
    .await;
    let (tried, told) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let mut writing = server.connect().await;
    let (trying, telling) = (Arc::clone(&tried), Arc::clone(&told));
    let writes = tokio::spawn(async move {
        for number in 0..150 {
            trying.fetch_add(1, Ordering::SeqCst);
            let at = time(number % 240);
            let batch = rows(&[("a", &at, 1.0, number)]);
            writing.ingest(&append(), vec![batch]).await.unwrap();
            telling.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let mut client = server.connect().await;
    let mut looks = 0;
    while !writes.is_finished() || looks < 20 {
        let before = told.load(Ordering::SeqCst);
        let found = client
            .rows("SELECT count(*), count(DISTINCT visits) FROM history.scores")
            .await;
        let after = tried.load(Ordering::SeqCst);
        let (all, distinct) = found[0].split_once('|').unwrap();
        let (all, distinct): (i64, i64) = (all.parse().unwrap(), distinct.parse().unwrap());
        assert_eq!(all, distinct, "a row is seen twice");
        assert!(
            before <= all && all <= after,
            "{before} <= {all} <= {after}"
        );
        looks += 1;
    }
    writes.await.unwrap();
    landed(&mut client, 150).await;
}
