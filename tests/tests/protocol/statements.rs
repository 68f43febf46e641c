//! Statements: results, tickets, effects.

use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, TimeUnit};
use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightData, FlightDescriptor, Ticket};
use featureflight_engine::query::QueryState;
use futures::TryStreamExt;
use prost::Message;
use tonic::Code;

use super::client::{Server, announced, code, only_ticket};

#[tokio::test]
async fn a_result_is_announced_as_it_is_sent() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT id, event_time, v FROM examples ORDER BY id";
    let info = client.execute(sql).await.unwrap();
    assert_eq!(info.total_records, -1);
    let about: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    assert_eq!(about["unsettled"], true);
    assert!(about["query_id"].as_str().is_some_and(|id| !id.is_empty()));

    let answer = client.fetch(&only_ticket(&info)).await.unwrap();
    assert_eq!(announced(&info), *answer.schema);
    assert_eq!(
        answer.lines(),
        ["A|1970-01-01T00:03:20Z|a2b", "C|1970-01-01T00:06:40Z|c4"]
    );
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let types: Vec<_> = answer
        .schema
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(types, [DataType::Utf8, time, DataType::Utf8]);
    let names = ["VARCHAR", "TIMESTAMP", "VARCHAR"];
    for (field, name) in answer.schema.fields().iter().zip(names) {
        let metadata = field.metadata();
        assert_eq!(
            metadata
                .get("ARROW:FLIGHT:SQL:TYPE_NAME")
                .map(String::as_str),
            Some(name)
        );
        assert!(metadata.contains_key("ARROW:FLIGHT:SQL:IS_CASE_SENSITIVE"));
    }

    let query = CommandStatementQuery {
        query: sql.into(),
        transaction_id: None,
    };
    assert_eq!(
        client.schema(&query).await.unwrap(),
        *answer.schema,
        "GetSchema says the same"
    );
}

/// JDBC's driver has no codecs.
#[tokio::test]
async fn bodies_are_not_compressed() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT repeat('x', 1000) AS text FROM range(10000)";
    let info = client.execute(sql).await.unwrap();
    let messages = client.flight.do_get(only_ticket(&info)).await.unwrap();
    let messages: Vec<FlightData> = messages.into_inner().try_collect().await.unwrap();
    let mut batches = 0;
    for message in &messages {
        let header = arrow::ipc::root_as_message(&message.data_header).unwrap();
        if let Some(batch) = header.header_as_record_batch() {
            assert_eq!(batch.compression(), None);
            batches += 1;
        }
    }
    assert!(batches > 0, "{} messages", messages.len());
}

#[tokio::test]
async fn an_empty_result_has_a_schema() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for sql in [
        "SELECT * FROM examples LIMIT 0",
        "SELECT * FROM examples WHERE id = 'nobody'",
    ] {
        let answer = client.query(sql).await.unwrap();
        assert_eq!(answer.rows(), 0);
        assert_eq!(answer.schema.fields().len(), 3, "{sql}");
    }
}

#[tokio::test]
async fn the_same_ticket_gives_the_same_rows_from_any_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(
        &client
            .execute("SELECT * FROM history.examples")
            .await
            .unwrap(),
    );
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    let first = sorted(client.fetch(&ticket).await.unwrap().lines());
    assert_eq!(first.len(), 9);
    let mut other = server.connect().await;
    assert_eq!(sorted(other.fetch(&ticket).await.unwrap().lines()), first);
}

#[tokio::test]
async fn a_ticket_of_what_cannot_repeat_is_good_once() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute("SELECT random()").await.unwrap());
    client.fetch(&ticket).await.unwrap();
    assert_eq!(code(client.fetch(&ticket).await), Code::Aborted);
}

#[tokio::test]
async fn a_forgotten_ticket_says_run_it_again() {
    let server = Server::configured(|config| config.server.max_tickets = 1).await;
    let mut client = server.connect().await;
    let old = only_ticket(&client.execute("SELECT 1").await.unwrap());
    let new = only_ticket(&client.execute("SELECT 2").await.unwrap());
    let status = client.fetch(&old).await.expect_err("evicted");
    assert_eq!(status.code(), Code::Aborted);
    assert!(
        status.message().contains("run the statement again"),
        "{}",
        status.message()
    );
    assert_eq!(client.fetch(&new).await.unwrap().lines(), ["2"]);

    let another = Server::start().await;
    assert_eq!(
        code(another.connect().await.fetch(&new).await),
        Code::Aborted
    );
}

