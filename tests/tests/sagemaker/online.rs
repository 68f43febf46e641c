//! `online('g')` of SageMaker's groups: records are asked for in batches of a hundred, by what a
//! predicate or a join names, and never listed.

use featureflight_catalog::Kind;

use super::rig::Rig;

/// Records `r0` to `r2499`, as many visits as their number, online.
async fn records(rig: &Rig) {
    rig.sql(
        "INSERT INTO scores SELECT 'r' || value, '2026-01-01T00:00:00Z', 0.5, value FROM range(2500)",
    )
    .await;
    rig.sent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_records_are_asked_for_and_none_is_listed() {
    let rig = Rig::start().await;
    rig.sql("INSERT INTO scores VALUES ('a', '2026-01-01', 0.1, 1), ('b', '2026-01-01', 0.1, 1)")
        .await;
    rig.sent().await;
    let online = "SELECT id, visits FROM online('scores') WHERE id IN ('b', 'x')";
    assert_eq!(rig.sql(online).await, ["b|1"]);
    assert_eq!(rig.fake.calls("BatchGetRecord"), 1);
    for unnamed in [
        "SELECT * FROM online('scores')",
        "SELECT * FROM online('scores') WHERE visits = 1",
        "SELECT * FROM online('scores') WHERE id NOT IN (SELECT 'a')",
        "SELECT * FROM online('scores') o LEFT JOIN (SELECT 'a' AS id) s USING (id)",
        "SELECT * FROM online('scores') o FULL JOIN (SELECT 'a' AS id) s USING (id)",
        "SELECT * FROM online('scores') o JOIN (SELECT 1 AS visits) s USING (visits)",
        "SELECT * FROM online('scores') o JOIN (SELECT 'a' AS id, 1 AS visits) s USING (id, visits)",
        "SELECT * FROM online('scores') o JOIN (SELECT 1 AS n) s ON o.id > s.n",
    ] {
        let error = rig.try_sql(unnamed).await.expect_err(unnamed);
        assert_eq!(error.kind, Kind::FailedPrecondition, "{unnamed}: {error}");
        assert!(error.message.contains("WHERE \"id\" = ..."), "{error}");
    }
    assert_eq!(rig.fake.calls("BatchGetRecord"), 1);
    let skew = "SELECT record_identifier, class FROM online_skew('scores') ORDER BY 1";
    assert_eq!(rig.sql(skew).await, ["a|equal", "b|equal"]);
}

/// What a statement answers, and how many calls it makes.
async fn asked(rig: &Rig, sql: &str) -> (Vec<String>, usize) {
    let before = rig.fake.calls("BatchGetRecord");
    let rows = rig.sql(sql).await;
    (rows, rig.fake.calls("BatchGetRecord") - before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_a_join_are_asked_for() {
    let rig = Rig::start().await;
    records(&rig).await;
    for spine in [
        "CREATE TEMP VIEW few AS SELECT * FROM (VALUES ('r7', 1), ('nobody', 2), ('r7', 3), (NULL, 4)) AS v (id, n)",
        "CREATE TEMP VIEW many AS SELECT 'r' || (value * 2) AS id, value AS n FROM range(1000)",
        // More than DataFusion would put on one side, and of a size that it does not know.
        "CREATE TEMP VIEW wide AS SELECT id, n, repeat('x', 5000) AS pad FROM many",
        "CREATE TEMP VIEW unknown AS SELECT 'r' || v AS id FROM (SELECT unnest(range(0, 1000, 10)) AS v)",
        "CREATE TEMP VIEW none AS SELECT id FROM many WHERE n > 5000",
    ] {
        rig.sql(spine).await;
    }
    for (sql, rows, calls) in [
        ("WHERE id IN (SELECT id FROM few)", 1, 1),
        ("o JOIN few s USING (id)", 2, 1),
        ("o JOIN few s ON s.id = o.id WHERE visits = 7", 2, 1),
        ("o RIGHT JOIN few s USING (id)", 4, 1),
        ("WHERE id IN (SELECT id FROM many)", 1000, 10),
        ("o JOIN many s USING (id)", 1000, 10),
        (
            "o JOIN wide s ON s.id = o.id AND length(s.pad) > 0",
            1000,
            10,
        ),
        ("WHERE id IN (SELECT id FROM wide)", 1000, 10),
        ("WHERE id IN (SELECT id FROM unknown)", 100, 1),
        ("o JOIN unknown s USING (id)", 100, 1),
        (
            "o JOIN (SELECT DISTINCT id FROM wide) s USING (id)",
            1000,
            10,
        ),
        ("o JOIN many s USING (id) JOIN few f USING (id)", 0, 10),
        (
            "WHERE id IN (SELECT id FROM few) AND id IN (SELECT id FROM many)",
            0,
            1,
        ),
        ("WHERE id IN (SELECT id FROM few) AND id = 'r7'", 1, 1),
        ("WHERE id IN (SELECT id FROM none)", 0, 0),
        ("o JOIN none s USING (id)", 0, 0),
        (
            "WHERE EXISTS (SELECT 1 FROM few s WHERE s.id = online.id)",
            1,
            1,
        ),
    ] {
        let sql = format!("SELECT count(*), count(visits) FROM online('scores') {sql}");
        let (found, made) = asked(&rig, &sql).await;
        let (all, there) = found[0].split_once('|').unwrap();
        assert_eq!(all, rows.to_string(), "{sql}");
        if !sql.contains("RIGHT") {
            assert_eq!(there, all, "{sql}");
        }
        assert!(made <= calls, "{sql}: {made} calls, not {calls}");
    }
    let spine =
        "SELECT s.n, o.visits FROM few s LEFT JOIN online('scores') o ON o.id = s.id ORDER BY n";
    let found = asked(&rig, spine).await;
    assert_eq!(
        found,
        (
            vec!["1|7".into(), "2|".into(), "3|7".into(), "4|".into()],
            1
        )
    );
}

/// As many as one statement looks up, and one more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_statement_looks_up_is_bounded() {
    let rig = Rig::start().await;
    records(&rig).await;
    let wanted = |keys: usize| {
        format!(
            "SELECT count(*) FROM online('scores') WHERE id IN (SELECT 'r' || value FROM range({keys}))"
        )
    };
    assert_eq!(
        asked(&rig, &wanted(100_000)).await,
        (vec!["2500".into()], 1000)
    );
    let error = rig.try_sql(&wanted(100_001)).await.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains("at most 100000 values"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_finds_the_same_records_again() {
    let rig = Rig::start().await;
    records(&rig).await;
    let sql = "SELECT id, visits FROM online('scores') \
               WHERE id IN (SELECT 'r' || value FROM range(3)) ORDER BY id";
    let query = rig.pin(sql).await.unwrap();
    let first = rig.fetch(&query).await.unwrap();
    assert_eq!(first, ["r0|0", "r1|1", "r2|2"]);
    rig.sql("INSERT INTO scores VALUES ('r1', '2026-01-02', 0.5, 99)")
        .await;
    rig.sent().await;
    assert_eq!(rig.fetch(&query).await.unwrap(), first);
    assert_eq!(rig.sql(sql).await[1], "r1|99");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_an_error_and_not_fewer_rows() {
    let rig = Rig::start().await;
    records(&rig).await;
    rig.faults(featureflight_tests::fake_runtime::Faults {
        away: true,
        ..Default::default()
    });
    for sql in [
        "SELECT id FROM online('scores') WHERE id IN (SELECT 'r' || value FROM range(300))",
        "SELECT s.value, o.id FROM range(300) s LEFT JOIN online('scores') o ON o.id = 'r' || s.value",
    ] {
        let error = rig.try_sql(sql).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
}
