//! Prepared statements: their handles, parameters and schemas.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, DoPutPreparedStatementResult, DoPutUpdateResult,
    ProstMessageExt,
};
use featureflight_server::config::Secret;
use futures::TryStreamExt;
use prost::Message;
use prost::bytes::Bytes;
use tonic::{Code, Status};

use super::client::{Client, Server, alone, code};
use super::uploads::messages;

fn command(handle: &Bytes) -> CommandPreparedStatementQuery {
    CommandPreparedStatementQuery {
        prepared_statement_handle: handle.clone(),
    }
}

async fn bind(client: &mut Client, handle: &Bytes, batch: RecordBatch) -> Result<Bytes, Status> {
    let messages = messages(&command(handle), vec![batch]).await;
    let result = client.put(messages).await?;
    let result = DoPutPreparedStatementResult::decode(result.as_slice()).unwrap();
    Ok(result.prepared_statement_handle.expect("a new handle"))
}

fn texts(values: &[&str]) -> RecordBatch {
    let column: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
    RecordBatch::try_from_iter([("0", column)]).unwrap()
}

#[tokio::test]
async fn schemas_are_those_of_the_result_and_the_kind_is_told() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT id, event_time, v FROM examples WHERE id = $1";
    let prepared = client.prepare(sql).await.unwrap();
    assert_eq!(prepared.is_update, Some(false));
    assert_eq!(prepared.parameters().fields().len(), 1);
    let bound = bind(&mut client, &prepared.handle, texts(&["A"]))
        .await
        .unwrap();
    let answer = client.ask(&command(&bound)).await.unwrap();
    assert_eq!(prepared.dataset(), *answer.schema);
    assert_eq!(
        client.schema(&command(&bound)).await.unwrap(),
        *answer.schema
    );
    assert_eq!(answer.lines(), ["A|1970-01-01T00:03:20Z|a2b"]);

    let set = "SET featureflight.system_time = '2026-01-01'";
    let set = client.prepare(set).await.unwrap();
    assert_eq!(set.is_update, Some(true));
    assert!(set.dataset().fields().is_empty());
}

#[tokio::test]
async fn the_old_handle_knows_what_was_bound_last() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let handle = client
        .prepare("SELECT v FROM examples WHERE id = ?")
        .await
        .unwrap()
        .handle;
    for (id, v) in [("A", "a2b"), ("C", "c4"), ("A", "a2b")] {
        let new = bind(&mut client, &handle, texts(&[id])).await.unwrap();
        assert_eq!(client.ask(&command(&handle)).await.unwrap().lines(), [v]);
        assert_eq!(client.ask(&command(&new)).await.unwrap().lines(), [v]);
    }
}

#[tokio::test]
async fn bindings_of_two_statements_with_one_text_do_not_mix() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT v FROM examples WHERE id = $1";
    let first = client.prepare(sql).await.unwrap().handle;
    let second = client.prepare(sql).await.unwrap().handle;
    bind(&mut client, &first, texts(&["A"])).await.unwrap();
    bind(&mut client, &second, texts(&["C"])).await.unwrap();
    assert_eq!(client.ask(&command(&first)).await.unwrap().lines(), ["a2b"]);
    assert_eq!(client.ask(&command(&second)).await.unwrap().lines(), ["c4"]);
}

