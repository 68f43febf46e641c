//! Small statements that would make, or compute for, much more than a server has.

use std::time::{Duration, Instant};

use datafusion::scalar::ScalarValue;
use featureflight_catalog::Kind;

use super::{Server, server};

/// Ten times what a refusal takes without optimization.
const SOON: Duration = Duration::from_secs(20);

async fn refused(server: &Server, sql: &str) {
    let began = Instant::now();
    let error = server.error(sql).await;
    let short: String = sql.chars().take(200).collect();
    assert_eq!(error.kind, Kind::ResourceExhausted, "{short}: {error}");
    assert!(began.elapsed() < SOON, "{short}: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_constant_written_once_for_each_row_stays_small() {
    let server = server().await;
    let long = "x".repeat(70_000);
    let columns: Vec<_> = (0..100)
        .map(|n| format!("repeat('x', {}) c{n}", 60_000 + n))
        .collect();
    for sql in [
        "SELECT max(length(CASE WHEN value % 2 = 0 THEN repeat('x', 4000000) \
         ELSE repeat('y', 4000000) END)) FROM range(100000)"
            .to_owned(),
        "SELECT repeat('x', 4000000) x, value FROM range(1000000)".to_owned(),
        "SELECT array_repeat(1, 100000) x, value FROM range(1000000)".to_owned(),
        format!("SELECT CASE WHEN value % 2 = 0 THEN '{long}' ELSE 'y' END FROM range(100000)"),
        format!("SELECT '{long}', value FROM range(100000)"),
        format!("SELECT {}, value FROM range(100000)", columns.join(", ")),
    ] {
        refused(&server, &sql).await;
    }
    let parameter = || vec![ScalarValue::Utf8(Some("x".repeat(70_000)))];
    let error = server
        .bound("SELECT ?, value FROM range(100000)", parameter())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("temporary table"), "{error}");
    // What is written once may be as large as a record.
    let lines = server
        .bound("SELECT length(x) FROM (VALUES (?)) t(x)", parameter())
        .await;
    assert_eq!(lines.unwrap(), ["70000"]);
    let names: Vec<_> = (0..8_000).map(|n| format!("'identifier-{n:08}'")).collect();
    let names = names.join(", ");
    let sql = format!("SELECT count(*) FROM customers WHERE customer_id NOT IN ({names})");
    assert_eq!(server.lines(&sql).await, ["2"]);
}

#[tokio::test]
async fn a_function_in_itself_cannot_double_its_argument_often() {
    let server = server().await;
    let doubled = |first: &str, times| {
        format!(
            "{}{first}{}",
            "encode(".repeat(times),
            ", 'hex')".repeat(times)
        )
    };
    refused(&server, &format!("SELECT length({})", doubled("'x'", 31))).await;
    let sql = format!(
        "SELECT length({}) FROM customers",
        doubled("customer_id", 31)
    );
    refused(&server, &sql).await;
    assert_eq!(server.lines("SELECT encode('a', 'hex')").await, ["61"]);
}

#[tokio::test]
async fn lists_made_of_texts_and_lists_are_bounded() {
    let server = server().await;
    for sql in [
        "SELECT sum(array_length(string_to_array(repeat('a,', 2000000 + value), ','))) \
         FROM range(100)",
        "SELECT sum(array_length(array_positions(array_repeat(1, 4000000 + value), 1))) \
         FROM range(100)",
    ] {
        refused(&server, sql).await;
    }
    assert_eq!(
        server
            .lines(
                "SELECT array_length(string_to_array('a,b', ',')), array_positions([1, 2, 1], 1)"
            )
            .await,
        ["2 [1, 3]"]
    );
}

