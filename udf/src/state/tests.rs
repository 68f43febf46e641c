//! State as definition A of the contract says, through the provider and SQL.

use arrow::array::{ArrayRef, RecordBatch, StringViewArray};
use datafusion::logical_expr::{col, lit};
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use featureflight_catalog::model::FeatureType;
use featureflight_catalog::table::EventTimeForm;
use object_store::memory::InMemory;

use super::*;
use crate::testing::*;

async fn context(store: &Arc<InMemory>, clocks: Clocks, partitions: usize) -> SessionContext {
    let table = table(store, FeatureType::String, EventTimeForm::Text);
    let config = SessionConfig::new().with_target_partitions(partitions);
    let context = SessionContext::new_with_config(config);
    let provider = state_provider(table, clocks, scan_context());
    context.register_table("customers", provider).unwrap();
    context
}

async fn rows(context: &SessionContext, sql: &str) -> Vec<String> {
    lines(&context.sql(sql).await.unwrap().collect().await.unwrap())
}

async fn worked_example(clocks: Clocks) -> Vec<String> {
    let mut answers = Vec::new();
    for (files, partitions) in [(1, 1), (3, 2), (9, 8)] {
        let store = store(&versions(&WORKED_EXAMPLE), files).await;
        let context = context(&store, clocks, partitions).await;
        answers.push(rows(&context, "SELECT id, text FROM customers").await);
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    answers.swap_remove(0)
}

#[tokio::test]
async fn the_latest_version_wins_and_a_tombstone_leaves_no_row() {
    assert_eq!(worked_example(Clocks::default()).await, ["A a2b", "C c4"]);
}

#[tokio::test]
async fn the_system_clock_cuts_on_write_time() {
    let clocks = Clocks {
        system: Some(at(1150)),
        valid: None,
    };
    assert_eq!(worked_example(clocks).await, ["A a2b", "B b1", "C c1"]);
    // Inclusive, and before ranking: the newer duplicate is not there yet.
    let clocks = Clocks {
        system: Some(at(1100)),
        valid: None,
    };
    assert_eq!(worked_example(clocks).await, ["A a2", "B b1", "C c1"]);
}

#[tokio::test]
async fn the_valid_clock_cuts_on_event_time() {
    let clocks = Clocks {
        system: None,
        valid: Some(at(250)),
    };
    assert_eq!(worked_example(clocks).await, ["A a2b", "B b1", "C c1"]);
    let clocks = Clocks {
        system: None,
        valid: Some(at(300)),
    };
    assert_eq!(worked_example(clocks).await, ["A a2b"]);
    let clocks = Clocks {
        system: Some(at(1150)),
        valid: Some(at(150)),
    };
    assert_eq!(worked_example(clocks).await, ["A a1", "B b1", "C c1"]);
}

#[tokio::test]
async fn object_key_then_row_break_the_last_ties() {
    let tie = ("A", 100, Some("first"), 100, 100, false);
    let rows_of = |texts: [&'static str; 3]| {
        texts.map(|text| (tie.0, tie.1, Some(text), tie.3, tie.4, tie.5))
    };
    let store = Arc::new(InMemory::new());
    let files = [
        ("b.parquet", ["b0", "b1", "b2"]),
        ("a.parquet", ["a0", "a1", "a2"]),
    ];
    for (key, texts) in files {
        let versions = versions(&rows_of(texts));
        write(
            &store,
            &[File {
                key: key.to_owned(),
                versions,
            }],
        )
        .await;
    }
    let context = context(&store, Clocks::default(), 2).await;
    assert_eq!(rows(&context, "SELECT text FROM customers").await, ["b2"]);
}

#[tokio::test]
async fn counts_limits_and_column_subsets() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let clocks = Clocks {
        system: Some(at(1150)),
        valid: None,
    };
    let context = context(&store, clocks, 4).await;
    assert_eq!(
        rows(&context, "SELECT count(*) FROM customers").await,
        ["3"]
    );
    assert_eq!(
        rows(&context, "SELECT 1 FROM customers LIMIT 2")
            .await
            .len(),
        2
    );
    assert_eq!(
        rows(&context, "SELECT text, id FROM customers LIMIT 2")
            .await
            .len(),
        2
    );
    let times = rows(&context, "SELECT event_time FROM customers WHERE id = 'A'").await;
    assert_eq!(times, ["1970-01-01T00:03:20Z"]);
}