#[tokio::test]
async fn a_changed_ticket_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute("SELECT 1").await.unwrap());
    let any = Any::decode(ticket.ticket.as_ref()).unwrap();
    let inner: TicketStatementQuery = any.unpack().unwrap().unwrap();
    for position in 5..inner.statement_handle.len() {
        let mut handle = inner.statement_handle.to_vec();
        handle[position] ^= 1;
        let forged = TicketStatementQuery {
            statement_handle: handle.into(),
        };
        let forged = Ticket::new(forged.as_any().encode_to_vec());
        assert_eq!(
            code(client.fetch(&forged).await),
            Code::InvalidArgument,
            "byte {position}"
        );
    }
    for bytes in [
        &b""[..],
        b"x",
        b"\xff\xff\xff\xff",
        &ticket.ticket[..ticket.ticket.len() - 1],
    ] {
        assert_eq!(
            code(client.fetch(&Ticket::new(bytes.to_vec())).await),
            Code::InvalidArgument
        );
    }
    assert_eq!(client.fetch(&ticket).await.unwrap().lines(), ["1"]);
}

#[tokio::test]
async fn an_effect_happens_once_however_it_is_sent() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    // By the query path: when it is executed, and not again when it is fetched.
    let create = "CREATE TEMP VIEW by_query AS SELECT id FROM examples";
    let info = client.execute(create).await.unwrap();
    client.fetch(&only_ticket(&info)).await.unwrap();
    assert_eq!(client.rows("SELECT count(*) FROM by_query").await, ["2"]);
    client.rows("DROP VIEW by_query").await;
    client.fetch(&only_ticket(&info)).await.unwrap();
    assert_eq!(
        code(client.query("SELECT * FROM by_query").await),
        Code::NotFound
    );
    // By the update path.
    let create = "CREATE TEMP VIEW by_update AS SELECT id FROM examples";
    assert_eq!(client.update(create).await.unwrap(), 0);
    assert_eq!(client.rows("SELECT count(*) FROM by_update").await, ["2"]);
}

#[tokio::test]
async fn a_query_is_no_update_and_writes_are_refused_on_both_paths() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let status = client.update("SELECT 1").await.expect_err("rows");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().contains("returns rows"),
        "{}",
        status.message()
    );
    for write in [
        "INSERT INTO examples VALUES ('x', now(), 'y')",
        "DELETE FROM examples",
        "UPDATE examples SET v = 'x'",
        "DROP TABLE examples",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '/tmp/x'",
        "COPY examples TO '/tmp/x.parquet'",
    ] {
        assert_eq!(
            code(client.update(write).await),
            Code::InvalidArgument,
            "{write}"
        );
        assert_eq!(
            code(client.query(write).await),
            Code::InvalidArgument,
            "{write}"
        );
    }
}

/// 9^6 wide rows, more than the buffers between the operators and a client that does not read: it
/// stays running, however fast the machine is.
const ENDLESS: &str = "SELECT * FROM history.examples a CROSS JOIN history.examples b \
     CROSS JOIN history.examples c CROSS JOIN history.examples d \
     CROSS JOIN history.examples e CROSS JOIN history.examples f";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_before_the_last_is_computed_and_leaving_cancels() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute(ENDLESS).await.unwrap());
    let request = client.request(ticket);
    let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
    messages.message().await.unwrap().expect("the schema");
    messages.message().await.unwrap().expect("the first rows");
    let state = || {
        let queries = server.handle.engine.queries();
        queries
            .iter()
            .find(|query| query.statement == ENDLESS)
            .map(|q| q.state)
    };
    assert_eq!(state(), Some(QueryState::Running));
    drop(messages);
    let left = Instant::now();
    while state() == Some(QueryState::Running) {
        assert!(left.elapsed() < Duration::from_secs(20), "still running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state(), Some(QueryState::Cancelled));
}

#[tokio::test]
async fn an_error_in_the_middle_is_no_end() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT 1 / (CASE WHEN v = 'b1' THEN 0 ELSE 1 END) FROM history.examples";
    let ticket = only_ticket(&client.execute(sql).await.unwrap());
    assert_eq!(code(client.fetch(&ticket).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_descriptor_must_hold_a_command() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for descriptor in [
        FlightDescriptor::new_cmd(Vec::new()),
        FlightDescriptor::new_cmd(b"SELECT 1".to_vec()),
        FlightDescriptor::new_path(vec!["features".into(), "examples".into()]),
    ] {
        let request = client.request(descriptor);
        assert_eq!(
            code(client.flight.get_flight_info(request).await),
            Code::InvalidArgument
        );
    }
}
