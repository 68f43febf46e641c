//! The point-in-time join as definition C of the contract says, from the logical node down.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Date32Array, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::datasource::MemTable;
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{Extension, LogicalPlan, LogicalPlanBuilder, col, lit};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{DataFrame, SessionContext};
use featureflight_catalog::model::FeatureType;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::table::EventTimeForm;
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::clock::Clocks;
use crate::point_in_time::node::{FeatureColumn, GroupJoin, KnownAt, KnownBy, PointInTimeJoin};
use crate::testing::*;

/// e1 to e8 of the contract: name, key, seconds.
const EVENTS: [(&str, &str, i64); 8] = [
    ("e1", "A", 160),
    ("e2", "A", 200),
    ("e3", "A", 250),
    ("e4", "B", 250),
    ("e5", "B", 350),
    ("e6", "C", 250),
    ("e7", "C", 450),
    ("e8", "D", 100),
];

fn spine(rows: &[(&str, &str, i64)]) -> RecordBatch {
    let names = StringViewArray::from_iter_values(rows.iter().map(|row| row.0));
    let keys = StringViewArray::from_iter_values(rows.iter().map(|row| row.1));
    let times = TimestampSecondArray::from_iter_values(rows.iter().map(|row| row.2));
    RecordBatch::try_from_iter_with_nullable([
        ("name", Arc::new(names) as ArrayRef, false),
        ("key", Arc::new(keys), true),
        ("ts", Arc::new(times), true),
    ])
    .unwrap()
}

fn group(store: &Arc<impl ObjectStore>) -> GroupJoin {
    GroupJoin {
        table: table(store, FeatureType::String, EventTimeForm::Text),
        clocks: Clocks::default(),
        key: col("key"),
        time: col("ts"),
        max_age: None,
        known_at: KnownAt::Always,
        known_by: KnownBy::WriteTime,
        columns: vec![FeatureColumn {
            feature: TEXT,
            qualifier: None,
            name: "text".to_owned(),
        }],
    }
}

fn join(session: &SessionContext, spine: RecordBatch, groups: Vec<GroupJoin>) -> DataFrame {
    join_with(scan_context(), session, spine, groups)
}

fn join_with(
    scan: ScanContext,
    session: &SessionContext,
    spine: RecordBatch,
    groups: Vec<GroupJoin>,
) -> DataFrame {
    let spine = session.read_batch(spine).unwrap().into_unoptimized_plan();
    let node = PointInTimeJoin::try_new(spine, groups, scan).unwrap();
    let plan = LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    });
    DataFrame::new(session.state(), plan)
}

