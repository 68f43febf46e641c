//! Version clauses, clocks and the table functions that stand for them.

use featureflight_catalog::Kind;

use super::rig::{Rig, at};

const T1150: &str = "TIMESTAMP '1970-01-01 00:19:10'";
const T250: &str = "TIMESTAMP '1970-01-01 00:04:10'";

#[tokio::test]
async fn the_worked_example_as_state() {
    let rig = Rig::new().await;
    assert_eq!(
        rig.rows("SELECT id, v FROM customers").await,
        ["A a2b", "C c4"]
    );
    let sql = format!("SELECT id, v FROM customers FOR SYSTEM_TIME AS OF {T1150}");
    assert_eq!(rig.rows(&sql).await, ["A a2b", "B b1", "C c1"]);
    let sql = format!("SELECT id, v FROM customers FOR VALID_TIME AS OF {T250}");
    assert_eq!(rig.rows(&sql).await, ["A a2b", "B b1", "C c1"]);
    let sql = format!(
        "SELECT id, v FROM customers FOR VALID_TIME AS OF TIMESTAMP '1970-01-01 00:02:40' FOR \
         SYSTEM_TIME AS OF {T1150}"
    );
    assert_eq!(rig.rows(&sql).await, ["A a1", "B b1", "C c1"]);
}

/// Every spelling of a clause, with the clock it sets.
const SPELLINGS: [(&str, &str); 9] = [
    ("FOR SYSTEM_TIME AS OF {x}", "system"),
    ("FOR TIMESTAMP AS OF {x}", "system"),
    ("TIMESTAMP AS OF {x}", "system"),
    ("AT (TIMESTAMP => {x})", "system"),
    ("FOR VALID_TIME AS OF {x}", "valid"),
    ("FOR VALID_TIME AS OF {x} FOR SYSTEM_TIME AS OF {x}", "both"),
    ("VERSION AS OF 3", "version"),
    ("VERSION AS OF 'tag'", "version"),
    ("FOR VERSION AS OF 3", "version"),
];

