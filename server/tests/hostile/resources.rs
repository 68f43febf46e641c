//! Queries that want more than there is, and what a server is like after a minute of many.

use std::time::{Duration, Instant};

use tonic::Code;

use super::child::Child;

/// What is left of a load may differ by this much.
const SLACK_FILES: usize = 4;

/// A lookup beside eight greedy queries, in builds without optimization.
const MOST_PATIENCE: Duration = Duration::from_secs(15);
const SLACK_THREADS: usize = 2;
const SLACK_BYTES: u64 = 256 << 20;

/// Idle threads of the runtime's pool end after ten seconds.
const IDLE_THREADS: Duration = Duration::from_secs(11);

#[tokio::test]
async fn queries_that_want_too_much_end_and_lookups_go_on() {
    let mut child = Child::start(&[
        ("ENGINE__MEMORY_LIMIT", "128MiB"),
        ("ENGINE__PROCESS_MEMORY_LIMIT", "1GiB"),
        ("ENGINE__SPILL_LIMIT", "64MiB"),
        ("ENGINE__QUERY_TIMEOUT", "20s"),
        ("ENGINE__MAX_RUNNING_QUERIES", "12"),
        ("ENGINE__TARGET_PARTITIONS", "2"),
    ]);
    child.assert_well("the start").await;
    let greedy = [
        "SELECT value, count(*) FROM range(20000000) GROUP BY value ORDER BY 2, 1",
        "SELECT a.value FROM range(5000000) a JOIN range(5000000) b ON a.value = b.value ORDER BY a.value DESC",
        "SELECT g, count(DISTINCT t) FROM (SELECT value % 9 AS g, repeat('x', 60) || value AS t FROM range(3000000)) GROUP BY g",
        "SELECT array_agg(repeat('x', 1000) || value) FROM range(2000000)",
        "SELECT value, sum(value) OVER (ORDER BY value DESC) FROM range(10000000)",
        "SELECT max(length(repeat('x', 50000000) || value)) FROM range(1000)",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT count(*) FROM range(100000) a CROSS JOIN range(100000) b WHERE a.value + b.value = 7",
    ];
    let runs = greedy.iter().map(|sql| {
        let connect = child.connect();
        async move { (sql, connect.await.rows(sql).await) }
    });
    let lookups = async {
        let mut slowest = Duration::ZERO;
        let mut client = child.connect().await;
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            let began = Instant::now();
            let sql = "SELECT count(*) FROM customers WHERE customer_id = 'nobody'";
            match client.rows(sql).await {
                Ok(rows) => assert_eq!(rows, 1),
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
            }
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest
    };
    let (outcomes, slowest) = futures::join!(futures::future::join_all(runs), lookups);
    for (sql, outcome) in outcomes {
        println!("{outcome:?} | {sql}");
        if let Err(status) = outcome {
            assert!(
                matches!(
                    status.code(),
                    Code::ResourceExhausted | Code::DeadlineExceeded
                ),
                "{sql}: {status}"
            );
        }
    }
    assert!(slowest < MOST_PATIENCE, "a lookup took {slowest:?}");
    println!(
        "slowest lookup {slowest:?}, peak {} MiB",
        child.peak_bytes() >> 20
    );
    assert!(
        child.peak_bytes() < 3 << 29,
        "{} MiB",
        child.peak_bytes() >> 20
    );
    child.assert_well("queries that want too much").await;
    for _ in 0..100 {
        if child.spill_files() <= 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(child.spill_files() <= 1, "only the lock is left");
}

#[tokio::test]
async fn large_statements_leave_room_for_fewer_tickets() {
    let mut child = Child::start(&[("SERVER__TICKET_MEMORY", "16MiB")]);
    let mut client = child.connect().await;
    let small = client.0.execute("SELECT 1".to_owned(), None).await.unwrap();
    let numbers: Vec<_> = (0..20_000).map(|n| n.to_string()).collect();
    let large = format!(
        "SELECT count(*) FROM range(9) WHERE value IN ({})",
        numbers.join(", ")
    );
    let mut newest = small.clone();
    for _ in 0..12 {
        newest = client.0.execute(large.clone(), None).await.unwrap();
    }
    assert_eq!(client.fetch(&newest).await.unwrap().len(), 1);
    let status = client.fetch(&small).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    child.assert_well("large statements").await;
}

/// What a client of the load asks, and how many rows that has.
const QUESTIONS: [(&str, usize); 6] = [
    (
        "SELECT customer_id FROM customers ORDER BY customer_id LIMIT 7",
        7,
    ),
    (
        "SELECT * FROM history.customers c JOIN features.customers f ON c.customer_id = f.customer_id WHERE false",
        0,
    ),
    ("SELECT count(*) FROM orders", 1),
    ("SELECT value FROM range(50000)", 50_000),
    (
        "SELECT l.customer_id, o.spend_7d FROM (SELECT customer_id, event_time AS ts FROM history.customers) l ASOF JOIN features.orders o MATCH_CONDITION (l.ts >= o.event_time) ON l.customer_id = o.customer_id LIMIT 3",
        3,
    ),
    (
        "SELECT DISTINCT customer_id FROM history.customers FOR SYSTEM_TIME AS OF '1990-01-01'",
        0,
    ),
];

/// By default a few seconds of some clients; `FEATUREFLIGHT_LOAD=64x60` is 64 clients for a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_leaves_nothing_behind_and_no_answer_is_wrong() {
    let load = std::env::var("FEATUREFLIGHT_LOAD").unwrap_or_else(|_| "16x8".into());
    let (clients, seconds) = load.split_once('x').unwrap();
    let (clients, seconds): (usize, u64) = (clients.parse().unwrap(), seconds.parse().unwrap());
    let mut child = Child::start(&[
        ("ENGINE__MEMORY_LIMIT", "512MiB"),
        ("ENGINE__MAX_QUEUED_QUERIES", "512"),
    ]);
    // What is made once and kept: caches, threads, buffers.
    ask(&child, 8, Duration::from_secs(2)).await;
    tokio::time::sleep(IDLE_THREADS).await;
    let before = (child.open_files(), child.threads(), child.resident_bytes());
    let total = ask(&child, clients, Duration::from_secs(seconds)).await;
    child.assert_well("the load").await;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if child.open_files() <= before.0 && child.threads() <= before.1 {
            break;
        }
    }
    let after = (child.open_files(), child.threads(), child.resident_bytes());
    println!(
        "{clients} clients, {seconds} s: {total} answers; files, threads, bytes {before:?} -> {after:?}"
    );
    assert!(total > clients, "{total}");
    assert!(
        after.0 <= before.0 + SLACK_FILES,
        "files {before:?} -> {after:?}"
    );
    assert!(
        after.1 <= before.1 + SLACK_THREADS,
        "threads {before:?} -> {after:?}"
    );
    assert!(
        after.2 <= before.2 + SLACK_BYTES,
        "bytes {before:?} -> {after:?}"
    );
    assert!(child.spill_files() <= 1, "only the lock is left");
}

/// Many clients at once; some leave in the middle of their result. Returns how many were answered.
async fn ask(child: &Child, clients: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    let asking = (0..clients).map(|number| {
        let connect = child.connect();
        async move {
            let mut client = connect.await;
            let mut answered = 0;
            for turn in number.. {
                if Instant::now() > until {
                    break;
                }
                let (sql, expected) = QUESTIONS[turn % QUESTIONS.len()];
                if turn % 11 == 10 {
                    let leaving =
                        client.rows("SELECT a.value, repeat('x', 100) FROM range(10000000) a");
                    assert!(
                        tokio::time::timeout(Duration::from_millis(20), leaving)
                            .await
                            .is_err()
                    );
                    continue;
                }
                let rows = client
                    .rows(sql)
                    .await
                    .unwrap_or_else(|status| panic!("{sql}: {status}"));
                assert_eq!(rows, expected, "{sql}");
                answered += 1;
            }
            answered
        }
    });
    futures::future::join_all(asking).await.into_iter().sum()
}
