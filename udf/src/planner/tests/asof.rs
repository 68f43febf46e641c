//! `ASOF JOIN`: point in time over feature groups, plain over other relations.

use super::rig::{EVENTS, Rig, at};

const HELPER: [&str; 8] = [
    "e1 a15", "e2 a2b", "e3 a2b", "e4 b1", "e5 -", "e6 c1", "e7 c4", "e8 -",
];
const KNOWN: [&str; 8] = [
    "e1 a1", "e2 a2b", "e3 a2b", "e4 b1", "e5 b1", "e6 c1", "e7 c1", "e8 -",
];

async fn rig() -> Rig {
    let mut rig = Rig::new().await;
    rig.view("events", EVENTS);
    rig
}

#[tokio::test]
async fn on_a_feature_group_it_is_the_point_in_time_join() {
    let mut rig = rig().await;
    for sql in [
        "SELECT l.e, c.v FROM events l ASOF JOIN features.customers c MATCH_CONDITION (l.ts >= \
         c.event_time) ON l.id = c.id",
        "SELECT e, v FROM events ASOF JOIN customers MATCH_CONDITION (ts >= event_time) ON events.id = \
         customers.id",
        "SELECT l.e, c.v FROM events l ASOF JOIN customers c MATCH_CONDITION (c.event_time <= l.ts) ON \
         c.id = l.id",
        "SELECT e, v FROM events ASOF JOIN customers MATCH_CONDITION (ts >= event_time) USING (id)",
        "SELECT l.e, c.v FROM events l ASOF JOIN latest('customers') c MATCH_CONDITION (l.ts >= \
         c.event_time) ON l.id = c.id",
        "SELECT x.e, x.v FROM (SELECT l.e, c.v FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts \
         >= c.event_time) ON l.id = c.id) x",
        "SELECT l.e, c.d FROM events l ASOF JOIN customers AS c (a, b, d, f) MATCH_CONDITION (l.ts >= c.b) \
         ON l.id = c.a",
    ] {
        assert_eq!(rig.rows(sql).await, HELPER, "{sql}");
    }
    let at1150 = "FOR SYSTEM_TIME AS OF '1970-01-01T00:19:10Z'";
    let sql = format!(
        "SELECT l.e, c.v FROM events l ASOF JOIN customers {at1150} AS c MATCH_CONDITION (l.ts >= \
         c.event_time) ON l.id = c.id"
    );
    assert_eq!(rig.rows(&sql).await, KNOWN);
    let sql = "SELECT l.e, c.v FROM events l ASOF JOIN as_of('customers', known_at => \
               '1970-01-01T00:19:10Z') c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id";
    assert_eq!(rig.rows(sql).await, KNOWN);
    rig.clocks.system = Some(at(1150));
    let sql = "SELECT l.e, c.v FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= \
               c.event_time) ON l.id = c.id";
    assert_eq!(rig.rows(sql).await, KNOWN);
}

#[tokio::test]
async fn its_columns_are_both_sides() {
    let rig = rig().await;
    let on = "SELECT * FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= c.event_time) ON \
              l.id = c.id";
    assert_eq!(
        rig.columns(on).await,
        ["e", "id", "ts", "id", "event_time", "v", "Age"]
    );
    let using = "SELECT * FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= c.event_time) \
                 USING (id)";
    assert_eq!(
        rig.columns(using).await,
        ["e", "id", "ts", "event_time", "v", "Age"]
    );
    let sql = "SELECT l.*, c.age FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= \
               c.event_time) ON l.id = c.id";
    assert_eq!(rig.columns(sql).await, ["e", "id", "ts", "Age"]);
    let sql = "SELECT c.id, c.event_time FROM events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= \
               c.event_time) ON l.id = c.id WHERE l.e IN ('e1', 'e8')";
    assert_eq!(rig.rows(sql).await, ["- -", "A 1970-01-01T00:02:30Z"]);
}

#[tokio::test]
async fn it_chains() {
    let rig = rig().await;
    let sql = "SELECT l.e, c.v, o.total, x.v FROM (SELECT *, 1 AS n FROM events) l \
               ASOF JOIN customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id \
               ASOF JOIN orders o MATCH_CONDITION (l.ts >= o.at) ON l.n = o.orderid \
               JOIN customers x ON x.id = l.id WHERE l.e < 'e4'";
    assert_eq!(
        rig.rows(sql).await,
        ["e1 a15 10.5 a2b", "e2 a2b 11.5 a2b", "e3 a2b 11.5 a2b"]
    );
}

#[tokio::test]
async fn it_composes() {
    let rig = rig().await;
    let join =
        "events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id";
    let sql = format!("SELECT l.e, c.v FROM {join} WHERE c.v = 'a2b'");
    assert_eq!(rig.rows(&sql).await, ["e2 a2b", "e3 a2b"]);
    let sql = format!("SELECT l.e FROM {join} WHERE c.v IS NULL");
    assert_eq!(rig.rows(&sql).await, ["e5", "e8"]);
    let sql = format!("SELECT s.v, l.e FROM customers s LEFT JOIN ({join}) ON s.v = c.v");
    assert_eq!(rig.rows(&sql).await, ["a2b e2", "a2b e3", "c4 e7"]);
    let sql = "SELECT x.e, x.v FROM (events l ASOF JOIN customers c MATCH_CONDITION (l.ts >= \
               c.event_time) USING (id)) AS x WHERE x.e = 'e1'";
    assert_eq!(rig.rows(sql).await, ["e1 a15"]);
    let sql = format!("SELECT count(*) FROM {join} UNION ALL SELECT count(c.v) FROM {join}");
    assert_eq!(rig.rows(&sql).await, ["6", "8"]);
    let plan = rig
        .rows(&format!("EXPLAIN SELECT l.e, c.v FROM {join}"))
        .await
        .join("\n");
    assert!(plan.contains("PointInTimeJoin"), "{plan}");
}

