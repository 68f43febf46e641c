//! Random histories, spines and options, answered by the operators and by a nested loop that
//! shares no code with them.
//!
//! `FEATUREFLIGHT_DIFFERENTIAL_CASES` sets how many cases each test runs, and
//! `FEATUREFLIGHT_DIFFERENTIAL_SEED` where it starts; a failure prints the seed that repeats it.
//! A case is one (history, spine, options).
//!
//! The tests were themselves tested. Each of these changes to the operators, alone, made one fail:
//! - rank: without the row, with object keys reversed, without the nanoseconds of event or
//!   invocation time, with the write time in place of the invocation time
//! - cuts: exclusive, without the system or the valid clock, `known_at` in place of the clock
//!   instead of the stricter of both, `known_by` the other clock, a row's own cut ignored
//! - tombstones: left out before ranking, or returned as matches and states
//! - slots: an equal time left out, no prefix maximum, no tree where cuts fall, in a tree an
//!   exclusive cut, unsettled nodes, or one node only when entering or when reading
//! - `max_age`: ignored, exclusive, months of 30 days
//! - reach: files pruned from the last instead of the first row's time, or to the first
//! - keys: `-0.0` apart from `0.0`, NaNs apart
//! - features: a neighbour's, or in the order in which files were read
//! - state: the first version wins; a limit one short
//! - as-of: `>` as `>=`, the least of ties, ties forgotten between batches, nulls that match, the
//!   match of another key

mod generate;
mod oracle;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{ident, lit};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionContext;
use featureflight_catalog::listing::{EventRange, FileList};
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::table::{FeatureTable, timestamp_type};
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::generate::{History, Left, Options, SpineRow};
use crate::asof::exec::AsofExec;
use crate::asof::right::Side;
use crate::point_in_time::exec::PointInTimeExec;
use crate::point_in_time::group::{Group, KnownAt};
use crate::state::best::KeyFilter;
use crate::state::exec::StateExec;
use crate::state::filters::physical;
use crate::testing::{
    EVENT_TIME, ID, Key, NUMBER, TEXT, Version, limited_context, memory, run, scan_context, table,
    task_context, write,
};

const CASES: u64 = 5_000;
/// Cases that share a history: writing and listing it is most of the work.
const CASES_PER_HISTORY: u64 = 20;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Says how to repeat what was running when a test failed.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cases = CASES_PER_HISTORY;
            eprintln!(
                "repeat with FEATUREFLIGHT_DIFFERENTIAL_SEED={} FEATUREFLIGHT_DIFFERENTIAL_CASES={cases}",
                self.0
            );
        }
    }
}

/// Calls `one` with a seed per history until the cases are done.
fn each_history<F: Future<Output = ()>>(one: impl Fn(StdRng) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let first = variable("FEATUREFLIGHT_DIFFERENTIAL_SEED", 1);
    let histories = variable("FEATUREFLIGHT_DIFFERENTIAL_CASES", CASES).div_ceil(CASES_PER_HISTORY);
    for seed in first..first + histories {
        let repeat = Repeat(seed);
        runtime.block_on(one(StdRng::seed_from_u64(seed)));
        drop(repeat);
    }
}

/// A history in an object store, listed.
struct Prepared {
    history: History,
    table: Arc<FeatureTable>,
    scan: ScanContext,
    files: Arc<FileList>,
    versions: HashMap<i64, Version>,
}

async fn prepare(rng: &mut StdRng) -> Prepared {
    let history = generate::history(rng);
    let store = Arc::new(InMemory::new());
    write(&store, &history.files).await;
    let table = table(&store, history.id.clone(), history.form);
    let scan = scan_context();
    let files = scan
        .pin
        .files(&table.files, EventRange::default(), None)
        .await
        .unwrap();
    assert_eq!(files.files.len(), history.files.len());
    let versions = history.files.iter().flat_map(|file| &file.versions);
    let versions = versions
        .map(|version| (version.number.unwrap(), version.clone()))
        .collect();
    Prepared {
        history,
        table,
        scan,
        files,
        versions,
    }
}