/// `name text` of every row, for several divisions into files and partitions.
async fn matches(spine: &RecordBatch, change: impl Fn(&mut GroupJoin)) -> Vec<String> {
    let mut answers = Vec::new();
    for (files, partitions) in [(1, 1), (3, 2), (9, 8)] {
        let store = store(&versions(&WORKED_EXAMPLE), files).await;
        let mut group = group(&store);
        change(&mut group);
        let frame = join(&session(partitions), spine.clone(), vec![group]);
        let frame = frame.select_columns(&["name", "text"]).unwrap();
        answers.push(lines(&frame.collect().await.unwrap()));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    answers.swap_remove(0)
}

#[tokio::test]
async fn duplicates_equal_times_and_tombstones() {
    let expected = [
        "e1 a15", "e2 a2b", "e3 a2b", "e4 b1", "e5 -", "e6 c1", "e7 c4", "e8 -",
    ];
    assert_eq!(matches(&spine(&EVENTS), |_| {}).await, expected);
}

#[tokio::test]
async fn a_late_row_is_unknown_before_it_was_written() {
    let expected = [
        "e1 a1", "e2 a2b", "e3 a2b", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
    ];
    let constant = |group: &mut GroupJoin| group.known_at = KnownAt::Constant(at(1150));
    assert_eq!(matches(&spine(&EVENTS), constant).await, expected);
    let clock = |group: &mut GroupJoin| group.clocks.system = Some(at(1150));
    assert_eq!(matches(&spine(&EVENTS), clock).await, expected);
    let column = |group: &mut GroupJoin| {
        group.known_at = KnownAt::Spine(lit_timestamp(1150));
    };
    assert_eq!(matches(&spine(&EVENTS), column).await, expected);
    // The stricter of the two cuts counts.
    let both = |group: &mut GroupJoin| {
        group.known_at = KnownAt::Constant(at(5000));
        group.clocks.system = Some(at(1150));
    };
    assert_eq!(matches(&spine(&EVENTS), both).await, expected);
}

fn lit_timestamp(seconds: i64) -> datafusion::prelude::Expr {
    lit(datafusion::scalar::ScalarValue::TimestampSecond(
        Some(seconds),
        None,
    ))
}

#[tokio::test]
async fn known_by_the_invocation_time() {
    let by_api = |seconds| {
        move |group: &mut GroupJoin| {
            group.known_at = KnownAt::Constant(at(seconds));
            group.known_by = KnownBy::ApiInvocationTime;
        }
    };
    let expected = [
        "e1 a1", "e2 a2", "e3 a2", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
    ];
    assert_eq!(matches(&spine(&EVENTS), by_api(205)).await, expected);
    let expected = [
        "e1 a1", "e2 a2b", "e3 a2b", "e4 b1", "e5 -", "e6 c1", "e7 c4", "e8 -",
    ];
    assert_eq!(matches(&spine(&EVENTS), by_api(899)).await, expected);
}

#[tokio::test]
async fn rows_with_their_own_cuts_growing_or_not() {
    // Times and cuts of key A: growing cuts first, then falling ones.
    for cuts in [
        [1000, 1105, 1200, 2000],
        [2000, 1200, 1105, 1000],
        [1105, 2000, 999, 1110],
    ] {
        let rows = [
            ("r1", "A", 150),
            ("r2", "A", 200),
            ("r3", "A", 220),
            ("r4", "A", 260),
        ];
        let batch = spine(&rows);
        let cut = TimestampSecondArray::from(cuts.to_vec());
        let mut columns: Vec<(&str, ArrayRef)> = ["name", "key", "ts"]
            .into_iter()
            .zip(batch.columns().iter().cloned())
            .collect();
        columns.push(("cut", Arc::new(cut)));
        let spine = RecordBatch::try_from_iter(columns).unwrap();
        let answer = matches(&spine, |group| group.known_at = KnownAt::Spine(col("cut"))).await;
        let expected: Vec<String> = rows
            .iter()
            .zip(cuts)
            .map(|((name, _, time), cut)| {
                let text = match (*time, cut) {
                    (_, ..1000) => "-",
                    (150, 2000..) => "a15",
                    (150, _) | (_, ..1100) => "a1",
                    (_, ..1110) => "a2",
                    _ => "a2b",
                };
                format!("{name} {text}")
            })
            .collect();
        assert_eq!(answer, expected, "{cuts:?}");
    }
}

#[tokio::test]
async fn the_valid_clock_caps_the_candidates() {
    let expected = [
        "e1 a15", "e2 a15", "e3 a15", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
    ];
    assert_eq!(
        matches(&spine(&EVENTS), |group| group.clocks.valid = Some(at(199))).await,
        expected
    );
}

#[tokio::test]
async fn an_age_limit_is_inclusive_and_counts_from_the_row() {
    let age = |nanoseconds| {
        move |group: &mut GroupJoin| {
            let age = IntervalMonthDayNano {
                months: 0,
                days: 0,
                nanoseconds,
            };
            group.max_age = Some(age);
        }
    };
    let expected = [
        "e1 a15", "e2 a2b", "e3 a2b", "e4 -", "e5 -", "e6 -", "e7 c4", "e8 -",
    ];
    assert_eq!(
        matches(&spine(&EVENTS), age(50_000_000_000)).await,
        expected
    );
    let expected = [
        "e1 a15", "e2 a2b", "e3 -", "e4 -", "e5 -", "e6 -", "e7 -", "e8 -",
    ];
    assert_eq!(
        matches(&spine(&EVENTS), age(49_999_999_999)).await,
        expected
    );
}

#[tokio::test]
async fn null_keys_times_and_cuts_match_nothing_and_keep_their_rows() {
    let timestamp = DataType::Timestamp(TimeUnit::Second, None);
    let batch = spine(&EVENTS);
    let without = |column: usize, data_type: &DataType| {
        let mut columns = batch.columns().to_vec();
        columns[column] = new_null_array(data_type, batch.num_rows());
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    };
    let nothing: Vec<String> = EVENTS
        .iter()
        .map(|event| format!("{} -", event.0))
        .collect();
    assert_eq!(
        matches(&without(1, &DataType::Utf8View), |_| {}).await,
        nothing
    );
    assert_eq!(matches(&without(2, &timestamp), |_| {}).await, nothing);
    let cut = |group: &mut GroupJoin| {
        let null = datafusion::scalar::ScalarValue::TimestampSecond(None, None);
        group.known_at = KnownAt::Spine(lit(null));
    };
    assert_eq!(matches(&batch, cut).await, nothing);
}

#[tokio::test]
async fn duplicate_spine_rows_are_kept() {
    let rows = [("a", "A", 160), ("a", "A", 160), ("a", "A", 160)];
    assert_eq!(
        matches(&spine(&rows), |_| {}).await,
        ["a a15", "a a15", "a a15"]
    );
}

#[tokio::test]
async fn times_are_compared_to_the_nanosecond() {
    let mut row = versions(&[("A", 100, Some("late"), 100, 100, false)]).remove(0);
    row.event.nanos = 7;
    row.stored = Stored::Text("1970-01-01T00:01:40.000000007Z".to_owned());
    let store = store(&[row], 1).await;
    let times: [i64; 3] = [100_000_000_006, 100_000_000_007, 100_000_000_008];
    let spine = RecordBatch::try_from_iter([
        (
            "name",
            Arc::new(StringViewArray::from(vec!["6", "7", "8"])) as ArrayRef,
        ),
        ("key", Arc::new(StringViewArray::from(vec!["A"; 3]))),
        (
            "ts",
            Arc::new(TimestampNanosecondArray::from(times.to_vec())),
        ),
    ])
    .unwrap();
    let frame = join(&session(2), spine, vec![group(&store)]);
    let frame = frame.select_columns(&["name", "text"]).unwrap();
    assert_eq!(
        lines(&frame.collect().await.unwrap()),
        ["6 -", "7 late", "8 late"]
    );
}

#[tokio::test]
async fn dates_are_midnights_and_every_unit_is_read() {
    let day = 86_400;
    let rows = [
        ("A", day, Some("midnight"), 0, 0, false),
        ("A", day + 1, Some("later"), 0, 0, false),
    ];
    let store = store(&versions(&rows), 1).await;
    let columns: [ArrayRef; 3] = [
        Arc::new(Date32Array::from(vec![1])),
        Arc::new(TimestampMillisecondArray::from(vec![day * 1000]).with_timezone("+05:00")),
        Arc::new(TimestampSecondArray::from(vec![day])),
    ];
    for ts in columns {
        let key: ArrayRef = Arc::new(StringViewArray::from(vec!["A"]));
        let spine = RecordBatch::try_from_iter([("key", key), ("ts", ts)]).unwrap();
        let frame = join(&session(1), spine, vec![group(&store)]);
        let frame = frame.select_columns(&["text"]).unwrap();
        assert_eq!(lines(&frame.collect().await.unwrap()), ["midnight"]);
    }
}

#[tokio::test]
async fn several_groups_keep_one_row_each_in_argument_order() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let column = |feature, name: &str| FeatureColumn {
        feature,
        qualifier: None,
        name: name.to_owned(),
    };
    let mut first = group(&store);
    first.columns = vec![
        column(TEXT, "t"),
        column(EVENT_TIME, "e"),
        column(TEXT, "again"),
    ];
    let mut second = group(&store);
    second.clocks.valid = Some(at(100));
    second.columns = vec![column(NUMBER, "n")];
    let mut nothing = group(&store);
    nothing.columns = Vec::new();
    let batch = spine(&[("x", "A", 160), ("y", "D", 160)]);
    let frame = join(&session(2), batch, vec![first, second, nothing]);
    let names: Vec<_> = frame
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    assert_eq!(names, ["name", "key", "ts", "t", "e", "again", "n"]);
    let frame = frame
        .select_columns(&["name", "t", "e", "again", "n"])
        .unwrap();
    let expected = ["x a15 1970-01-01T00:02:30Z a15 0", "y - - - -"];
    assert_eq!(lines(&frame.collect().await.unwrap()), expected);
}

