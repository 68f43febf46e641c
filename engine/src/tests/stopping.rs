use std::sync::Arc;
use std::time::Duration;

use featureflight_catalog::Kind;
use futures::TryStreamExt;

use super::server;
use crate::query::QueryState;

const LONG: &str = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b";

async fn soon(work: impl Future<Output = crate::Error>) -> Kind {
    let error = tokio::time::timeout(Duration::from_secs(2), work).await;
    error.expect("within two seconds").kind
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_stops_a_query_that_computes() {
    let server = Arc::new(server().await);
    let query = server.pin(LONG).await.unwrap();
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let (reader, of) = (Arc::clone(&server), Arc::clone(&query));
    let running = tokio::spawn(async move { reader.rows_of(&of).await.unwrap_err() });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let other = Arc::new(crate::session::Session::new("other"));
    let cancel = format!("cancel query '{}'", query.id);
    let refused = server
        .engine
        .pin(&other, &cancel, Vec::new())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::PermissionDenied);
    server.rows(&cancel).await.unwrap();
    assert_eq!(
        soon(async { running.await.unwrap() }).await,
        Kind::Cancelled
    );
    assert_eq!(query.watch().status().state, QueryState::Cancelled);
    let none_left = async {
        while tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
            > before
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), none_left)
        .await
        .expect("the work itself has ended");
    assert_eq!(
        server.engine.core.admission.free(),
        server.engine.options.max_running_queries
    );
    assert_eq!(
        server.rows_of(&query).await.unwrap_err().kind,
        Kind::Cancelled,
        "for good"
    );
    assert_eq!(
        server.error(&cancel).await.kind,
        Kind::NotFound,
        "nothing is left to cancel"
    );
    assert!(!query.watch().cancel());
    for wrong in [
        "CANCEL QUERY",
        "CANCEL 'x'",
        "CANCEL QUERY x",
        "CANCEL QUERY 'x' 'y'",
        "CALL f('x')",
    ] {
        assert_eq!(
            server.error(wrong).await.kind,
            Kind::InvalidArgument,
            "{wrong}"
        );
    }
    let prepared = server
        .engine
        .prepare(&server.session, &cancel)
        .await
        .unwrap();
    assert!(prepared.is_update);
}

/// Nothing comes out of these, so their operators never come to a yield between two batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_condition_is_never_true_ends_with_its_run() {
    const JOINS: [&str; 2] = [
        "a JOIN range(20000) b ON a.value * b.value % 7 = 8",
        "a JOIN (SELECT value, value % 1 AS k FROM range(20000)) b ON a.value % 1 = b.k AND \
         a.value * b.value % 7 = 8",
    ];
    let server = server().await;
    let tasks = || server.engine.core.executor.tasks();
    let none_left = async || {
        while tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    for join in JOINS {
        let sql = format!("SELECT count(*) FROM range(1000000) {join}");
        let query = server.pin(&sql).await.unwrap();
        for leaves in [true, false] {
            let soon = Duration::from_millis(300);
            let deadline = (!leaves).then(|| tokio::time::Instant::now() + soon);
            let run = async {
                let stream = server.engine.run_slice(&query, None, deadline).await?;
                stream.try_collect::<Vec<_>>().await
            };
            if leaves {
                let left = tokio::time::timeout(soon, run).await;
                left.expect_err("it computes for long");
            } else {
                assert_eq!(
                    run.await.unwrap_err().kind,
                    Kind::DeadlineExceeded,
                    "{join}"
                );
            }
            let ended = tokio::time::timeout(Duration::from_secs(2), none_left()).await;
            ended.expect("the work has ended");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_deadline_and_a_sessions_timeout_end_a_query() {
    let server = server().await;
    let query = server.pin(LONG).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(200);
    let run = async {
        let stream = server
            .engine
            .run_slice(&query, None, Some(deadline))
            .await?;
        stream.try_collect::<Vec<_>>().await
    };
    let error = run.await.unwrap_err();
    assert_eq!(error.kind, Kind::DeadlineExceeded);
    assert!(error.message.contains("deadline"), "{error}");
    server
        .rows("SET featureflight.query_timeout = '200ms'")
        .await
        .unwrap();
    let work = async { server.error(LONG).await };
    assert_eq!(soon(work).await, Kind::DeadlineExceeded);
}

#[tokio::test]
async fn too_large_a_result_is_an_error_and_never_cut() {
    let server = server().await;
    server.rows("SET featureflight.max_rows = 2").await.unwrap();
    let error = server.error("SELECT * FROM history.customers").await;
    assert_eq!(error.kind, Kind::ResourceExhausted);
    assert!(error.message.contains("featureflight.max_rows"), "{error}");
    assert_eq!(
        server
            .lines("SELECT customer_id FROM customers")
            .await
            .len(),
        2
    );
    server.rows("RESET ALL").await.unwrap();
    server
        .rows("SET featureflight.max_bytes = 10")
        .await
        .unwrap();
    let error = server.error("SELECT * FROM history.customers").await;
    assert!(error.message.contains("featureflight.max_bytes"), "{error}");
}