fn context(rng: &mut StdRng) -> Arc<TaskContext> {
    task_context(rng.random_range(1..=8), rng.random_range(1..=20))
}

/// Runs a plan in the least memory of several that it fits into, so that its input comes in parts.
async fn run_in_little_memory(
    plan: &Arc<dyn ExecutionPlan>,
    rng: &mut StdRng,
    unlimited: &Arc<TaskContext>,
) -> RecordBatch {
    let config = unlimited.session_config();
    for limit in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000] {
        let limit = limit + rng.random_range(0..limit);
        let context = limited_context(config.target_partitions(), config.batch_size(), Some(limit));
        let batches = collect(Arc::clone(plan), Arc::clone(&context)).await;
        assert_eq!(
            context.memory_pool().reserved(),
            0,
            "memory was not given back"
        );
        match batches {
            Ok(batches) => return concat_batches(&plan.schema(), &batches).unwrap(),
            Err(error) => assert!(
                matches!(error.find_root(), DataFusionError::ResourcesExhausted(_)),
                "{error}"
            ),
        }
    }
    run(plan, unlimited).await
}

/// What one output row says of its match: number, text, event time in microseconds.
type Answer = (Option<i64>, Option<String>, Option<i64>);

fn answers(batch: &RecordBatch, first: usize) -> Vec<Answer> {
    let numbers = batch.column(first).as_primitive::<Int64Type>();
    let texts = batch.column(first + 1).as_string_view();
    let times = batch
        .column(first + 2)
        .as_primitive::<TimestampMicrosecondType>();
    let some = |column: &dyn Array, row| column.is_valid(row);
    (0..batch.num_rows())
        .map(|row| {
            (
                some(numbers, row).then(|| numbers.value(row)),
                some(texts, row).then(|| texts.value(row).to_owned()),
                some(times, row).then(|| times.value(row)),
            )
        })
        .collect()
}

fn expected(version: Option<&Version>) -> Answer {
    version.map_or((None, None, None), |version| {
        (
            version.number,
            version.text.clone(),
            Some(version.event.micros),
        )
    })
}

fn join(
    prepared: &Prepared,
    spine: &[SpineRow],
    options: &Options,
    split: usize,
) -> Arc<dyn ExecutionPlan> {
    let batch = generate::spine_batch(prepared.history.key_type(), spine, options);
    let schema = batch.schema();
    let column = |name| col(name, &schema).unwrap();
    let group = Group {
        table: Arc::clone(&prepared.table),
        reader: Arc::clone(&prepared.scan.reader),
        files: Arc::clone(&prepared.files),
        clocks: options.clocks,
        key: column("key"),
        time: column("ts"),
        max_age: options.max_age,
        known_at: match options.known_at {
            generate::Cut::Always => KnownAt::Always,
            generate::Cut::Constant(at) => KnownAt::Constant(at),
            generate::Cut::Column => KnownAt::Spine(column("cut")),
        },
        known_by: options.known_by,
        features: vec![NUMBER, TEXT, EVENT_TIME],
        passes: options.passes,
    };
    let features = [
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
        Field::new("event_time", timestamp_type(), true),
    ];
    let fields = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .chain(features);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = batch.num_rows();
    let size = rows.div_ceil(split).max(1);
    let mut batches: Vec<_> = (0..rows)
        .step_by(size)
        .map(|start| batch.slice(start, size.min(rows - start)))
        .collect();
    if batches.is_empty() {
        batches.push(batch);
    }
    Arc::new(PointInTimeExec::new(
        memory(batches),
        Arc::new([group]),
        schema,
    ))
}