#[tokio::test]
async fn matching_states_instead_of_versions_is_an_error() {
    let mut rig = rig().await;
    rig.view("state", "SELECT * FROM customers");
    for right in [
        // Not the record identifier, not the event time, another comparison, no key.
        "customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.v",
        "customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id AND l.e = c.v",
        "customers c MATCH_CONDITION (l.ts > c.event_time) ON l.id = c.id",
        "customers c MATCH_CONDITION (l.ts <= c.event_time) ON l.id = c.id",
        "customers c MATCH_CONDITION (l.id >= c.v) ON l.id = c.id",
        "customers c MATCH_CONDITION (l.ts >= c.event_time)",
        "customers c MATCH_CONDITION (l.ts >= c.event_time + INTERVAL '1 day') ON l.id = c.id",
        // State that is not the table itself.
        "state c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id",
        "(SELECT * FROM customers) c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id",
        "cte c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id",
        "(SELECT * FROM as_of('customers')) c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id",
        "(SELECT a.* FROM customers a JOIN history.customers b ON a.id = b.id) c MATCH_CONDITION (l.ts \
         >= c.event_time) ON l.id = c.id",
    ] {
        let sql = format!(
            "WITH cte AS (SELECT * FROM customers) SELECT l.e FROM events l ASOF JOIN {right}"
        );
        let message = rig.invalid(&sql).await;
        assert!(message.contains("history"), "{sql}: {message}");
    }
}

#[tokio::test]
async fn between_plain_relations() {
    let rig = rig().await;
    let quotes =
        "(SELECT * FROM (VALUES ('A', 1, 'x'), ('A', 5, 'y'), ('B', 2, 'z')) AS q(k, t, w)) q";
    let trades = "(SELECT * FROM (VALUES (1, 'A', CAST(4 AS BIGINT)), (2, 'A', 5), (3, 'B', 1), (4, 'C', 9)) \
                  AS t(n, k, t)) t";
    let join = |condition: &str| {
        format!(
            "SELECT t.n, q.w FROM {trades} ASOF JOIN {quotes} MATCH_CONDITION ({condition}) ON t.k = q.k"
        )
    };
    assert_eq!(
        rig.rows(&join("t.t >= q.t")).await,
        ["1 x", "2 y", "3 -", "4 -"]
    );
    assert_eq!(
        rig.rows(&join("q.t <= t.t")).await,
        ["1 x", "2 y", "3 -", "4 -"]
    );
    assert_eq!(
        rig.rows(&join("t.t > q.t")).await,
        ["1 x", "2 x", "3 -", "4 -"]
    );
    assert_eq!(
        rig.rows(&join("t.t <= q.t")).await,
        ["1 y", "2 y", "3 z", "4 -"]
    );
    assert_eq!(
        rig.rows(&join("t.t < q.t")).await,
        ["1 y", "2 -", "3 z", "4 -"]
    );
    let sql = format!(
        "SELECT n, k, w FROM {trades} ASOF JOIN {quotes} MATCH_CONDITION (t.t >= q.t) USING (k)"
    );
    assert_eq!(rig.rows(&sql).await, ["1 A x", "2 A y", "3 B -", "4 C -"]);
    let sql =
        format!("SELECT t.n, q.w FROM {trades} ASOF JOIN {quotes} MATCH_CONDITION (t.t >= q.t)");
    assert_eq!(rig.rows(&sql).await, ["1 z", "2 y", "3 x", "4 y"]);
    // Versions are a plain relation: tombstones and duplicates match too.
    let sql = "SELECT l.e, h.is_deleted FROM events l ASOF JOIN history.customers h MATCH_CONDITION (l.ts \
               >= h.event_time) ON l.id = h.id WHERE l.e IN ('e5', 'e7')";
    assert_eq!(rig.rows(sql).await, ["e5 true", "e7 false"]);
}

#[tokio::test]
async fn wrong_conditions_are_explained() {
    let rig = rig().await;
    for (join, part) in [
        (
            "history.customers c MATCH_CONDITION (l.ts = c.event_time) ON l.id = c.id",
            "one comparison",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= l.ts) ON l.id = c.id",
            "one comparison",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= now()) ON l.id = c.id",
            "one comparison",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= c.event_time AND l.e > 'e1') ON l.id = c.id",
            "one comparison",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id > c.id",
            "equalities",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.id AND c.v = 'x'",
            "equalities",
        ),
        (
            "history.customers c MATCH_CONDITION (l.ts >= c.event_time) ON l.id = c.is_deleted",
            "ON",
        ),
        (
            "customers c MATCH_CONDITION (l.e >= c.event_time) ON l.id = c.id",
            "CAST",
        ),
        (
            "customers c MATCH_CONDITION (l.ts >= c.event_time) ON length(l.id) = c.id",
            "AS VARCHAR",
        ),
        (
            "customers c MATCH_CONDITION (l.ts >= c.event_time) USING (nope)",
            "nope",
        ),
    ] {
        let sql = format!("SELECT l.e FROM events l ASOF JOIN {join}");
        let message = rig.invalid(&sql).await;
        assert!(message.contains(part), "{sql}: {message}");
    }
}
