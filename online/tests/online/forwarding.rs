//! The forwarder between an outbox and a scripted SageMaker runtime: what is online in the end is
//! what the model says, whatever went wrong on the way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use featureflight_catalog::Result;
use featureflight_online::forward::{ForwardOptions, Forwarder, Router};
use featureflight_online::outbox::{Outbox, OutboxOptions, Stage, Stages};
use featureflight_online::record::Operation;
use featureflight_online::store::OnlineStore;
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_online::validate::Refusals;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::model::{Model, Write};
use crate::fake_runtime::{FakeRuntime, Faults};

/// One store for every group.
#[derive(Debug)]
pub(super) struct Everything(pub(super) Arc<dyn OnlineStore>);

#[async_trait]
impl Router for Everything {
    async fn store(&self, _group: &str) -> Result<Arc<dyn OnlineStore>> {
        Ok(Arc::clone(&self.0))
    }
}

fn quick() -> ForwardOptions {
    ForwardOptions {
        backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(100),
        denied_wait: Duration::from_millis(200),
        poison_attempts: 20,
        ..ForwardOptions::default()
    }
}

struct Setup {
    fake: FakeRuntime,
    outbox: Arc<Outbox>,
    forwarder: Forwarder,
    dir: TempDir,
}

impl Setup {
    async fn start(faults: Faults) -> Self {
        let fake = FakeRuntime::start().await;
        fake.add_group("orders", "id", "ts");
        fake.add_group("returns", "id", "ts");
        fake.set_faults(faults);
        let dir = TempDir::new().unwrap();
        let options = OutboxOptions {
            reserve_bytes: 0,
            ..OutboxOptions::default()
        };
        let outbox = Arc::new(Outbox::open(dir.path(), options).unwrap());
        let store = SageMakerStore::new(&fake.sdk_config(), Duration::from_millis(300), 32);
        let router = Arc::new(Everything(Arc::new(store)));
        let forwarder = Forwarder::start(Arc::clone(&outbox), router, quick());
        Self {
            fake,
            outbox,
            forwarder,
            dir,
        }
    }

    async fn write(&self, group: &str, writes: &[Write]) {
        let stages = Stages {
            online: true,
            offline: false,
        };
        let mut draft = self.outbox.draft(stages);
        for write in writes {
            draft.push(&write.block(group)).await.unwrap();
        }
        draft.commit(Refusals::default()).await.unwrap();
    }

    fn left(&self) -> u64 {
        self.outbox
            .progress()
            .groups
            .values()
            .map(|group| group.online_rows)
            .sum()
    }

