//! `point_in_time_join` with every option.

use featureflight_catalog::Kind;

use super::rig::{EVENTS, Rig, at};

/// The helper's answers of the worked example: E3, E4.
const HELPER: [&str; 8] = [
    "e1 a15", "e2 a2b", "e3 a2b", "e4 b1", "e5 -", "e6 c1", "e7 c4", "e8 -",
];
/// E5: only what was known at second 1150.
const KNOWN: [&str; 8] = [
    "e1 a1", "e2 a2b", "e3 a2b", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
];

fn join(arguments: &str) -> String {
    format!("SELECT e, v FROM point_in_time_join(({EVENTS}), {arguments})")
}

#[tokio::test]
async fn the_worked_example() {
    let mut rig = Rig::new().await;
    assert_eq!(rig.rows(&join("'customers'")).await, HELPER);
    assert_eq!(rig.rows(&join("'customers:v'")).await, HELPER);
    assert_eq!(
        rig.rows(&join("'features.Customers:V', event_time => 'ts'"))
            .await,
        HELPER
    );
    let known = "'customers', known_at => TIMESTAMP '1970-01-01 00:19:10'";
    assert_eq!(rig.rows(&join(known)).await, KNOWN);
    rig.clocks.system = Some(at(1150));
    assert_eq!(rig.rows(&join("'customers'")).await, KNOWN);
    rig.clocks.system = None;
    rig.clocks.valid = Some(at(100));
    let first = [
        "e1 a1", "e2 a1", "e3 a1", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
    ];
    assert_eq!(rig.rows(&join("'customers'")).await, first);
}

#[tokio::test]
async fn the_spine_is_a_query_or_a_table() {
    let mut rig = Rig::new().await;
    rig.view("events", EVENTS);
    rig.view(
        "joined",
        "SELECT e, v FROM point_in_time_join(TABLE(events), 'customers')",
    );
    for sql in [
        "SELECT e, v FROM point_in_time_join(TABLE(events), 'customers')",
        "SELECT e, v FROM point_in_time_join(TABLE(temp.events), 'customers')",
        "SELECT j.e, j.v FROM point_in_time_join((SELECT * FROM events), 'customers') AS j",
        "SELECT j.e, j.v FROM point_in_time_join(TABLE(events), 'customers') j",
        "WITH spine AS (SELECT * FROM events) SELECT e, v FROM point_in_time_join(TABLE(spine), 'customers')",
        "SELECT e, v FROM (SELECT * FROM point_in_time_join(TABLE(events), 'customers')) x",
        "SELECT e, v FROM TABLE(point_in_time_join(TABLE(events), 'customers'))",
        "SELECT point_in_time_join.e, v FROM point_in_time_join(TABLE(events), 'customers')",
        "SELECT e, v FROM LATERAL point_in_time_join(TABLE(events), 'customers')",
        "SELECT e, v FROM joined",
        "WITH j AS (SELECT * FROM point_in_time_join(TABLE(events), 'customers')) SELECT e, v FROM j",
    ] {
        assert_eq!(rig.rows(sql).await, HELPER, "{sql}");
    }
    let sql = "SELECT j.e, s.v FROM point_in_time_join(TABLE(events), 'customers') j JOIN customers s \
               ON j.id = s.id WHERE j.e < 'e3'";
    assert_eq!(rig.rows(sql).await, ["e1 a2b", "e2 a2b"]);
    let sql = "SELECT b, count(*), count(v) FROM point_in_time_join((SELECT *, now() AS b2, 1 AS b FROM \
               events), 'customers', event_time => 'ts') GROUP BY b";
    assert_eq!(rig.rows(sql).await, ["1 8 6"]);
}

