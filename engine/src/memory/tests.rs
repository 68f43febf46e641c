//! Shares, floors and what is given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::prelude::SessionContext;
use featureflight_catalog::Kind;
use parking_lot::Mutex;

use super::Memory;
use super::pool::{KeptPool, Ledger, QueryPool};
use super::process::Guard;
use super::{FREE_BYTES, Kept};

const GRANTED: usize = 6_400;

struct Rig {
    ledger: Arc<Mutex<Ledger>>,
    pressure: Arc<AtomicBool>,
}

impl Rig {
    fn new() -> Self {
        Self {
            ledger: Arc::new(Mutex::new(Ledger::new(GRANTED))),
            pressure: Arc::default(),
        }
    }

    fn query(&self) -> Arc<dyn MemoryPool> {
        Arc::new(QueryPool::new(&self.ledger, Arc::clone(&self.pressure)))
    }
}

fn consumer(pool: &Arc<dyn MemoryPool>, name: &str, spills: bool) -> MemoryReservation {
    MemoryConsumer::new(name)
        .with_can_spill(spills)
        .register(pool)
}

fn given_up(pool: &Arc<dyn MemoryPool>) -> bool {
    use futures::FutureExt;
    let pool = pool.downcast_ref::<QueryPool>().unwrap();
    pool.given_up().now_or_never().is_some()
}

#[test]
fn one_alone_leaves_a_quarter_and_several_leave_a_share() {
    let rig = Rig::new();
    let first = rig.query();
    let join = consumer(&first, "join", false);
    assert!(join.try_grow(4_801).is_err());
    join.try_grow(4_800).unwrap();
    let second = rig.query();
    let other = consumer(&second, "join", false);
    other.try_grow(1_500).unwrap();
    assert!(other.try_grow(200).is_err(), "nothing is left");
    assert!(join.try_grow(1).is_err(), "its share is a third by now");
    join.shrink(3_000);
    other.try_grow(600).unwrap();
    assert!(other.try_grow(100).is_err(), "more than a third");
    drop((other, second));
    join.try_grow(3_000).unwrap();
    assert_eq!(rig.ledger.lock().queries(), 1);
}

#[test]
fn a_lookup_gets_its_few_bytes_whatever_others_hold() {
    let rig = Rig::new();
    let greedy: Vec<_> = (0..3).map(|_| rig.query()).collect();
    let held: Vec<_> = greedy
        .iter()
        .map(|pool| consumer(pool, "join", false))
        .collect();
    for reservation in &held {
        while reservation.try_grow(100).is_ok() {}
        reservation.grow(1_000);
    }
    let lookup = rig.query();
    let sort = consumer(&lookup, "sort", true);
    sort.try_grow(100).unwrap();
    assert!(sort.try_grow(1).is_err());
}

#[test]
fn operators_that_spill_divide_what_the_others_left() {
    let rig = Rig::new();
    let query = rig.query();
    let join = consumer(&query, "join", false);
    join.try_grow(800).unwrap();
    let (one, two) = (
        consumer(&query, "sort", true),
        consumer(&query, "sort", true),
    );
    one.try_grow(2_000).unwrap();
    assert!(one.try_grow(1).is_err());
    two.try_grow(2_000).unwrap();
    drop(two);
    one.try_grow(1_000).unwrap();
    assert_eq!(query.reserved(), 3_800);
}

#[test]
fn a_repartition_never_spills_and_gives_the_query_up_beyond_its_share() {
    let rig = Rig::new();
    let query = rig.query();
    let repartition = consumer(&query, "RepartitionExec[0]", true);
    repartition.try_grow(4_800).unwrap();
    assert!(!given_up(&query));
    repartition.try_grow(1).unwrap();
    assert!(given_up(&query));
}

#[test]
fn a_process_short_of_memory_grants_nothing_and_then_gives_up_the_largest() {
    let rig = Rig::new();
    let (small, large) = (rig.query(), rig.query());
    let few = consumer(&small, "join", false);
    few.try_grow(200).unwrap();
    let many = consumer(&large, "join", false);
    many.try_grow(2_000).unwrap();
    let mut guard = Guard {
        ledger: Arc::clone(&rig.ledger),
        pressure: Arc::clone(&rig.pressure),
        limit: 1_000,
        gave_up: None,
    };
    guard.look(950);
    assert!(rig.pressure.load(Ordering::Acquire));
    assert!(many.try_grow(1).is_err());
    assert!(!given_up(&large));
    guard.look(1_001);
    assert!(given_up(&large) && !given_up(&small));
    guard.look(1_001);
    assert!(!given_up(&small), "the first needs time to let go");
    guard.gave_up = None;
    guard.look(1_001);
    assert!(given_up(&small));
    guard.look(500);
    many.try_grow(1).unwrap();
}

#[test]
fn what_outlives_queries_takes_from_what_they_share() {
    let rig = Rig::new();
    let pressure = Arc::clone(&rig.pressure);
    let kept: Arc<dyn MemoryPool> = Arc::new(KeptPool::new(&rig.ledger, pressure));
    let table = consumer(&kept, "temporary table", false);
    assert!(
        table.try_grow(4_801).is_err(),
        "a quarter stays for queries"
    );
    table.try_grow(3_200).unwrap();
    assert_eq!(rig.ledger.lock().queries(), 0, "it is no query");
    let query = rig.query();
    let join = consumer(&query, "join", false);
    assert!(join.try_grow(2_401).is_err());
    join.try_grow(2_400).unwrap();
    assert!(table.try_grow(801).is_err(), "what is left is less");
    table.try_grow(800).unwrap();
    rig.pressure.store(true, Ordering::Release);
    assert!(table.try_grow(1).is_err());
    drop(table);
    assert_eq!(kept.reserved(), 0);
}

#[test]
fn a_server_short_of_memory_still_takes_what_is_small() {
    let rig = Rig::new();
    let pressure = Arc::clone(&rig.pressure);
    let pool: Arc<dyn MemoryPool> = Arc::new(KeptPool::new(&rig.ledger, pressure));
    let kept = Kept::from(consumer(&pool, "rows", false));
    kept.grow(FREE_BYTES + 700).unwrap();
    assert_eq!(pool.reserved(), 700);
    kept.grow(100).unwrap();
    assert!(kept.grow(1 << 20).is_err());
    assert_eq!(pool.reserved(), 800, "what was taken stays");
    rig.pressure.store(true, Ordering::Release);
    assert!(kept.grow(1).is_err());
    kept.resize(FREE_BYTES).unwrap();
    assert_eq!(pool.reserved(), 0);
    kept.resize(0).unwrap();
    kept.grow(1).unwrap();
    drop(kept);
    assert_eq!(pool.reserved(), 0);
}

/// With the thread that looks: it sees that this process is larger than one byte.
#[tokio::test]
async fn short_of_memory_a_query_begins_only_alone() {
    let memory = Memory::new(GRANTED, 1).unwrap();
    let state = SessionContext::new().state();
    let seen = async {
        while !memory.watch.is_short() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.expect("the thread looks");
    let alone = memory.context(&state).expect("nobody else runs");
    let refused = memory.context(&state).expect_err("somebody runs");
    assert_eq!(refused.kind, Kind::ResourceExhausted);
    assert!(refused.message.contains("short of memory"), "{refused}");
    let ended = super::given_up(&alone).await;
    assert_eq!(ended.kind, Kind::ResourceExhausted);
    assert!(ended.message.contains("given up"), "{ended}");
    drop(alone);
    memory.context(&state).expect("nobody else runs any more");
}