#[tokio::test]
async fn a_handle_is_good_on_every_server_with_the_key() {
    let key = || Some(Secret::new("a key that two servers share, 32+"));
    let one = Server::configured(|config| config.server.signing_key = key()).await;
    let two = Server::configured(|config| config.server.signing_key = key()).await;
    let mut client = one.connect().await;
    let handle = client
        .prepare("SELECT v FROM examples WHERE id = $1")
        .await
        .unwrap()
        .handle;
    let bound = bind(&mut client, &handle, texts(&["C"])).await.unwrap();
    let mut elsewhere = two.connect().await;
    assert_eq!(
        elsewhere.ask(&command(&bound)).await.unwrap().lines(),
        ["c4"]
    );

    let stranger = Server::start().await;
    let status = stranger
        .connect()
        .await
        .info(&command(&bound))
        .await
        .expect_err("no key");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("prepare it again"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn a_changed_handle_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let handle = client.prepare("SELECT 1").await.unwrap().handle;
    let mut changed = handle.to_vec();
    let last = changed.len() - 40;
    changed[last] ^= 1;
    assert_eq!(
        code(client.info(&command(&changed.into())).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(client.info(&command(&Bytes::new())).await),
        Code::InvalidArgument
    );
    assert_eq!(client.ask(&command(&handle)).await.unwrap().lines(), ["1"]);
}

#[tokio::test]
async fn a_query_runs_once_for_each_row_of_parameters() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT v FROM examples WHERE id = $1";
    let handle = client.prepare(sql).await.unwrap().handle;
    let rows = texts(&["C", "A", "nobody", "A"]);
    let bound = bind(&mut client, &handle, rows).await.unwrap();
    for handle in [bound, handle] {
        let answer = client.ask(&command(&handle)).await.unwrap();
        assert_eq!(answer.lines(), ["c4", "a2b", "a2b"]);
    }
    let handle = client
        .prepare("SET featureflight.endpoints = $1")
        .await
        .unwrap()
        .handle;
    let bound = bind(&mut client, &handle, texts(&["1", "2"]))
        .await
        .unwrap();
    assert_eq!(
        code(client.info(&command(&bound)).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn binding_no_rows_is_not_binding_what_was_bound_before() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT v FROM examples WHERE id = $1";
    let handle = client.prepare(sql).await.unwrap().handle;
    bind(&mut client, &handle, texts(&["A"])).await.unwrap();
    let none = bind(&mut client, &handle, texts(&[])).await.unwrap();
    for handle in [none, handle] {
        let refused = client.info(&command(&handle)).await.expect_err("no rows");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let message = refused.message();
        assert!(message.contains("no rows of parameters"), "{message}");
    }
}

#[tokio::test]
async fn a_missing_parameter_is_an_error_not_a_null() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let handle = client
        .prepare("SELECT v FROM examples WHERE id = $1")
        .await
        .unwrap()
        .handle;
    assert_eq!(
        code(client.info(&command(&handle)).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn an_effect_may_be_prepared() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let set = "SET featureflight.system_time = '1970-01-01T00:17:00Z'";
    let handle = client.prepare(set).await.unwrap().handle;
    let update = CommandPreparedStatementUpdate {
        prepared_statement_handle: handle,
    };
    let result = client.put(vec![alone(&update)]).await.unwrap();
    assert_eq!(
        DoPutUpdateResult::decode(result.as_slice())
            .unwrap()
            .record_count,
        0
    );
    assert_eq!(
        client.rows("SELECT v FROM examples WHERE id = 'A'").await,
        ["a1"]
    );

    let handle = client.prepare("SELECT 1").await.unwrap().handle;
    let update = CommandPreparedStatementUpdate {
        prepared_statement_handle: handle,
    };
    assert_eq!(
        code(client.put(vec![alone(&update)]).await),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn closing_is_never_an_error() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let handle = client.prepare("SELECT 1").await.unwrap().handle;
    for handle in [handle.clone(), handle, Bytes::from_static(b"never")] {
        let close = ActionClosePreparedStatementRequest {
            prepared_statement_handle: handle,
        };
        let results = client
            .action("ClosePreparedStatement", close.as_any().encode_to_vec())
            .await;
        assert!(results.unwrap().is_empty());
    }
}

#[tokio::test]
async fn the_rust_client_binds_and_executes() {
    let server = Server::start().await;
    let channel = server.connect().await.flight;
    let mut client = FlightSqlServiceClient::new_from_inner(channel);
    client.handshake("ada", "any").await.unwrap();
    let sql = "SELECT $1 + 1 AS n, $2 AS t, $3 * 2 AS d";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let parameters = RecordBatch::try_from_iter([
        ("1", Arc::new(Int64Array::from(vec![41])) as ArrayRef),
        (
            "2",
            Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef,
        ),
        ("3", Arc::new(Float64Array::from(vec![0.25])) as ArrayRef),
    ])
    .unwrap();
    prepared.set_parameters(parameters).unwrap();
    let info = prepared.execute().await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<_> = client
        .do_get(ticket)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    assert!(batches[0].column(1).is_null(0));
    prepared.close().await.unwrap();
}