#[tokio::test]
async fn predicates_on_values_choose_among_states_not_versions() {
    let store = store(&versions(&WORKED_EXAMPLE), 2).await;
    let context = context(&store, Clocks::default(), 2).await;
    // Below the ranking they would bring older versions back.
    for predicate in [
        "text = 'a1'",
        "event_time <= TIMESTAMP '1970-01-01T00:02:30Z'",
        "number < 3",
    ] {
        let sql = format!("SELECT text FROM customers WHERE id = 'A' AND {predicate}");
        let expected: &[&str] = if predicate == "number < 3" {
            &["a2b"]
        } else {
            &[]
        };
        assert_eq!(rows(&context, &sql).await, expected, "{predicate}");
    }
}

#[tokio::test]
async fn predicates_on_the_identifier_go_below_the_ranking() {
    let store = store(&versions(&WORKED_EXAMPLE), 2).await;
    let table = table(&store, FeatureType::String, EventTimeForm::Text);
    let provider = state_provider(Arc::clone(&table), Clocks::default(), scan_context());
    let pushed = |filter: Expr| {
        provider
            .supports_filters_pushdown(&[&filter])
            .unwrap()
            .remove(0)
    };
    assert_eq!(
        pushed(col("id").eq(lit("A"))),
        TableProviderFilterPushDown::Exact
    );
    let list = col("id").in_list(vec![lit("A"), lit("B")], false);
    assert_eq!(pushed(list), TableProviderFilterPushDown::Exact);
    let others = [
        col("text").eq(lit("a1")),
        col("id").eq(col("text")),
        col("event_time").is_not_null(),
        col("id").eq(lit("A")).or(col("number").gt(lit(1))),
        datafusion::functions::expr_fn::random()
            .lt(lit(0.5))
            .and(col("id").eq(lit("A"))),
    ];
    for other in others {
        assert_eq!(pushed(other), TableProviderFilterPushDown::Unsupported);
    }

    let context = context(&store, Clocks::default(), 2).await;
    let sql = "SELECT text FROM customers WHERE id IN ('A', 'B') AND text <> 'x'";
    assert_eq!(rows(&context, sql).await, ["a2b"]);
    let plan = rows(&context, &format!("EXPLAIN {sql}")).await.join("\n");
    assert!(plan.contains("predicate="), "{plan}");
}

#[tokio::test]
async fn double_identifiers_are_one_record_per_value_of_the_contract() {
    let version = |key: f64, event: i64, text: &'static str| Version {
        key: Key::Double(key),
        text: Some(text.to_owned()),
        ..versions(&[("", event, None, event, event, false)]).remove(0)
    };
    let rows_in = [
        version(0.0, 1, "zero"),
        version(-0.0, 2, "minus zero"),
        version(f64::NAN, 1, "nan"),
        version(f64::from_bits(0xfff8_0000_0000_0000), 2, "minus nan"),
        version(1.0, 1, "one"),
    ];
    let store = store(&rows_in, 2).await;
    let table = table(&store, FeatureType::Fractional, EventTimeForm::Text);
    let context = SessionContext::new();
    let provider = state_provider(table, Clocks::default(), scan_context());
    context.register_table("customers", provider).unwrap();
    let expected = ["minus nan", "minus zero", "one"];
    assert_eq!(rows(&context, "SELECT text FROM customers").await, expected);
    // A predicate that tells the zeros apart must not hide the newest version.
    let sql = "SELECT text FROM customers WHERE 1 / id > 0";
    assert_eq!(rows(&context, sql).await, ["one"]);
}

async fn plan(store: &Arc<InMemory>, partitions: usize) -> Arc<dyn ExecutionPlan> {
    let context = context(store, Clocks::default(), partitions).await;
    context
        .sql("SELECT * FROM customers")
        .await
        .unwrap()
        .create_physical_plan()
        .await
        .unwrap()
}

/// The operator below what the optimizer put above it.
fn state_exec(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    fn find(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
        let below = || plan.children().into_iter().find_map(find);
        (plan.name() == "StateExec")
            .then(|| Arc::clone(plan))
            .or_else(below)
    }
    find(plan).expect("a state in the plan")
}