#[tokio::test]
async fn predicates_and_limits_stay_above_the_join() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let frame = join(&session(2), spine(&EVENTS), vec![group(&store)]);
    let frame = frame
        .filter(col("text").eq(lit("a15")).or(col("name").eq(lit("e5"))))
        .unwrap();
    let frame = frame.select_columns(&["name", "text"]).unwrap();
    assert_eq!(lines(&frame.collect().await.unwrap()), ["e1 a15", "e5 -"]);

    let frame = join(&session(2), spine(&EVENTS), vec![group(&store)]);
    let limited = frame
        .clone()
        .limit(2, Some(3))
        .unwrap()
        .collect()
        .await
        .unwrap();
    assert_eq!(lines(&limited).len(), 3);
    assert_eq!(frame.count().await.unwrap(), 8);
}

#[tokio::test]
async fn an_integer_key_is_cast_to_the_identifier() {
    let store = store(&versions(&[("7", 1, Some("seven"), 1, 1, false)]), 1).await;
    let key: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
    let ts: ArrayRef = Arc::new(TimestampSecondArray::from(vec![5, 5]));
    let spine = RecordBatch::try_from_iter([("key", key), ("ts", ts)]).unwrap();
    let frame = join(&session(1), spine, vec![group(&store)]);
    let frame = frame.select_columns(&["text"]).unwrap();
    assert_eq!(lines(&frame.collect().await.unwrap()), ["-", "seven"]);
}

