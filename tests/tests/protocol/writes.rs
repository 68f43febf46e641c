//! `INSERT`, `DELETE`, appending uploads and bound rows, from a client to the online store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_flight::sql::{
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    DoPutUpdateResult, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use featureflight_catalog::model::FeatureGroup;
use featureflight_online::group::WriteGroup;
use featureflight_online::store::OnlineStore;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_server::Config;
use featureflight_server::serve::{ServerHandle, serve};
use featureflight_tests::warehouse::Group;
use prost::Message;
use tonic::{Code, Status};

use super::client::{Client, Server, code};
use super::uploads::messages;

/// A server that owns its warehouse, with one feature group `scores`.
pub(crate) async fn writer() -> Server {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("s3")).unwrap();
    Group::scores().write(directory.path());
    Server {
        handle: start(directory.path(), |_| {}).await,
        directory,
    }
}

pub(crate) async fn start(directory: &Path, change: impl FnOnce(&mut Config)) -> ServerHandle {
    let mut config = Config::for_warehouse(directory);
    config.server.listen = "127.0.0.1:0".into();
    config.storage.own = true;
    config.outbox.reserve.0 = 0;
    change(&mut config);
    serve(&config, std::future::pending()).await.unwrap()
}

impl Server {
    /// Ends the server and says what is in its online store: identifier, and the other values.
    async fn online(self, ids: &[&str]) -> Vec<String> {
        let Self { handle, directory } = self;
        handle.stop().await.unwrap();
        let store = EmbeddedStore::open(&directory.path().join("online")).unwrap();
        let group = directory.path().join("feature-groups/scores.json");
        let group: FeatureGroup = serde_json::from_slice(&std::fs::read(group).unwrap()).unwrap();
        let group = WriteGroup::new(Arc::new(group)).unwrap();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let found = store.get(&group.puts, &ids).await.unwrap();
        let found = found.into_iter().flatten().map(|record| {
            let values = record.values.iter().map(|(_, text)| text.clone());
            values.collect::<Vec<_>>().join("|")
        });
        found.collect()
    }
}

pub(crate) fn rows(rows: &[(&str, &str, f64, i64)]) -> RecordBatch {
    let text = |of: fn(&(&str, &str, f64, i64)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    RecordBatch::try_from_iter([
        ("id", text(|row| row.0.to_owned())),
        ("at", text(|row| row.1.to_owned())),
        (
            "score",
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2))) as _,
        ),
        (
            "visits",
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.3))) as _,
        ),
    ])
    .unwrap()
}

pub(crate) fn append() -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Fail as i32,
            if_exists: TableExistsOption::Append as i32,
        }),
        table: "scores".into(),
        schema: None,
        catalog: None,
        temporary: false,
        transaction_id: None,
        options: HashMap::new(),
    }
}

const ONE: &str = "INSERT INTO scores VALUES ('a', '2026-01-01T00:00:00Z', 0.5, 1)";

#[tokio::test]
async fn an_insert_writes_once_on_the_update_path_and_on_the_query_path() {
    let server = writer().await;
    let mut client = server.connect().await;
    assert_eq!(client.update(ONE).await.unwrap(), 1);
    let info = client
        .execute(
            "INSERT INTO features.Scores (AT, id, visits, score) \
             SELECT '2026-01-02', v.id, 2, NULL FROM (VALUES ('b'), ('c')) AS v (id)",
        )
        .await
        .unwrap();
    let ticket = super::client::only_ticket(&info);
    for _ in 0..2 {
        let answer = client.fetch(&ticket).await.unwrap().lines();
        assert_eq!(answer, ["2|0|"], "reading the answer again writes nothing");
    }
    let written = client
        .rows("SELECT count(*) FROM system.queries WHERE statement LIKE 'INSERT%'")
        .await;
    assert_eq!(written, ["4"], "a statement and its rows, twice");
    assert_eq!(
        server.online(&["a", "b", "c", "d"]).await,
        [
            "a|2026-01-01T00:00:00Z|0.5|1",
            "b|2026-01-02T00:00:00Z|2",
            "c|2026-01-02T00:00:00Z|2"
        ]
    );
}

