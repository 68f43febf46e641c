//! The plain as-of join, from the logical node down.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Extension, LogicalPlan, col, lit};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{DataFrame, Expr, SessionContext};

use crate::asof::node::{AsofJoin, AsofOperator};
use crate::testing::{lines, session};

fn integers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap()
}

/// A relation with a partition per batch.
fn relation(session: &SessionContext, batches: Vec<RecordBatch>) -> LogicalPlan {
    let schema = batches[0].schema();
    let partitions = batches.into_iter().map(|batch| vec![batch]).collect();
    let table = MemTable::try_new(schema, partitions).unwrap();
    session
        .read_table(Arc::new(table))
        .unwrap()
        .into_unoptimized_plan()
}

fn join(
    session: &SessionContext,
    left: Vec<RecordBatch>,
    right: Vec<RecordBatch>,
    on: Vec<(Expr, Expr)>,
    operator: AsofOperator,
) -> DataFrame {
    let plan = |batches| {
        session
            .read_batches(batches)
            .unwrap()
            .into_unoptimized_plan()
    };
    let node =
        AsofJoin::try_new(plan(left), plan(right), on, col("lt"), operator, col("rt")).unwrap();
    DataFrame::new(
        session.state(),
        LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        }),
    )
}

async fn answer(
    left: &RecordBatch,
    right: &RecordBatch,
    on: &[(Expr, Expr)],
    operator: AsofOperator,
    columns: &[&str],
) -> Vec<String> {
    let split = |batch: &RecordBatch, size: usize| -> Vec<RecordBatch> {
        let rows = batch.num_rows();
        (0..rows)
            .step_by(size)
            .map(|start| batch.slice(start, size.min(rows - start)))
            .collect()
    };
    let mut answers = Vec::new();
    for (partitions, size) in [(1, 100), (2, 1), (5, 2)] {
        let session = session(partitions);
        let (left, right) = (split(left, size), split(right, size));
        let frame = join(&session, left, right, on.to_vec(), operator);
        let frame = frame.select_columns(columns).unwrap();
        answers.push(lines(&frame.collect().await.unwrap()));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    answers.swap_remove(0)
}

fn keyed() -> (RecordBatch, RecordBatch) {
    let left = batch(vec![
        (
            "lk",
            integers(&[Some(1), Some(1), Some(1), Some(2), Some(3), None, Some(1)]),
        ),
        (
            "lt",
            integers(&[
                Some(5),
                Some(10),
                Some(15),
                Some(10),
                Some(10),
                Some(10),
                None,
            ]),
        ),
        (
            "l",
            integers(&[
                Some(0),
                Some(1),
                Some(2),
                Some(3),
                Some(4),
                Some(5),
                Some(6),
            ]),
        ),
    ]);
    let right = batch(vec![
        (
            "rk",
            integers(&[Some(1), Some(1), Some(1), Some(2), None, Some(1)]),
        ),
        (
            "rt",
            integers(&[Some(10), Some(12), Some(4), Some(11), Some(1), None]),
        ),
        (
            "r",
            integers(&[Some(10), Some(12), Some(4), Some(11), Some(1), Some(99)]),
        ),
    ]);
    (left, right)
}

#[tokio::test]
async fn every_operator_takes_the_nearest() {
    let (left, right) = keyed();
    let on = [(col("lk"), col("rk"))];
    for (operator, expected) in [
        (
            AsofOperator::GreaterOrEqual,
            ["0 4", "1 10", "2 12", "3 -", "4 -", "5 -", "6 -"],
        ),
        (
            AsofOperator::Greater,
            ["0 4", "1 4", "2 12", "3 -", "4 -", "5 -", "6 -"],
        ),
        (
            AsofOperator::LessOrEqual,
            ["0 10", "1 10", "2 -", "3 11", "4 -", "5 -", "6 -"],
        ),
        (
            AsofOperator::Less,
            ["0 10", "1 12", "2 -", "3 11", "4 -", "5 -", "6 -"],
        ),
    ] {
        assert_eq!(
            answer(&left, &right, &on, operator, &["l", "r"]).await,
            expected,
            "{operator}"
        );
    }
}

#[tokio::test]
async fn without_keys_all_rows_are_one_group() {
    let (left, right) = keyed();
    let expected = ["0 4", "1 10", "2 12", "3 10", "4 10", "5 10", "6 -"];
    let operator = AsofOperator::GreaterOrEqual;
    assert_eq!(
        answer(&left, &right, &[], operator, &["l", "r"]).await,
        expected
    );
}

#[tokio::test]
async fn among_ties_the_greatest_remaining_columns_win_nulls_first() {
    let left = batch(vec![
        ("lk", integers(&[Some(1), Some(2)])),
        ("lt", integers(&[Some(9); 2])),
    ]);
    let a = [Some(5), None, Some(7), Some(7), None, None];
    let b = [Some(9), Some(9), Some(1), Some(2), Some(3), None];
    let right = batch(vec![
        ("a", integers(&a)),
        (
            "rk",
            integers(&[Some(1), Some(1), Some(1), Some(1), Some(2), Some(2)]),
        ),
        ("rt", integers(&[Some(8); 6])),
        ("b", integers(&b)),
    ]);
    let on = [(col("lk"), col("rk"))];
    for operator in [AsofOperator::GreaterOrEqual, AsofOperator::Greater] {
        let answer = answer(&left, &right, &on, operator, &["lk", "a", "b"]).await;
        assert_eq!(answer, ["1 7 2", "2 - 3"]);
    }
    // The columns that decide are read even when they are not asked for.
    let answer = answer(
        &left,
        &right,
        &on,
        AsofOperator::GreaterOrEqual,
        &["lk", "b"],
    )
    .await;
    assert_eq!(answer, ["1 2", "2 3"]);
}

#[tokio::test]
async fn keys_of_every_type() {
    let doubles = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let other_nan = f64::from_bits(0xfff8_0000_0000_0001);
    let pairs: [(ArrayRef, ArrayRef); 4] = [
        (
            doubles(&[0.0, -0.0, f64::NAN, 1.5]),
            doubles(&[-0.0, 7.0, other_nan, 1.5]),
        ),
        (
            Arc::new(StringArray::from(vec!["a", "a", "b", ""])),
            Arc::new(StringArray::from(vec!["a", "x", "b", ""])),
        ),
        (
            Arc::new(BinaryArray::from_vec(vec![b"\0", b"\0", b"b", b""])),
            Arc::new(BinaryArray::from_vec(vec![b"\0", b"x", b"b", b""])),
        ),
        (
            Arc::new(BooleanArray::from(vec![true, true, false, false])),
            Arc::new(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                None,
            ])),
        ),
    ];
    for (left, right) in pairs {
        let data_type = left.data_type().clone();
        let row = integers(&[Some(0), Some(1), Some(2), Some(3)]);
        let left = batch(vec![
            ("lk", left),
            ("lt", integers(&[Some(5); 4])),
            ("l", Arc::clone(&row)),
        ]);
        let right = batch(vec![
            ("rk", right),
            ("rt", integers(&[Some(5); 4])),
            ("r", row),
        ]);
        let on = [(col("lk"), col("rk"))];
        let answer = answer(
            &left,
            &right,
            &on,
            AsofOperator::GreaterOrEqual,
            &["l", "r"],
        )
        .await;
        let last = if data_type == arrow::datatypes::DataType::Boolean {
            "3 2"
        } else {
            "3 3"
        };
        assert_eq!(answer, ["0 0", "1 0", "2 2", last], "{data_type}");
    }
}