#[tokio::test]
async fn two_output_columns_of_one_name_are_refused() {
    let store = store(&versions(&WORKED_EXAMPLE), 1).await;
    let spine = LogicalPlanBuilder::empty(true)
        .project([
            lit("A").alias("key"),
            lit_timestamp(1).alias("ts"),
            lit(1).alias("text"),
        ])
        .unwrap()
        .build()
        .unwrap();
    assert!(PointInTimeJoin::try_new(spine, vec![group(&store)], scan_context()).is_err());
}

async fn physical(store: &Arc<InMemory>, group: GroupJoin) -> Arc<dyn ExecutionPlan> {
    let _ = store;
    join(&session(2), spine(&EVENTS), vec![group])
        .create_physical_plan()
        .await
        .unwrap()
}

fn metric(plan: &Arc<dyn ExecutionPlan>, name: &str) -> usize {
    plan.metrics()
        .unwrap()
        .sum_by_name(name)
        .unwrap()
        .as_usize()
}

#[tokio::test]
async fn files_beyond_the_reach_of_the_spine_are_not_read() {
    let store = days().await;
    for (time, age, text, read) in [
        (5 * 86_400, None, "a", 1),
        (12 * 86_400, None, "b", 2),
        (12 * 86_400, Some(3), "b", 1),
        (17 * 86_400, Some(3), "-", 0),
        (30 * 86_400, None, "c", 3),
    ] {
        let mut group = group(&store);
        group.max_age = age.map(|days| IntervalMonthDayNano {
            months: 0,
            days,
            nanoseconds: 0,
        });
        let frame = join(&session(2), spine(&[("x", "A", time)]), vec![group]);
        let plan = frame.create_physical_plan().await.unwrap();
        let batches = collect(Arc::clone(&plan), task_context(2, 8))
            .await
            .unwrap();
        assert!(lines(&batches)[0].ends_with(text), "{batches:?}");
        assert_eq!(metric(&plan, "files_read"), read);
        assert_eq!(metric(&plan, "files_pruned"), 3 - read);
    }
}

