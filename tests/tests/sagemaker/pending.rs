//! Pending rows: what was accepted and SageMaker has not written yet is in every answer, once, until
//! it is there.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use featureflight_tests::fake_runtime::Faults;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig::Rig;

const OFTEN: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::from_hours(1);

const ALL: &str = "SELECT id, at, visits, is_deleted FROM history.scores ORDER BY id, at, visits";
const PENDING: &str = "SELECT visits FROM history.scores WHERE write_time IS NULL ORDER BY visits";

/// One row that was written.
#[derive(Debug, Clone)]
struct Accepted {
    id: String,
    /// Minutes after the beginning of 2026, of no other row.
    minute: i64,
    /// `None` for a delete.
    visits: Option<i64>,
}

fn time(minute: i64) -> String {
    let at = chrono::DateTime::from_timestamp(1_767_225_600 + minute * 60, 0).unwrap();
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Accepted {
    fn line(&self) -> String {
        let visits = self
            .visits
            .map_or(String::new(), |visits| visits.to_string());
        let deleted = self.visits.is_none();
        format!("{}|{}|{visits}|{deleted}", self.id, time(self.minute))
    }
}

async fn write_some(rig: &Rig, random: &mut StdRng, next: &mut i64) -> Vec<Accepted> {
    let id = format!("r{}", random.random_range(0..4));
    *next += 1;
    if random.random_bool(0.2) {
        // Later than all that is there.
        let minute = 200_000 + *next;
        let at = time(minute);
        rig.sql(&format!(
            "DELETE FROM scores WHERE id = '{id}' AND at = '{at}'"
        ))
        .await;
        return vec![Accepted {
            id,
            minute,
            visits: None,
        }];
    }
    let mut rows = Vec::new();
    for _ in 0..random.random_range(1..5) {
        *next += 1;
        let late = if random.random_bool(0.5) { 100_000 } else { 0 };
        rows.push(Accepted {
            id: format!("r{}", random.random_range(0..4)),
            minute: late + *next * 7 % 90_000,
            visits: Some(*next),
        });
    }
    let values = rows.iter().map(|row| {
        let (id, visits) = (&row.id, row.visits.unwrap());
        format!("('{id}', '{}', 0.1, {visits})", time(row.minute))
    });
    let values: Vec<_> = values.collect();
    rig.sql(&format!("INSERT INTO scores VALUES {}", values.join(", ")))
        .await;
    rows
}

/// The lines of history: every accepted row once, or as often as the service wrote it.
fn history(rig: &Rig, accepted: &[Accepted], fresh: bool) -> Vec<String> {
    let log = rig.fake.offline();
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for number in &rig.landed {
        let row = &log[*number];
        let visits = row.values.get("visits").cloned().unwrap_or_default();
        let line = format!(
            "{}|{}|{visits}|{}",
            row.identifier, row.event_time, row.is_deleted
        );
        *copies.entry(line).or_default() += 1;
    }
    let least = usize::from(fresh);
    let lines = accepted.iter().flat_map(|row| {
        let line = row.line();
        let copies = copies.get(&line).copied().unwrap_or(0).max(least);
        vec![line; copies]
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

/// Of lines of history: the newest of each record up to a minute, if it is no delete.
fn state(lines: &[String], until: i64) -> Vec<String> {
    let until = time(until);
    let mut newest: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split('|').collect();
        let (id, at) = (cells[0], cells[1]);
        if at <= until.as_str() && newest.get(id).is_none_or(|(best, _)| *best <= at) {
            newest.insert(id, (at, cells[2]));
        }
    }
    let there = newest.iter().filter(|(_, (_, visits))| !visits.is_empty());
    there
        .map(|(id, (at, visits))| format!("{id}|{at}|{visits}"))
        .collect()
}

async fn check(rig: &Rig, accepted: &[Accepted]) {
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let mut fresh = history(rig, accepted, true);
    let mut seen = sorted(rig.sql(ALL).await);
    if !rig.listings.is_zero() {
        // What came twice may be there once still.
        fresh.dedup();
        seen.dedup();
    }
    assert_eq!(seen, fresh);
    let now = "SELECT id, at, visits FROM scores ORDER BY id";
    assert_eq!(rig.sql(now).await, state(&fresh, 1_000_000));
    let earlier = now.replace(
        "scores",
        &format!("scores FOR VALID_TIME AS OF '{}'", time(40)),
    );
    assert_eq!(rig.sql(&earlier).await, state(&fresh, 40));
    let join = "SELECT * FROM point_in_time_join((SELECT v.id, TIMESTAMP '2026-01-01T00:40:00' AS ts \
                FROM (VALUES ('r0'), ('r1'), ('r2'), ('r3')) AS v (id)), 'scores:visits') \
                WHERE visits IS NOT NULL ORDER BY id";
    let joined: Vec<String> = rig.sql(join).await;
    let wanted = state(&fresh, 40).into_iter().map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        format!("{}|2026-01-01T00:40:00Z|{}", cells[0], cells[2])
    });
    assert_eq!(joined, wanted.collect::<Vec<_>>());
    if !rig.listings.is_zero() {
        return;
    }

    // No cut of the system's time has what is pending, however late.
    let landed = history(rig, accepted, false);
    assert_eq!(sorted(rig.stale(ALL).await), landed);
    let cut = "scores FOR SYSTEM_TIME AS OF '9999-12-31'";
    assert_eq!(
        rig.sql(&now.replace("scores", cut)).await,
        state(&landed, 1_000_000)
    );
    for known_by in ["write_time", "api_invocation_time"] {
        let known = format!(
            "'scores:visits', known_at => TIMESTAMP '9999-12-31', known_by => '{known_by}'"
        );
        let joined = rig.sql(&join.replace("'scores:visits'", &known)).await;
        let wanted = state(&landed, 40);
        assert_eq!(joined.len(), wanted.len(), "{known_by}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_row_is_seen_once_wherever_it_is() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::start().await;
        // The service carries some calls out and loses the answer: it writes those rows twice.
        rig.faults(Faults {
            broken: 0.2,
            ..Faults::default()
        });
        let (mut next, mut accepted) = (0, Vec::new());
        for _ in 0..25 {
            match random.random_range(0..10) {
                0..=4 => accepted.extend(write_some(&rig, &mut random, &mut next).await),
                5..=7 => rig.land(|_| random.random_bool(0.5)),
                8 => rig.sent().await,
                _ => {
                    let every = if random.random_bool(0.5) {
                        OFTEN
                    } else {
                        NEVER
                    };
                    let cached = random.random_bool(0.5);
                    rig.listings = if cached { NEVER } else { Duration::ZERO };
                    rig.restart(every, NEVER).await;
                }
            }
            check(&rig, &accepted).await;
        }
        rig.faults(Faults::default());
        rig.listings = Duration::ZERO;
        rig.restart(OFTEN, NEVER).await;
        rig.sent().await;
        rig.land(|_| true);
        check(&rig, &accepted).await;
        rig.settled().await;
        check(&rig, &accepted).await;
        assert_eq!(rig.sql(PENDING).await, [""; 0]);
    }
}

const ONE: &str = "INSERT INTO scores VALUES ('a', '2026-01-01T00:00:00Z', 0.1, 1)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_its_own_row_retires_a_row() {
    let mut rig = Rig::start().await;
    rig.sql(ONE).await;
    rig.sent().await;
    let own = rig.fake.offline().remove(0);
    let other = |change: fn(&mut featureflight_tests::fake_runtime::OfflineRow)| {
        let mut row = own.clone();
        change(&mut row);
        row
    };
    rig.write(
        &[
            other(|row| row.identifier.push('b')),
            other(|row| drop(row.values.insert("id".into(), "b".into()))),
            other(|row| row.invoked_at.micros -= 60_000_000),
            other(|row| drop(row.values.insert("visits".into(), "2".into()))),
            other(|row| drop(row.values.remove("score"))),
            other(|row| row.is_deleted = true),
            other(|row| {
                let later = "2026-01-01T00:00:00.000000001Z";
                row.values.insert("at".into(), later.into());
            }),
        ][1..],
    );
    assert_eq!(rig.sql(PENDING).await, ["1"]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.sql(PENDING).await, ["1"], "the watcher leaves it too");
    rig.land(|_| true);
    assert_eq!(rig.sql(PENDING).await, [""; 0]);
    rig.settled().await;
    assert_eq!(rig.sql("SELECT count(*) FROM history.scores").await, ["7"]);
    let shown =
        "SELECT waiting_offline, landed, last_landed IS NOT NULL, overdue FROM system.writes";
    assert_eq!(rig.sql(shown).await, ["0|1|true|0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_rows_retire_one_by_one_and_none_that_was_not_sent() {
    let mut rig = Rig::start().await;
    rig.sql(ONE).await;
    rig.sql(ONE).await;
    rig.sent().await;
    rig.land(|number| number == 0);
    let count = "SELECT count(*), count(write_time) FROM history.scores";
    assert_eq!(rig.sql(count).await, ["2|1"]);
    rig.land(|_| true);
    assert_eq!(rig.sql(count).await, ["2|2"]);
    rig.settled().await;

    // The second waits behind the first, which the service does not take.
    let mut copy = rig.fake.offline().remove(0);
    rig.faults(Faults {
        away: true,
        ..Faults::default()
    });
    rig.sql(&ONE.replace("0.1, 1)", "0.1, 2)")).await;
    rig.sql(&ONE.replace("0.1, 1)", "0.1, 3)")).await;
    assert_eq!(rig.sql(count).await, ["4|2"]);
    copy.values.insert("visits".into(), "3".into());
    copy.invoked_at.micros += 60_000_000;
    rig.write(&[copy]);
    assert_eq!(rig.sql(count).await, ["5|3"], "it cannot be that one's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_row_comes_after_what_was_received_before_it() {
    let mut rig = Rig::start().await;
    rig.sql(ONE).await;
    rig.sent().await;
    rig.land(|_| true);
    rig.settled().await;
    let later = ONE.replace("0.1, 1)", "0.1, 2)");
    rig.sql(&later).await;
    assert_eq!(rig.sql("SELECT visits FROM scores").await, ["2"]);
    rig.sql("INSERT INTO scores VALUES ('a', '2025-12-31T00:00:00Z', 0.1, 3)")
        .await;
    assert_eq!(rig.sql("SELECT visits FROM scores").await, ["2"]);
    // In one request the last of equal event times.
    rig.sql("INSERT INTO scores VALUES ('b', '2026-01-01', 0.1, 4), ('b', '2026-01-01', 0.1, 5)")
        .await;
    let b = "SELECT visits FROM scores WHERE id = 'b'";
    assert_eq!(rig.sql(b).await, ["5"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_will_never_land_is_not_shown_for_ever() {
    let mut rig = Rig::start().await;
    rig.faults(Faults {
        poison: HashSet::from(["bad".to_owned()]),
        ..Faults::default()
    });
    rig.sql(
        "INSERT INTO scores VALUES ('bad', '2026-01-01', 0.1, 1), ('good', '2026-01-01', 0.1, 2)",
    )
    .await;
    rig.sent().await;
    assert_eq!(
        rig.sql(PENDING).await,
        ["2"],
        "the service refused the other"
    );
    rig.faults(Faults::default());
    rig.sql("CALL redrive(1)").await;
    assert_eq!(rig.sql(PENDING).await, ["1", "2"]);
    rig.sent().await;
    rig.restart(OFTEN, Duration::from_millis(300)).await;
    assert_eq!(rig.sql(PENDING).await, ["1", "2"]);
    rig.settled().await;
    assert_eq!(rig.sql(PENDING).await, [""; 0]);
    assert_eq!(rig.sql("SELECT overdue FROM system.writes").await, ["2"]);
    rig.land(|_| true);
    assert_eq!(rig.sql("SELECT count(*) FROM history.scores").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_gives_the_same_rows_after_they_landed() {
    let mut rig = Rig::start().await;
    rig.sql(ONE).await;
    rig.sent().await;
    let query = rig
        .pin("SELECT id, write_time FROM history.scores")
        .await
        .unwrap();
    let first = rig.fetch(&query).await.unwrap();
    assert_eq!(first, ["a|"]);
    rig.land(|_| true);
    assert_eq!(rig.sql(PENDING).await, [""; 0]);
    rig.settled().await;
    assert_eq!(rig.fetch(&query).await.unwrap(), first);
}

/// A row that lands between a statement's look at what waits and its list is looked for later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_looked_into_again_for_rows_that_came_meanwhile() {
    let mut rig = Rig::start().await;
    rig.restart(NEVER, NEVER).await;
    rig.sql(ONE).await;
    let waiting = rig.waiting().await;
    rig.sql(&ONE.replace("0.1, 1)", "0.1, 2)")).await;
    rig.sent().await;
    rig.land(|number| number == 1);
    assert_eq!(rig.beside(waiting).await, 1, "the first is in no file");
    assert_eq!(rig.sql(PENDING).await, ["1"]);
}
