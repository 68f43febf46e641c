//! Statements that cost much more than their text: each is answered or refused soon, and neither
//! the process nor its neighbours notice.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use super::child::{Child, Client};

/// Far beyond what any statement here should take, in builds without optimization too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much larger the process may become by one of them: the pool, the most that one call of a
/// function makes, and what the allocator has not given back yet. The bombs want far more.
const MOST_RISE: u64 = (256 + 512 + 256) << 20;

enum Outcome {
    /// Refused, with the code of a limit. The end of its time is none: whatever should have refused
    /// it did not.
    Refused,
    /// Answered, or refused.
    Either,
    /// That, or the end of its time: what it computes for so long is what it asks for.
    Late,
}

use Outcome::{Either, Late, Refused};

fn chain(first: &str, next: &str, times: usize) -> String {
    format!("{first}{}", next.repeat(times))
}

/// `levels` CTEs, each made of the one before by `step`, which calls it `below`.
fn ladder(first: &str, step: &str, levels: usize) -> String {
    let mut sql = format!("WITH t0 AS ({first})");
    for level in 1..=levels {
        let step = step.replace("below", &format!("t{}", level - 1));
        write!(sql, ", t{level} AS ({step})").unwrap();
    }
    write!(sql, " SELECT * FROM t{levels}").unwrap();
    sql
}

fn list(item: impl Fn(usize) -> String, count: usize) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