#[tokio::test]
async fn an_empty_spine_opens_no_file() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let frame = join(&session(2), spine(&[]), vec![group(&store)]);
    let plan = frame.create_physical_plan().await.unwrap();
    assert!(
        collect(Arc::clone(&plan), task_context(2, 8))
            .await
            .unwrap()
            .is_empty()
    );
    let metrics = plan.metrics().unwrap();
    assert!(metrics.sum_by_name("files_read").is_none());
}

#[tokio::test]
async fn a_plan_runs_again() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let plan = physical(&store, group(&store)).await;
    let context = task_context(2, 3);
    let first = lines(
        &collect(Arc::clone(&plan), Arc::clone(&context))
            .await
            .unwrap(),
    );
    assert_eq!(lines(&collect(plan, context).await.unwrap()), first);
}

/// Runs `plan` in more and more memory; the answers that there were, and their numbers of parts.
async fn in_little_memory(
    plan: impl AsyncFn() -> Arc<dyn ExecutionPlan>,
) -> Vec<(Vec<String>, usize)> {
    let mut answers = Vec::new();
    for limit in (100..20_000).step_by(100) {
        let plan = plan().await;
        let context = limited_context(2, 3, Some(limit));
        match collect(Arc::clone(&plan), Arc::clone(&context)).await {
            Ok(batches) => answers.push((lines(&batches), metric(&plan, "spine_parts"))),
            Err(error) => {
                assert!(error.to_string().contains("Resources exhausted"), "{error}");
                assert!(answers.is_empty(), "{limit} bytes fail where fewer do not");
            }
        }
        assert_eq!(context.memory_pool().reserved(), 0);
        assert_eq!(context.runtime_env().disk_manager.used_disk_space(), 0);
    }
    assert!(answers.len() < 199, "some limit is too low for a row");
    answers
}

#[tokio::test]
async fn a_spine_that_does_not_fit_is_joined_in_parts_and_nothing_is_left() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let whole = physical(&store, group(&store)).await;
    let whole = lines(&collect(whole, task_context(2, 3)).await.unwrap());
    let answers = in_little_memory(async || physical(&store, group(&store)).await).await;
    assert!(answers.iter().all(|(lines, _)| *lines == whole));
    assert!(answers[0].1 > 1, "{answers:?}");
    assert_eq!(answers.last().unwrap().1, 1);
}

#[tokio::test]
async fn groups_of_several_keys_are_joined_in_parts_one_after_the_other() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let batch = spine(&EVENTS);
    let mut columns = batch.columns().to_vec();
    let others = ["B", "A", "C", "A", "A", "D", "B", "C"];
    columns.push(Arc::new(StringViewArray::from_iter_values(others)));
    let fields = ["name", "key", "ts", "other"].into_iter().zip(columns);
    let spine = RecordBatch::try_from_iter(fields).unwrap();
    let plan = async || {
        let named = |key: &str, name: &str| {
            let mut group = group(&store);
            group.key = col(key);
            group.columns[0].name = name.to_owned();
            group
        };
        // The first and the last share a key; what they add is not side by side.
        let groups = vec![named("key", "a"), named("other", "b"), named("key", "c")];
        let frame = join(&session(2), spine.clone(), groups);
        frame.create_physical_plan().await.unwrap()
    };
    let whole = collect(plan().await, task_context(2, 3)).await.unwrap();
    let whole = lines(&whole);
    assert!(whole[0].ends_with("B a15 b1 a15"), "{whole:?}");
    let answers = in_little_memory(plan).await;
    assert!(
        answers.iter().all(|(lines, _)| *lines == whole),
        "{answers:?}"
    );
    assert!(answers[0].1 > 2, "{answers:?}");
}