#[tokio::test]
async fn columns_and_their_names() {
    let rig = Rig::new().await;
    let all =
        |arguments: &str| format!("SELECT * FROM point_in_time_join(({EVENTS}), {arguments})");
    for (arguments, expected) in [
        ("'customers'", &["e", "id", "ts", "v", "Age"][..]),
        (
            "'customers:age', 'customers:v'",
            &["e", "id", "ts", "Age", "v"],
        ),
        (
            "'customers:age', 'customers'",
            &["e", "id", "ts", "Age", "v"],
        ),
        (
            "'customers:v', full_feature_names => true",
            &["e", "id", "ts", "customers__v"],
        ),
        (
            "'customers:v', event_times => true",
            &["e", "id", "ts", "v", "customers__event_time"],
        ),
        ("'customers:event_time'", &["e", "id", "ts", "event_time"]),
        (
            "'my_group:v', 'customers:age'",
            &["e", "id", "ts", "v", "Age"],
        ),
        (
            "'customers:age', 'my-group:v', 'customers:v', full_feature_names => true",
            &[
                "e",
                "id",
                "ts",
                "customers__Age",
                "customers__v",
                "my-group__v",
            ],
        ),
    ] {
        assert_eq!(rig.columns(&all(arguments)).await, expected, "{arguments}");
    }
    let sql = format!(
        "SELECT e, customers__event_time FROM point_in_time_join(({EVENTS}), 'customers:v', event_times \
         => true) WHERE e IN ('e1', 'e5', 'e7')"
    );
    let rows = rig.rows(&sql).await;
    assert_eq!(
        rows,
        ["e1 1970-01-01T00:02:30Z", "e5 -", "e7 1970-01-01T00:06:40Z"]
    );
    let sql = format!(
        "SELECT e, CUSTOMERS__AGE FROM point_in_time_join(({EVENTS}), 'customers', full_feature_names => \
         true) WHERE e = 'e1'"
    );
    assert_eq!(rig.rows(&sql).await, ["e1 15"]);
}

#[tokio::test]
async fn several_groups_with_keys_of_their_own() {
    let rig = Rig::new().await;
    let spine = "SELECT 'A' AS customer, 1 AS \"order\", to_timestamp_micros(160000000) AS ts";
    for keys in [
        "customers.id = customer, orders.orderid = \"order\"",
        "customers.id = customer AND \"order\" = orders.\"orderId\"",
        "(features.customers.id = customer) AND (orders.orderid = \"order\")",
    ] {
        let sql = format!(
            "SELECT customers__v, \"Orders__total\", orders__v FROM point_in_time_join(({spine}), \
             'customers:v', 'orders', keys => '{keys}', full_feature_names => true)"
        );
        assert_eq!(rig.rows(&sql).await, ["a15 10.5 o1"], "{keys}");
    }
    let sql = "SELECT total FROM point_in_time_join((SELECT CAST(2 AS SMALLINT) AS ORDERID, \
               to_timestamp_micros(160000000) AS ts), 'orders:total')";
    assert_eq!(rig.rows(sql).await, ["20.0"]);
}

#[tokio::test]
async fn max_age_is_inclusive() {
    let rig = Rig::new().await;
    for (age, expected) in [
        ("10 seconds", "e1 a15"),
        ("9 seconds", "e1 -"),
        ("1 month", "e1 a15"),
        ("0 seconds", "e1 -"),
    ] {
        let arguments = format!("'customers:v', max_age => INTERVAL '{age}'");
        let rows = rig
            .rows(&format!("{} WHERE e = 'e1'", join(&arguments)))
            .await;
        assert_eq!(rows, [expected], "{age}");
    }
    for (age, part) in [
        ("INTERVAL '-1 day'", "negative"),
        ("'1 day'", "must be an interval"),
        ("7", "must be an interval"),
        ("NULL", "must be an interval"),
    ] {
        let message = rig
            .invalid(&join(&format!("'customers', max_age => {age}")))
            .await;
        assert!(message.contains(part), "{age}: {message}");
    }
}

