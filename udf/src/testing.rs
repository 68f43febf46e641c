//! Histories in memory, for tests: versions written to Parquet as the service and the Spark
//! connector write them, and the relations over them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::Session;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use featureflight_catalog::Instant;
use featureflight_catalog::listing::Lister;
use featureflight_catalog::model::{FeatureDefinition, FeatureGroup, FeatureType};
use featureflight_catalog::pin::Pin;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::scan::versions::FileReader;
use featureflight_catalog::storage::Location;
use featureflight_catalog::table::{
    EventTimeForm, FeatureTable, FileSet, feature_type, system_fields, timestamp_type,
};
use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;

/// A record identifier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Key {
    Integer(i64),
    Double(f64),
    Text(String),
}

/// An event time as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stored {
    Text(String),
    Seconds(f64),
}

/// One row of an offline store. `event` is what `stored` says, as the test knows it.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) key: Key,
    pub(crate) event: Instant,
    pub(crate) stored: Stored,
    pub(crate) api: Instant,
    pub(crate) write: Instant,
    pub(crate) deleted: bool,
    pub(crate) number: Option<i64>,
    pub(crate) text: Option<String>,
}

/// One object: its key below the table's prefix, and its rows.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) key: String,
    pub(crate) versions: Vec<Version>,
}

/// Positions in the definitions of every test group.
pub(crate) const NUMBER: usize = 0;
pub(crate) const ID: usize = 1;
pub(crate) const TEXT: usize = 2;
pub(crate) const EVENT_TIME: usize = 3;

fn definition(name: &str, feature_type: FeatureType) -> FeatureDefinition {
    FeatureDefinition {
        feature_name: name.to_owned(),
        feature_type,
        other: serde_json::Map::default(),
    }
}

/// A group `customers` with the features `number`, `id`, `text` and `event_time`.
pub(crate) fn table(
    store: &Arc<impl ObjectStore>,
    id: FeatureType,
    form: EventTimeForm,
) -> Arc<FeatureTable> {
    let event_time = match form {
        EventTimeForm::Text => FeatureType::String,
        EventTimeForm::Seconds => FeatureType::Fractional,
    };
    let definitions = vec![
        definition("number", FeatureType::Integral),
        definition("id", id),
        definition("text", FeatureType::String),
        definition("event_time", event_time),
    ];
    let fields: Vec<Field> = definitions
        .iter()
        .enumerate()
        .map(|(position, definition)| {
            let data_type = if position == EVENT_TIME {
                timestamp_type()
            } else {
                feature_type(&definition.feature_type).unwrap()
            };
            let nullable = position != ID && position != EVENT_TIME;
            Field::new(&definition.feature_name, data_type, nullable)
        })
        .collect();
    let history = fields
        .iter()
        .cloned()
        .chain(system_fields())
        .collect::<Vec<_>>();
    let group = FeatureGroup {
        feature_group_name: "customers".to_owned(),
        record_identifier_feature_name: "id".to_owned(),
        event_time_feature_name: "event_time".to_owned(),
        feature_definitions: definitions,
        feature_group_arn: None,
        offline_store_config: None,
        feature_group_status: None,
        description: None,
        other: serde_json::Map::default(),
    };
    let store: Arc<dyn ObjectStore> = Arc::clone(store) as Arc<dyn ObjectStore>;
    let url = "s3://bucket/data".to_owned();
    Arc::new(FeatureTable {
        group: Arc::new(group),
        files: FileSet {
            location: Location {
                store,
                prefix: Path::from("data"),
                url,
                rewritten: false,
            },
            hourly: true,
            group: None,
        },
        event_time_form: form,
        record_identifier: ID,
        event_time: EVENT_TIME,
        state_schema: Arc::new(Schema::new(fields)),
        history_schema: Arc::new(Schema::new(history)),
    })
}

/// A fresh statement over `table`.
pub(crate) fn scan_context() -> ScanContext {
    let pin = Pin::new(Arc::new(Lister::new(Duration::ZERO)), Instant::now());
    ScanContext {
        pin: Arc::new(pin),
        reader: Arc::new(FileReader::new(1 << 20)),
    }
}

fn times(times: impl Iterator<Item = Instant> + Clone, nanoseconds: bool) -> ArrayRef {
    if nanoseconds {
        let values = times.map(|time| time.micros * 1000 + i64::from(time.nanos));
        Arc::new(TimestampNanosecondArray::from_iter_values(values).with_timezone("UTC"))
    } else {
        let values = times.map(|time| time.micros);
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
    }
}