#[tokio::test]
async fn work_that_grows_with_the_square_of_a_text_is_bounded() {
    let server = server().await;
    for sql in [
        "SELECT count(ltrim(repeat('a', 1000000 + value), repeat('b', 60000) || 'a')) FROM range(3)",
        "SELECT count(rtrim(repeat('a', 1000000 + value), repeat('b', 60000) || 'a')) FROM range(3)",
        "SELECT count(trim(BOTH repeat('b', 60000) || 'a' FROM repeat('a', 1000000 + value))) \
         FROM range(3)",
        "SELECT strpos(repeat('a', 4000000 + value), repeat('a', 2000000 + value) || 'bb') \
         FROM range(3)",
        "SELECT position(repeat('a', 2000000 + value) || 'bb' IN repeat('a', 4000000 + value)) \
         FROM range(3)",
        "SELECT regexp_count(repeat('a', 1000000 + value), '.*[^A-Z]X|[a-z]') FROM range(3)",
        "SELECT regexp_instr(repeat('a', 1000000 + value), '.*[^A-Z]X|[a-z]', 1, 900000) \
         FROM range(3)",
        "SELECT length(regexp_replace(repeat('a', 1000000 + value), '.*[^A-Z]X|[a-z]', '', 'g')) \
         FROM range(3)",
        "SELECT regexp_match(repeat('a', 1000000 + value), '[ab]*a[ab]{9000}') FROM range(3)",
        "SELECT sum(levenshtein(repeat('a', 700), repeat('b', 700 + value % 2))) FROM range(8192)",
    ] {
        refused(&server, sql).await;
    }
    // Each row may be, all of them take too long.
    refused(
        &server,
        "SELECT sum(regexp_count(repeat('a', 4000 + value % 2), '.*[^A-Z]X|[a-z]')) \
         FROM range(8192)",
    )
    .await;
    for (sql, expected) in [
        (
            "SELECT rtrim('abxx', 'x'), ltrim('  a'), btrim('-a-', '-')",
            "ab a a",
        ),
        ("SELECT strpos('abc', 'c'), position('b' IN 'abc')", "3 2"),
        (
            "SELECT regexp_count('aXbX', 'X'), regexp_instr('abX', 'X')",
            "2 3",
        ),
        (
            "SELECT sum(regexp_count(repeat('a b', 400000 + value), '\\s+')) FROM range(2)",
            "800001",
        ),
        (
            "SELECT sum(length(regexp_replace('<p>' || repeat('a', 300 + value % 2), '<[^>]*>', \
             '', 'g'))) FROM range(8192)",
            "2461696",
        ),
        (
            "SELECT sum(levenshtein('kitten', 'sitting' || (value % 2))) FROM range(8192)",
            "32768",
        ),
    ] {
        assert_eq!(server.lines(sql).await, [expected], "{sql}");
    }
}

#[tokio::test]
async fn a_series_goes_one_way_and_a_list_has_no_negative_length() {
    let server = server().await;
    for sql in [
        "SELECT generate_series(TIMESTAMP '2000-01-01', TIMESTAMP '2200-01-01', \
         INTERVAL '1 month -31 days')",
        "SELECT range(TIMESTAMP '2000-01-01', TIMESTAMP '2200-01-01', \
         INTERVAL '1 day -86400 seconds')",
        "SELECT range(DATE '2000-01-01', DATE '2200-01-01', INTERVAL '1 month -30 days')",
        "SELECT array_resize([1, 2], -5, 0)",
        "SELECT array_resize([1, value], -5) FROM range(3)",
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
    }
    refused(
        &server,
        "SELECT array_length(generate_series(arrow_cast(-2000000000, 'Date32'), \
         arrow_cast(2000000000, 'Date32'), INTERVAL '1 day 2000000 hours'))",
    )
    .await;
    let sql = "SELECT array_length(generate_series(TIMESTAMP '2026-03-01', \
               TIMESTAMP '2026-01-01', INTERVAL '-1 month'))";
    assert_eq!(server.lines(sql).await, ["3"]);
}

