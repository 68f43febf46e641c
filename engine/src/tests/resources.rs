//! That the guards of memory, disk, places and time hold where statements run.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use featureflight_catalog::{Error, Kind, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::server_with;
use crate::query::admission::Share;
use crate::session::Session;
use crate::{Caller, Engine, EngineOptions};

/// Far longer than a guard takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Statements planned at once, with one partition.
const THREADS: usize = 8;

const LONG: &str = "SELECT count(*) FROM range(10000000) a CROSS JOIN range(10000000) b";

/// The watch's own thread looks at the whole process, which is larger than this by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_beyond_its_limit_gives_up_the_query_it_runs() {
    let server = server_with(EngineOptions {
        process_memory_limit_bytes: 1,
        ..EngineOptions::default()
    })
    .await;
    let error = tokio::time::timeout(PATIENCE, server.error(LONG)).await;
    let error = error.expect("it is given up");
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(error.message.contains("given up because"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spilled_has_a_limit() {
    let sorted = |spill_limit_bytes| async move {
        let server = server_with(EngineOptions {
            memory_limit_bytes: 32 << 20,
            target_partitions: 1,
            spill_limit_bytes,
            ..EngineOptions::default()
        })
        .await;
        let sql =
            "SELECT value, repeat('x', 100) AS x FROM range(400000) ORDER BY value % 1000, value";
        let query = server.pin(sql).await?;
        server.rows_of(&query).await
    };
    let rows: usize = sorted(50 << 30)
        .await
        .expect("there is room")
        .iter()
        .map(RecordBatch::num_rows)
        .sum();
    assert_eq!(rows, 400_000);
    let error: Error = sorted(1 << 20).await.expect_err("there is none");
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_take_their_places_from_their_sessions_share() {
    let server = server_with(EngineOptions {
        max_running_queries: 2,
        ..EngineOptions::default()
    })
    .await;
    let query = server.pin(LONG).await.unwrap();
    let first = server.engine.run(&query).await.unwrap();
    let second = server.engine.run(&query);
    let second = tokio::time::timeout(Duration::from_millis(500), second).await;
    assert!(second.is_err(), "a permit is left, for others");
    let other = Arc::new(Session::new("other"));
    let theirs = server
        .engine
        .pin(&other, "SELECT 1", Vec::new())
        .await
        .unwrap();
    let rows = tokio::time::timeout(PATIENCE, server.rows_of(&theirs)).await;
    assert_eq!(rows.expect("at once").unwrap().len(), 1);
    drop(first);
}

/// Keeps every planning thread until it is dropped.
async fn keep_planning_busy(engine: &Arc<Engine>) -> JoinSet<Result<()>> {
    let mut busy = JoinSet::new();
    for _ in 0..THREADS {
        let engine = Arc::clone(engine);
        busy.spawn(async move {
            let (planning, share) = (&engine.core.planning, Share::default());
            planning.run(None, &share, std::future::pending).await
        });
    }
    while engine.core.planning.load().0 < THREADS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    busy
}

#[tokio::test(flavor = "multi_thread")]
async fn planning_ends_at_its_own_limit_and_at_the_callers() {
    let soon = Duration::from_millis(100);
    let options = EngineOptions {
        target_partitions: 1,
        ..EngineOptions::default()
    };
    let hasty = server_with(EngineOptions {
        planning_timeout: soon,
        ..options.clone()
    })
    .await;
    let patient = server_with(options).await;
    let mut late = Caller::from(&patient.session);
    late.deadline = Some(Instant::now() + soon);
    for (server, caller) in [(&hasty, Caller::from(&hasty.session)), (&patient, late)] {
        let engine = &server.engine;
        let _busy = keep_planning_busy(engine).await;
        let prepared = engine.prepare(caller.clone(), "SELECT 1");
        let prepared = tokio::time::timeout(PATIENCE, prepared).await;
        let pinned = tokio::time::timeout(PATIENCE, engine.pin(caller, "SELECT 1", Vec::new()));
        let prepared = prepared.expect("it ends").map(|_| ());
        let pinned = pinned.await.expect("it ends").map(|_| ());
        for refused in [prepared, pinned] {
            let error = refused.expect_err("there is no thread for it");
            assert_eq!(error.kind, Kind::DeadlineExceeded, "{error}");
            assert!(error.message.contains("planning took longer"), "{error}");
        }
    }
}