#[tokio::test]
async fn several_keys_must_all_be_equal() {
    let text = |values: &[&str]| Arc::new(StringArray::from(values.to_vec())) as ArrayRef;
    let left = batch(vec![
        ("lk", integers(&[Some(1), Some(1), Some(2)])),
        ("lk2", text(&["a", "b", "a"])),
        ("lt", integers(&[Some(5); 3])),
    ]);
    let right = batch(vec![
        ("rk", integers(&[Some(1), Some(1), Some(2)])),
        ("rk2", text(&["a", "c", "b"])),
        ("rt", integers(&[Some(1), Some(2), Some(3)])),
    ]);
    let on = [(col("lk"), col("rk")), (col("lk2"), col("rk2"))];
    let answer = answer(
        &left,
        &right,
        &on,
        AsofOperator::GreaterOrEqual,
        &["lk", "lk2", "rt"],
    )
    .await;
    assert_eq!(answer, ["1 a 1", "1 b -", "2 a -"]);
}

#[tokio::test]
async fn an_empty_side() {
    let (left, right) = keyed();
    let on = [(col("lk"), col("rk"))];
    let session = session(3);
    for (left_rows, right_rows, rows) in [(0, 6, 0), (7, 0, 7)] {
        let frame = join(
            &session,
            vec![left.slice(0, left_rows)],
            vec![right.slice(0, right_rows)],
            on.to_vec(),
            AsofOperator::GreaterOrEqual,
        );
        assert_eq!(
            frame
                .collect()
                .await
                .unwrap()
                .iter()
                .map(arrow::array::RecordBatch::num_rows)
                .sum::<usize>(),
            rows
        );
    }
}