/// Versions of many keys, half of them of one, and rows that match them.
async fn many() -> (Arc<InMemory>, RecordBatch) {
    let key = |row: i64| -> &'static str {
        match row % 2 {
            0 => "A",
            _ => format!("K{}", row % 90).leak(),
        }
    };
    let name = |of: &str, row: i64| -> &'static str { format!("{of}{row:03}").leak() };
    let rows = (0..600).map(|row| (key(row), row, Some(name("v", row)), row, row, row % 50 == 7));
    let events = (0..500).map(|row| (name("r", row), key(row), row * 7 % 600));
    let (rows, events): (Vec<_>, Vec<_>) = (rows.collect(), events.collect());
    (store(&versions(&rows), 5).await, spine(&events))
}

/// A join of [`many`] with the spine in three partitions.
async fn many_joined(store: &Arc<InMemory>, spine: &RecordBatch) -> Arc<dyn ExecutionPlan> {
    let session = session(3);
    let batches = (0..spine.num_rows()).step_by(20);
    let batches: Vec<_> = batches.map(|start| spine.slice(start, 20)).collect();
    let thirds = batches.chunks(9).map(<[_]>::to_vec);
    let source = MemTable::try_new(spine.schema(), thirds.collect()).unwrap();
    let spine = session.read_table(Arc::new(source)).unwrap();
    let spine = spine.into_unoptimized_plan();
    let node = PointInTimeJoin::try_new(spine, vec![group(store)], scan_context()).unwrap();
    let plan = LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    });
    let plan = DataFrame::new(session.state(), plan);
    plan.create_physical_plan().await.unwrap()
}

fn spilled_rows(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.metrics().unwrap().spilled_rows().unwrap()
}

