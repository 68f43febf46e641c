//! `/metrics`, in OpenMetrics' text, which Prometheus and those that follow it read.
//!
//! Counts are kept where things happen, by the engine, the outbox and the calls; they get their
//! names here. What has a value at every moment is asked for at every scrape. No label is unbounded:
//! none names a feature group, a session or a statement, and no value of a feature is in here.

use std::collections::BTreeMap;
use std::fmt::Error as Broken;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use featureflight_catalog::Instant;
use featureflight_online::forward::LaneStatus;
use featureflight_online::gateway::Gateway;
use featureflight_online::outbox::Durability;
use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

use super::{Answer, Serving, TEXT, Watched, text as plain, typed};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry, and the right to read it: one scrape at a time, so that impatient ones cost nothing.
#[derive(Debug)]
pub(super) struct Metrics(Mutex<Registry>);

pub(super) async fn answer(serving: Arc<OnceLock<Serving>>) -> Answer {
    let scrape = move || {
        let Some(Serving { metrics, .. }) = serving.get() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned());
        };
        match metrics.text() {
            Ok(body) => typed(StatusCode::OK, OPEN_METRICS, body),
            Err(Broken) => failed(),
        }
    };
    // It reads files and takes locks that writers hold.
    tokio::task::spawn_blocking(scrape)
        .await
        .unwrap_or_else(|_| failed())
}

fn failed() -> Answer {
    let what = "the metrics cannot be written; the server's log says more\n";
    typed(StatusCode::INTERNAL_SERVER_ERROR, TEXT, what.to_owned())
}

impl Metrics {
    pub(super) fn new(watched: &Watched) -> Self {
        let mut registry = Registry::with_prefix("featureflight");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The server's version", version);
        register_engine(&mut registry, watched);
        if let Some(gateway) = watched.engine.gateway() {
            register_outbox(&mut registry, gateway);
            registry.register_collector(Box::new(WritesNow(Arc::clone(gateway))));
        }
        registry.register_collector(Box::new(Now(watched.clone())));
        Self(Mutex::new(registry))
    }

    fn text(&self) -> Result<String, Broken> {
        let mut out = String::new();
        text::encode(&mut out, &self.0.lock())?;
        Ok(out)
    }
}

fn register_engine(registry: &mut Registry, watched: &Watched) {
    let figures = watched.engine.figures();
    registry.register(
        "statements",
        "Statements that ended, by what they were for and what they came to",
        figures.ended.clone(),
    );
    registry.register_with_unit(
        "statement_duration",
        "Planning, waiting and running of statements",
        Unit::Seconds,
        figures.seconds.clone(),
    );
    registry.register(
        "result_rows",
        "Rows of query results that were read",
        figures.rows.clone(),
    );
    registry.register_with_unit(
        "result",
        "Query results that were read, before encoding",
        Unit::Bytes,
        figures.bytes.clone(),
    );
    registry.register(
        "calls",
        "gRPC calls that ended, by RPC and status",
        watched.calls.ended().clone(),
    );
}

fn register_outbox(registry: &mut Registry, gateway: &Gateway) {
    let figures = gateway.outbox.figures();
    registry.register(
        "writes_acknowledged",
        "Requests to write that were acknowledged",
        figures.acknowledged.clone(),
    );
    registry.register(
        "write_rows_acknowledged",
        "Rows that were acknowledged",
        figures.acknowledged_rows.clone(),
    );
    registry.register(
        "write_rows_refused",
        "Rows that validation refused",
        figures.refused_rows.clone(),
    );
    registry.register(
        "writes_repeated",
        "Requests that repeated an idempotency key and got the first answer",
        figures.repeated.clone(),
    );
    registry.register_with_unit(
        "outbox_acknowledge_duration",
        "From a request's last row to its acknowledgement",
        Unit::Seconds,
        figures.acknowledge_seconds.clone(),
    );
    registry.register_with_unit(
        "outbox_fsync_duration",
        "Bringing the outbox to disk",
        Unit::Seconds,
        figures.fsync_seconds.clone(),
    );
}