#[test]
fn point_in_time_join() {
    each_history(async |mut rng| {
        let prepared = prepare(&mut rng).await;
        for _ in 0..CASES_PER_HISTORY {
            let (spine, options) = generate::spine(&mut rng, &prepared.history);
            let plan = join(&prepared, &spine, &options, rng.random_range(1..=3));
            let context = context(&mut rng);
            let output = if rng.random_bool(0.3) {
                run_in_little_memory(&plan, &mut rng, &context).await
            } else {
                run(&plan, &context).await
            };
            assert_eq!(output.num_rows(), spine.len(), "one row per spine row");
            let rows = output.column(0).as_primitive::<Int64Type>();
            let first = output.num_columns() - 3;
            let mut seen = vec![false; spine.len()];
            for (position, answer) in answers(&output, first).into_iter().enumerate() {
                let number = usize::try_from(rows.value(position)).unwrap();
                assert!(
                    !std::mem::replace(&mut seen[number], true),
                    "row {number} twice"
                );
                let row = &spine[number];
                if let Some(version) = answer.0.map(|number| &prepared.versions[&number]) {
                    let late = row.time.is_none_or(|time| version.event > time);
                    assert!(!late, "the future leaked: {version:?} into {row:?}");
                }
                let version = oracle::match_of(&prepared.history, row, &options);
                assert_eq!(
                    answer,
                    expected(version),
                    "{row:#?} {options:#?} {:#?}",
                    prepared.history
                );
            }
        }
    });
}

#[test]
fn state() {
    each_history(async |mut rng| {
        let prepared = prepare(&mut rng).await;
        for _ in 0..CASES_PER_HISTORY {
            let clocks = generate::clocks(&mut rng, &prepared.history);
            let limit = rng.random_bool(0.2).then(|| rng.random_range(0..4_usize));
            let named = rng.random_bool(0.4).then(|| names(&mut rng, &prepared));
            let named = named.flatten();
            let filter = named.as_ref().map(|keys| naming(&prepared.table, keys));
            let plan: Arc<dyn ExecutionPlan> = Arc::new(
                StateExec::try_new(
                    Arc::clone(&prepared.table),
                    clocks,
                    &prepared.scan,
                    Arc::clone(&prepared.files),
                    filter,
                    vec![ID, NUMBER, TEXT, EVENT_TIME],
                    limit,
                    rng.random_range(1..=8),
                )
                .unwrap(),
            );
            let output = run(&plan, &context(&mut rng)).await;
            let mut found = answers(&output, 1);
            found.sort();
            let mut state = oracle::state(&prepared.history, clocks);
            if let Some(keys) = &named {
                state.retain(|version| keys.contains(&version.key));
            }
            let mut wanted: Vec<_> = state.into_iter().map(|best| expected(Some(best))).collect();
            wanted.sort();
            if let Some(limit) = limit {
                assert!(
                    found.len() >= limit.min(wanted.len()),
                    "a limit gave too few rows"
                );
                assert!(found.iter().all(|row| wanted.contains(row)));
                let mut distinct = found.clone();
                distinct.dedup();
                assert_eq!(distinct.len(), found.len(), "a record came twice");
            } else {
                assert_eq!(found, wanted, "{clocks:?} {:#?}", prepared.history);
            }
        }
    });
}

/// Some keys of a history and one it lacks, which a lookup names. Predicates on doubles stay above
/// the ranking.
fn names(rng: &mut StdRng, prepared: &Prepared) -> Option<Vec<Key>> {
    let mut keys = vec![match prepared.history.key_type() {
        Key::Integer(_) => Key::Integer(-99),
        Key::Text(_) => Key::Text("nobody".to_owned()),
        Key::Double(_) => return None,
    }];
    if rng.random_bool(0.7) {
        keys.clear();
    }
    let versions = prepared
        .history
        .files
        .iter()
        .flat_map(|file| &file.versions);
    for version in versions {
        if keys.is_empty() || (rng.random_bool(0.2) && !keys.contains(&version.key)) {
            keys.push(version.key.clone());
        }
    }
    Some(keys)
}