#[tokio::test]
async fn what_is_not_executed_writes_nothing() {
    let server = writer().await;
    let mut client = server.connect().await;
    let prepared = client.prepare(ONE).await.unwrap();
    assert_eq!(prepared.is_update, Some(true));
    let query = arrow_flight::sql::CommandStatementQuery {
        query: ONE.into(),
        transaction_id: None,
    };
    client.schema(&query).await.unwrap();
    for explain in ["EXPLAIN", "EXPLAIN ANALYZE"] {
        let refused = client.query(&format!("{explain} {ONE}")).await;
        assert_eq!(code(refused), Code::InvalidArgument);
    }
    for clock in ["system_time", "valid_time"] {
        let set = format!("SET featureflight.{clock} = '2026-01-01'");
        client.update(&set).await.unwrap();
        let refused = client.update(ONE).await.expect_err("in the past");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(clock), "{}", refused.message());
        let refused = client.ingest(&append(), vec![rows(&[])]).await;
        assert_eq!(code(refused), Code::FailedPrecondition);
        client.update("RESET ALL").await.unwrap();
    }
    for wrong in [
        "INSERT INTO scores VALUES ('a')",
        "INSERT INTO scores (id, at) VALUES ('a', '2026-01-01')",
        "INSERT INTO scores (id, score, visits) VALUES ('a', 1, 1)",
        "INSERT INTO scores (id, at, score, visits, more) VALUES ('a', '2026-01-01', 1, 1, 1)",
        "INSERT INTO scores VALUES ('a', '2026-01-01', 'much', 1)",
        "INSERT INTO scores VALUES ('a', '2026-01-01', 1, 1) ON CONFLICT DO NOTHING",
        "INSERT INTO scores VALUES ('a', '2026-01-01', 1, 1) RETURNING id",
        "INSERT OVERWRITE scores VALUES ('a', '2026-01-01', 1, 1)",
        "INSERT INTO history.scores VALUES ('a', '2026-01-01', 1, 1)",
        "INSERT INTO system.queries VALUES ('a')",
        "UPDATE scores SET score = 1",
        "DELETE FROM scores",
        "DELETE FROM scores WHERE score > 1",
        "DELETE FROM scores WHERE id = 'a' OR id = 'b'",
        "DELETE FROM scores WHERE id = 'a' LIMIT 1",
        "DELETE FROM scores AS s WHERE id = 'a'",
        "DELETE FROM scores WHERE id NOT IN ('a')",
        "DELETE FROM scores WHERE id = 'a' AND id = 'b'",
        "TRUNCATE TABLE scores",
    ] {
        assert_eq!(
            code(client.update(wrong).await),
            Code::InvalidArgument,
            "{wrong}"
        );
    }
    assert_eq!(
        code(client.update("INSERT INTO scoers VALUES (1)").await),
        Code::NotFound
    );
    assert!(server.online(&["a"]).await.is_empty());
}

#[tokio::test]
async fn refused_rows_are_named_and_mean_nothing_or_are_skipped() {
    let server = writer().await;
    let mut client = server.connect().await;
    let mixed = "INSERT INTO scores VALUES ('a', '2026-01-01', 1, 1), ('b', 'soon', 1, 1), \
                 (NULL, '2026-01-01', 1, 1)";
    let refused = client.update(mixed).await.expect_err("bad rows");
    assert_eq!(refused.code(), Code::InvalidArgument);
    for said in ["2 rows refused", "row 1, column 'at'", "row 2, column 'id'"] {
        assert!(refused.message().contains(said), "{}", refused.message());
    }
    client
        .update("SET featureflight.on_error = 'skip'")
        .await
        .unwrap();
    assert_eq!(client.update(mixed).await.unwrap(), 1);
    let answer = client.rows(mixed).await;
    assert!(answer[0].starts_with("1|2|2 rows refused"), "{answer:?}");
    client
        .update("SET featureflight.partial = 'null'")
        .await
        .unwrap();
    let partial = "INSERT INTO scores (id, at) VALUES ('p', '2026-01-01')";
    assert_eq!(client.update(partial).await.unwrap(), 1);
    assert_eq!(
        server.online(&["a", "b", "p"]).await,
        ["a|2026-01-01T00:00:00Z|1.0|1", "p|2026-01-01T00:00:00Z"]
    );
}