#[tokio::test]
async fn every_spelling_on_every_relation_travels_or_errors() {
    let mut rig = Rig::new().await;
    rig.view("v_customers", "SELECT * FROM customers");
    // Second 0: before every event time and write time, so that a clause which is heard leaves
    // nothing, and one that is not leaves rows.
    let zero = "TIMESTAMP '1970-01-01 00:00:00'";
    let relations = [
        ("features.customers", true),
        ("history.customers", true),
        ("customers", true),
        ("featureflight.features.customers", true),
        ("sagemaker_featurestore.customers_1", false),
        ("system.feature_groups", false),
        ("information_schema.tables", false),
        ("temp.v_customers", false),
        ("v_customers", false),
        ("cte", false),
    ];
    for (relation, travels) in relations {
        let all = format!("WITH cte AS (SELECT * FROM customers) SELECT * FROM {relation}");
        assert!(!rig.rows(&all).await.is_empty(), "{relation} has rows");
        for (spelling, clock) in SPELLINGS {
            let clause = spelling.replace("{x}", zero);
            for sql in [
                format!("{all} {clause}"),
                format!("{all} {clause} AS t"),
                format!(
                    "WITH cte AS (SELECT * FROM customers) SELECT (SELECT count(*) FROM {relation} {clause}) AS n, 1"
                ),
                format!(
                    "WITH cte AS (SELECT * FROM customers) SELECT * FROM (SELECT 1) one CROSS JOIN {relation} {clause} AS t"
                ),
                format!(
                    "WITH cte AS (SELECT * FROM customers), other AS (SELECT * FROM {relation} {clause} AS t) SELECT * FROM other"
                ),
            ] {
                if travels && clock != "version" {
                    let rows = rig.rows(&sql).await;
                    let none = rows.is_empty() || rows == ["0 1"];
                    assert!(none, "{sql} ignored its clause: {rows:?}");
                } else {
                    let message = rig.invalid(&sql).await;
                    let why = if travels {
                        "not for this table format"
                    } else {
                        "a version clause"
                    };
                    assert!(
                        message.contains(why) || message.contains("does not apply"),
                        "{sql}: {message}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_clause_takes_any_constant() {
    let rig = Rig::new().await;
    for constant in [
        "'1970-01-01T00:19:10Z'",
        "'1970-01-01 00:19:10'",
        "TIMESTAMP '1970-01-01 00:19:10.000000000'",
        "TIMESTAMP '1970-01-01T00:19:10Z'",
        "CAST('1970-01-01 00:19:10' AS TIMESTAMP)",
        "to_timestamp(1150)",
        // The statement started at second 5000.
        "now() - INTERVAL '3850 seconds'",
        "(current_timestamp - INTERVAL '3850' SECOND)",
    ] {
        let sql = format!("SELECT id, v FROM customers FOR SYSTEM_TIME AS OF {constant}");
        assert_eq!(
            rig.rows(&sql).await,
            ["A a2b", "B b1", "C c1"],
            "{constant}"
        );
    }
    let sql = "SELECT id FROM customers FOR VALID_TIME AS OF DATE '1970-01-02'";
    assert_eq!(rig.rows(sql).await, ["A", "C"]);
    // Beyond what nanoseconds since 1970 can say.
    let sql = "SELECT id FROM customers FOR VALID_TIME AS OF TIMESTAMP '9999-12-31 23:59:59'";
    assert_eq!(rig.rows(sql).await, ["A", "C"]);
    let sql = "SELECT id FROM customers FOR VALID_TIME AS OF '0001-01-01'";
    assert!(rig.rows(sql).await.is_empty());
}

#[tokio::test]
async fn a_clause_takes_nothing_else() {
    let rig = Rig::new().await;
    for (expression, part) in [
        ("event_time", "does not depend on rows"),
        (
            "(SELECT max(event_time) FROM customers)",
            "does not depend on rows",
        ),
        ("random()", "random()"),
        ("NULL", "FOR SYSTEM_TIME AS OF on features.customers"),
        ("12", "FOR SYSTEM_TIME AS OF on features.customers"),
        ("'yesterday'", "yesterday"),
        ("CAST(NULL AS TIMESTAMP)", "FOR SYSTEM_TIME"),
        ("CAST('yesterday' AS TIMESTAMP)", "yesterday"),
    ] {
        let sql = format!("SELECT * FROM customers FOR SYSTEM_TIME AS OF {expression}");
        let message = rig.invalid(&sql).await;
        assert!(message.contains(part), "{sql}: {message}");
    }
    let sql = "SELECT (SELECT count(*) FROM customers FOR SYSTEM_TIME AS OF o.ts) FROM \
               (SELECT now() AS ts) AS o";
    assert!(rig.invalid(sql).await.contains("does not depend on rows"));
}

#[tokio::test]
async fn clocks_of_one_table_in_one_statement_stay_apart() {
    let rig = Rig::new().await;
    let sql = format!(
        "SELECT a.id, a.v, b.v FROM customers FOR SYSTEM_TIME AS OF {T1150} a JOIN customers b ON \
         a.id = b.id"
    );
    assert_eq!(rig.rows(&sql).await, ["A a2b a2b", "C c1 c4"]);
    let count = |x: &str| format!("SELECT count(*) AS n FROM customers FOR SYSTEM_TIME AS OF {x}");
    let (now, then) = (count("now()"), count(T1150));
    assert_eq!(
        rig.rows(&format!("SELECT ({now}) AS a, ({then}) AS b"))
            .await,
        ["2 3"]
    );
    assert_eq!(
        rig.rows(&format!("SELECT ({then}) + ({now}) - ({then})"))
            .await,
        ["2"]
    );
    assert_eq!(rig.rows(&format!("{now} UNION {then}")).await, ["2", "3"]);
    let ids =
        |x: &str| format!("SELECT id FROM customers FOR SYSTEM_TIME AS OF {x} WHERE v IS NOT NULL");
    let sql = format!("{} EXCEPT {}", ids(T1150), ids("now()"));
    assert_eq!(rig.rows(&sql).await, ["B"]);
    let sql = format!(
        "SELECT id FROM ({} UNION {}) u WHERE id <> 'A'",
        ids(T1150),
        ids("now()")
    );
    assert_eq!(rig.rows(&sql).await, ["B", "C"]);
}

#[tokio::test]
async fn session_clocks_reach_everywhere() {
    let mut rig = Rig::new().await;
    rig.view("everyone", "SELECT id, v FROM customers");
    rig.view("outer_view", "SELECT id, v FROM everyone WHERE id <> 'A'");
    rig.clocks.system = Some(at(1150));
    for sql in [
        "SELECT id, v FROM customers",
        "SELECT id, v FROM features.customers c",
        "SELECT id, v FROM everyone",
        "WITH c AS (SELECT * FROM customers) SELECT id, v FROM c",
        "SELECT id, v FROM (SELECT * FROM customers) c",
        "SELECT id, v FROM latest('customers')",
        "SELECT id, v FROM as_of('customers')",
        "SELECT id, v FROM as_of('customers', event_time => now())",
    ] {
        assert_eq!(rig.rows(sql).await, ["A a2b", "B b1", "C c1"], "{sql}");
    }
    assert_eq!(
        rig.rows("SELECT id, v FROM outer_view").await,
        ["B b1", "C c1"]
    );
    assert_eq!(
        rig.rows("SELECT count(*) FROM history.customers").await,
        ["5"]
    );
    assert_eq!(
        rig.rows("SELECT count(*) FROM history('customers')").await,
        ["5"]
    );
    // The other clock may be named; the session's one stays.
    let sql = "SELECT id, v FROM customers FOR VALID_TIME AS OF '1970-01-01T00:02:40Z'";
    assert_eq!(rig.rows(sql).await, ["A a1", "B b1", "C c1"]);
    // A clause names its own clock.
    let sql = "SELECT id, v FROM customers FOR SYSTEM_TIME AS OF '1970-01-02'";
    assert_eq!(rig.rows(sql).await, ["A a2b", "C c4"]);
    assert_eq!(
        rig.rows("SELECT count(*) FROM system.feature_groups").await,
        ["2"]
    );
    let message = rig
        .invalid("SELECT * FROM sagemaker_featurestore.customers_1")
        .await;
    assert!(message.contains("featureflight.system_time"), "{message}");
    assert!(message.contains("features.customers"), "{message}");
    rig.clocks.system = None;
    rig.clocks.valid = Some(at(250));
    assert_eq!(
        rig.rows("SELECT id, v FROM everyone").await,
        ["A a2b", "B b1", "C c1"]
    );
    assert_eq!(
        rig.rows("SELECT count(*) FROM history.customers").await,
        ["6"]
    );
    assert_eq!(
        rig.rows("SELECT count(*) FROM history('customers', to => '1970-01-02')")
            .await,
        ["6"]
    );
    let message = rig
        .invalid("SELECT * FROM sagemaker_featurestore.customers_1")
        .await;
    assert!(message.contains("featureflight.valid_time"), "{message}");
}

#[tokio::test]
async fn now_follows_the_system_clock() {
    let mut rig = Rig::new().await;
    let sql = "SELECT CAST(now() AS BIGINT) / 1000000000 AS n, CAST(current_date AS VARCHAR) AS d";
    assert_eq!(rig.rows(sql).await, ["5000 1970-01-01"]);
    rig.clocks.system = Some(at(86400));
    assert_eq!(rig.rows(sql).await, ["86400 1970-01-02"]);
    // Inside filters, subqueries, views and aggregates too, and under the name it was written.
    rig.view("clock", "SELECT now() AS t");
    let sql = "SELECT count(*) FROM clock WHERE t = now() AND t = (SELECT max(now()) FROM clock)";
    assert_eq!(rig.rows(sql).await, ["1"]);
    assert_eq!(rig.columns("SELECT now()").await, ["now()"]);
    let planned = rig.plan("SELECT now() AS t", None).await.unwrap();
    assert!(!planned.plan.display_indent().to_string().contains("now()"));
}

#[tokio::test]
async fn table_functions_travel() {
    let mut rig = Rig::new().await;
    let rows = rig
        .rows("SELECT id, v FROM as_of('customers', known_at => '1970-01-01T00:19:10Z')")
        .await;
    assert_eq!(rows, ["A a2b", "B b1", "C c1"]);
    let sql = "SELECT c.id, c.v FROM as_of('customers', event_time => TIMESTAMP '1970-01-01 00:02:40', \
               known_at => TIMESTAMP '1970-01-01 00:19:10') AS c";
    assert_eq!(rig.rows(sql).await, ["A a1", "B b1", "C c1"]);
    assert_eq!(
        rig.rows("SELECT id FROM latest('Customers')").await,
        ["A", "C"]
    );
    assert_eq!(
        rig.rows("SELECT id FROM TABLE(latest('customers'))").await,
        ["A", "C"]
    );
    let sql = "SELECT as_of.id, Latest.V FROM as_of('customers') JOIN latest('customers') ON as_of.id = \
               latest.id";
    assert_eq!(rig.rows(sql).await, ["A a2b", "C c4"]);
    let sql = "SELECT id, v FROM history('customers', from => '1970-01-01T00:02:30Z', to => \
               '1970-01-01T00:03:20Z')";
    assert_eq!(rig.rows(sql).await, ["A a15", "A a2", "A a2b"]);
    let sql = "SELECT count(*) FROM history('customers') WHERE is_deleted";
    assert_eq!(rig.rows(sql).await, ["2"]);
    rig.view(
        "then",
        "SELECT id FROM as_of('customers', known_at => '1970-01-01T00:19:10Z')",
    );
    assert_eq!(rig.rows("SELECT * FROM then").await, ["A", "B", "C"]);
}

#[tokio::test]
async fn table_functions_say_what_is_wrong() {
    let rig = Rig::new().await;
    for (call, part) in [
        ("as_of()", "as_of takes one feature group"),
        (
            "as_of('customers', 'orders')",
            "as_of takes one feature group",
        ),
        (
            "as_of('customers', event_tim => now())",
            "it has: event_time, known_at",
        ),
        (
            "as_of('customers', known_at => now(), known_at => now())",
            "given twice",
        ),
        (
            "latest('customers', known_at => now())",
            "takes no named arguments",
        ),
        ("latest('customers:v')", "without a feature"),
        (
            "latest('system.feature_groups')",
            "not the name of a feature group",
        ),
        ("latest(12)", "as a string"),
        ("history('customers', to => 'soon')", "to of history"),
        (
            "as_of('customers', event_time => id)",
            "does not depend on rows",
        ),
        ("latest('custo; DROP')", "not the name of a feature group"),
    ] {
        let message = rig.invalid(&format!("SELECT * FROM {call}")).await;
        assert!(message.contains(part), "{call}: {message}");
    }
    let error = rig.error("SELECT * FROM latest('custmers')").await;
    assert_eq!(error.kind, Kind::NotFound);
    assert!(error.message.contains("near names: customers"), "{error}");
    let error = rig.error("SELECT * FROM latest('broken')").await;
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains("Iceberg"), "{error}");
}

#[tokio::test]
async fn event_times_beyond_nanoseconds_compare() {
    let rig = Rig::new().await;
    for (filter, expected) in [
        ("event_time > now()", "1"),
        ("event_time <= now()", "1"),
        ("event_time >= TIMESTAMP '1970-01-01 00:03:20'", "2"),
        ("event_time < TIMESTAMP '9999-12-31 23:59:59'", "1"),
        (
            "event_time BETWEEN TIMESTAMP '1970-01-01' AND TIMESTAMP '9999-12-31 23:59:59'",
            "2",
        ),
        ("event_time = '9999-12-31T23:59:59Z'", "1"),
        ("'2026-01-01T00:00:00.5+02:00' > event_time", "1"),
        ("event_time >= DATE '9999-12-31'", "1"),
        ("event_time > now() - INTERVAL '1 day'", "2"),
        (
            "event_time + INTERVAL '1 second' > TIMESTAMP '1970-01-01 00:03:20'",
            "2",
        ),
        (
            "event_time <> CAST('1970-01-01 00:03:20' AS TIMESTAMP)",
            "1",
        ),
    ] {
        let sql = format!("SELECT count(*) FROM history.forever WHERE {filter}");
        let rows = rig.try_rows(&sql, vec![]).await;
        assert_eq!(
            rows.unwrap_or_else(|error| vec![error.message]),
            [expected],
            "{filter}"
        );
    }
}

#[tokio::test]
async fn a_bad_timestamp_shows_the_accepted_forms() {
    let rig = Rig::new().await;
    let message = rig
        .invalid("SELECT * FROM customers WHERE event_time > 'yesterday'")
        .await;
    let clause = rig
        .invalid("SELECT * FROM customers FOR VALID_TIME AS OF 'yesterday'")
        .await;
    assert!(clause.ends_with(&message), "{message} | {clause}");
}

#[tokio::test]
async fn a_clock_beyond_the_range_of_now_holds() {
    let mut rig = Rig::new().await;
    rig.clocks.system = Some(featureflight_catalog::Instant::parse("9999-12-31").unwrap());
    let sql = "SELECT count(*) FROM customers WHERE event_time <= now()";
    assert_eq!(rig.rows(sql).await, ["2"]);
}
