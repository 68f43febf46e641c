//! Many clients at once that read, travel in time, join spines they upload, write, sort beyond memory, cancel and break off: no
//! answer may differ from what arithmetic says, and nothing may be left of it.
//!
//! `FEATUREFLIGHT_LOAD=64x60` is 64 clients for a minute, `FEATUREFLIGHT_LOAD_RESULT` a file for what was seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, CancelFlightInfoRequest};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::{Code, Status};

use super::child::{Child, Client, flight_status};

/// What is left of a load may differ by this much.
const SLACK_FILES: usize = 4;
const SLACK_THREADS: usize = 2;
const SLACK_TASKS: usize = 2;
const SLACK_BYTES: u64 = 256 << 20;

/// Idle threads of the runtime's pool end after ten seconds.
const IDLE_THREADS: Duration = Duration::from_secs(11);

/// From a cancel to the end of the call, in a build without optimization under load.
const MOST_PATIENCE: Duration = Duration::from_secs(20);

/// Every device has a reading at the beginning of each of these hours of a day: its number times a
/// thousand, and the hour.
const DEVICES: i64 = 300;
const HOURS: i64 = 24;
/// Those before this hour are known at the first cut.
const FIRST_HOURS: i64 = 12;
/// 2026-01-01.
const DAY: i64 = 1_767_225_600;

/// Numbers sorted as text.
static SORTED: LazyLock<Vec<i64>> = LazyLock::new(|| {
    let mut numbers: Vec<i64> = (0..200_000).collect();
    numbers.sort_by_cached_key(ToString::to_string);
    numbers
});

/// Of clients, who write each to a record of their own.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

fn reading(device: i64, hour: i64) -> i64 {
    device * 1000 + hour
}

/// Of all devices at one hour.
fn sum_at(hour: i64) -> i64 {
    (0..DEVICES).map(|device| reading(device, hour)).sum()
}

/// What a client does in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    State,
    Lookup,
    ValidTime,
    SystemTime,
    SessionClock,
    Join,
    Slices,
    Failure,
    Write,
    Sort,
    Cancel,
    BreakOff,
}

/// Each with its share of the turns.
const DEEDS: [(Deed, u32); 12] = [
    (Deed::State, 10),
    (Deed::Lookup, 20),
    (Deed::ValidTime, 10),
    (Deed::SystemTime, 10),
    (Deed::SessionClock, 5),
    (Deed::Join, 15),
    (Deed::Slices, 5),
    (Deed::Failure, 5),
    (Deed::Write, 10),
    (Deed::Sort, 3),
    (Deed::Cancel, 3),
    (Deed::BreakOff, 4),
];

fn drawn(random: &mut StdRng) -> Deed {
    let all = DEEDS.iter().map(|(_, share)| share).sum();
    let mut place = random.random_range(0..all);
    for (deed, share) in DEEDS {
        if place < share {
            return deed;
        }
        place -= share;
    }
    unreachable!("shares are drawn from their sum")
}