#[tokio::test]
async fn known_at_is_a_constant_or_a_column() {
    let rig = Rig::new().await;
    let spine = format!("SELECT *, to_timestamp_micros(1150000000) AS cut FROM ({EVENTS}) x");
    for known_at in ["'cut'", "\"cut\"", "cut", "'CUT'"] {
        let sql = format!(
            "SELECT e, v FROM point_in_time_join(({spine}), 'customers', event_time => 'ts', known_at => \
             {known_at})"
        );
        assert_eq!(rig.rows(&sql).await, KNOWN, "{known_at}");
    }
    for known_at in [
        "now() - INTERVAL '3850 seconds'",
        "TIMESTAMP '1970-01-01 00:19:10'",
    ] {
        let sql = join(&format!("'customers', known_at => {known_at}"));
        assert_eq!(rig.rows(&sql).await, KNOWN, "{known_at}");
    }
    // Row r4 was invoked at second 900 and written at second 2000.
    let arguments = "'customers', known_at => TIMESTAMP '1970-01-01 00:15:00', known_by => \
                     'api_invocation_time'";
    assert_eq!(
        rig.rows(&format!("{} WHERE e = 'e1'", join(arguments)))
            .await,
        ["e1 a15"]
    );
    let message = rig
        .invalid(&join("'customers', known_by => 'write_time'"))
        .await;
    assert!(message.contains("known_at"), "{message}");
    let message = rig
        .invalid(&join("'customers', known_at => now(), known_by => 'event'"))
        .await;
    assert!(message.contains("'api_invocation_time'"), "{message}");
    // A string is a column, never a time.
    let message = rig
        .invalid(&join("'customers', known_at => '1970-01-01'"))
        .await;
    assert!(message.contains("no column"), "{message}");
}

#[tokio::test]
async fn the_default_time_is_the_only_timestamp() {
    let rig = Rig::new().await;
    let call = |spine: &str, rest: &str| {
        format!("SELECT v FROM point_in_time_join(({spine}), 'customers:v'{rest})")
    };
    let message = rig
        .invalid(&call("SELECT 'A' AS id, now() AS a, now() AS b", ""))
        .await;
    assert!(message.contains("a, b"), "{message}");
    let message = rig.invalid(&call("SELECT 'A' AS id, 1 AS a", "")).await;
    assert!(message.contains("no timestamp column"), "{message}");
    let message = rig
        .invalid(&call("SELECT 'A' AS id, DATE '1970-01-02' AS d", ""))
        .await;
    assert!(
        message.contains("midnight UTC") && message.ends_with('d'),
        "{message}"
    );
    let sql = call(
        "SELECT 'A' AS id, DATE '1970-01-02' AS d",
        ", event_time => 'd'",
    );
    assert_eq!(rig.rows(&sql).await, ["a2b"]);
    let message = rig
        .invalid(&call(
            "SELECT 'A' AS id, '1970' AS d",
            ", event_time => 'd'",
        ))
        .await;
    assert!(message.contains("CAST"), "{message}");
    let message = rig
        .invalid(&call(
            "SELECT 'A' AS id, now() AS d",
            ", event_time => 'dd'",
        ))
        .await;
    assert!(message.contains("no column dd"), "{message}");
    // Nanoseconds and zones are fine.
    let sql = call(
        "SELECT 'A' AS id, to_timestamp_nanos(160000000000) AS d",
        "",
    );
    assert_eq!(rig.rows(&sql).await, ["a15"]);
}

#[tokio::test]
async fn clashes_are_named() {
    let rig = Rig::new().await;
    let message = rig
        .invalid(&join("'customers:v', 'my-group:v', 'orders:v'"))
        .await;
    assert!(
        message.contains('v') && message.contains("full_feature_names => true"),
        "{message}"
    );
    let sql =
        "SELECT * FROM point_in_time_join((SELECT 'A' AS id, now() AS ts, 1 AS v), 'customers:v')";
    let message = rig.invalid(sql).await;
    assert!(message.contains("v (customers, the spine)"), "{message}");
    let sql = "SELECT * FROM point_in_time_join((SELECT a.id, b.id, now() AS ts FROM customers a, \
               customers b), 'customers:v')";
    assert!(rig.invalid(sql).await.contains("two columns id"));
}