fn batch(versions: &[Version]) -> RecordBatch {
    let id: ArrayRef = match versions[0].key {
        Key::Integer(_) => Arc::new(Int64Array::from_iter_values(versions.iter().map(|v| {
            let Key::Integer(key) = v.key else {
                panic!("keys of two types")
            };
            key
        }))),
        Key::Double(_) => Arc::new(Float64Array::from_iter_values(versions.iter().map(|v| {
            let Key::Double(key) = v.key else {
                panic!("keys of two types")
            };
            key
        }))),
        Key::Text(_) => Arc::new(StringArray::from_iter_values(versions.iter().map(|v| {
            let Key::Text(key) = &v.key else {
                panic!("keys of two types")
            };
            key
        }))),
    };
    let event: ArrayRef = match versions[0].stored {
        Stored::Text(_) => Arc::new(StringArray::from_iter_values(versions.iter().map(|v| {
            let Stored::Text(time) = &v.stored else {
                panic!("event times of two forms")
            };
            time
        }))),
        Stored::Seconds(_) => Arc::new(Float64Array::from_iter_values(versions.iter().map(|v| {
            let Stored::Seconds(time) = v.stored else {
                panic!("event times of two forms")
            };
            time
        }))),
    };
    let fine = versions
        .iter()
        .any(|v| v.api.nanos != 0 || v.write.nanos != 0);
    let number: Int64Array = versions.iter().map(|v| v.number).collect();
    let text: StringArray = versions.iter().map(|v| v.text.as_deref()).collect();
    let deleted: BooleanArray = versions.iter().map(|v| Some(v.deleted)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("number", Arc::new(number) as ArrayRef, true),
        ("id", id, true),
        ("text", Arc::new(text), true),
        ("event_time", event, true),
        (
            "write_time",
            times(versions.iter().map(|v| v.write), fine),
            false,
        ),
        (
            "api_invocation_time",
            times(versions.iter().map(|v| v.api), fine),
            false,
        ),
        ("is_deleted", Arc::new(deleted), false),
    ])
    .unwrap()
}

/// Writes `files` below the prefix of every test group.
pub(crate) async fn write(store: &InMemory, files: &[File]) {
    for file in files {
        let batch = batch(&file.versions);
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        store
            .put(&Path::from(format!("data/{}", file.key)), bytes.into())
            .await
            .unwrap();
    }
}

/// A context with `partitions` tasks and small batches.
pub(crate) fn task_context(partitions: usize, batch_size: usize) -> Arc<TaskContext> {
    limited_context(partitions, batch_size, None)
}

/// As [`task_context`], with a memory limit in bytes.
pub(crate) fn limited_context(
    partitions: usize,
    batch_size: usize,
    limit: Option<usize>,
) -> Arc<TaskContext> {
    let config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(batch_size);
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(limit) = limit {
        runtime = runtime.with_memory_limit(limit, 1.0);
    }
    let runtime = runtime.build_arc().unwrap();
    Arc::new(
        TaskContext::default()
            .with_session_config(config)
            .with_runtime(runtime),
    )
}

/// Batches as an operator, a partition each.
pub(crate) fn memory(batches: Vec<RecordBatch>) -> Arc<dyn ExecutionPlan> {
    let schema = batches[0].schema();
    let partitions: Vec<_> = batches.into_iter().map(|batch| vec![batch]).collect();
    MemorySourceConfig::try_new_exec(&partitions, schema, None).unwrap()
}