#[tokio::test]
async fn a_plan_runs_again_and_partitions_share_one_pass() {
    let store = store(&versions(&WORKED_EXAMPLE), 9).await;
    let plan = plan(&store, 4).await;
    assert_eq!(plan.output_partitioning().partition_count(), 4);
    let context = task_context(4, 2);
    for runs in 1..=2 {
        let batches = collect(Arc::clone(&plan), Arc::clone(&context))
            .await
            .unwrap();
        let rows: usize = batches
            .iter()
            .map(arrow::array::RecordBatch::num_rows)
            .sum();
        assert_eq!(rows, 2);
        let metrics = state_exec(&plan).metrics().unwrap();
        assert_eq!(
            metrics.sum_by_name("files_read").unwrap().as_usize(),
            9 * runs
        );
    }
}

#[tokio::test]
async fn too_many_records_are_an_error_and_the_memory_is_given_back() {
    let rows: Vec<Version> = (0..20_000)
        .map(|i| Version {
            key: Key::Text(format!("customer {i}")),
            ..versions(&[("", i, None, i, i, false)]).remove(0)
        })
        .collect();
    let store = store(&rows, 1).await;
    let plan = plan(&store, 1).await;
    let context = limited_context(1, 8192, Some(100_000));
    let error = collect(Arc::clone(&plan), Arc::clone(&context))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("Resources exhausted"), "{error}");
    assert_eq!(context.memory_pool().reserved(), 0);

    let context = limited_context(1, 8192, Some(100_000_000));
    let batches = collect(plan, Arc::clone(&context)).await.unwrap();
    assert_eq!(
        batches
            .iter()
            .map(arrow::array::RecordBatch::num_rows)
            .sum::<usize>(),
        20_000
    );
    drop(batches);
    assert_eq!(context.memory_pool().reserved(), 0);
}

#[tokio::test]
async fn an_empty_group_has_no_rows() {
    let store = Arc::new(InMemory::new());
    let context = context(&store, Clocks::default(), 4).await;
    assert!(rows(&context, "SELECT * FROM customers").await.is_empty());
    assert_eq!(
        rows(&context, "SELECT count(*) FROM customers").await,
        ["0"]
    );
}

#[tokio::test]
async fn dropped_streams_end_the_pass() {
    let store = stuck(&*store(&versions(&WORKED_EXAMPLE), 9).await);
    let table = table(&store, FeatureType::String, EventTimeForm::Text);
    let scan = scan_context();
    let reader = Arc::clone(&scan.reader);
    let context = SessionContext::new();
    let provider = state_provider(table, Clocks::default(), scan);
    let plan = provider
        .scan(&context.state(), None, &[], None)
        .await
        .unwrap();
    dropped_streams_leave_nothing(&plan, &reader).await;
}

#[tokio::test]
async fn files_beyond_the_valid_clock_are_not_read() {
    let store = days().await;
    for (day, text, read) in [(2, "a", 1), (12, "b", 2), (40, "c", 3)] {
        let clocks = Clocks {
            system: None,
            valid: Some(at(day * 86_400)),
        };
        let context = context(&store, clocks, 2).await;
        let frame = context.sql("SELECT text FROM customers").await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let batches = collect(Arc::clone(&plan), task_context(2, 8))
            .await
            .unwrap();
        assert_eq!(lines(&batches), [text]);
        let metrics = state_exec(&plan).metrics().unwrap();
        assert_eq!(metrics.sum_by_name("files_read").unwrap().as_usize(), read);
    }
}

#[tokio::test]
async fn a_limit_finds_the_same_rows_again() {
    let rows_in: Vec<Version> = (0..50)
        .map(|i| Version {
            key: Key::Text(format!("{i}")),
            ..versions(&[("", i, None, i, i, false)]).remove(0)
        })
        .collect();
    let store = store(&rows_in, 10).await;
    let context = context(&store, Clocks::default(), 4).await;
    let first = rows(&context, "SELECT id FROM customers LIMIT 7").await;
    assert_eq!(first.len(), 7);
    for _ in 0..5 {
        assert_eq!(
            rows(&context, "SELECT id FROM customers LIMIT 7").await,
            first
        );
    }
}