#[tokio::test]
async fn a_window_holds_few_rows_where_its_value_has_all_of_them() {
    let server = server().await;
    for sql in [
        "SELECT max(array_length(a)) FROM \
         (SELECT array_agg(value) OVER (ORDER BY value) a FROM range(100000))",
        "SELECT max(array_length(a)) FROM (SELECT array_agg(value) OVER () a FROM range(100000))",
        "SELECT max(length(a)) FROM (SELECT string_agg('x', ',') OVER (ORDER BY value) a \
         FROM range(100000))",
        "SELECT array_agg(value) OVER (ORDER BY value ROWS BETWEEN 5000 PRECEDING AND CURRENT ROW) \
         FROM range(3)",
        "SELECT array_agg(value) OVER (ORDER BY value RANGE BETWEEN 3 PRECEDING AND CURRENT ROW) \
         FROM range(3)",
        "SELECT value FROM range(3) WHERE value IN \
         (SELECT max(array_length(a)) FROM (SELECT array_agg(value) OVER () a FROM range(3)))",
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, Kind::ResourceExhausted, "{sql}: {error}");
    }
    let sql = "SELECT array_agg(value) OVER (ORDER BY value ROWS BETWEEN 1 PRECEDING AND \
               CURRENT ROW) AS a FROM range(2)";
    assert_eq!(server.lines(sql).await, ["[0, 1]", "[0]"]);
}

#[tokio::test]
async fn a_batch_of_wide_nulls_is_refused() {
    let server = server().await;
    for sql in [
        "SELECT arrow_cast(NULL, 'FixedSizeList(65536, Int64)') FROM range(8192)",
        "SELECT CAST(NULL AS BIGINT[60000]) FROM range(8192)",
    ] {
        refused(&server, sql).await;
    }
}

/// They would make a value for each element of a list, past every guard of a row.
#[tokio::test]
async fn functions_of_functions_cannot_be_called() {
    let server = server().await;
    for sql in [
        "SELECT array_transform([1, 2], x -> x + 1)",
        "SELECT array_transform([1, 2], (x) -> 1)",
        "SELECT array_transform([1, 2], lambda x : 1)",
        "SELECT array_transform([1, 2], 1)",
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
    }
}

#[tokio::test]
async fn the_value_of_a_subquery_is_small_where_many_rows_have_it() {
    let server = server().await;
    let long = "(SELECT repeat('x', 4000000 + value) FROM range(1))";
    for sql in [
        format!(
            "SELECT max(length(CASE WHEN value % 2 = 0 THEN {long} ELSE {long} END)) FROM range(100000)"
        ),
        format!("SELECT {long} x, value FROM range(1000000)"),
    ] {
        refused(&server, &sql).await;
    }
    let sql = format!("SELECT length({long})");
    assert_eq!(server.lines(&sql).await, ["4000000"]);
    let sql = "SELECT count(*) FROM customers WHERE customer_id = (SELECT max(customer_id) FROM customers)";
    assert_eq!(server.lines(sql).await, ["1"]);
    let sql =
        "SELECT (SELECT max(o.customer_id) FROM customers o WHERE o.age = c.age) FROM customers c";
    assert_eq!(server.lines(sql).await, ["c1", "c2"]);
}