#[tokio::test]
async fn a_repeated_key_has_one_effect_across_restarts() {
    let mut server = writer().await;
    let first = {
        let mut client = server.connect().await;
        client = client.with_header("featureflight-idempotency-key", "k1");
        client.update(ONE).await.unwrap()
    };
    server.handle.stop().await.unwrap();
    server.handle = start(server.directory.path(), |_| {}).await;
    let mut client = server.connect().await;
    let mut keyed = client.with_header("featureflight-idempotency-key", "k1");
    assert_eq!((first, keyed.update(ONE).await.unwrap()), (1, 1));
    let other = ONE.replace("'a'", "'x'");
    let reused = keyed.update(&other).await.expect_err("another write");
    assert_eq!(reused.code(), Code::FailedPrecondition);
    assert_eq!(
        client.rows("SELECT id FROM scores").await,
        ["a"],
        "and is not written"
    );
    let mut command = append();
    let key = ("featureflight.idempotency_key".to_owned(), "k2".to_owned());
    command.options.extend([key]);
    let batch = rows(&[("b", "2026-01-01", 1.0, 1)]);
    for _ in 0..2 {
        let written = client.ingest(&command, vec![batch.clone()]).await;
        assert_eq!(written.unwrap(), 1);
    }
    let other = rows(&[("b", "2026-01-01", 1.5, 1)]);
    let reused = client.ingest(&command, vec![other]).await;
    assert_eq!(
        reused.expect_err("other rows").code(),
        Code::FailedPrecondition
    );
    let there = client
        .rows("SELECT id FROM history.scores ORDER BY id")
        .await;
    assert_eq!(there, ["a", "b"]);
    assert_eq!(server.online(&["a", "b", "x"]).await.len(), 2);
}

