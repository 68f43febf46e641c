//! Timestamps in microseconds beside constants in nanoseconds, against the comparison of their numbers.

use super::rig::Rig;

const MICROS: [i64; 6] = [-2_000_001, -1, 0, 1, 2, 253_402_300_799_999_999];

/// The first of a thousand of microsecond 1 and of the last before 1970, the last of each, and some
/// between.
const NANOS: [i64; 7] = [-1_000, -999, -1, 1_000, 1_001, 1_999, 2_000];

type Holds = fn(&i128, &i128) -> bool;

#[tokio::test]
async fn a_finer_constant_is_compared_as_it_is() {
    let rig = Rig::new().await;
    let rows = MICROS.map(|micros| format!("({micros})")).join(", ");
    let wanted = |holds: &dyn Fn(i128) -> bool| {
        let nanos = |micros: i64| i128::from(micros) * 1_000;
        let rows = MICROS.map(|micros| format!("{micros} {}", holds(nanos(micros))));
        let mut rows: Vec<_> = rows.into_iter().chain(["- -".to_owned()]).collect();
        rows.sort();
        rows
    };
    let found = async |condition: &str| {
        let sql = format!(
            "SELECT n, {condition} AS holds FROM (SELECT n, to_timestamp_micros(n) AS t FROM \
             (VALUES {rows}, (NULL)) v(n)) ORDER BY n"
        );
        let mut rows = rig.rows(&sql).await;
        rows.sort();
        rows
    };
    let operators: [(&str, &str, Holds); 6] = [
        ("<", ">", i128::lt),
        ("<=", ">=", i128::le),
        (">", "<", i128::gt),
        (">=", "<=", i128::ge),
        ("=", "=", i128::eq),
        ("<>", "<>", i128::ne),
    ];
    for first in NANOS {
        let (x, a) = (format!("to_timestamp_nanos({first})"), i128::from(first));
        for (operator, swapped, holds) in operators {
            for condition in [format!("t {operator} {x}"), format!("{x} {swapped} t")] {
                let expected = wanted(&|t| holds(&t, &a));
                assert_eq!(found(&condition).await, expected, "{condition}");
                let expected = wanted(&|t| !holds(&t, &a));
                let negated = format!("NOT ({condition})");
                assert_eq!(found(&negated).await, expected, "{negated}");
            }
        }
        // Never null.
        for (not, plain) in [("", false), ("NOT ", true)] {
            let distinct = format!("t IS {not}DISTINCT FROM {x}");
            let mut expected = wanted(&|t| (t == a) == plain);
            expected.retain(|row| row != "- -");
            expected.push(format!("- {}", !plain));
            expected.sort();
            assert_eq!(found(&distinct).await, expected, "{distinct}");
        }
        for second in NANOS {
            let (y, b) = (format!("to_timestamp_nanos({second})"), i128::from(second));
            for (not, plain) in [("", true), ("NOT ", false)] {
                let between = format!("t {not}BETWEEN {x} AND {y}");
                let expected = wanted(&|t| (a <= t && t <= b) == plain);
                assert_eq!(found(&between).await, expected, "{between}");
                let list = format!("t {not}IN ({x}, {y})");
                let expected = wanted(&|t| (t == a || t == b) == plain);
                assert_eq!(found(&list).await, expected, "{list}");
            }
        }
    }
}

#[tokio::test]
async fn a_finer_constant_is_pushed_down_in_the_columns_unit() {
    let rig = Rig::new().await;
    let sql = "SELECT id FROM history.customers WHERE event_time < TIMESTAMP \
               '1970-01-01 00:02:30.000000001' AND event_time >= to_timestamp('1970-01-01T00:01:40Z')";
    let found = rig.rows(sql).await;
    assert_eq!(found, ["A", "A", "B", "C"]);
    let plan = rig.rows(&format!("EXPLAIN {sql}")).await.join("\n");
    assert!(!plan.contains("CAST"), "{plan}");
}