/// What became of a load.
#[derive(Debug, Default)]
struct Tally {
    done: BTreeMap<Deed, u64>,
    /// For want of memory, which sorts are made to be; a join beside them may be, now and then.
    refused: BTreeMap<Deed, u64>,
    written: i64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.done, &other.done),
            (&mut self.refused, &other.refused),
        ] {
            for (deed, count) in theirs {
                *mine.entry(*deed).or_default() += count;
            }
        }
        self.written += other.written;
    }

    fn answers(&self) -> u64 {
        self.done.values().sum()
    }

    fn refused(&self, deed: Deed) -> u64 {
        self.refused.get(&deed).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Footprint {
    bytes: u64,
    threads: usize,
    tasks: usize,
    open_files: usize,
    spill_files: usize,
}

impl Footprint {
    fn of(child: &Child) -> Self {
        Self {
            bytes: child.resident_bytes(),
            threads: child.threads(),
            tasks: child.tasks(),
            open_files: child.open_files(),
            spill_files: child.spill_files(),
        }
    }

    fn json(self) -> serde_json::Value {
        serde_json::json!({
            "memory in MiB": self.bytes >> 20, "threads": self.threads, "tasks": self.tasks,
            "open files": self.open_files, "spill files": self.spill_files,
        })
    }
}

/// By default a few seconds of some clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_leaves_nothing_behind_and_no_answer_is_wrong() {
    let load = std::env::var("FEATUREFLIGHT_LOAD").unwrap_or_else(|_| "16x8".into());
    let (clients, seconds) = load.split_once('x').unwrap();
    let (clients, seconds): (usize, u64) = (clients.parse().unwrap(), seconds.parse().unwrap());
    let mut child = Child::start_owner(&[
        ("ENGINE__MEMORY_LIMIT", "256MiB"),
        ("ENGINE__MAX_QUEUED_QUERIES", "512"),
        ("OFFLINE__MAX_AGE", "2s"),
        // All clients are at one address, and some have a second connection for a while.
        ("SERVER__MAX_CONNECTIONS_PER_ADDRESS", "512"),
    ]);
    let cut = fill(&child).await;
    // What a load makes once and keeps: caches, threads, the allocator's heaps.
    let warm_up = Duration::from_secs((seconds / 6).max(3));
    let mut written = run(&child, &cut, clients, warm_up).await.written;
    tokio::time::sleep(IDLE_THREADS).await;
    let before = Footprint::of(&child);
    child.forget_peak();

    let most_spilled = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let watch = async {
        while !over.load(Ordering::Relaxed) {
            most_spilled.fetch_max(child.spill_files(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let load = async {
        let tally = run(&child, &cut, clients, Duration::from_secs(seconds)).await;
        over.store(true, Ordering::Relaxed);
        tally
    };
    let (tally, ()) = futures::join!(load, watch);
    written += tally.written;
    child.assert_well("the load").await;
    let peak = child.peak_bytes();
    // Tasks come last: asking for them wakes idle threads, which then live on for a while.
    let kept: [&dyn Fn() -> bool; 3] = [
        &|| child.open_files() > before.open_files,
        &|| child.threads() > before.threads,
        &|| child.tasks() > before.tasks,
    ];
    for kept in kept {
        let patience = Instant::now() + Duration::from_secs(30);
        while kept() && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let after = Footprint::of(&child);
    let most_spilled = most_spilled.into_inner();
    let result = serde_json::json!({
        "clients": clients, "seconds": seconds, "answers": tally.answers(), "wrong answers": 0, "sorts refused for want of memory": tally.refused(Deed::Sort),
        "joins refused for want of memory": tally.refused(Deed::Join),
        "by kind": tally.done.iter().map(|(deed, count)| (format!("{deed:?}"), *count)).collect::<BTreeMap<_, _>>(),
        "rows written and found": tally.written, "most spill files": most_spilled, "peak memory in MiB": peak >> 20,
        "before": before.json(), "after": after.json(),
    });
    println!("{result:#}");

    let mut client = child.connect().await;
    let marks = "SELECT count(*) AS n, count(DISTINCT id || ' ' || turn) AS d FROM history.marks";
    let marks = client.batches(marks).await.unwrap();
    assert_eq!(
        (only(&marks, "n"), only(&marks, "d")),
        (written, written),
        "every acknowledged row once"
    );
    let running = "SELECT count(*) AS n FROM system.queries WHERE state = 'running'";
    assert_eq!(
        only(&client.batches(running).await.unwrap(), "n"),
        0,
        "a query runs on"
    );
    // A short load may draw few sorts, and have room for none of them.
    for (deed, _) in DEEDS.iter().filter(|(deed, _)| *deed != Deed::Sort) {
        assert!(tally.done.contains_key(deed), "no {deed:?} in {tally:?}");
    }
    let joined = tally.done.get(&Deed::Join).copied().unwrap_or_default();
    assert!(
        tally.refused(Deed::Join) <= 1 + joined / 100,
        "joins starve: {tally:?}"
    );
    assert!(most_spilled > 1, "nothing spilled");
    let kept = |before: usize, after: usize, slack: usize| after <= before + slack;
    assert!(
        kept(before.open_files, after.open_files, SLACK_FILES),
        "{before:?} -> {after:?}: {:#?}",
        child.open_paths()
    );
    assert!(
        kept(before.threads, after.threads, SLACK_THREADS),
        "{before:?} -> {after:?}: {:?}",
        child.thread_names()
    );
    assert!(
        kept(before.tasks, after.tasks, SLACK_TASKS),
        "{before:?} -> {after:?}"
    );
    assert!(
        after.bytes <= before.bytes + SLACK_BYTES,
        "{before:?} -> {after:?}"
    );
    assert!(after.spill_files <= 1, "only the lock is left: {after:?}");
    if let Ok(path) = std::env::var("FEATUREFLIGHT_LOAD_RESULT") {
        std::fs::write(path, result.to_string()).unwrap();
    }
}

/// Writes the readings, in two parts; returns a time between them.
async fn fill(child: &Child) -> String {
    let mut client = child.connect().await;
    for sql in [
        "CREATE TABLE readings (device VARCHAR, at TIMESTAMP, value BIGINT, PRIMARY KEY (device)) WITH (event_time = 'at')",
        "CREATE TABLE marks (id VARCHAR, at TIMESTAMP, turn BIGINT, PRIMARY KEY (id)) WITH (event_time = 'at')",
    ] {
        client.0.execute_update(sql.to_owned(), None).await.unwrap();
    }
    let mut part = async |hours: std::ops::Range<i64>| {
        let (first, rows) = (hours.start, (hours.end - hours.start) * DEVICES);
        let insert = format!(
            "INSERT INTO readings SELECT 'd-' || (value % {DEVICES}), to_timestamp_seconds({DAY} + 3600 * ({first} + value / {DEVICES})), \
             value % {DEVICES} * 1000 + {first} + value / {DEVICES} FROM range({rows})"
        );
        assert_eq!(client.0.execute_update(insert, None).await.unwrap(), rows);
    };
    part(0..FIRST_HOURS).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cut = chrono::Utc::now().to_rfc3339();
    tokio::time::sleep(Duration::from_secs(1)).await;
    part(FIRST_HOURS..HOURS).await;
    cut
}

/// Clients at once, for `time`.
async fn run(child: &Child, cut: &str, clients: usize, time: Duration) -> Tally {
    let until = Instant::now() + time;
    let all = (0..clients).map(|_| async {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let mut visitor = Visitor {
            child,
            cut,
            client: child.connect().await,
            random: StdRng::seed_from_u64(number),
            number,
            tally: Tally::default(),
        };
        while Instant::now() < until {
            let deed = drawn(&mut visitor.random);
            match visitor.carry_out(deed).await {
                Ok(()) => *visitor.tally.done.entry(deed).or_default() += 1,
                Err(status)
                    if matches!(deed, Deed::Sort | Deed::Join)
                        && status.code() == Code::ResourceExhausted =>
                {
                    *visitor.tally.refused.entry(deed).or_default() += 1;
                }
                Err(status) => panic!("{deed:?}: {status}"),
            }
        }
        visitor.tally
    });
    let mut total = Tally::default();
    for tally in futures::future::join_all(all).await {
        total.add(&tally);
    }
    total
}

/// One client of the load.
struct Visitor<'a> {
    child: &'a Child,
    cut: &'a str,
    client: Client,
    random: StdRng,
    number: u64,
    tally: Tally,
}

impl Visitor<'_> {
    async fn carry_out(&mut self, deed: Deed) -> Result<(), Status> {
        match deed {
            Deed::State => self.state().await,
            Deed::Lookup => self.lookup().await,
            Deed::ValidTime => self.valid_time().await,
            Deed::SystemTime => self.system_time().await,
            Deed::SessionClock => self.session_clock().await,
            Deed::Join => self.join().await,
            Deed::Slices => self.slices().await,
            Deed::Failure => self.failure().await,
            Deed::Write => self.write().await,
            Deed::Sort => self.sort().await,
            Deed::Cancel => self.cancel().await,
            Deed::BreakOff => self.break_off().await,
        }
    }

    /// The one number of a query.
    async fn number(&mut self, sql: &str) -> Result<i64, Status> {
        Ok(only(&self.client.batches(sql).await?, "n"))
    }

    async fn state(&mut self) -> Result<(), Status> {
        let batches = self
            .client
            .batches("SELECT count(*) AS n, sum(value) AS s FROM readings")
            .await?;
        assert_eq!(
            (only(&batches, "n"), only(&batches, "s")),
            (DEVICES, sum_at(HOURS - 1))
        );
        Ok(())
    }

    /// A prepared statement, with a device that is there and one that is not.
    async fn lookup(&mut self) -> Result<(), Status> {
        let device = self.random.random_range(0..DEVICES + 20);
        let sql = "SELECT value AS n FROM readings WHERE device = ?";
        let mut prepared = self
            .client
            .0
            .prepare(sql.to_owned(), None)
            .await
            .map_err(flight_status)?;
        let name = StringArray::from(vec![format!("d-{device}")]);
        let bound = RecordBatch::try_from_iter([("device", Arc::new(name) as _)]).unwrap();
        prepared.set_parameters(bound).map_err(flight_status)?;
        let info = prepared.execute().await.map_err(flight_status)?;
        let batches = self.client.fetch(&info).await?;
        let expected = (device < DEVICES).then(|| Some(reading(device, HOURS - 1)));
        assert_eq!(
            column(&batches, "n"),
            expected.into_iter().collect::<Vec<_>>()
        );
        prepared.close().await.map_err(flight_status)
    }

    async fn valid_time(&mut self) -> Result<(), Status> {
        let hour = self.random.random_range(0..HOURS);
        let sql = format!(
            "SELECT sum(value) AS n FROM readings FOR VALID_TIME AS OF '2026-01-01T{hour:02}:59:59.999Z'"
        );
        assert_eq!(self.number(&sql).await?, sum_at(hour));
        Ok(())
    }

    async fn system_time(&mut self) -> Result<(), Status> {
        let sql = format!(
            "SELECT sum(value) AS n FROM readings FOR SYSTEM_TIME AS OF '{}'",
            self.cut
        );
        assert_eq!(self.number(&sql).await?, sum_at(FIRST_HOURS - 1));
        Ok(())
    }

    async fn session_clock(&mut self) -> Result<(), Status> {
        let hour = self.random.random_range(0..HOURS);
        let set = format!("SET featureflight.valid_time = '2026-01-01T{hour:02}:30:00Z'");
        self.client.rows(&set).await?;
        let found = self.number("SELECT sum(value) AS n FROM readings").await;
        self.client.rows("RESET featureflight.valid_time").await?;
        assert_eq!(found?, sum_at(hour));
        Ok(())
    }

    /// A point-in-time join with an uploaded spine: times before the first reading, on a reading and
    /// between two, and devices that are not there.
    async fn join(&mut self) -> Result<(), Status> {
        let spine: Vec<(i64, i64)> = (0..self.random.random_range(1..400))
            .map(|_| {
                (
                    self.random.random_range(0..DEVICES + 5),
                    self.random.random_range(-3600..3600 * HOURS),
                )
            })
            .collect();
        let devices =
            StringArray::from_iter_values(spine.iter().map(|(device, _)| format!("d-{device}")));
        let times = TimestampMicrosecondArray::from_iter_values(
            spine.iter().map(|(_, second)| (DAY + second) * 1_000_000),
        );
        let count = i64::try_from(spine.len()).unwrap();
        let labels = Int64Array::from_iter_values(0..count);
        let rows = RecordBatch::try_from_iter([
            ("device", Arc::new(devices) as _),
            ("ts", Arc::new(times.with_timezone("UTC")) as _),
            ("label", Arc::new(labels) as _),
        ])
        .unwrap();
        let upload = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Create.into(),
                if_exists: TableExistsOption::Replace.into(),
            }),
            table: "spine".to_owned(),
            temporary: true,
            ..CommandStatementIngest::default()
        };
        let uploaded = self
            .client
            .0
            .execute_ingest(upload, futures::stream::iter([Ok(rows)]))
            .await;
        assert_eq!(uploaded.map_err(flight_status)?, count);
        let sql = "SELECT label, value FROM point_in_time_join(TABLE(spine), 'readings:value') ORDER BY label";
        let batches = self.client.batches(sql).await?;
        let expected = |&(device, second): &(i64, i64)| {
            (device < DEVICES && second >= 0).then(|| reading(device, second / 3600))
        };
        assert_eq!(
            column(&batches, "value"),
            spine.iter().map(expected).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// All versions, through several endpoints.
    async fn slices(&mut self) -> Result<(), Status> {
        self.client.rows("SET featureflight.endpoints = 3").await?;
        let found = self.sliced().await;
        self.client.rows("RESET featureflight.endpoints").await?;
        let mut values = found?;
        values.sort_unstable();
        let expected =
            (0..DEVICES).flat_map(|device| (0..HOURS).map(move |hour| Some(reading(device, hour))));
        assert_eq!(values, expected.collect::<Vec<_>>());
        Ok(())
    }

    async fn sliced(&mut self) -> Result<Vec<Option<i64>>, Status> {
        let sql = "SELECT value FROM history.readings";
        let info = self
            .client
            .0
            .execute(sql.to_owned(), None)
            .await
            .map_err(flight_status)?;
        let mut values = Vec::new();
        for endpoint in &info.endpoint {
            let batches = self
                .client
                .fetch_ticket(endpoint.ticket.clone().unwrap())
                .await?;
            values.extend(column(&batches, "value"));
        }
        Ok(values)
    }

    /// Fails in its last row: an error, never what came before it.
    async fn failure(&mut self) -> Result<(), Status> {
        let answer = self
            .client
            .batches("SELECT 1 / (19999 - value) AS n FROM range(20000)")
            .await;
        let status = answer.expect_err("a stream that failed is a result");
        match status.code() {
            Code::InvalidArgument => Ok(()),
            _ => Err(status),
        }
    }

    /// A row that is there as soon as it is acknowledged.
    async fn write(&mut self) -> Result<(), Status> {
        let (number, turn) = (self.number, self.tally.written);
        let insert = format!(
            "INSERT INTO marks VALUES ('c-{number}', to_timestamp_seconds({DAY} + {turn}), {turn})"
        );
        let count = self
            .client
            .0
            .execute_update(insert, None)
            .await
            .map_err(flight_status)?;
        assert_eq!(count, 1);
        self.tally.written += 1;
        let sql = format!("SELECT turn AS n FROM marks WHERE id = 'c-{number}'");
        assert_eq!(self.number(&sql).await?, turn);
        Ok(())
    }

    /// More than fits into memory.
    async fn sort(&mut self) -> Result<(), Status> {
        let count = SORTED.len();
        let sql = format!(
            "SELECT value, repeat('x', 300) || value AS text FROM range({count}) ORDER BY text"
        );
        let batches = self.client.batches(&sql).await?;
        let values: Vec<i64> = column(&batches, "value").into_iter().flatten().collect();
        assert!(values == *SORTED, "{} rows, or out of order", values.len());
        Ok(())
    }

    /// Cancelled while it waits for its turn or computes.
    async fn cancel(&mut self) -> Result<(), Status> {
        let sql = "SELECT count(*) AS n FROM range(1000000) a CROSS JOIN range(1000000) b";
        let info = self
            .client
            .0
            .execute(sql.to_owned(), None)
            .await
            .map_err(flight_status)?;
        let mut canceller = self.client.clone();
        let request = CancelFlightInfoRequest {
            info: Some(info.clone()),
        };
        let pause = Duration::from_millis(self.random.random_range(0..300));
        let cancel = async {
            tokio::time::sleep(pause).await;
            let action = Action::new("CancelFlightInfo", request.encode_to_vec());
            let results = canceller.0.inner_mut().do_action(action).await?;
            results.into_inner().try_collect::<Vec<_>>().await
        };
        let both = async { futures::join!(self.client.fetch(&info), cancel) };
        let Ok((answer, cancelled)) = tokio::time::timeout(MOST_PATIENCE, both).await else {
            panic!("a cancelled query goes on");
        };
        cancelled?;
        let status = answer.expect_err("a cancelled query has an answer");
        match status.code() {
            Code::Cancelled => Ok(()),
            _ => Err(status),
        }
    }

    /// A connection of its own that ends in the middle of a result, with rows unread.
    async fn break_off(&mut self) -> Result<(), Status> {
        let mut leaver = self.child.connect().await;
        let sql = "SELECT value, repeat('x', 100) AS text FROM range(10000000)";
        let info = leaver
            .0
            .execute(sql.to_owned(), None)
            .await
            .map_err(flight_status)?;
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let mut stream = leaver.0.do_get(ticket).await.map_err(flight_status)?;
        let first = stream.next().await;
        drop(leaver);
        drop(stream);
        first.map_or(Ok(()), |first| first.map(drop).map_err(flight_status))
    }
}

/// A column of numbers, whatever their width.
fn column(batches: &[RecordBatch], name: &str) -> Vec<Option<i64>> {
    let wide =
        |batch: &RecordBatch| cast(batch.column_by_name(name).unwrap(), &DataType::Int64).unwrap();
    let wide: Vec<_> = batches.iter().map(wide).collect();
    wide.iter()
        .flat_map(AsArray::as_primitive::<Int64Type>)
        .collect()
}

fn only(batches: &[RecordBatch], name: &str) -> i64 {
    match column(batches, name).as_slice() {
        [Some(number)] => *number,
        other => panic!("{name} is {other:?}"),
    }
}