#[tokio::test]
async fn matching_long_texts_with_long_patterns_is_bounded() {
    let server = server().await;
    let text = "repeat(md5(value::text), 1000)";
    let like = format!("%a{}", "_".repeat(900));
    for matches in [
        "text ~ '[0-9a-f]*a[0-9a-f]{900}'".to_owned(),
        "text !~* '[0-9a-f]*a[0-9a-f]{900}'".to_owned(),
        "text SIMILAR TO '[0-9a-f]*a[0-9a-f]{900}'".to_owned(),
        "regexp_like(text, '[0-9a-f]*a[0-9a-f]{900}')".to_owned(),
        "text ~ ('[0-9a-f]*a[0-9a-f]{900}' || (value % 2))".to_owned(),
        format!("text LIKE '{like}'"),
        format!("text NOT ILIKE '{like}' || (value % 2)"),
    ] {
        let sql = format!(
            "SELECT count(*) FROM (SELECT value, {text} AS text FROM range(8192)) WHERE {matches}"
        );
        refused(&server, &sql).await;
    }
    for (matches, expected) in [
        (
            format!("customer_id LIKE 'c_' AND customer_id NOT LIKE '{like}'"),
            "2",
        ),
        (
            "customer_id ~ 'c[0-9]{1,100}' AND customer_id !~ '[a-z]{90}'".to_owned(),
            "2",
        ),
        ("regexp_like(customer_id, '[0-9]{100}')".to_owned(), "0"),
        ("customer_id SIMILAR TO 'c[0-9]{1,100}'".to_owned(), "2"),
    ] {
        let sql = format!("SELECT count(*) FROM customers WHERE {matches}");
        assert_eq!(server.lines(&sql).await, [expected], "{matches}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wide_is_not_repeated_for_each_row() {
    let server = server().await;
    let list = "SELECT array_agg(value) v, min(value) k FROM range(100000)";
    let text = "SELECT string_agg('xxxxxxxxxx', ',') v, min(value) k FROM range(100000)";
    let large =
        "SELECT arrow_cast(repeat('x', 400000 + value), 'LargeUtf8') v, value k FROM range(1)";
    for wide in [list, text, large] {
        for repeating in [
            "SELECT count(v) FROM (WIDE) a CROSS JOIN range(20000) b",
            "SELECT count(v) FROM range(20000) b CROSS JOIN (WIDE) a",
            "SELECT count(v) FROM (WIDE) a JOIN range(20000) b ON b.value >= a.k",
            "SELECT count(v) FROM (WIDE) a JOIN range(20000) b ON b.value / 1000000 = a.k",
            "SELECT count(v) FROM (SELECT v, unnest(range(20000 + k)) AS u FROM (WIDE))",
            "SELECT count(f) FROM (SELECT first_value(v) OVER (ORDER BY k) AS f FROM (WIDE))",
        ] {
            let sql = repeating.replace("WIDE", wide);
            let error = server.error(&sql).await;
            assert_eq!(error.kind, Kind::ResourceExhausted, "{sql}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wide_may_leave_as_it_is() {
    let server = server().await;
    let list = "SELECT array_agg(value) v, min(value) k FROM range(100000)";
    for fine in [
        "SELECT count(*) FROM (SELECT unnest(v) FROM (LIST))",
        "SELECT count(*) FROM (SELECT v, row_number() OVER (ORDER BY k) FROM (LIST))",
        "SELECT count(*) FROM (SELECT array_agg(value) v, value % 100 k FROM range(100000) GROUP BY k) a JOIN range(50) b ON a.k = b.value",
    ] {
        server.rows(&fine.replace("LIST", list)).await.unwrap();
    }
}

/// Each made gigabytes at once, or ended the process.
#[tokio::test]
async fn what_takes_no_bytes_until_it_is_written_out_is_measured() {
    let server = server().await;
    let wide = "arrow_cast(NULL, 'FixedSizeList(2000, Int64)')";
    for sql in [
        format!("SELECT array_length(array_repeat({wide}, 1000000 + value)) FROM range(1)"),
        "SELECT array_length(array_resize([NULL::BIGINT[2000]], 1000000 + value)) FROM range(1)".into(),
        "SELECT array_length(array_append(array_repeat(NULL, 1000000 + value), NULL::BIGINT[2000])) \
         FROM range(1)"
            .into(),
        "SELECT array_length(array_repeat(NULL::BIGINT, 60000000 + value)) FROM range(8)".into(),
        "SELECT array_length(array_repeat(NULL, 1000000 + value)::BIGINT[2000][]) FROM range(1)".into(),
        "SELECT array_length(arrow_cast(array_repeat(NULL, 1000000 + value), \
         'List(FixedSizeList(2000, Int64))')) FROM range(1)"
            .into(),
        "SELECT count(*) FROM range(8) WHERE range(0, 3000000 + value)::decimal(76, 0)[] = [1]".into(),
        "SELECT sum(length(range(0, 3000000 + value)::timestamp[]::text)) FROM range(8)".into(),
        "SELECT count(a), max(c) FROM (SELECT unnest(range(0, 1000000 + value)) a, \
         arrow_cast(repeat('x', 60000 + value), 'LargeUtf8') c FROM range(1))"
            .into(),
        "SELECT count(a), max(array_length(c)) FROM (SELECT unnest(range(0, 200000 + value)) a, \
         range(0, 7000 + value) c FROM range(1))"
            .into(),
        format!("SELECT count(*) FROM (SELECT unnest(range(0, 1000000 + value)) a, unnest([{wide}]) b FROM range(1))"),
        "SELECT array_length(max(range(0, 7000)) OVER ()) FROM range(1000000)".into(),
        "SELECT length(first_value(CASE WHEN value = 0 THEN repeat('x', 60000) ELSE '' END) OVER (ORDER BY \
         value ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) FROM range(1000000)"
            .into(),
        "SELECT max(array_length(a)) FROM (SELECT array_agg(v) OVER (ORDER BY value ROWS 999 PRECEDING) a \
         FROM (SELECT repeat('x', 60000 + value) v, value FROM range(2000)))"
            .into(),
        "SELECT sum(length(translate(repeat('a', 20000000 + value), 'a', 'b'))) FROM range(1)".into(),
        "SELECT sum(length(upper(repeat('a', 20000000 + value)))) FROM range(1)".into(),
        "SELECT max(x) FROM (SELECT median(value) OVER (ORDER BY value ROWS BETWEEN CURRENT ROW AND \
         UNBOUNDED FOLLOWING) x FROM range(300000))"
            .into(),
    ] {
        refused(&server, &sql).await;
    }
}

#[tokio::test]
async fn what_is_measured_is_otherwise_as_it_was() {
    let server = server().await;
    for (sql, expected) in [
        ("SELECT [1, NULL, 3]::text[] AS t", "[1, , 3]"),
        (
            "SELECT array_length([[1], [2, 3]]::decimal(38, 0)[][])",
            "2",
        ),
        ("SELECT [1, 2]::text", "[1, 2]"),
        (
            "SELECT upper('straße') || translate('abc', 'ab', 'xy')",
            "STRASSExyc",
        ),
        (
            "SELECT count(*) FROM (SELECT unnest(range(0, 3000)) a, repeat('x', 100) c FROM range(300))",
            "900000",
        ),
        (
            "SELECT sum(a), count(b), max(c) FROM (SELECT unnest([1, 2, 3]) a, unnest([1]) b, value c FROM range(5000))",
            "30000 5000 4999",
        ),
        (
            "SELECT max(m) FROM (SELECT median(value) OVER (PARTITION BY value % 2) m FROM range(100))",
            "50.0",
        ),
        (
            "SELECT max(m) FROM (SELECT median(value) OVER (ORDER BY value ROWS 9 PRECEDING) m FROM range(100))",
            "94.5",
        ),
        (
            "SELECT max(t) FROM (SELECT max('v' || (value % 7)) OVER () t FROM range(100000))",
            "v6",
        ),
        (
            "SELECT max(a) FROM (SELECT avg(value ORDER BY -value) a, count(value ORDER BY value), var_pop(value ORDER BY -value), bit_or(value ORDER BY -value) FROM range(10) GROUP BY value % 2)",
            "5.0",
        ),
    ] {
        assert_eq!(server.lines(sql).await, [expected], "{sql}");
    }
    for sql in [
        "SELECT 'a' ~ '['",
        "SELECT customer_id FROM customers WHERE customer_id ~ '['",
        "SELECT customer_id FROM customers WHERE regexp_like(customer_id, '(')",
        "SELECT regexp_replace('a', 'b', 'c', 'q')",
        "SELECT first_value() OVER () FROM range(4)",
        "SELECT arrow_cast(value, 'Decimal128(38, -3)') <= 5 FROM range(4)",
        "SELECT array_sum(arrow_cast([], 'FixedSizeList(0, Int64)')) FROM range(4)",
    ] {
        let error = server.error(sql).await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
    }
}