/// `id IN (keys)`, as the state takes it.
fn naming(table: &FeatureTable, keys: &[Key]) -> KeyFilter {
    let literals = keys.iter().map(|key| match key {
        Key::Integer(key) => lit(*key),
        Key::Text(key) => lit(ScalarValue::Utf8View(Some(key.clone()))),
        Key::Double(key) => lit(*key),
    });
    let name = table.state_schema.field(ID).name();
    let filter = ident(name).in_list(literals.collect(), false);
    let session = SessionContext::new();
    physical(table, &[filter], &session.state())
        .unwrap()
        .unwrap()
}

fn sorted(plan: Arc<dyn ExecutionPlan>, ordering: LexOrdering) -> Arc<dyn ExecutionPlan> {
    Arc::new(SortExec::new(ordering, plan))
}

fn side(schema: &SchemaRef, keys: &[&str], time: &str) -> Side {
    let column = |name: &str| col(name, schema).unwrap();
    Side {
        keys: keys.iter().map(|key| column(key)).collect(),
        time: column(time),
    }
}

#[test]
fn plain_asof_join() {
    each_history(async |mut rng| {
        for _ in 0..CASES_PER_HISTORY {
            let (left, right) = generate::asof(&mut rng);
            let operator = generate::operator(&mut rng);
            let keys: &[&str] = if rng.random_bool(0.2) {
                &[]
            } else {
                &["k1", "k2"]
            };
            let split = |batch: &RecordBatch, rng: &mut StdRng| {
                let size = rng.random_range(1..=5);
                let rows = batch.num_rows();
                let batches: Vec<_> = (0..rows.max(1))
                    .step_by(size)
                    .map(|start| batch.slice(start, size.min(rows - start)))
                    .collect();
                let schema = batch.schema();
                datafusion::catalog::memory::MemorySourceConfig::try_new_exec(
                    &[batches],
                    schema,
                    None,
                )
                .unwrap() as Arc<dyn ExecutionPlan>
            };
            let (left_batch, right_batch) =
                (generate::left_batch(&left), generate::right_batch(&right));
            let ordering = |schema: &SchemaRef| {
                let descending = !operator.looks_back();
                let sort = |name: &&str| PhysicalSortExpr::new_default(col(name, schema).unwrap());
                let time = PhysicalSortExpr::new_default(col("t", schema).unwrap());
                let time = if descending { time.desc() } else { time };
                LexOrdering::new(keys.iter().map(sort).chain([time])).unwrap()
            };
            let (left_schema, right_schema) = (left_batch.schema(), right_batch.schema());
            let fields = left_schema
                .fields()
                .iter()
                .chain(right_schema.fields().iter());
            let schema = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
            let plan: Arc<dyn ExecutionPlan> = Arc::new(AsofExec::new(
                sorted(split(&left_batch, &mut rng), ordering(&left_schema)),
                sorted(split(&right_batch, &mut rng), ordering(&right_schema)),
                side(&left_schema, keys, "t"),
                side(&right_schema, keys, "t"),
                operator,
                schema,
            ));
            let output = run(&plan, &task_context(1, rng.random_range(1..=7))).await;
            assert_eq!(output.num_rows(), left.len(), "one row per left row");
            let rows = output.column(0).as_primitive::<Int64Type>();
            let columns = left_batch.num_columns();
            for position in 0..output.num_rows() {
                let row: &Left = &left[usize::try_from(rows.value(position)).unwrap()];
                let found: Vec<Option<i64>> = (columns..output.num_columns())
                    .map(|column| integer(output.column(column), position))
                    .collect();
                let wanted = oracle::asof(row, &right, keys.len(), operator);
                assert_eq!(found, wanted, "{operator} {keys:?} {row:?} {right:#?}");
            }
        }
    });
}

fn integer(column: &ArrayRef, row: usize) -> Option<i64> {
    let column = column.as_primitive::<Int64Type>();
    column.is_valid(row).then(|| column.value(row))
}