#[tokio::test]
async fn joins_chain_and_are_planned_over_partitions_and_sorts() {
    let nanoseconds =
        |values: &[i64]| Arc::new(TimestampNanosecondArray::from(values.to_vec())) as ArrayRef;
    let left = batch(vec![
        ("lk", integers(&[Some(1)])),
        ("lt", nanoseconds(&[5])),
    ]);
    let right = batch(vec![
        ("rk", integers(&[Some(1); 2])),
        ("rt", nanoseconds(&[5, 6])),
    ]);
    let other = batch(vec![
        ("ok", integers(&[Some(1); 2])),
        ("ot", nanoseconds(&[4, 6])),
    ]);
    let session = session(3);
    let on = vec![(col("lk"), col("rk"))];
    let first = join(
        &session,
        vec![left.clone(), left],
        vec![right.slice(0, 1), right.slice(1, 1)],
        on,
        AsofOperator::GreaterOrEqual,
    );
    let other = relation(&session, vec![other.slice(0, 1), other.slice(1, 1)]);
    let node = AsofJoin::try_new(
        first.into_unoptimized_plan(),
        other,
        vec![(col("lk"), col("ok"))],
        col("lt"),
        AsofOperator::Less,
        col("ot"),
    )
    .unwrap();
    let plan = LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    });
    let frame = DataFrame::new(session.state(), plan);
    let physical = frame.clone().create_physical_plan().await.unwrap();
    let text = displayable(physical.as_ref()).indent(false).to_string();
    assert!(
        text.contains("AsofExec: lt@1 < ot@1, lk@0 = ok@0"),
        "{text}"
    );
    assert!(
        text.contains("RepartitionExec: partitioning=Hash([lk@0], 3)"),
        "{text}"
    );
    assert!(text.contains("SortExec"), "{text}");
    let frame = frame.select_columns(&["rt", "ot"]).unwrap();
    let expected = ["1970-01-01T00:00:00.000000005 1970-01-01T00:00:00.000000006"; 2];
    assert_eq!(lines(&frame.collect().await.unwrap()), expected);
}

#[tokio::test]
async fn sides_of_two_types_are_refused() {
    let left = batch(vec![
        ("lk", integers(&[Some(1)])),
        ("lt", integers(&[Some(1)])),
    ]);
    let key: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let right = batch(vec![("rk", key), ("rt", integers(&[Some(1)]))]);
    let on = vec![(col("lk"), col("rk"))];
    let frame = join(
        &session(1),
        vec![left],
        vec![right],
        on,
        AsofOperator::GreaterOrEqual,
    );
    let error = frame.collect().await.unwrap_err().to_string();
    assert!(error.contains("cannot compare Int64 with Utf8"), "{error}");
}

#[tokio::test]
async fn predicates_go_to_the_side_they_speak_of() {
    let (left, right) = keyed();
    let session = session(1);
    let on = vec![(col("lk"), col("rk"))];
    let frame = join(
        &session,
        vec![left],
        vec![right],
        on,
        AsofOperator::GreaterOrEqual,
    );
    let all = lines(&frame.clone().collect().await.unwrap());
    let kept = |keep: &dyn Fn(&[&str]) -> bool| -> Vec<String> {
        let keep = |line: &&String| keep(&line.split(' ').collect::<Vec<_>>());
        all.iter().filter(keep).cloned().collect()
    };
    // On a right column: the best match first, then the predicate.
    let above = frame.clone().filter(col("r").lt(lit(10))).unwrap();
    assert_eq!(lines(&above.collect().await.unwrap()), ["1 5 0 1 4 4"]);
    let both = frame
        .filter(col("lk").eq(lit(1)).and(col("l").gt(lit(0))))
        .unwrap();
    let plan = both.clone().into_optimized_plan().unwrap().to_string();
    let (_, sides) = plan.split_once("AsofJoin").unwrap();
    assert!(plan.starts_with("AsofJoin"), "{plan}");
    assert_eq!(sides.matches("lk = Int64(1)").count(), 1, "{plan}");
    assert_eq!(sides.matches("rk = Int64(1)").count(), 1, "{plan}");
    assert_eq!(sides.matches("l > Int64(0)").count(), 1, "{plan}");
    let expected = kept(&|cells| cells[0] == "1" && cells[2] > "0");
    assert_eq!(lines(&both.collect().await.unwrap()), expected);
}
