//! What `DataFusion` and its parser get wrong, next to the answer of a database that gets it right
//! (`DuckDB` 1.4).

use featureflight_catalog::Kind;

use super::server;

#[tokio::test]
async fn a_filter_reaches_the_column_it_names() {
    let server = server().await;
    let old = "(VALUES (1, 10), (2, 20)) o(id, v)";
    let new = "(VALUES (1, 10), (2, 99), (3, 30)) n(id, v)";
    let changed = "n.v > 0 AND o.v IS DISTINCT FROM n.v ORDER BY n.id";
    for from in [
        format!("{old} RIGHT JOIN {new} ON o.id = n.id"),
        format!("{new} LEFT JOIN {old} ON o.id = n.id"),
        format!("{old} FULL JOIN {new} ON o.id = n.id"),
    ] {
        let sql = format!("SELECT o.v, n.v AS w FROM {from} WHERE {changed}");
        assert_eq!(server.lines(&sql).await, ["20 99", "30"], "{from}");
    }
    let sql = "SELECT a.k, b.k AS l, n, m FROM (VALUES ('x', 1), ('y', 2)) a(k, n) RIGHT JOIN \
               (VALUES ('x', 1), ('z', 2), ('y', 3)) b(k, m) ON a.k = b.k WHERE length(a.k) = 1 ORDER BY m";
    assert_eq!(server.lines(sql).await, ["x x 1 1", "y y 2 3"]);
}

#[tokio::test]
async fn is_distinct_from_binds_as_is_null_does() {
    let server = server().await;
    let rows = "(VALUES (true, true), (false, true), (true, false), (false, false)) t(p, q)";
    for (condition, expected) in [
        ("p IS DISTINCT FROM true AND q", vec!["false true"]),
        (
            "p IS NOT DISTINCT FROM true OR q",
            vec!["false true", "true false", "true true"],
        ),
        ("NOT p IS DISTINCT FROM q AND p", vec!["true true"]),
        (
            "1 + 1 IS NOT DISTINCT FROM 2 * 1 AND p AND q",
            vec!["true true"],
        ),
    ] {
        let sql = format!("SELECT p, q FROM {rows} WHERE {condition} ORDER BY p, q");
        assert_eq!(server.lines(&sql).await, expected, "{condition}");
    }
}

#[tokio::test]
async fn a_null_safe_join_stays_one_beside_others() {
    let server = server().await;
    let nulls =
        "(VALUES (1), (NULL)) a(x) JOIN (VALUES (1), (NULL)) b(y) ON a.x IS NOT DISTINCT FROM b.y";
    for (from, expected) in [
        (nulls.to_owned(), "2"),
        (format!("{nulls} CROSS JOIN (VALUES (1)) c(z)"), "2"),
        (
            format!("{nulls} JOIN (VALUES (1), (NULL)) c(z) ON c.z = a.x"),
            "1",
        ),
        (
            format!("(VALUES (1), (NULL)) c(z), {nulls} WHERE c.z = a.x"),
            "1",
        ),
    ] {
        let sql = format!("SELECT count(*) FROM {from}");
        assert_eq!(server.lines(&sql).await, [expected], "{from}");
    }
}