/// What a statement reads, and when, may have changed when it is sent again.
#[tokio::test]
async fn a_repeated_statement_is_known_by_its_text_and_parameters() {
    let server = writer().await;
    let mut client = server.connect().await;
    client.update(ONE).await.unwrap();
    let keyed = |key: &str| client.with_header("featureflight-idempotency-key", key);
    let copy = "INSERT INTO scores SELECT 'b', now(), score + 1, visits FROM scores WHERE id = 'a'";
    let delete = "DELETE FROM scores WHERE id = 'b'";
    let (mut copying, mut deleting) = (keyed("copy"), keyed("delete"));
    for _ in 0..3 {
        assert_eq!(copying.update(copy).await.unwrap(), 1);
    }
    for _ in 0..3 {
        assert_eq!(deleting.update(delete).await.unwrap(), 1);
    }
    let written = "SELECT id, is_deleted FROM history.scores ORDER BY event_time, id";
    let mut client = server.connect().await;
    let written = client.rows(&written.replace("event_time", "at")).await;
    assert_eq!(written, ["a|false", "b|false", "b|true"]);

    client
        .update("SET featureflight.deletion = 'hard'")
        .await
        .unwrap();
    let mut hard = client.with_header("featureflight-idempotency-key", "delete");
    let other = hard.update(delete).await.expect_err("another deletion");
    assert_eq!(other.code(), Code::FailedPrecondition);

    let prepared = client
        .prepare("INSERT INTO scores VALUES (?, ?, ?, ?)")
        .await
        .unwrap();
    let mut binding = client.with_header("featureflight-idempotency-key", "bound");
    let handle = || prepared.handle.clone();
    let one = |score| vec![rows(&[("c", "2026-01-01", score, 1)])];
    let two = |score| {
        vec![rows(&[
            ("c", "2026-01-01", score, 1),
            ("d", "2026-01-01", 1.0, 1),
        ])]
    };
    for _ in 0..2 {
        assert_eq!(bound(&mut binding, handle(), one(1.0)).await.unwrap(), 1);
    }
    for other in [one(2.0), two(1.0)] {
        let other = bound(&mut binding, handle(), other).await;
        assert_eq!(code(other), Code::FailedPrecondition);
    }
    let mut binding = client.with_header("featureflight-idempotency-key", "rows");
    for _ in 0..2 {
        assert_eq!(bound(&mut binding, handle(), two(1.0)).await.unwrap(), 2);
    }
    let other = bound(&mut binding, handle(), two(2.0)).await;
    assert_eq!(code(other), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_delete_is_later_than_what_it_deletes() {
    let server = writer().await;
    let mut client = server.connect().await;
    let batch = rows(&[
        ("a", "2026-01-01T00:00:00Z", 1.0, 1),
        ("b", "2026-01-01T00:00:00Z", 1.0, 1),
        ("c", "2026-01-01T00:00:00Z", 1.0, 1),
        ("d", "2026-01-01T00:00:00Z", 1.0, 1),
    ]);
    client.ingest(&append(), vec![batch]).await.unwrap();
    let too_early = "DELETE FROM scores WHERE id IN ('a', 'b') AND at = '2026-01-01'";
    let refused = client.update(too_early).await.expect_err("not newer");
    assert!(
        refused.message().contains("2 rows refused"),
        "{}",
        refused.message()
    );
    let deleted = client.update("DELETE FROM scores WHERE id = 'a'").await;
    assert_eq!(deleted.unwrap(), 1, "now");
    let deleted = client
        .update("DELETE FROM scores WHERE (id IN ('b', 'b', NULL)) AND '2026-01-02' = at")
        .await;
    assert_eq!(deleted.unwrap(), 1);
    client
        .update("SET featureflight.deletion = 'hard'")
        .await
        .unwrap();
    let deleted = client.update("DELETE FROM scores WHERE id = 'c'").await;
    assert_eq!(deleted.unwrap(), 1);
    let again = rows(&[
        ("b", "2026-01-01T12:00:00Z", 2.0, 2),
        ("c", "2025-12-31T00:00:00Z", 2.0, 2),
    ]);
    client.ingest(&append(), vec![again]).await.unwrap();
    assert_eq!(
        server.online(&["a", "b", "c", "d"]).await,
        [
            "c|2025-12-31T00:00:00Z|2.0|2",
            "d|2026-01-01T00:00:00Z|1.0|1"
        ],
        "a soft delete is remembered, a hard one is not"
    );
}

async fn bound(
    client: &mut Client,
    handle: prost::bytes::Bytes,
    batches: Vec<RecordBatch>,
) -> Result<i64, Status> {
    let command = CommandPreparedStatementUpdate {
        prepared_statement_handle: handle,
    };
    let result = client.put(messages(&command, batches).await).await?;
    let result = DoPutUpdateResult::decode(result.as_slice()).unwrap();
    Ok(result.record_count)
}

#[tokio::test]
async fn bound_rows_are_one_write() {
    let server = writer().await;
    let mut client = server.connect().await;
    let insert = "INSERT INTO scores (id, at, score, visits) VALUES (?, ?, ?, ?)";
    let prepared = client.prepare(insert).await.unwrap();
    let types: Vec<_> = prepared
        .parameters()
        .fields()
        .iter()
        .map(|field| field.data_type().to_string())
        .collect();
    assert_eq!(
        types,
        ["Utf8", "Timestamp(ms, \"UTC\")", "Float64", "Int64"]
    );
    let several = vec![
        rows(&[("a", "2026-01-01", 1.0, 1), ("b", "2026-01-01", 2.0, 2)]),
        rows(&[("c", "2026-01-01", 3.0, 3)]),
    ];
    let written = bound(&mut client, prepared.handle.clone(), several).await;
    assert_eq!(written.unwrap(), 3);
    let one = vec![rows(&[("d", "2026-01-01", 4.0, 4)])];
    let written = bound(&mut client, prepared.handle.clone(), one).await;
    assert_eq!(written.unwrap(), 1);
    // What was bound before is another thing than no rows now.
    let bind = CommandPreparedStatementQuery {
        prepared_statement_handle: prepared.handle.clone(),
    };
    let before = rows(&[("x", "2026-01-01", 9.0, 9), ("y", "2026-01-01", 9.0, 9)]);
    let bind = messages(&bind, vec![before]).await;
    client.put(bind).await.unwrap();
    let none = vec![rows(&[])];
    let written = bound(&mut client, prepared.handle.clone(), none).await;
    assert_eq!(written.unwrap(), 0);
    let broken = vec![rows(&[("e", "2026-01-01", 5.0, 5), ("f", "soon", 5.0, 5)])];
    let refused = bound(&mut client, prepared.handle, broken).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let delete = client.prepare("DELETE FROM scores WHERE id = $1").await;
    let delete = delete.unwrap().handle;
    let several = rows(&[("a", "", 0.0, 0), ("b", "", 0.0, 0)])
        .project(&[0])
        .unwrap();
    let refused = bound(&mut client, delete.clone(), vec![several]).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let one = rows(&[("a", "", 0.0, 0)]).project(&[0]).unwrap();
    assert_eq!(bound(&mut client, delete, vec![one]).await.unwrap(), 1);
    // Several rows are one statement, which is done when it is answered.
    let states = "SELECT DISTINCT state FROM system.queries WHERE statement LIKE 'INSERT%'";
    let mut states = client.rows(states).await;
    states.sort();
    assert_eq!(states, ["failed", "succeeded"]);
    assert_eq!(
        server
            .online(&["a", "b", "c", "d", "e", "x", "y"])
            .await
            .len(),
        3
    );
}

#[tokio::test]
async fn an_upload_creates_no_group_and_replaces_none() {
    let server = writer().await;
    let mut client = server.connect().await;
    let batch = || vec![rows(&[("a", "2026-01-01", 1.0, 1)])];
    let mut create = append();
    create.table_definition_options = Some(TableDefinitionOptions {
        if_not_exist: TableNotExistOption::Create as i32,
        if_exists: TableExistsOption::Fail as i32,
    });
    assert_eq!(
        code(client.ingest(&create, batch()).await),
        Code::AlreadyExists
    );
    let mut unknown = append();
    unknown.table = "scoers".into();
    let refused = client.ingest(&unknown, batch()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("temporary=True"), "{refused}");
    let mut elsewhere = append();
    elsewhere.schema = Some("history".into());
    assert_eq!(
        code(client.ingest(&elsewhere, batch()).await),
        Code::InvalidArgument
    );
    assert!(server.online(&["a"]).await.is_empty());
}

#[tokio::test]
async fn a_warehouse_of_somebody_else_is_only_read() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let refused = client
        .update("INSERT INTO examples VALUES ('a', '2026-01-01', 'b')")
        .await
        .expect_err("not ours");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("--own"), "{}", refused.message());
    assert!(!server.directory.path().join("outbox").exists());
    let owned = writer().await;
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_warehouse(owned.directory.path());
    config.outbox.directory = Some(directory.path().join("another"));
    let error = serve(&config, std::future::pending()).await.unwrap_err();
    assert!(error.message.contains("another outbox"), "{error}");
}