fn text(batches: &[RecordBatch]) -> String {
    arrow::util::pretty::pretty_format_batches(batches)
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn a_spilled_join_reads_the_store_once_and_keeps_its_order() {
    let (store, spine) = many().await;
    let plan = many_joined(&store, &spine).await;
    let whole = lines(&collect(plan, task_context(3, 16)).await.unwrap());
    let mut first: Option<String> = None;
    for _ in 0..5 {
        let plan = many_joined(&store, &spine).await;
        let context = limited_context(3, 16, Some(40_000));
        let batches = collect(Arc::clone(&plan), Arc::clone(&context))
            .await
            .unwrap();
        assert_eq!(lines(&batches), whole);
        assert!(
            metric(&plan, "spine_parts") > 3,
            "one key alone is too much"
        );
        assert_eq!(metric(&plan, "files_read"), 5);
        assert!(spilled_rows(&plan) >= 500);
        let text = text(&batches);
        assert_eq!(*first.get_or_insert_with(|| text.clone()), text);
    }
}

#[tokio::test]
async fn versions_of_other_keys_are_not_spilled() {
    let (store, spine) = many().await;
    let rows: Vec<_> = (0..500)
        .filter(|row| row % 2 == 1 && row % 90 == 1)
        .collect();
    let rows = UInt64Array::from_iter_values(rows);
    let few = take_record_batch(&spine, &rows).unwrap();
    let copies = vec![few.clone(); 600 / few.num_rows()];
    let spine = concat_batches(&few.schema(), &copies).unwrap();
    let spine = spine.slice(0, spine.num_rows() / 20 * 20);
    let plan = many_joined(&store, &spine).await;
    let context = limited_context(3, 16, Some(70_000));
    collect(Arc::clone(&plan), context).await.unwrap();
    let spilled = spilled_rows(&plan);
    let versions = spilled - spine.num_rows();
    assert!((1..20).contains(&versions), "{versions}");
}

#[tokio::test]
async fn the_disk_quota_holds_and_files_go() {
    let (store, spine) = many().await;
    let runtime = || RuntimeEnvBuilder::new().with_memory_limit(40_000, 1.0);
    let context = |runtime: RuntimeEnvBuilder| {
        let runtime = runtime.build_arc().unwrap();
        Arc::new(TaskContext::default().with_runtime(runtime))
    };
    let small = context(runtime().with_max_temp_directory_size(10_000));
    let plan = many_joined(&store, &spine).await;
    let error = collect(plan, Arc::clone(&small)).await.unwrap_err();
    assert!(error.to_string().contains("disk space"), "{error}");
    assert_eq!(small.runtime_env().disk_manager.used_disk_space(), 0);
    assert_eq!(small.memory_pool().reserved(), 0);

    // Dropped in the middle.
    let enough = context(runtime());
    let disk = &enough.runtime_env().disk_manager;
    let plan = many_joined(&store, &spine).await;
    let mut stream = plan.execute(0, Arc::clone(&enough)).unwrap();
    stream.next().await.unwrap().unwrap();
    assert!(disk.used_disk_space() > 0);
    drop(stream);
    let gone = async {
        while disk.used_disk_space() > 0 || enough.memory_pool().reserved() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    let files = disk.temp_dir_paths().into_iter();
    let files = files.map(|path| std::fs::read_dir(path).unwrap().count());
    assert_eq!(files.sum::<usize>(), 0);
}

#[tokio::test]
async fn the_plan_can_be_read() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let mut group = group(&store);
    group.max_age = Some(IntervalMonthDayNano {
        months: 1,
        days: 2,
        nanoseconds: 1_500_000_000,
    });
    group.known_at = KnownAt::Constant(at(5000));
    let plan = physical(&store, group).await;
    let text = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    let expected = "PointInTimeExec: customers (key=key@1, time=ts@2, max_age=1 month 2 days 1.5 seconds, \
                    known_at=1970-01-01T01:23:20Z by write_time, features=[text], files=3, passes=1)";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn dropped_streams_end_the_join() {
    let store = stuck(&*store(&versions(&WORKED_EXAMPLE), 9).await);
    let scan = scan_context();
    let reader = Arc::clone(&scan.reader);
    let frame = join_with(scan, &session(4), spine(&EVENTS), vec![group(&store)]);
    let plan = frame.create_physical_plan().await.unwrap();
    dropped_streams_leave_nothing(&plan, &reader).await;
}

#[tokio::test]
async fn features_that_nobody_asks_for_are_not_decoded() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let column = |feature, name: &str| FeatureColumn {
        feature,
        qualifier: None,
        name: name.to_owned(),
    };
    let mut first = group(&store);
    first.columns = vec![
        column(TEXT, "t"),
        column(NUMBER, "n"),
        column(EVENT_TIME, "e"),
    ];
    let mut second = group(&store);
    second.columns = vec![column(NUMBER, "m"), column(TEXT, "u")];
    let frame = join(&session(2), spine(&EVENTS[..2]), vec![first, second]);
    let used = [col("u"), (col("n") + lit(1)).alias("n1"), col("name")];
    let frame = frame
        .filter(col("n").is_not_null())
        .unwrap()
        .select(used)
        .unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let text = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    assert!(text.contains("features=[number]"), "{text}");
    assert!(text.contains("features=[text]"), "{text}");
    assert_eq!(
        lines(&frame.collect().await.unwrap()),
        ["a15 4 e1", "a2b 3 e2"]
    );
}