/// Writes what has one value at this moment.
struct Gauges<'a>(DescriptorEncoder<'a>);

impl Gauges<'_> {
    fn number(&mut self, name: &str, help: &str, value: usize) -> Result<(), Broken> {
        self.gauge(name, help, None, value as f64)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> Result<(), Broken> {
        self.gauge(name, help, Some(&Unit::Bytes), value as f64)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> Result<(), Broken> {
        self.gauge(name, help, Some(&Unit::Seconds), value)
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: f64,
    ) -> Result<(), Broken> {
        let gauge = ConstGauge::new(value);
        let encoder = self
            .0
            .encode_descriptor(name, help, unit, gauge.metric_type())?;
        gauge.encode(encoder)
    }

    /// One gauge for each value of a label.
    fn labelled(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> Result<(), Broken> {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (value, number) in values {
            let labels = [(label, value)];
            ConstGauge::new(number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// The server, its engine and its catalog at the moment of a scrape.
#[derive(Debug)]
struct Now(Watched);

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Broken> {
        let mut gauges = Gauges(encoder);
        let Watched {
            engine,
            calls,
            sessions,
            connections,
            max_connections,
        } = &self.0;
        let status = engine.status();
        let open = max_connections.saturating_sub(connections.available_permits());
        gauges.number("connections", "Flight connections", open)?;
        gauges.number("calls_under_way", "gRPC calls under way", calls.count())?;
        gauges.number("sessions", "Sessions", sessions.count())?;
        gauges.number("queries_running", "Queries that run", status.running)?;
        gauges.number(
            "queries_running_limit",
            "Queries that may run at once",
            status.max_running,
        )?;
        gauges.number("queries_queued", "Queries that wait to run", status.queued)?;
        gauges.number(
            "queries_queued_limit",
            "Queries that may wait; one more is refused",
            status.max_queued,
        )?;
        gauges.number(
            "statements_planning",
            "Statements that are planned",
            status.planning,
        )?;
        gauges.number(
            "statements_waiting_to_plan",
            "Statements that wait to be planned",
            status.waiting_to_plan,
        )?;
        // Scrapes run on threads of the server's runtime.
        let serving = Handle::current().metrics().num_alive_tasks();
        gauges.labelled(
            "tasks",
            "Tasks that were begun and have not ended",
            None,
            "of",
            [("queries", status.tasks as f64), ("server", serving as f64)],
        )?;
        gauges.labelled(
            "memory_granted",
            "Memory that operators of queries and temporary tables hold",
            Some(&Unit::Bytes),
            "to",
            [
                ("queries", status.query_memory as f64),
                ("tables", status.table_memory as f64),
            ],
        )?;
        gauges.bytes(
            "memory_granted_limit",
            "Memory that both together may hold",
            status.memory_limit as u64,
        )?;
        if let Some(resident) = status.process_memory {
            gauges.bytes("memory_process", "Resident memory of the process", resident)?;
        }
        gauges.bytes(
            "memory_process_limit",
            "Beyond it the largest query is given up",
            status.process_memory_limit,
        )?;
        gauges.bytes("spill", "Intermediate results on disk", status.spilled)?;
        gauges.bytes(
            "spill_limit",
            "Intermediate results that may be on disk",
            status.spill_limit,
        )?;
        let health = engine.catalog.health();
        gauges.number(
            "catalog_feature_groups",
            "Feature groups of the catalog",
            engine.catalog.snapshot().groups.len(),
        )?;
        if let Some(taken) = health.last_success {
            let age = SystemTime::now().duration_since(taken).unwrap_or_default();
            let help = "Since the catalog that is served was read";
            gauges.seconds("catalog_age", help, age.as_secs_f64())?;
        }
        gauges.number(
            "catalog_refresh_failing",
            "1 while the catalog cannot be read anew",
            usize::from(health.last_error.is_some()),
        )
    }
}

/// The outbox and the online store at the moment of a scrape.
#[derive(Debug)]
struct WritesNow(Arc<Gateway>);

impl Collector for WritesNow {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Broken> {
        let mut gauges = Gauges(encoder);
        self.outbox(&mut gauges)?;
        let by_store = by_store(&self.0.lanes.lock());
        for (name, help, of) in STORE_COUNTS {
            let mut family = gauges
                .0
                .encode_descriptor(name, help, None, MetricType::Counter)?;
            for (store, status) in &by_store {
                let labels = [("store", store.as_str())];
                ConstCounter::new(of(status)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

type CountOf = fn(&LaneStatus) -> u64;

const STORE_COUNTS: [(&str, &str, CountOf); 4] = [
    (
        "store_records_sent",
        "Records the online store took",
        |lane| lane.sent,
    ),
    (
        "store_records_retried",
        "Records that had to be sent again",
        |lane| lane.retried,
    ),
    (
        "store_records_throttled",
        "Records that had to be sent again because the store had too many",
        |lane| lane.throttled,
    ),
    (
        "store_records_quarantined",
        "Records the online store refused for good",
        |lane| lane.quarantined,
    ),
];

fn by_store(lanes: &BTreeMap<String, LaneStatus>) -> BTreeMap<String, LaneStatus> {
    let mut stores: BTreeMap<String, LaneStatus> = BTreeMap::new();
    for lane in lanes.values().filter(|lane| !lane.store.is_empty()) {
        let store = stores.entry(lane.store.clone()).or_default();
        store.sent += lane.sent;
        store.retried += lane.retried;
        store.throttled += lane.throttled;
        store.quarantined += lane.quarantined;
    }
    stores
}

impl WritesNow {
    fn outbox(&self, gauges: &mut Gauges<'_>) -> Result<(), Broken> {
        let outbox = &self.0.outbox;
        let progress = outbox.progress();
        let rows = |of: fn(&_) -> u64| progress.groups.values().map(of).sum::<u64>() as f64;
        gauges.labelled(
            "outbox_waiting_rows",
            "Acknowledged rows that did not reach the store yet",
            None,
            "stage",
            [
                ("online", rows(|group| group.online_rows)),
                ("offline", rows(|group| group.offline_rows)),
            ],
        )?;
        let now = Instant::now();
        let age = |of: fn(&_) -> Option<Instant>| {
            let oldest = progress.groups.values().filter_map(of).min();
            let age = oldest.map_or(0, |oldest| now.micros.saturating_sub(oldest.micros));
            Duration::from_micros(age.max(0).cast_unsigned()).as_secs_f64()
        };
        gauges.labelled(
            "outbox_oldest_waiting",
            "How long the oldest of them waits; 0 when none does",
            Some(&Unit::Seconds),
            "stage",
            [
                ("online", age(|group| group.oldest_online)),
                ("offline", age(|group| group.oldest_offline)),
            ],
        )?;
        let help = "The outbox's files";
        gauges.bytes("outbox", help, progress.bytes)?;
        gauges.bytes(
            "outbox_limit",
            "Beyond it writes are refused",
            progress.max_bytes,
        )?;
        let unsynced = match progress.durability {
            Durability::Synced => Duration::ZERO,
            Durability::Written(every) => every,
        };
        gauges.seconds(
            "outbox_unsynced",
            "How much of what was acknowledged a power cut may lose; 0: an fsync comes first",
            unsynced.as_secs_f64(),
        )?;
        gauges.number(
            "outbox_failed",
            "1 when the outbox accepts nothing until a restart",
            usize::from(outbox.failure().is_some()),
        )?;
        // Left out where the disk fails; the rest is worth more then than before.
        let Ok(quarantined) = outbox.quarantine_size() else {
            return Ok(());
        };
        let quarantined = quarantined as usize;
        gauges.number("quarantined_records", "Records in quarantine", quarantined)
    }
}
