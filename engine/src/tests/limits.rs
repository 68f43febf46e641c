use std::fmt::Write as _;
use std::time::Duration;

use featureflight_catalog::Kind;

use super::{server, server_with};
use crate::EngineOptions;

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_end_in_an_error_or_an_answer_and_never_the_process() {
    let server = server().await;
    for terms in [400, 2_000, 20_000] {
        for (first, next) in [
            ("SELECT 1", "+1"),
            ("SELECT age FROM customers WHERE age = 1", " OR age = 1"),
            (
                "SELECT age FROM customers WHERE age = 1",
                " OR age + age = 1",
            ),
            ("SELECT 'a'", "||'a'"),
            ("SELECT 1", "::int"),
            ("SELECT 1", " UNION ALL SELECT 1"),
            ("SELECT -", "-"),
            ("SELECT NOT ", "NOT "),
        ] {
            let mut sql = first.to_owned();
            sql.push_str(&next.repeat(terms));
            match server.rows(&sql).await {
                Ok(_) => {}
                Err(error) => assert!(
                    matches!(error.kind, Kind::ResourceExhausted | Kind::InvalidArgument),
                    "{first}{next} {terms}: {error}"
                ),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctes_that_double_are_refused_soon() {
    let server = server().await;
    let mut sql = "WITH t0 AS (SELECT 1 AS x)".to_owned();
    for level in 1..=22 {
        let below = level - 1;
        write!(
            sql,
            ", t{level} AS (SELECT a.x FROM t{below} a JOIN t{below} b ON a.x = b.x)"
        )
        .unwrap();
    }
    sql.push_str(" SELECT * FROM t22");
    let started = std::time::Instant::now();
    let error = server.error(&sql).await;
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(started.elapsed().as_secs() < 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_ctes_that_is_too_deep_to_run_is_refused() {
    let server = server().await;
    let mut sql = "WITH t0 AS (SELECT value AS x FROM range(3))".to_owned();
    for level in 1..=1_000 {
        write!(
            sql,
            ", t{level} AS (SELECT DISTINCT x + 1 AS x FROM t{})",
            level - 1
        )
        .unwrap();
    }
    sql.push_str(" SELECT * FROM t1000");
    let error = server.error(&sql).await;
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deepest_plans_that_are_let_through_run_on_a_workers_stack() {
    let server = server().await;
    for step in [
        "SELECT DISTINCT x + random() * 0 AS x FROM below",
        "SELECT sum(x) OVER (ORDER BY x) AS x FROM below",
        "SELECT a.x + random() * 0 AS x FROM below a JOIN range(3) b ON a.x = b.value",
        "SELECT max(x) AS x FROM below GROUP BY x % 7",
        "SELECT x FROM below ORDER BY x LIMIT 9",
        "SELECT a.x FROM below a LEFT JOIN customers c ON c.age = a.x",
    ] {
        let mut deepest = 0;
        for levels in [20, 33, 97] {
            let mut sql = "WITH t0 AS (SELECT value AS x FROM range(3))".to_owned();
            for level in 1..=levels {
                let step = step.replace("below", &format!("t{}", level - 1));
                write!(sql, ", t{level} AS ({step})").unwrap();
            }
            write!(sql, " SELECT * FROM t{levels}").unwrap();
            match server.rows(&sql).await {
                Ok(_) => deepest = levels,
                Err(error) => assert_eq!(error.kind, Kind::ResourceExhausted, "{sql}: {error}"),
            }
        }
        assert!(deepest >= 20, "{step}: {deepest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deepest_expressions_that_are_let_through_run_on_a_workers_stack() {
    let server = server().await;
    for (first, next) in [
        ("SELECT age", "+age"),
        (
            "SELECT age FROM customers WHERE age = 1",
            " OR age + \"Score\" = 1",
        ),
        ("SELECT customer_id", "||customer_id"),
        ("SELECT age", "::text::bigint"),
    ] {
        for terms in [200, 245, 495] {
            let mut sql = format!("{first}{}", next.repeat(terms));
            if !sql.contains("FROM") {
                sql.push_str(" FROM history.customers");
            }
            if let Err(error) = server.rows(&sql).await {
                assert_eq!(
                    error.kind,
                    Kind::ResourceExhausted,
                    "{next} {terms}: {error}"
                );
                assert!(terms > 200, "{next} {terms}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_double_are_refused_soon() {
    let server = server().await;
    server
        .rows("CREATE TEMP VIEW v0 AS SELECT 1 AS x")
        .await
        .unwrap();
    let mut refused = None;
    for level in 1..=14 {
        let below = level - 1;
        let sql = format!(
            "CREATE TEMP VIEW v{level} AS SELECT a.x FROM v{below} a JOIN v{below} b ON a.x = b.x"
        );
        if let Err(error) = server.rows(&sql).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.unwrap().kind, Kind::ResourceExhausted);
}

#[tokio::test]
async fn functions_that_make_much_of_little_are_bounded() {
    let server = server().await;
    for sql in [
        "SELECT length(repeat('x', 2147483647))",
        "SELECT length(lpad('x', 2147483647))",
        "SELECT length(rpad('x', 2147483647, 'ab'))",
        "SELECT length(repeat('x', value * 100000000)) FROM range(10)",
        "SELECT array_length(array_repeat('x', 2147483647))",
        "SELECT array_length(list_repeat('x', 2147483647))",
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, Kind::ResourceExhausted, "{sql}: {error}");
    }
    assert_eq!(server.lines("SELECT repeat('ab', 2)").await, ["abab"]);
    assert_eq!(server.lines("SELECT lpad('x', 3, '-')").await, ["--x"]);
    assert_eq!(
        server.lines("SELECT repeat('ab', NULL) IS NULL").await,
        ["true"]
    );
}

#[tokio::test]
async fn concatenation_is_what_the_operator_says() {
    let server = server().await;
    for (sql, expected) in [
        ("SELECT 'a' || 'b' || 'c'", "abc"),
        ("SELECT 'a' || 1 || true || 2.5", "a1true2.5"),
        ("SELECT ('a' || NULL || 'b') IS NULL", "true"),
        (
            "SELECT customer_id || '/' || age FROM customers WHERE age = 31",
            "c1/31",
        ),
        (
            "SELECT 'a' || ('b' || customer_id) FROM customers WHERE age = 40",
            "abc2",
        ),
        ("SELECT array_length([1] || [2, 3])", "3"),
        ("SELECT array_length([1] || 2)", "2"),
        (
            "SELECT arrow_typeof(arrow_cast('a', 'Utf8View') || 'b')",
            "Utf8View",
        ),
        (
            "SELECT count(*) FROM customers GROUP BY customer_id || 'x' HAVING customer_id || 'x' = 'c1x'",
            "1",
        ),
        ("SELECT 'aXb' ~ ('X' || 'b')", "true"),
        (
            "SELECT customer_id LIKE '%' || 1 FROM customers WHERE age = 31",
            "true",
        ),
        (
            "SELECT regexp_replace('aXbX', 'X', repeat('y', 2), 'g')",
            "ayybyy",
        ),
        ("SELECT array_to_string([1, 2, 3], '-')", "1-2-3"),
        ("SELECT array_length(array_resize([1], 3, 9))", "3"),
        ("SELECT array_length(range(0, 10, 3))", "4"),
        (
            "SELECT array_length(generate_series(DATE '2026-01-01', DATE '2026-02-01', INTERVAL '1 day'))",
            "32",
        ),
        ("SELECT levenshtein('kitten', 'sitting')", "3"),
        ("SELECT to_char(DATE '2026-01-02', '%Y/%m')", "2026/01"),
        ("SELECT struct(1, 'a')['c0']", "1"),
        ("SELECT {'a': 7}['a']", "7"),
        ("SELECT arrow_cast('1', 'Int8')", "1"),
    ] {
        assert_eq!(server.lines(sql).await, [expected], "{sql}");
    }
    assert_eq!(
        server
            .lines("SELECT length(repeat('x', value * 1000000)) FROM range(1, 4)")
            .await,
        ["1000000", "2000000", "3000000"]
    );
}

/// Rows whose worst case is too much together are computed in pieces.
#[tokio::test]
async fn a_pessimistic_bound_does_not_refuse_what_stays_small() {
    let server = server().await;
    let sql = "SELECT count(*), sum(length(y)) FROM (SELECT \
               regexp_replace(repeat('a', 20000) || value, 'b', repeat('z', 100), 'g') AS y \
               FROM range(1000, 2000))";
    assert_eq!(server.lines(sql).await, ["1000 20004000"]);
}

#[tokio::test]
async fn a_text_too_long_is_refused() {
    let server = server().await;
    let sql = format!("SELECT '{}'", "x".repeat(300_000));
    assert_eq!(server.error(&sql).await.kind, Kind::ResourceExhausted);
}

/// The shape of apache/datafusion#24883: two aggregations, a repartition between them that spills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartitions_under_a_memory_limit_end() {
    let sql = "SELECT g, count(DISTINCT trace) FROM \
               (SELECT value % 7 AS g, repeat('x', 90) || value AS trace FROM range(40000)) \
               GROUP BY g";
    for attempt in 0..12_usize {
        let options = EngineOptions {
            memory_limit_bytes: (3 + attempt) << 20,
            target_partitions: 2,
            ..EngineOptions::default()
        };
        let server = server_with(options).await;
        let outcome = tokio::time::timeout(Duration::from_secs(60), server.rows(sql)).await;
        match outcome.expect("it ends") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind, Kind::ResourceExhausted, "{error}"),
        }
    }
}

/// Each level of the ladder is twice as large as the one below when it is written out.
fn ladder(levels: usize, rest: &str) -> String {
    let mut sql = "WITH t0 AS (SELECT value AS x FROM range(3))".to_owned();
    for level in 1..=levels {
        write!(sql, ", t{level} AS (SELECT x + x AS x FROM t{})", level - 1).unwrap();
    }
    sql + &rest.replace("TOP", &format!("t{levels}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_over_columns_that_double_are_refused_soon() {
    let server = server().await;
    let conditions = [
        " SELECT * FROM (SELECT * FROM TOP) WHERE x > 5",
        " SELECT x, count(*) FROM TOP GROUP BY x HAVING x > 5",
        " SELECT * FROM TOP a JOIN range(3) b ON a.x = b.value",
        " SELECT * FROM range(3) b JOIN TOP a ON a.x > b.value",
        " SELECT * FROM range(3) WHERE value IN (SELECT x FROM TOP WHERE x > 5)",
        " SELECT * FROM (SELECT x FROM TOP UNION ALL SELECT 1) WHERE x > 5",
        " SELECT * FROM (SELECT x, row_number() OVER (ORDER BY x) FROM TOP ORDER BY x LIMIT 9) WHERE x > 5",
    ];
    let started = std::time::Instant::now();
    for condition in conditions {
        let error = server.error(&ladder(40, condition)).await;
        assert_eq!(error.kind, Kind::ResourceExhausted, "{condition}: {error}");
        assert!(
            error.message.contains("written out"),
            "{condition}: {error}"
        );
    }
    assert!(started.elapsed().as_secs() < 20);
    let few = ladder(8, " SELECT x FROM TOP WHERE x > 256");
    assert_eq!(server.lines(&few).await, ["512"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_that_are_wide_in_any_way_are_refused_soon() {
    let server = server().await;
    let some = |count: usize, one: fn(usize) -> String, between: &str| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let columns = some(4_000, |n| format!("{n} AS c{n}"), ", ");
    let relations = some(65, |n| format!("t t{n}"), ", ");
    let arms = some(150, |_| "SELECT * FROM t".to_owned(), " UNION ALL ");
    let keys = some(300, |n| format!("value + {n}"), ", ");
    let few = some(12, |n| format!("value + {n}"), ", ");
    let named = some(300, |n| format!("{n} AS c{n}"), ", ");
    for (sql, word) in [
        (
            format!("WITH t AS (SELECT {columns}) SELECT count(*) FROM {relations}"),
            "a FROM joins 65",
        ),
        (
            format!("WITH t AS (SELECT {columns}) {arms}"),
            "columns in a list",
        ),
        (
            format!("WITH t AS (SELECT {named}) SELECT * FROM t a NATURAL JOIN t b"),
            "joins",
        ),
        (format!("SELECT * FROM range(3) ORDER BY {keys}"), "sorts"),
        (
            format!("SELECT sum(value) OVER (PARTITION BY {keys}) FROM range(3)"),
            "partitions",
        ),
        (
            format!("SELECT count(*) FROM range(3) GROUP BY CUBE ({few})"),
            "groupings",
        ),
        (
            format!(
                "SELECT count(*) FROM range(3) GROUP BY CUBE (value, value + 1, value + 2, value + 3, value + 4), \
                  ROLLUP ({few})"
            ),
            "groupings",
        ),
    ] {
        let error = server.error(&sql).await;
        assert_eq!(error.kind, Kind::ResourceExhausted, "{word}: {error}");
        assert!(error.message.contains(word), "{word}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_reach_no_further_than_can_be_counted() {
    let server = server().await;
    for frame in [
        "GROUPS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING",
        "ROWS BETWEEN 18446744073709551614 FOLLOWING AND 18446744073709551615 FOLLOWING",
        "ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING",
    ] {
        let sql = format!("SELECT sum(value) OVER (ORDER BY value {frame}) FROM range(10)");
        assert_eq!(
            server.error(&sql).await.kind,
            Kind::InvalidArgument,
            "{frame}"
        );
    }
    let sql = "SELECT DISTINCT sum(value) OVER (ORDER BY value ROWS BETWEEN 4294967296 PRECEDING AND UNBOUNDED FOLLOWING) \
               FROM range(10)";
    assert_eq!(server.lines(sql).await, ["45"]);
}
