//! Queries that want more than there is.

use std::time::{Duration, Instant};

use tonic::Code;

use super::child::Child;

/// A lookup beside eight greedy queries, in builds without optimization.
const MOST_PATIENCE: Duration = Duration::from_secs(15);

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
        "SELECT max(length(repeat('x', 50000000 + value))) FROM range(1000)",
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

/// One connection is one session here, and it asks for more than the server runs at once.
#[tokio::test]
async fn one_session_leaves_a_place_to_the_others() {
    let mut child = Child::start(&[("ENGINE__MAX_RUNNING_QUERIES", "2")]);
    let greedy = child.connect().await;
    let running = (0..4).map(|_| {
        let mut client = greedy.clone();
        let sql = "SELECT count(*) FROM range(10000000) a CROSS JOIN range(10000000) b";
        tokio::spawn(async move { client.rows(sql).await })
    });
    let running: Vec<_> = running.collect();
    // Until they hold what they get: one runs, and the others wait.
    let mut watcher = child.connect().await;
    let under_way = "SELECT * FROM system.queries WHERE statement LIKE '%range(10000000) b' \
                     AND state IN ('queued', 'running')";
    for _ in 0..100 {
        let answer = tokio::time::timeout(Duration::from_secs(30), watcher.rows(under_way)).await;
        let answer = answer.expect("others are answered beside one greedy session");
        if answer.unwrap() == 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    child.assert_well("a greedy session").await;
    assert!(running.iter().all(|run| !run.is_finished()), "they go on");
    running.iter().for_each(tokio::task::JoinHandle::abort);
}
