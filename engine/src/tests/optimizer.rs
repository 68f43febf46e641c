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