#[tokio::test]
async fn membership_is_answered_where_nulls_are_no_matter_and_refused_elsewhere() {
    let server = server().await;
    let a = "(VALUES (1, 10), (2, 20), (NULL, 30), (3, 5)) a(x, z)";
    let b = "(VALUES (1, 15), (NULL, 25)) b(y, w)";
    for (condition, expected) in [
        (format!("x IN (SELECT y FROM {b})"), vec!["1 10"]),
        (
            format!("x IN (SELECT y FROM {b}) OR z = 5"),
            vec!["1 10", "3 5"],
        ),
        (
            format!("x IN (SELECT y FROM {b} WHERE w > z)"),
            vec!["1 10"],
        ),
        (format!("x NOT IN (SELECT y FROM {b})"), vec![]),
        (
            format!("x NOT IN (SELECT y FROM {b} WHERE y > 0)"),
            vec!["2 20", "3 5"],
        ),
        (
            format!("NOT x IN (SELECT y FROM {b} WHERE y > 0)"),
            vec!["2 20", "3 5"],
        ),
        (
            format!("z NOT IN (SELECT count(*) FROM {b} WHERE w = 10) AND z < 20"),
            vec!["1 10", "3 5"],
        ),
    ] {
        let sql = format!("SELECT x, z FROM {a} WHERE {condition} ORDER BY z");
        assert_eq!(server.lines(&sql).await, expected, "{condition}");
    }
    for sql in [
        format!("SELECT x FROM {a} WHERE x NOT IN (SELECT y FROM {b} WHERE w < z)"),
        format!("SELECT x FROM {a} WHERE NOT x IN (SELECT y FROM {b} WHERE w < z)"),
        format!("SELECT x FROM {a} WHERE x NOT IN (SELECT y FROM {b}) OR z = 5"),
        format!("SELECT x FROM {a} WHERE (x IN (SELECT y FROM {b})) IS NULL"),
        format!("SELECT x FROM {a} WHERE NOT (x IN (SELECT y FROM {b}) OR z = 5)"),
        format!("SELECT x IN (SELECT y FROM {b}) FROM {a}"),
        format!("SELECT CASE WHEN x IN (SELECT y FROM {b}) THEN 1 END FROM {a}"),
        format!("SELECT x FROM {a} WHERE 3 NOT IN (SELECT y FROM {b})"),
        format!("SELECT x FROM {a} WHERE coalesce(NULL, 3, x) NOT IN (SELECT y FROM {b})"),
        format!("SELECT x FROM {a} WHERE (SELECT max(w) FROM {b}) NOT IN (SELECT y FROM {b})"),
    ] {
        let error = server.error(&sql).await;
        assert_eq!(error.kind, Kind::InvalidArgument, "{sql}: {error}");
        assert!(error.message.contains("EXISTS"), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_constant_between_columns_contradicts_nothing() {
    let server = server().await;
    let rows = "(VALUES (2, 2), (3, 1), (1, 3)) a(x, y)";
    for (condition, expected) in [
        ("x = 2 AND 2 BETWEEN x AND x", vec!["2 2"]),
        ("2 BETWEEN x AND y", vec!["1 3", "2 2"]),
        ("2 NOT BETWEEN x AND y", vec!["3 1"]),
    ] {
        let sql = format!("SELECT x, y FROM {rows} WHERE {condition} ORDER BY x");
        assert_eq!(server.lines(&sql).await, expected, "{condition}");
    }
}

#[tokio::test]
async fn what_is_simplified_to_a_constant_may_be_pushed_below_the_ranking() {
    let server = server().await;
    for (sql, expected) in [
        (
            "SELECT count(*) FROM history.customers h LEFT JOIN customers f ON h.customer_id = f.customer_id \
          WHERE f.customer_id IS NOT NULL",
            "SELECT count(*) FROM history.customers h JOIN customers f ON h.customer_id = f.customer_id",
        ),
        (
            "SELECT count(*) FROM customers WHERE customer_id IN (customer_id)",
            "SELECT count(*) FROM customers",
        ),
        (
            "SELECT count(*) FROM customers WHERE customer_id <> customer_id",
            "SELECT 0",
        ),
        (
            "SELECT count(*) FROM (SELECT DISTINCT customer_id, CASE WHEN age = 1 THEN age ELSE 0 END AS b FROM customers)",
            "SELECT count(*) FROM customers",
        ),
    ] {
        assert_eq!(
            server.lines(sql).await,
            server.lines(expected).await,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn what_is_constant_before_an_outer_join_is_sorted_behind_it() {
    let server = server().await;
    let one = "(SELECT s FROM (VALUES ('a'), ('b')) v(s) WHERE s = 'a') one";
    let all = "(VALUES ('b', 1), ('a', 2), ('c', 3)) t(s, n)";
    for from in [
        format!("{one} RIGHT JOIN {all} ON one.s = t.s"),
        format!("{all} LEFT JOIN {one} ON one.s = t.s"),
        format!("{one} FULL JOIN {all} ON one.s = t.s"),
        format!("{one} RIGHT JOIN {all} ON one.s = t.s AND one.s < t.n::VARCHAR || 'z' OR t.n = 2"),
    ] {
        let sql = format!("SELECT n, rank() OVER (ORDER BY one.s NULLS FIRST) FROM {from}");
        assert_eq!(server.lines(&sql).await, ["1 1", "2 3", "3 1"], "{from}");
        let sql = format!("SELECT string_agg(n::VARCHAR, ' ' ORDER BY one.s, n DESC) FROM {from}");
        assert_eq!(server.lines(&sql).await, ["2 3 1"], "{from}");
    }
}

#[tokio::test]
async fn equal_rows_of_one_input_end_the_order_of_the_other() {
    let server = server().await;
    let built =
        "(SELECT id, k FROM (VALUES (1, 'x'), (2, 'x'), (3, 'x')) v(id, k) ORDER BY id LIMIT 9) b";
    let probing = "(SELECT n, k FROM (VALUES (1, 'x'), (1, 'x')) v(n, k) ORDER BY n, k NULLS FIRST LIMIT 9) p";
    for join in ["JOIN", "RIGHT JOIN"] {
        let sql = format!(
            "SELECT id, sum(id) OVER (ORDER BY p.n, p.k NULLS FIRST, b.id) FROM {built} {join} {probing} ON b.k = p.k"
        );
        let expected = ["1 2", "1 2", "2 6", "2 6", "3 12", "3 12"];
        assert_eq!(server.lines(&sql).await, expected, "{join}");
    }
}

#[tokio::test]
async fn filters_without_columns_stay_above_the_row_of_an_empty_total() {
    let server = server().await;
    let t = "(VALUES (1), (2)) t(n)";
    for (sql, expected) in [
        (
            format!("SELECT count(*) FROM {t} HAVING (SELECT max(n) FROM {t}) > 9"),
            vec![],
        ),
        (
            format!("SELECT count(*) FROM {t} HAVING (SELECT max(n) FROM {t}) > 1"),
            vec!["2"],
        ),
        (
            format!(
                "SELECT c FROM (SELECT count(*) AS c FROM {t}) x WHERE (SELECT max(n) FROM {t}) > 9 AND c > 0"
            ),
            vec![],
        ),
        (
            format!(
                "SELECT c, o FROM (SELECT count(*) AS c FROM {t}) x RIGHT JOIN (VALUES (1)) y(o) ON false"
            ),
            vec!["1"],
        ),
        (
            format!(
                "SELECT c, o FROM (SELECT n, count(*) AS c FROM {t} GROUP BY ROLLUP(n)) x \
                     RIGHT JOIN (VALUES (1)) y(o) ON (SELECT max(n) FROM {t}) > 9"
            ),
            vec!["1"],
        ),
        (
            format!("SELECT n, count(*) FROM {t} GROUP BY ROLLUP(n) HAVING n = 2"),
            vec!["2 1"],
        ),
    ] {
        assert_eq!(server.lines(&sql).await, expected, "{sql}");
    }
}

/// Without the copies' numbers all of a row's copies remain, or none.
#[tokio::test]
async fn set_operations_with_all_count_copies() {
    let server = server().await;
    let left =
        "(VALUES (1, 'a'), (1, 'a'), (1, 'a'), (2, 'b'), (NULL, NULL), (NULL, NULL), (3, NULL)) l";
    let right = "(VALUES (1, 'a'), (NULL, NULL), (2, 'b'), (2, 'b'), (3, 'c')) r";
    for (operation, expected) in [
        ("EXCEPT ALL", vec!["", "1 a", "1 a", "3"]),
        ("INTERSECT ALL", vec!["", "1 a", "2 b"]),
        ("EXCEPT", vec!["3"]),
        ("INTERSECT", vec!["", "1 a", "2 b"]),
    ] {
        let sql = format!("SELECT * FROM {left} {operation} SELECT * FROM {right}");
        assert_eq!(server.lines(&sql).await, expected, "{sql}");
        let nested = format!("SELECT count(*) FROM (SELECT 1) WHERE EXISTS ({sql})");
        assert_eq!(server.lines(&nested).await, ["1"], "{nested}");
    }
    for (sql, expected) in [
        // Types of either side, the same table on both, the same value twice, one after the other.
        ("SELECT 1 EXCEPT ALL SELECT 1.0", vec![]),
        (
            "SELECT n FROM (VALUES (1), (1)) a(n) EXCEPT ALL SELECT n FROM (VALUES (CAST(1 AS DOUBLE))) b(n)",
            vec!["1"],
        ),
        (
            "WITH t AS (SELECT value % 2 v FROM range(5)) SELECT v, v w FROM t EXCEPT ALL SELECT v, v w FROM t WHERE v = 0 INTERSECT ALL SELECT v, v w FROM t",
            vec!["1 1", "1 1"],
        ),
        (
            "SELECT value % 2 v FROM range(9) EXCEPT ALL SELECT value % 2 v FROM range(3) EXCEPT ALL SELECT 0",
            vec!["0", "0", "1", "1", "1"],
        ),
    ] {
        assert_eq!(server.lines(sql).await, expected, "{sql}");
    }
}

/// What makes a projection end with its run took its constants from the operators above.
#[tokio::test]
async fn windows_are_planned_over_parts_that_are_constant() {
    let server = server().await;
    let rows = "(SELECT value % 2 v, value % 3 w, value % 2 + 1 x FROM range(6))";
    for (window, expected) in [
        ("PARTITION BY v", ["0 0 3", "0 1 3", "0 2 3"]),
        ("PARTITION BY v, x", ["0 0 3", "0 1 3", "0 2 3"]),
        ("PARTITION BY v + 1, w", ["0 0 1", "0 1 1", "0 2 1"]),
        ("ORDER BY v", ["0 0 3", "0 1 3", "0 2 3"]),
        ("PARTITION BY x ORDER BY w", ["0 0 1", "0 1 2", "0 2 3"]),
    ] {
        let sql = format!("SELECT v, w, count(*) OVER ({window}) FROM {rows} WHERE v = 0");
        assert_eq!(server.lines(&sql).await, expected, "{window}");
    }
}

/// By months, then days, then the rest, four days of nanoseconds were less than one day.
#[tokio::test]
async fn intervals_are_compared_by_the_time_they_take() {
    let server = server().await;
    let days = "TIMESTAMP '2026-01-05' - TIMESTAMP '2026-01-01'";
    for (condition, expected) in [
        (format!("{days} > INTERVAL '1 day'"), "true"),
        (format!("INTERVAL '1 day' >= {days}"), "false"),
        (format!("{days} = INTERVAL '96 hours'"), "true"),
        (format!("{days} <> INTERVAL '4 days'"), "false"),
        (
            format!("{days} IS NOT DISTINCT FROM INTERVAL '4 days'"),
            "true",
        ),
        (
            format!("{days} BETWEEN INTERVAL '1 day' AND INTERVAL '1 month'"),
            "true",
        ),
        (
            format!("INTERVAL '1 day' NOT BETWEEN INTERVAL '23 hours' AND {days}"),
            "false",
        ),
        (format!("{days} IN (INTERVAL '4 days')"), "true"),
        (
            format!("{days} NOT IN (INTERVAL '4 days', INTERVAL '1 day', NULL, INTERVAL '2 days')"),
            "false",
        ),
        (format!("INTERVAL '3 days' < {days}"), "true"),
        (
            format!("CASE WHEN {days} < INTERVAL '3 days' THEN 'soon' ELSE 'late' END"),
            "late",
        ),
        ("INTERVAL '25 hours' > INTERVAL '1 day'".to_owned(), "true"),
        ("INTERVAL '1 month' = INTERVAL '30 days'".to_owned(), "true"),
        (
            "INTERVAL '-1 day' < INTERVAL '-23 hours'".to_owned(),
            "true",
        ),
        (
            "INTERVAL '1 year' > INTERVAL '364 days'".to_owned(),
            "false",
        ),
        (
            "arrow_cast(9223372036854775807, 'Duration(s)') > INTERVAL '2147483647 months'"
                .to_owned(),
            "true",
        ),
        (
            format!("CASE {days} WHEN INTERVAL '1 day' THEN 1 WHEN INTERVAL '96 hours' THEN 4 END"),
            "4",
        ),
        ("INTERVAL '1 day' > NULL".to_owned(), ""),
        (
            "TIME '10:00' - TIME '09:00' >= INTERVAL '60 minutes'".to_owned(),
            "true",
        ),
        (
            "now() - TIMESTAMP '2026-01-01' > INTERVAL '1 day'".to_owned(),
            "true",
        ),
    ] {
        let sql = format!("SELECT {condition}");
        assert_eq!(server.lines(&sql).await, [expected], "{sql}");
        let rows = format!("SELECT {condition} FROM range(2) LIMIT 1");
        assert_eq!(server.lines(&rows).await, [expected], "{rows}");
    }
    let lengths = "(VALUES (1, INTERVAL '25 hours'), (2, INTERVAL '1 day'), (3, INTERVAL '31 days'), (4, INTERVAL '1 month'), (5, NULL)) t(n, i)";
    for (sql, expected) in [
        (
            "SELECT string_agg(n, '' ORDER BY i) FROM #t".to_owned(),
            vec!["21435"],
        ),
        (
            "SELECT string_agg(n, '') FROM (SELECT n FROM #t ORDER BY i DESC NULLS LAST LIMIT 3)"
                .to_owned(),
            vec!["341"],
        ),
        (
            "SELECT n, row_number() OVER (ORDER BY i) FROM #t".to_owned(),
            vec!["1 2", "2 1", "3 4", "4 3", "5 5"],
        ),
        (
            format!("SELECT a.n, b.n FROM #a JOIN #b ON a.i < b.i WHERE {days} > a.i AND b.n < 4"),
            vec!["1 3", "2 1", "2 3"],
        ),
    ] {
        let sql = sql
            .replace("#a", &lengths.replace("t(n", "a(n"))
            .replace("#b", &lengths.replace("t(n", "b(n"));
        let sql = sql.replace("FROM #t", &format!("FROM {lengths}"));
        assert_eq!(server.lines(&sql).await, expected, "{sql}");
    }
    for sql in [
        "SELECT max(i) FROM #t",
        "SELECT greatest(i, i) FROM #t",
        "SELECT min(i) OVER () FROM #t",
        "SELECT nullif(i, i) FROM #t",
        "SELECT n FROM #t WHERE TIMESTAMP '2026-01-02' - TIMESTAMP '2026-01-01' IN (SELECT INTERVAL '1 day')",
    ] {
        let error = server
            .error(&sql.replace(" #t", &format!(" {lengths}")))
            .await;
        let names_a_way = ["extract(epoch", "EXISTS"].map(|way| error.message.contains(way));
        assert!(names_a_way.contains(&true), "{error}");
    }
}

/// Each was an internal error.
#[tokio::test]
async fn aggregates_of_what_is_known_before_it_is_read_have_filters() {
    let server = server().await;
    for (sql, expected) in [
        (
            "SELECT count(*) FILTER (WHERE n > 1) FROM (SELECT count(*) n FROM (VALUES (1), (2)) t)",
            "1",
        ),
        (
            "SELECT max(m) FILTER (WHERE true) FROM (SELECT max(7) m FROM range(3) WHERE false)",
            "",
        ),
    ] {
        assert_eq!(server.lines(sql).await, [expected], "{sql}");
    }
}
