use std::sync::Arc;
use std::time::Duration;

use featureflight_catalog::Kind;
use futures::{FutureExt, StreamExt};

use super::{Server, server, server_with};
use crate::EngineOptions;
use crate::query::QueryState;

/// Rows without end, for all a test cares.
const LONG: &str = "SELECT a.value FROM range(100000000) a";

async fn until(server: &Server, state: QueryState) {
    for _ in 0..500 {
        if server
            .engine
            .queries()
            .iter()
            .any(|q| q.state == state && q.statement == LONG)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no query got {state:?}: {:?}", server.engine.queries());
}

fn one_at_a_time(queue: usize) -> EngineOptions {
    EngineOptions {
        max_running_queries: 1,
        max_queued_queries: queue,
        list_cache_ttl: Duration::ZERO,
        ..EngineOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_batch_comes_before_the_last_is_computed() {
    let server = server().await;
    let query = server.pin(LONG).await.unwrap();
    let mut stream = server.engine.run(&query).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(20), stream.next())
        .await
        .unwrap();
    assert!(first.unwrap().unwrap().num_rows() > 0);
    until(&server, QueryState::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_stream_cancels_and_frees_the_permit() {
    let server = server_with(one_at_a_time(0)).await;
    let query = server.pin(LONG).await.unwrap();
    let mut stream = server.engine.run(&query).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(server.engine.core.admission.free(), 0);
    drop(stream);
    until(&server, QueryState::Cancelled).await;
    assert_eq!(server.engine.core.admission.free(), 1);
    assert_eq!(server.engine.core.memory.reserved(), 0);
    assert_eq!(server.lines("SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_too_many_is_refused_and_a_waiting_one_runs() {
    let server = Arc::new(server_with(one_at_a_time(1)).await);
    let query = server.pin(LONG).await.unwrap();
    let running = server.engine.run(&query).await.unwrap();
    let waiting = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.lines("SELECT 2").await }
    });
    while !server
        .engine
        .queries()
        .iter()
        .any(|q| q.state == QueryState::Queued)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = server.error("SELECT 3").await;
    assert_eq!(refused.kind, Kind::ResourceExhausted);
    drop(running);
    assert_eq!(waiting.await.unwrap(), ["2"]);
    let failed = server
        .engine
        .queries()
        .into_iter()
        .find(|q| q.statement == "SELECT 3")
        .unwrap();
    assert_eq!(failed.state, QueryState::Failed);
    assert_eq!(failed.error.unwrap(), refused.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_at_its_deadline_even_when_nobody_reads() {
    let options = EngineOptions {
        query_timeout: Some(Duration::from_millis(300)),
        ..one_at_a_time(0)
    };
    let server = server_with(options).await;
    let query = server.pin(LONG).await.unwrap();
    let mut stream = server.engine.run(&query).await.unwrap();
    stream.next().await.unwrap().unwrap();
    until(&server, QueryState::Failed).await;
    assert_eq!(
        server.engine.core.admission.free(),
        1,
        "a reader that stalls holds nothing"
    );
    let mut last = None;
    while let Some(batch) = stream.next().await {
        last = Some(batch);
    }
    assert_eq!(last.unwrap().unwrap_err().kind, Kind::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_the_middle_ends_the_stream_as_an_error() {
    let server = server().await;
    let sql = "SELECT 1 / (a.value - 500000) FROM range(1000000) a";
    let query = server.pin(sql).await.unwrap();
    let mut stream = server.engine.run(&query).await.unwrap();
    let mut outcome = None;
    while let Some(batch) = stream.next().await {
        assert!(outcome.is_none(), "nothing follows an error");
        outcome = batch.err();
    }
    assert_eq!(outcome.unwrap().kind, Kind::InvalidArgument);
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_pin_while_it_plans_is_a_cancelled_query() {
    let server = server().await;
    // Planning has threads of its own, which may be done before they are asked.
    let dropped = (0..1_000).any(|_| server.pin(LONG).now_or_never().is_none());
    assert!(dropped, "it plans");
    let queries = server.engine.queries();
    let cancelled = queries
        .iter()
        .filter(|query| query.state == QueryState::Cancelled);
    assert_eq!(cancelled.count(), 1);
}

#[tokio::test]
async fn a_finished_query_is_remembered_with_its_numbers() {
    let server = server().await;
    server
        .rows("SELECT * FROM history.customers")
        .await
        .unwrap();
    let queries = server.engine.queries();
    assert_eq!(queries.len(), 1);
    assert_eq!(queries[0].state, QueryState::Succeeded);
    assert_eq!((queries[0].rows, queries[0].files), (3, 1));
    assert!(queries[0].bytes > 0);
    assert!(!queries[0].session.contains("secret"));
    let error = server.error("SELECT nothing").await;
    let failed = server
        .engine
        .queries()
        .into_iter()
        .find(|q| q.state == QueryState::Failed);
    assert_eq!(failed.unwrap().error.unwrap(), error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_an_error_with_a_hint() {
    let options = EngineOptions {
        memory_limit_bytes: 1 << 20,
        spill_limit_bytes: 1 << 20,
        ..EngineOptions::default()
    };
    let server = server_with(options).await;
    let sql = "SELECT value, count(*) FROM range(5000000) GROUP BY value ORDER BY value DESC";
    let error = server.error(sql).await;
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(!error.message.contains("GroupedHash"), "{error}");
}
