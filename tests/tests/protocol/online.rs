//! Online stores in SQL: `online('g')` and `online_skew('g')`, on the embedded store.

use featureflight_tests::warehouse::{Group, Value, Version};
use tonic::Code;

use super::client::{Client, Server, code};
use super::writes::{append, rows, start, writer};

pub(crate) async fn forwarded(client: &mut Client) {
    for _ in 0..400 {
        let waiting = client
            .rows("SELECT coalesce(sum(waiting_online), 0) FROM system.writes")
            .await;
        if waiting == ["0"] {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("rows are not online");
}

#[tokio::test]
async fn records_are_looked_up_and_listed() {
    let server = writer().await;
    let mut client = server.connect().await;
    client
        .update(
            "INSERT INTO scores VALUES ('a', '2026-01-02', 0.5, 1), ('a', '2026-01-01', 0.1, 9), \
             ('b', '2026-01-01T00:00:00.25Z', NULL, 2), ('c', '2026-01-01', 1.5, NULL), \
             ('gone', '2026-01-01', 1, 1)",
        )
        .await
        .unwrap();
    client
        .update("DELETE FROM scores WHERE id = 'gone'")
        .await
        .unwrap();
    forwarded(&mut client).await;
    let (a, b, c) = (
        "a|2026-01-02T00:00:00Z|0.5|1",
        "b|2026-01-01T00:00:00.250Z||2",
        "c|2026-01-01T00:00:00Z|1.5|",
    );
    for (filter, wanted) in [
        ("WHERE id = 'a'", vec![a]),
        ("WHERE 'a' = id", vec![a]),
        ("WHERE id IN ('c', 'a', 'nobody', 'a', 'gone')", vec![a, c]),
        ("WHERE id = 'b' OR id = 'c'", vec![b, c]),
        ("WHERE id = 'b' AND visits = 3", vec![]),
        ("WHERE id = 'a' AND id IN ('a', 'b')", vec![a]),
        ("WHERE id = NULL", vec![]),
        ("WHERE id <> 'a'", vec![b, c]),
        ("WHERE id = 'a' OR visits = 2", vec![a, b]),
        ("", vec![a, b, c]),
    ] {
        let sql = format!("SELECT * FROM online('scores') {filter} ORDER BY id");
        assert_eq!(client.rows(&sql).await, wanted, "{filter}");
    }
    let joined = "SELECT o.visits, f.visits FROM online('scores') o JOIN scores f ON o.id = f.id \
                  ORDER BY 1";
    assert_eq!(client.rows(joined).await, ["1|1", "2|2", "|"]);
    let count = "SELECT count(*) FROM online('scores') AS o";
    assert_eq!(client.rows(count).await, ["3"]);

    // A ticket shows the records as they were.
    let info = client.execute(count).await.unwrap();
    let ticket = super::client::only_ticket(&info);
    client
        .update("INSERT INTO scores VALUES ('d', '2026-01-01', 1, 1)")
        .await
        .unwrap();
    forwarded(&mut client).await;
    for _ in 0..3 {
        assert_eq!(client.fetch(&ticket).await.unwrap().lines(), ["3"]);
    }
    assert_eq!(client.rows(count).await, ["4"]);

    client
        .update("SET featureflight.valid_time = '2026-01-01'")
        .await
        .unwrap();
    assert_eq!(code(client.query(count).await), Code::InvalidArgument);
    client.update("RESET ALL").await.unwrap();
    client
        .update(
            "CREATE TABLE quiet (id BIGINT, at TIMESTAMP, PRIMARY KEY (id)) WITH (online = false)",
        )
        .await
        .unwrap();
    for function in ["online", "online_skew"] {
        let sql = format!("SELECT * FROM {function}('quiet')");
        let refused = client.query(&sql).await.expect_err(&sql);
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(
            refused.message().contains("has no online store"),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn joins_look_up_what_they_want_in_every_step_and_within_memory() {
    let mut server = writer().await;
    let mut client = server.connect().await;
    client
        .update("INSERT INTO scores SELECT 'r' || value, '2026-01-01', 0.5, value FROM range(5000)")
        .await
        .unwrap();
    client
        .update("CREATE TABLE wide (id VARCHAR, at TIMESTAMP, text VARCHAR, PRIMARY KEY (id))")
        .await
        .unwrap();
    client
        .update(
            "INSERT INTO wide SELECT 'r' || value, '2026-01-01', repeat('x', 5000) FROM range(4000)",
        )
        .await
        .unwrap();
    forwarded(&mut client).await;
    // Each step wants another record: what the step before wanted must not be left over.
    let steps = "WITH RECURSIVE steps(id) AS ( \
                     SELECT 'r1' UNION ALL \
                     SELECT CASE steps.id WHEN 'r1' THEN 'r2' ELSE 'nobody' END \
                     FROM steps JOIN online('scores') o ON o.id = steps.id) \
                 SELECT id FROM steps";
    assert_eq!(client.rows(steps).await, ["r1", "r2", "nobody"]);
    let batch = rows(&[("r7", "2026-01-01", 0.0, 1), ("r9", "2026-01-01", 0.0, 2)]);
    let mut upload = append();
    (upload.table, upload.temporary) = ("spine".into(), true);
    upload.table_definition_options = None;
    client.ingest(&upload, vec![batch]).await.unwrap();
    let uploaded = "SELECT o.id, o.visits, s.visits FROM online('scores') o JOIN spine s USING (id) ORDER BY 1";
    assert_eq!(client.rows(uploaded).await, ["r7|7|1", "r9|9|2"]);
    server.handle.stop().await.unwrap();

    server.handle = start(server.directory.path(), |config| {
        config.engine.memory_limit.0 = 12 << 20;
    })
    .await;
    let mut client = server.connect().await;
    let wide = |keys: usize| {
        format!(
            "SELECT count(*), max(length(text)) FROM online('wide') \
             WHERE id IN (SELECT 'r' || value FROM range({keys}))"
        )
    };
    assert_eq!(client.rows(&wide(100)).await, ["100|5000"]);
    assert_eq!(
        code(client.query(&wide(4000)).await),
        Code::ResourceExhausted
    );
}

fn version(id: &'static str, day: i64, visits: i64, api: i64) -> Version {
    let event = 1_767_225_600 + day * 86_400;
    let at = match day {
        0 => "2026-01-01T00:00:00Z",
        1 => "2026-01-02T00:00:00Z",
        _ => unreachable!("no such day"),
    };
    Version {
        features: vec![
            Value::Text(id),
            Value::Text(at),
            Value::Double(0.5),
            Value::Integer(visits),
        ],
        event,
        api: event + api,
        write: event + 600,
        deleted: false,
    }
}

fn deleted(id: &'static str, api: i64) -> Version {
    let mut marker = version(id, 0, 0, api);
    marker.features[2..].fill(Value::Null);
    Version {
        deleted: true,
        ..marker
    }
}

async fn server_with_files() -> Server {
    let mut server = writer().await;
    server.handle.stop().await.unwrap();
    Group::scores()
        .file(vec![
            version("equal", 0, 1, 1),
            version("missing", 0, 1, 1),
            version("differs", 0, 1, 1),
            version("tie", 0, 1, 1),
            version("tie", 0, 2, 2),
            version("ahead", 0, 1, 1),
            version("behind", 1, 1, 1),
            deleted("ghost", 1),
            version("ghost", 0, 1, 2),
        ])
        .write(server.directory.path());
    server.handle = start(server.directory.path(), |_| {}).await;
    server
}

#[tokio::test]
async fn skew_has_a_class_for_every_difference() {
    let server = server_with_files().await;
    let mut client = server.connect().await;
    client
        .update(
            "INSERT INTO scores VALUES ('equal', '2026-01-01', 0.5, 1), \
             ('differs', '2026-01-01', 0.25, 3), ('tie', '2026-01-01', 0.5, 1), \
             ('ahead', '2026-01-02', 0.5, 1), ('behind', '2026-01-01', 0.5, 7), \
             ('ghost', '2026-01-01', NULL, NULL), ('new', '2026-01-01', 0.5, 1)",
        )
        .await
        .unwrap();
    forwarded(&mut client).await;
    // What was just written is in the state at once; the files are what is compared here.
    client
        .update("SET featureflight.fresh = false")
        .await
        .unwrap();
    let skew = "SELECT record_identifier, class, differing FROM online_skew('scores') ORDER BY 1";
    let wanted = [
        "ahead|newer online|at",
        "behind|newer offline|at, visits",
        "differs|values differ|score, visits",
        "equal|equal|",
        // A delete at the same time is no version that could be online.
        "ghost|values differ|score, visits",
        "missing|missing online|",
        "new|missing offline|",
        "tie|tie|visits",
    ];
    assert_eq!(client.rows(skew).await, wanted);
    let some = "SELECT record_identifier FROM online_skew('scores', sample => 3) ORDER BY 1";
    let sample = client.rows(some).await;
    assert_eq!(sample.len(), 3);
    assert_eq!(client.rows(some).await, sample, "the same every time");
    let ticket = super::client::only_ticket(&client.execute(skew).await.unwrap());
    let first = client.fetch(&ticket).await.unwrap().lines();
    assert_eq!(first, wanted);
    client
        .update("INSERT INTO scores VALUES ('equal', '2026-01-03', 0.5, 1)")
        .await
        .unwrap();
    forwarded(&mut client).await;
    assert_eq!(
        client.fetch(&ticket).await.unwrap().lines(),
        first,
        "of one ticket"
    );
    assert!(
        client
            .rows(skew)
            .await
            .contains(&"equal|newer online|at".to_owned())
    );
    for wrong in ["sample => 100001", "sample => 'x'", "size => 3"] {
        let sql = format!("SELECT * FROM online_skew('scores', {wrong})");
        assert_eq!(code(client.query(&sql).await), Code::InvalidArgument);
    }

    client.update("RESET featureflight.fresh").await.unwrap();
    client
        .update(
            "CREATE TABLE short (id BIGINT, at TIMESTAMP, v BIGINT, PRIMARY KEY (id)) WITH (ttl = \
             '1 hour')",
        )
        .await
        .unwrap();
    client
        .update("INSERT INTO short VALUES (1, '2026-01-01 00:00:00', 1)")
        .await
        .unwrap();
    client
        .update("INSERT INTO short VALUES (2, now(), 2)")
        .await
        .unwrap();
    forwarded(&mut client).await;
    let skew = "SELECT record_identifier, class FROM online_skew('short') ORDER BY 1";
    assert_eq!(client.rows(skew).await, ["1|expired", "2|equal"]);
    let found = "SELECT v FROM online('short') WHERE id IN (1, 2)";
    assert_eq!(client.rows(found).await, ["2"]);
}