#[tokio::test]
async fn wrong_arguments_are_explained() {
    let rig = Rig::new().await;
    let spine = "(SELECT 'A' AS id, now() AS ts)";
    for (arguments, part) in [
        (String::new(), "needs a spine"),
        (spine.to_owned(), "at least one feature group"),
        (
            "'customers', 'customers'".to_owned(),
            "the spine, a query in parentheses",
        ),
        (format!("{spine}, 'customers:vv'"), "there is no feature vv"),
        (format!("{spine}, 'customers:'"), "'group:feature'"),
        (format!("{spine}, ''"), "'group:feature'"),
        (
            format!("{spine}, 'customers; DROP TABLE x'"),
            "'group:feature'",
        ),
        (
            format!("{spine}, 'temp.customers'"),
            "not the name of a feature group",
        ),
        (format!("{spine}, 12"), "as a string"),
        (
            format!("{spine}, 'customers', max_ages => 1"),
            "it has: event_time, keys, max_age",
        ),
        (
            format!("{spine}, 'customers', keys => 'id'"),
            "group.record_identifier = spine_column",
        ),
        (
            format!("{spine}, 'customers', keys => 'customers.id > id'"),
            "group.record_identifier",
        ),
        (
            format!("{spine}, 'customers', keys => 'customers.v = id'"),
            "record identifier id",
        ),
        (
            format!("{spine}, 'customers', keys => 'orders.orderid = id'"),
            "no record identifier",
        ),
        (
            format!("{spine}, 'customers', keys => 'customers.id = idd'"),
            "no column idd",
        ),
        (
            format!("{spine}, 'customers', keys => 'customers.id = id, customers.id = id'"),
            "twice",
        ),
        (
            format!("{spine}, 'customers', event_times => 'yes'"),
            "true or false",
        ),
        (format!("{spine}, 'orders'"), "no column orderId"),
        (
            "(SELECT 'A' AS orderid, now() AS ts), 'orders'".to_owned(),
            "AS BIGINT",
        ),
        (
            "(SELECT 1 AS id, now() AS ts), 'customers'".to_owned(),
            "AS VARCHAR",
        ),
    ] {
        let sql = format!("SELECT * FROM point_in_time_join({arguments})");
        let message = rig.invalid(&sql).await;
        assert!(message.contains(part), "{sql}: {message}");
    }
    let error = rig
        .error(&format!(
            "SELECT * FROM point_in_time_join({spine}, 'custmers')"
        ))
        .await;
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    let error = rig
        .error(&format!(
            "SELECT * FROM point_in_time_join({spine}, 'broken')"
        ))
        .await;
    assert_eq!(error.kind, Kind::FailedPrecondition, "{error}");
}

#[tokio::test]
async fn nulls_in_the_spine_match_nothing() {
    let rig = Rig::new().await;
    let spine = "SELECT * FROM (VALUES (1, CAST(NULL AS VARCHAR), now()), (2, 'A', NULL), (3, 'A', now())) \
                 AS s(n, id, ts)";
    let sql = format!("SELECT n, v FROM point_in_time_join(({spine}), 'customers')");
    assert_eq!(rig.rows(&sql).await, ["1 -", "2 -", "3 a2b"]);
}

#[tokio::test]
async fn it_composes() {
    let rig = Rig::new().await;
    let call = format!("point_in_time_join(({EVENTS}), 'customers:v')");
    let sql = format!("SELECT v FROM {call} WHERE v = 'a2b' AND e > 'e2'");
    assert_eq!(rig.rows(&sql).await, ["a2b"]);
    let sql = format!("SELECT e, v FROM {call} ORDER BY e DESC LIMIT 1");
    assert_eq!(rig.rows(&sql).await, ["e8 -"]);
    let sql = format!("SELECT v FROM {call} UNION SELECT v FROM {call} WHERE e = 'e1'");
    assert_eq!(rig.rows(&sql).await, ["-", "a15", "a2b", "b1", "c1", "c4"]);
    let sql = format!("SELECT count(*) FROM {call} a JOIN {call} b ON a.e = b.e WHERE a.v = b.v");
    assert_eq!(rig.rows(&sql).await, ["6"]);
    let sql = format!("SELECT e, v FROM {call} WHERE v IN (SELECT v FROM customers)");
    assert_eq!(rig.rows(&sql).await, ["e2 a2b", "e3 a2b", "e7 c4"]);
    let sql = format!(
        "SELECT x.v, x.\"Age\" FROM point_in_time_join((SELECT * FROM {call}), 'customers:age') x WHERE \
         e = 'e1'"
    );
    assert_eq!(rig.rows(&sql).await, ["a15 15"]);
}

#[tokio::test]
async fn a_correlated_spine_is_an_error() {
    let rig = Rig::new().await;
    let sql = format!(
        "SELECT (SELECT max(v) FROM point_in_time_join((SELECT o.id AS id, o.ts AS ts), 'customers:v')) \
         FROM ({EVENTS}) o"
    );
    rig.invalid(&sql).await;
    let sql = format!("SELECT * FROM ({EVENTS}) o, LATERAL as_of('customers', event_time => o.ts)");
    rig.invalid(&sql).await;
}