/// All rows of `plan`, one batch.
pub(crate) async fn run(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> RecordBatch {
    let batches = collect(Arc::clone(plan), Arc::clone(context))
        .await
        .unwrap();
    arrow::compute::concat_batches(&plan.schema(), &batches).unwrap()
}

/// Row `(key, event, text, api, write, deleted)`, times in whole seconds.
pub(crate) type Seconds = (&'static str, i64, Option<&'static str>, i64, i64, bool);

/// The history of the contract's worked examples.
pub(crate) const WORKED_EXAMPLE: [Seconds; 9] = [
    ("A", 100, Some("a1"), 100, 1000, false),
    ("A", 200, Some("a2"), 200, 1100, false),
    ("A", 200, Some("a2b"), 210, 1110, false),
    ("A", 150, Some("a15"), 900, 2000, false),
    ("B", 100, Some("b1"), 100, 1000, false),
    ("B", 300, None, 300, 1200, true),
    ("C", 100, Some("c1"), 100, 1000, false),
    ("C", 300, None, 300, 1200, true),
    ("C", 400, Some("c4"), 400, 1300, false),
];

pub(crate) fn at(seconds: i64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// The versions of `rows`, numbered in order, event times as text.
pub(crate) fn versions(rows: &[Seconds]) -> Vec<Version> {
    rows.iter()
        .zip(0..)
        .map(
            |((key, event, text, api, write, deleted), number)| Version {
                key: Key::Text((*key).to_owned()),
                event: at(*event),
                stored: Stored::Text(at(*event).to_string()),
                api: at(*api),
                write: at(*write),
                deleted: *deleted,
                number: Some(number),
                text: text.map(str::to_owned),
            },
        )
        .collect()
}

/// `rows` in `files` files without hour folders, dealt out in turn.
pub(crate) async fn store(rows: &[Version], files: usize) -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    for number in 0..files {
        let versions: Vec<_> = rows.iter().skip(number).step_by(files).cloned().collect();
        if !versions.is_empty() {
            write(
                &store,
                &[File {
                    key: format!("{number}.parquet"),
                    versions,
                }],
            )
            .await;
        }
    }
    store
}

#[derive(Debug)]
struct Planner;

#[async_trait::async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        state: &dyn Session,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(crate::extension::extension_planners())
            .create_physical_plan(plan, state)
            .await
    }
}

/// A session that plans our nodes, with `partitions` tasks.
pub(crate) fn session(partitions: usize) -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(3);
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_optimizer_rule(Arc::new(crate::asof::push_down::PushDownAsofFilter))
        .with_query_planner(Arc::new(Planner))
        .build();
    SessionContext::new_with_state(state)
}

/// Every row of `batches` as text, columns parted by a blank, sorted; nulls are `-`.
pub(crate) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let cell = |batch: &RecordBatch, row: usize, column: usize| {
        let column = batch.column(column);
        if column.is_null(row) {
            return "-".to_owned();
        }
        arrow::util::display::array_value_to_string(column, row).unwrap()
    };
    let mut lines: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows()).map(move |row| {
                let cells = (0..batch.num_columns()).map(|column| cell(batch, row, column));
                cells.collect::<Vec<_>>().join(" ")
            })
        })
        .collect();
    lines.sort();
    lines
}

/// `store` as one whose reads never come back.
pub(crate) fn stuck(store: &InMemory) -> Arc<ThrottledStore<InMemory>> {
    let config = ThrottleConfig {
        wait_get_per_call: Duration::from_hours(24),
        ..ThrottleConfig::default()
    };
    Arc::new(ThrottledStore::new(store.fork(), config))
}

/// Starts every partition of `plan`, lets them wait for reads that never come back, drops them,
/// and sees that no task and no memory stays behind.
pub(crate) async fn dropped_streams_leave_nothing(
    plan: &Arc<dyn ExecutionPlan>,
    reader: &Arc<FileReader>,
) {
    let context = limited_context(4, 8, Some(1 << 30));
    let before = Arc::strong_count(reader);
    let mut streams: Vec<_> = (0..plan.output_partitioning().partition_count())
        .map(|partition| plan.execute(partition, Arc::clone(&context)).unwrap())
        .collect();
    for stream in &mut streams {
        let next = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
        assert!(next.is_err(), "the store was to be stuck");
    }
    assert!(Arc::strong_count(reader) > before, "nothing was reading");
    drop(streams);
    let gone = async {
        while Arc::strong_count(reader) > before || context.memory_pool().reserved() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
}

/// Files `a` (day 0), `b` (day 10), `c` (day 20) in their hour folders.
pub(crate) async fn days() -> Arc<InMemory> {
    let store = Arc::new(InMemory::new());
    for (day, name) in [(1, "a"), (11, "b"), (21, "c")] {
        let row = ("A", (day - 1) * 86_400 + 60, Some(name), 0, 0, false);
        let key = format!("year=1970/month=01/day={day:02}/hour=00/{name}.parquet");
        write(
            &store,
            &[File {
                key,
                versions: versions(&[row]),
            }],
        )
        .await;
    }
    store
}