    /// Until nothing is pending; panics after a minute.
    async fn drained(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.left() > 0 {
            assert!(
                Instant::now() < end,
                "{} left: {:?}",
                self.left(),
                self.forwarder.status()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn assert_is(&self, group: &str, identifier: &str, expected: Option<(i64, i64)>) {
        let stored = self.fake.online(group, identifier);
        let found = stored.and_then(|record| {
            let value = record.values?.get("v").unwrap().parse().unwrap();
            Some((record.event_time.micros / 1_000_000, value))
        });
        assert_eq!(found, expected, "{identifier}");
    }
}

/// Writes in the order of acceptance, requests of one to five of them.
async fn write_random(setup: &Setup, count: i64, identifiers: u32) -> Vec<Write> {
    let mut random = StdRng::seed_from_u64(3);
    let writes: Vec<Write> = (0..count)
        .map(|value| {
            let mut write = Write::random(&mut random, identifiers, value);
            // A hard delete forgets its time: sent again after newer rows it must not be the last.
            if write.operation == Operation::HardDelete {
                write.operation = Operation::SoftDelete;
            }
            write
        })
        .collect();
    for (at, chunk) in writes.chunks(5).enumerate() {
        setup
            .write(if at % 2 == 0 { "orders" } else { "returns" }, chunk)
            .await;
    }
    writes
}

fn of_group<'a>(writes: &'a [Write], group: &str) -> Vec<&'a Write> {
    let parity = usize::from(group == "returns");
    let chunks = writes
        .chunks(5)
        .enumerate()
        .filter(|(at, _)| at % 2 == parity);
    chunks.flat_map(|(_, chunk)| chunk).collect()
}

/// Online is what the model says; offline has every row, per identifier in order of acceptance when
/// repeats are left out.
fn assert_end(setup: &Setup, writes: &[Write], identifiers: u32) {
    for group in ["orders", "returns"] {
        let writes = of_group(writes, group);
        let mut model = Model::default();
        let mut accepted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for write in &writes {
            model.apply(write);
            let row = format!(
                "{} {} {}",
                write.time,
                write.operation.is_delete(),
                write.value
            );
            accepted.entry(&write.identifier).or_default().push(row);
        }
        for at in 0..identifiers {
            let identifier = format!("id/{at}");
            setup.assert_is(group, &identifier, model.read(&identifier));
        }
        let mut carried_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in setup
            .fake
            .offline()
            .into_iter()
            .filter(|row| row.group == group)
        {
            let value = row.values.get("v").cloned();
            let time = row.event_time.micros / 1_000_000;
            // Deletes carry no value: those of the model are told apart by time alone.
            let line = format!("{time} {} {}", row.is_deleted, value.unwrap_or_default());
            let lines = carried_out.entry(row.identifier).or_default();
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
        for (identifier, rows) in accepted {
            let mut rows: Vec<String> = rows
                .into_iter()
                .map(|row| match row.split_once(" true ") {
                    Some((time, _)) => format!("{time} true "),
                    None => row,
                })
                .collect();
            rows.dedup();
            assert_eq!(carried_out[identifier], rows, "{group} {identifier}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_the_end_is_the_models() {
    let setup = Setup::start(Faults {
        throttled: 0.15,
        failed: 0.1,
        unanswered: 0.03,
        broken: 0.05,
        unprocessed: 0.1,
        entry_failed: 0.05,
        ..Faults::default()
    })
    .await;
    let writes = write_random(&setup, 3_000, 150).await;
    setup.drained().await;
    assert_end(&setup, &writes, 150);
    assert_eq!(setup.outbox.quarantine_size().unwrap(), 0);
    let retried: u64 = setup
        .forwarder
        .status()
        .values()
        .map(|lane| lane.retried)
        .sum();
    assert!(retried > 100, "the faults were met {retried} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_goes_aside_and_holds_up_nobody() {
    let refused: HashSet<String> = (0..5).map(|at| format!("id/{at}")).collect();
    let crashing: HashSet<String> = (5..8).map(|at| format!("id/{at}")).collect();
    let setup = Setup::start(Faults {
        poison: refused,
        crashing,
        ..Faults::default()
    })
    .await;
    let writes: Vec<Write> = (0..400)
        .map(|at| Write::put(&format!("id/{at}"), 5, at))
        .collect();
    setup.write("orders", &writes).await;
    setup.drained().await;
    for at in 8..400 {
        setup.assert_is("orders", &format!("id/{at}"), Some((5, at)));
    }
    let aside = setup.outbox.quarantined(100).unwrap();
    let mut names: Vec<_> = aside
        .iter()
        .map(|record| record.identifier.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        (0..8).map(|at| format!("id/{at}")).collect::<Vec<_>>()
    );
    for record in &aside {
        let number: usize = record.identifier[3..].parse().unwrap();
        if number < 5 {
            assert!(
                record.reason.starts_with("ValidationError:"),
                "{}",
                record.reason
            );
        } else {
            assert!(
                record.reason.contains("while it took others"),
                "{}",
                record.reason
            );
            assert!(record.attempts >= 20);
        }
    }

    // What was mended is sent again.
    setup.fake.set_faults(Faults::default());
    for record in &aside {
        setup.outbox.redrive(record.id).await.unwrap();
    }
    setup.drained().await;
    for at in 0..8 {
        setup.assert_is("orders", &format!("id/{at}"), Some((5, at)));
    }
    assert_eq!(setup.outbox.quarantine_size().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_nothing_and_is_asked_about_seldom() {
    let setup = Setup::start(Faults {
        away: true,
        ..Faults::default()
    })
    .await;
    let writes = write_random(&setup, 1_000, 100).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = setup.fake.all_calls();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let during = setup.fake.all_calls() - before;
    // A few at once, each after a wait of 50 to 100 ms; thousands would come without waits.
    assert!(
        (1..100).contains(&during),
        "{during} calls in a second of an outage"
    );
    assert_eq!(setup.left(), 1_000, "accepted meanwhile, and kept");
    let status = &setup.forwarder.status()["orders"];
    assert!(
        status
            .trouble
            .as_deref()
            .unwrap()
            .contains("ServiceUnavailable"),
        "{status:?}"
    );
    setup.fake.set_faults(Faults::default());
    setup.drained().await;
    assert_end(&setup, &writes, 100);
    assert_eq!(setup.outbox.quarantine_size().unwrap(), 0);
    assert_eq!(setup.forwarder.status()["orders"].trouble, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_credentials_pause_and_quarantine_nothing() {
    let setup = Setup::start(Faults {
        credentials_expired: true,
        ..Faults::default()
    })
    .await;
    let writes = write_random(&setup, 300, 50).await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(
        (setup.left(), setup.outbox.quarantine_size().unwrap()),
        (300, 0)
    );
    let status = &setup.forwarder.status()["orders"];
    assert!(
        status.trouble.as_deref().unwrap().contains("ExpiredToken"),
        "{status:?}"
    );
    setup.fake.set_faults(Faults::default());
    setup.drained().await;
    assert_end(&setup, &writes, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttling_slows_down_and_ends_well() {
    let setup = Setup::start(Faults {
        throttled: 0.5,
        ..Faults::default()
    })
    .await;
    let writes = write_random(&setup, 1_000, 100).await;
    setup.drained().await;
    assert_end(&setup, &writes, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_forwarder_goes_on_where_it_was() {
    let setup = Setup::start(Faults::default()).await;
    let writes = write_random(&setup, 1_000, 100).await;
    let Setup {
        fake,
        outbox,
        forwarder,
        dir,
    } = setup;
    forwarder.stop().await;
    let calls = fake.all_calls();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fake.all_calls(), calls, "nothing is sent any more");
    let store = SageMakerStore::new(&fake.sdk_config(), Duration::from_millis(300), 32);
    let router = Arc::new(Everything(Arc::new(store)));
    let setup = Setup {
        forwarder: Forwarder::start(Arc::clone(&outbox), router, quick()),
        fake,
        outbox,
        dir,
    };
    setup.drained().await;
    assert_end(&setup, &writes, 100);
    assert!(setup.outbox.pending_groups(Stage::Online).is_empty());
}

#[tokio::test]
async fn a_hard_delete_that_is_overtaken_is_seen() {
    let setup = Setup::start(Faults::default()).await;
    setup.write("orders", &[Write::put("a", 10, 1)]).await;
    setup.drained().await;
    let late = Write {
        operation: Operation::HardDelete,
        ..Write::put("a", 5, 0)
    };
    setup.write("orders", &[late]).await;
    setup.drained().await;
    let aside = setup.outbox.quarantined(10).unwrap();
    assert_eq!(aside.len(), 1);
    assert!(
        aside[0].reason.contains("later than"),
        "{}",
        aside[0].reason
    );
    setup.assert_is("orders", "a", Some((10, 1)));
}