/// Many terms, deep trees, wide trees, and names that multiply.
fn shapes() -> Vec<(String, String, Outcome)> {
    let mut bombs = Vec::new();
    let mut add = |name: &str, sql: String, outcome| bombs.push((name.to_owned(), sql, outcome));
    for (name, first, next) in [
        ("sum", "SELECT 1", "+1"),
        ("or", "SELECT 1 WHERE 1 = 1", " OR 1 = 2"),
        (
            "or of columns",
            "SELECT * FROM orders WHERE spend_7d = 1",
            " OR spend_7d = 2",
        ),
        ("text", "SELECT 'a'", "||'a'"),
        ("cast", "SELECT 1", "::int"),
        ("union", "SELECT 1", " UNION ALL SELECT 1"),
        ("except", "SELECT 1", " EXCEPT SELECT 2"),
        ("minus sign", "SELECT ", "- "),
        ("not", "SELECT ", "NOT "),
        ("parenthesis", "SELECT ", "("),
        ("bracket", "SELECT ", "["),
        ("case", "SELECT ", "CASE WHEN 1=1 THEN "),
        ("explain", "", "EXPLAIN "),
        ("subquery", "SELECT ", "(SELECT "),
        ("derived", "SELECT * FROM ", "(SELECT * FROM "),
        ("interval", "SELECT ", "INTERVAL "),
        ("exists", "SELECT 1 WHERE ", "EXISTS (SELECT 1 WHERE "),
        ("function", "SELECT ", "abs("),
        ("subscript", "SELECT [1]", "[1]"),
        ("field", "SELECT a", ".a"),
        ("at time zone", "SELECT now()", " AT TIME ZONE 'UTC'"),
        ("semicolons", "SELECT 1", ";"),
        ("comments", "SELECT 1 ", "/*"),
        ("cross join", "SELECT 1 FROM (SELECT 1) t", ", (SELECT 1) t"),
        (
            "join",
            "SELECT 1 FROM orders",
            " JOIN orders USING (customer_id)",
        ),
        ("is null", "SELECT 1", " IS NULL"),
        (
            "version clause",
            "SELECT * FROM orders",
            " FOR SYSTEM_TIME AS OF '2026-01-01'",
        ),
        ("pipe", "SELECT * FROM orders", " |> WHERE true"),
        ("between", "SELECT true", " BETWEEN false AND true"),
        ("between of other types", "SELECT 1", " BETWEEN 0 AND 2"),
    ] {
        for times in [480, 2_000, 20_000] {
            let outcome = if times == 20_000 { Refused } else { Either };
            // A lone subscript and a run of semicolons are no deeper for being longer.
            let outcome = if name == "semicolons" {
                Either
            } else {
                outcome
            };
            add(
                &format!("{name} x {times}"),
                chain(first, next, times),
                outcome,
            );
        }
    }
    let doubling = "SELECT a.x FROM below a JOIN below b ON a.x = b.x";
    for levels in [8, 14, 22, 30] {
        let outcome = if levels > 8 { Refused } else { Either };
        add(
            &format!("doubling CTE x {levels}"),
            ladder("SELECT 1 AS x", doubling, levels),
            outcome,
        );
    }
    for (name, step) in [
        ("struct", "SELECT struct(x, x) AS x FROM below"),
        (
            "named struct",
            "SELECT named_struct('a', x, 'b', x) AS x FROM below",
        ),
        ("struct literal", "SELECT {'a': x, 'b': x} AS x FROM below"),
        ("tuple", "SELECT (x, x) AS x FROM below"),
        ("array", "SELECT [x, x] AS x FROM below"),
        ("arrays_zip", "SELECT arrays_zip([x], [x]) AS x FROM below"),
        ("map", "SELECT map([1, 2], [x, x]) AS x FROM below"),
        (
            "columns",
            "SELECT *, x + 1 AS y FROM below a JOIN (SELECT 1 AS z) b ON true",
        ),
        ("expression", "SELECT x + x AS x FROM below"),
        (
            "case",
            "SELECT CASE WHEN x > 1 THEN x ELSE x + x END AS x FROM below",
        ),
        (
            "in subquery",
            "SELECT x FROM below WHERE x IN (SELECT x FROM below)",
        ),
    ] {
        for levels in [10, 45] {
            if name == "map" && levels == 45 {
                // No client reads a type as deep as that.
                continue;
            }
            add(
                &format!("{name} doubled x {levels}"),
                ladder("SELECT value AS x FROM range(2)", step, levels),
                Either,
            );
        }
    }
    let columns = |count| list(|n| format!("c{n}"), count);
    for count in [10, 13, 60] {
        let values = list(|n| format!("{n} AS c{n}"), count);
        let sql = format!(
            "SELECT count(*) FROM (SELECT {values}) t GROUP BY CUBE ({})",
            columns(count)
        );
        add(
            &format!("cube of {count}"),
            sql,
            if count > 12 { Refused } else { Either },
        );
    }
    let rollup = format!("ROLLUP ({})", columns(40));
    let values = list(|n| format!("{n} AS c{n}"), 40);
    add(
        "rollup of rollups",
        format!("SELECT count(*) FROM (SELECT {values}) t GROUP BY {rollup}, {rollup}, {rollup}"),
        Either,
    );
    add(
        "wildcards x 200",
        format!(
            "SELECT {} FROM orders",
            list(|n| format!("t{n}.*").replace(&format!("t{n}."), ""), 200)
        ),
        Either,
    );
    add(
        "wildcards x 40,000",
        format!("SELECT {} FROM orders", vec!["*"; 40_000].join(",")),
        Refused,
    );
    add(
        "list of 90,000",
        format!("SELECT 1 WHERE 1 IN ({})", list(|n| n.to_string(), 45_000)),
        Either,
    );
    add(
        "list of 1,000,000",
        format!(
            "SELECT 1 WHERE 1 IN ({})",
            list(|n| n.to_string(), 1_000_000)
        ),
        Refused,
    );
    add(
        "values x 20,000",
        format!(
            "SELECT * FROM (VALUES {})",
            list(|n| format!("({n})"), 20_000)
        ),
        Either,
    );
    add(
        "text of 1 MiB",
        format!("SELECT '{}'", "x".repeat(1 << 20)),
        Refused,
    );
    add(
        "columns x 20,000",
        format!("SELECT {}", list(|n| format!("{n} AS c{n}"), 20_000)),
        Either,
    );
    add(
        "aggregates x 5,000",
        format!(
            "SELECT {} FROM orders",
            list(|n| format!("sum(spend_7d + {n})"), 5_000)
        ),
        Refused,
    );
    add(
        "aggregates x 500",
        format!(
            "SELECT {} FROM orders",
            list(|n| format!("sum(spend_7d + {n})"), 500)
        ),
        Either,
    );
    add(
        "windows x 90",
        format!(
            "SELECT {} FROM orders",
            list(
                |n| format!("sum(spend_7d + {n}) OVER (ORDER BY customer_id, {n})"),
                90
            )
        ),
        Late,
    );
    add(
        "joins x 100",
        format!(
            "SELECT count(*) FROM {}",
            (0..100)
                .map(|n| format!("(SELECT 1 AS x) t{n}"))
                .collect::<Vec<_>>()
                .join(" NATURAL JOIN ")
        ),
        Either,
    );
    add(
        "joins of groups x 60",
        format!(
            "SELECT count(*) FROM orders t0 {}",
            (1..60)
                .map(|n| format!(
                    "JOIN orders t{n} ON t{n}.customer_id = t{}.customer_id",
                    n - 1
                ))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        Either,
    );
    add(
        "outer joins of groups x 30",
        format!(
            "SELECT count(*) FROM orders t0 {}",
            (1..30)
                .map(|n| format!(
                    "LEFT JOIN orders t{n} ON t{n}.customer_id = t0.customer_id OR t{n}.spend_7d > {n}"
                ))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        Late,
    );
    add(
        "case of 4,000 arms",
        format!(
            "SELECT CASE value {} END FROM range(2)",
            (0..4_000)
                .map(|n| format!("WHEN {n} THEN {n}"))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        Either,
    );
    add(
        "ands of ors",
        format!(
            "SELECT 1 FROM range(9) t WHERE {}",
            (0..18)
                .map(|n| format!("(value = {n} OR value * 2 = {n} OR value * 3 = {n})"))
                .collect::<Vec<_>>()
                .join(" AND ")
        ),
        Either,
    );
    add(
        "ors of ands",
        format!(
            "SELECT 1 FROM range(9) t WHERE {}",
            (0..120)
                .map(|n| format!("(value = {n} AND value * 2 < {n} AND value * 3 < {n})"))
                .collect::<Vec<_>>()
                .join(" OR ")
        ),
        Either,
    );
    let nested = |call: &str, times| format!("SELECT {}1{}", call.repeat(times), ")".repeat(times));
    for call in [
        "abs(",
        "coalesce(1, ",
        "-(",
        "NOT (1=",
        "upper(",
        "concat('a', ",
        "[",
        "CASE WHEN true THEN (",
    ] {
        for times in [20, 45] {
            add(
                &format!("{call} nested {times} times"),
                nested(call, times),
                Either,
            );
        }
    }
    add(
        "text of columns x 480",
        chain("SELECT customer_id", "||customer_id", 480) + " FROM orders",
        Either,
    );
    bombs
}

/// Much out of little, at run time or while constants are folded.
fn amplifiers() -> Vec<(String, String, Outcome)> {
    let refused = [
        "SELECT length(repeat('x', 1000000000))",
        "SELECT length(repeat('x', 2147483647))",
        "SELECT length(repeat('x', value * 100000000)) FROM range(10)",
        "SELECT length(lpad('x', 2147483647))",
        "SELECT length(rpad('x', 2147483647, 'ab'))",
        "SELECT array_length(array_repeat('x', 2147483647))",
        "SELECT array_length(array_repeat([1, 2, 3], 900000000))",
        "SELECT array_length(array_resize([1], 2000000000, 1))",
        "SELECT array_length(range(9000000000))",
        "SELECT array_length(generate_series(1, 9000000000))",
        "SELECT array_length(generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 millisecond'))",
        "SELECT array_length(range(value, 9000000000)) FROM range(10)",
        "SELECT length(array_to_string(range(1000000 + value), repeat('x', 1000000 + value))) FROM range(1)",
        "SELECT length(replace(repeat('a', 10000000 + value), 'a', repeat('b', 1000))) FROM range(1)",
        "SELECT length(regexp_replace(repeat('a', 1000000 + value), '.', repeat('b', 1000), 'g')) FROM range(1)",
        "SELECT length(concat_ws(repeat('x', 50000000 + value), 'a', 'b', 'c', 'd')) FROM range(1)",
        "SELECT length(x || x || x || x) FROM (SELECT repeat('x', 60000000 + value) AS x FROM range(1))",
        "SELECT length(x || x || x || x) FROM (SELECT arrow_cast(repeat('x', 60000000 + value), 'Binary') AS x FROM range(1))",
        "SELECT length(concat(x, x, x, x)) FROM (SELECT repeat('x', 60000000 + value) AS x FROM range(1))",
        "SELECT max(length(CASE WHEN value % 2 = 0 THEN repeat('x', 4000000) ELSE repeat('y', 4000000) END)) FROM range(100000)",
        "SELECT max(length(CASE WHEN value % 2 = 0 THEN (SELECT repeat('x', 4000000 + value) FROM range(1)) ELSE 'y' END)) FROM range(100000)",
        "SELECT count(ltrim(repeat('a', 1000000 + value), repeat('b', 60000) || 'a')) FROM range(3)",
        "SELECT max(strpos(repeat('a', 4000000 + value), repeat('a', 2000000 + value) || 'bb')) FROM range(3)",
        "SELECT max(regexp_count(repeat('a', 1000000 + value), '.*[^A-Z]X|[a-z]')) FROM range(3)",
        "SELECT sum(regexp_count(repeat('a', 4000 + value % 2), '.*[^A-Z]X|[a-z]')) FROM range(100000)",
        "SELECT sum(levenshtein(repeat('a', 700), repeat('b', 700 + value % 2))) FROM range(8192000)",
        "SELECT max(array_length(a)) FROM (SELECT array_agg(value) OVER (ORDER BY value) a FROM range(100000))",
        "SELECT generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 month -31 days')",
        "SELECT sum(array_length(string_to_array(repeat('a,', 2000000 + value), ','))) FROM range(100)",
        "SELECT levenshtein(repeat('a', 600000 + value), repeat('b', 600000 + value)) FROM range(1)",
        "SELECT array_has_any(range(value, 400000), range(500000 + value, 900000)) FROM range(1)",
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2147483647)') FROM range(1000)",
        "SELECT arrow_cast(NULL, 'FixedSizeList(2147483647, Int64)') FROM range(1000)",
        "SELECT CAST(NULL AS INT[2147483647]) FROM range(1000)",
        "SELECT CAST(NULL AS INT[60000][60000]) FROM range(1000)",
        "SELECT * FROM range(array_length(CAST(NULL AS INT[2147483647])))",
        "SELECT regexp_like('a', '(((\\w{99}){99}){99}){99}')",
        "SELECT 'a' ~ '(\\w{999}){999}'",
        "SELECT 'a' SIMILAR TO '(\\w{999}){999}'",
        "SELECT count(*) FROM range(100000) WHERE 'a' ~ ('(\\w{60}){1}' || value)",
        "SELECT count(*) FROM range(100000) WHERE regexp_like('a', '\\w{60}' || value)",
        "SELECT count(*) FROM range(1000) WHERE 'a' LIKE repeat('%a_', 1000000 + value)",
        "SELECT length(to_char(now(), repeat('%c', 3000000 + value))) FROM range(1)",
        "SELECT approx_percentile_cont(value, 0.5, 1000000000) FROM range(10)",
        "SELECT approx_percentile_cont(value, 0.5, 1000000000000000) FROM range(10)",
    ];
    let either = [
        "SELECT * FROM range(10) ORDER BY value LIMIT 9000000000000000000",
        "SELECT * FROM range(10) LIMIT 10 OFFSET 9000000000000000000",
        "SELECT sum(length(v)) FROM (SELECT arrow_cast(repeat('x', 350000 + value), 'LargeUtf8') v, value k FROM range(1)) a JOIN range(20000) b ON b.value / 1000000 = a.k",
        "SELECT sum(array_length(v)) FROM (SELECT range(40000 + value) v, value k FROM range(1)) a RIGHT JOIN range(20000) b ON b.value / 1000000 = a.k",
        "SELECT lag(value, 9000000000000000000) OVER (ORDER BY value) FROM range(10)",
        "SELECT ntile(9000000000000000000) OVER (ORDER BY value) FROM range(10)",
        "SELECT sum(value) OVER (ORDER BY value ROWS BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING) FROM range(10)",
        "SELECT nth_value(value, 9223372036854775807) OVER (ORDER BY value) FROM range(10)",
        "SELECT power(10, 400), factorial(1000), exp(1e308)",
        "SELECT round(1.5, 2147483647), trunc(1.5, -2147483648)",
        "SELECT 1 << 9223372036854775807, -9223372036854775808 / -1",
        "SELECT DATE '9999-12-31' + INTERVAL '99999999 years'",
        "SELECT date_bin(INTERVAL '1 nanosecond', TIMESTAMP '2026-01-01', TIMESTAMP '0001-01-01')",
        "SELECT make_date(2147483647, 12, 31)",
        "SELECT to_timestamp(9223372036854775807), to_timestamp('99999-01-01')",
        "SELECT substr('abc', -9223372036854775808, 9223372036854775807)",
        "SELECT split_part('a,b', ',', -9223372036854775808)",
        "SELECT left('abc', -9223372036854775808), right('abc', -9223372036854775808)",
        "SELECT chr(2147483647), chr(-1)",
        "SELECT [1][9223372036854775807], [1][-9223372036854775808]",
        "SELECT array_slice([1], -9223372036854775808, 9223372036854775807, -9223372036854775808)",
        "SELECT arrow_cast(1, 'Decimal256(76, -128)'), arrow_cast('x', 'Dictionary(Int8, Utf8)')",
        "SELECT CAST('1e2147483647' AS DECIMAL(38, 10))",
        "SELECT * FROM unnest(range(1, 8000)) LIMIT 1",
        "SELECT string_agg(repeat('x', 1000000 + value), ',') FROM range(400)",
        "SELECT array_agg(repeat('x', 1000000 + value)) FROM range(400)",
        "SELECT a.value FROM range(3000) a CROSS JOIN range(3000) b CROSS JOIN range(3000) c LIMIT 5",
        "SELECT * FROM range(9223372036854775807) LIMIT 3",
        "SELECT * FROM generate_series(-9223372036854775808, 9223372036854775807, 9223372036854775807)",
    ];
    let encoded = format!(
        "SELECT length({}'x'{})",
        "encode(".repeat(20),
        ", 'hex')".repeat(20)
    );
    let text = |sql: &str| (sql.to_owned(), sql.to_owned());
    let refused = refused.into_iter().chain([encoded.as_str()]).map(|sql| {
        let (name, sql) = text(sql);
        (name, sql, Refused)
    });
    let either = either.into_iter().map(|sql| {
        let (name, sql) = text(sql);
        (name, sql, Either)
    });
    refused.chain(either).collect()
}

/// Codes of what is the statement's own fault.
fn is_refusal(code: Code) -> bool {
    matches!(code, Code::ResourceExhausted | Code::InvalidArgument)
}

/// Asks for next to nothing over and over, and counts the answers; fails with the first that is
/// none.
async fn ask_on(mut client: Client, answered: Arc<AtomicUsize>) {
    loop {
        let answer = tokio::time::timeout(PATIENCE, client.rows("SELECT 1")).await;
        let rows = answer.expect("a neighbour is answered");
        assert_eq!(rows.expect("a neighbour is not refused"), 1);
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for two answers more: the second was asked for after this began.
async fn answers_go_on(answered: &AtomicUsize) -> bool {
    let before = answered.load(Ordering::Relaxed);
    let more = async {
        while answered.load(Ordering::Relaxed) < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more).await.is_ok()
}

#[tokio::test]
async fn no_shape_of_a_statement_ends_the_process_or_takes_long() {
    try_all(shapes()).await;
}

#[tokio::test]
async fn no_function_makes_more_than_the_server_has() {
    try_all(amplifiers()).await;
}

async fn try_all(bombs: Vec<(String, String, Outcome)>) {
    let mut child = Child::start(&[
        ("ENGINE__MEMORY_LIMIT", "256MiB"),
        ("ENGINE__QUERY_TIMEOUT", "30s"),
    ]);
    let mut client = child.connect().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let neighbour = ask_on(child.connect().await, Arc::clone(&answered));
    let neighbour = tokio::spawn(neighbour);
    let mut wrong = Vec::new();
    for (name, sql, expected) in bombs {
        child.forget_peak();
        let before = child.resident_bytes();
        let began = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, client.rows(&sql)).await;
        let took = began.elapsed();
        let said = match &outcome {
            Err(_) => "NO ANSWER".to_owned(),
            Ok(Ok(rows)) => format!("{rows} rows"),
            Ok(Err(status)) => {
                let message: String = status.message().chars().take(60).collect();
                format!("{:?}: {message}", status.code())
            }
        };
        child.assert_well(&name).await;
        let grown = child.peak_bytes().saturating_sub(before) >> 20;
        let short: String = name.chars().take(70).collect();
        println!(
            "{short} | {} bytes | {:.2} s | +{grown} MiB | {said}",
            sql.len(),
            took.as_secs_f64()
        );
        let fine = match (&outcome, &expected) {
            (Err(_), _) | (Ok(Ok(_)), Refused) => false,
            (Ok(Ok(_)), Either | Late) => true,
            (Ok(Err(status)), Late) if status.code() == Code::DeadlineExceeded => true,
            (Ok(Err(status)), _) => is_refusal(status.code()),
        };
        assert!(
            !neighbour.is_finished(),
            "{short}: a neighbour is not answered"
        );
        let fine = fine && answers_go_on(&answered).await;
        if !fine || grown << 20 > MOST_RISE {
            wrong.push(format!("{short}: {said}, {took:?}, +{grown} MiB"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!neighbour.is_finished(), "a neighbour was not answered");
    neighbour.abort();
    println!(
        "{} answers to a neighbour",
        answered.load(Ordering::Relaxed)
    );
}