/// [`days`], and B, which has one old version in a file of its own.
async fn days_and_another_record() -> Arc<InMemory> {
    let store = days().await;
    let old = ("B", 4 * 86_400 + 60, Some("x"), 0, 0, false);
    let file = File {
        key: "year=1970/month=01/day=05/hour=00/x.parquet".to_owned(),
        versions: versions(&[old]),
    };
    write(&store, &[file]).await;
    store
}

#[tokio::test]
async fn a_lookup_ends_when_the_named_records_are_settled() {
    let store = days_and_another_record().await;
    for (named, found, probed, settled) in [
        ("'A'", vec!["c"], 1, 3),
        // Statistics rule out the files that lack B, and those that only have B.
        ("'B'", vec!["x"], 1, 1),
        ("'A', 'B'", vec!["c", "x"], 3, 1),
        ("'A', 'nobody'", vec!["c"], 3, 0),
    ] {
        let context = context(&store, Clocks::default(), 1).await;
        let sql = format!("SELECT text FROM customers WHERE id IN ({named})");
        let frame = context.sql(&sql).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let batches = collect(Arc::clone(&plan), task_context(1, 8))
            .await
            .unwrap();
        assert_eq!(lines(&batches), found, "{named}");
        let metrics = state_exec(&plan).metrics().unwrap();
        let probes = metrics.sum_by_name("versions_probed").unwrap().as_usize();
        assert_eq!(probes, probed, "{named}");
        let left_out = metrics.sum_by_name("files_settled").unwrap().as_usize();
        assert_eq!(left_out, settled, "{named}");
    }
}

#[tokio::test]
async fn a_join_names_the_records_it_wants() {
    let store = days_and_another_record().await;
    let probes = async |wanted: Vec<&str>, sql: &str, partitions: usize| {
        let context = context(&store, Clocks::default(), partitions).await;
        let ids = StringViewArray::from_iter_values(wanted.iter().copied());
        let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).unwrap();
        context.register_batch("wanted", batch).unwrap();
        let plan = context.sql(sql).await.unwrap();
        let plan = plan.create_physical_plan().await.unwrap();
        let batches = collect(Arc::clone(&plan), context.task_ctx()).await;
        let metrics = state_exec(&plan).metrics().unwrap();
        // Absent where the join wants nothing, and the state is never asked for.
        let probed = metrics.sum_by_name("versions_probed");
        (
            lines(&batches.unwrap()),
            probed.map_or(0, |probed| probed.as_usize()),
        )
    };
    let semi = "SELECT text FROM customers WHERE id IN (SELECT id FROM wanted)";
    let inner = "SELECT text FROM customers JOIN wanted USING (id)";
    let anti = "SELECT text FROM customers WHERE id NOT IN (SELECT id FROM wanted)";
    for partitions in [1, 4] {
        for sql in [semi, inner] {
            let (found, probed) = probes(vec!["A"], sql, partitions).await;
            assert_eq!(found, ["c"], "{sql}");
            // Several tasks have begun files before the newest is done; none has B alone.
            let most = if partitions == 1 { 1 } else { 3 };
            assert!((1..=most).contains(&probed), "{sql}: {probed}");
            let (found, _) = probes(vec!["A", "B", "nobody"], sql, partitions).await;
            assert_eq!(found, ["c", "x"], "{sql}");
            assert!(probes(vec![], sql, partitions).await.0.is_empty(), "{sql}");
        }
        assert_eq!(probes(vec!["A"], anti, partitions).await.0, ["x"]);
        assert_eq!(probes(vec![], anti, partitions).await.0, ["c", "x"]);
    }
}

#[tokio::test]
async fn what_a_join_wants_is_asked_anew_in_every_step_of_a_recursion() {
    let store = store(&versions(&WORKED_EXAMPLE), 3).await;
    let context = context(&store, Clocks::default(), 2).await;
    // Each step wants another record: what the step before wanted must not be left over.
    let sql = "WITH RECURSIVE steps(id) AS (
            SELECT 'A' UNION ALL
            SELECT CASE steps.id WHEN 'A' THEN 'C' ELSE 'nobody' END
            FROM steps JOIN customers ON customers.id = steps.id)
        SELECT id FROM steps";
    assert_eq!(rows(&context, sql).await, ["A", "C", "nobody"]);
}
