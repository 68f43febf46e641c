//! What drivers put into headers: clocks, limits, the default schema, deadlines, traces.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::DataType;
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::sql::{CommandGetTables, CommandStatementQuery};
use tonic::Code;

use super::client::{Server, code, only_ticket};
use super::polling::statement;
use super::writes::writer;

const ASK: &str = "SELECT v FROM examples WHERE id = 'A'";
const EARLY: &str = "1970-01-01T00:17:00Z";
/// Computes for longer than any test waits.
pub(crate) const LONG: &str = "SELECT count(*) FROM range(1000000) a CROSS JOIN range(1000000) b";

#[tokio::test]
async fn a_clock_holds_for_its_call_and_no_other() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let now = client.rows(ASK).await;
    let mut early = client.with_header("featureflight-system-time", EARLY);
    assert_eq!(early.rows(ASK).await, ["a1"]);
    assert_ne!(now, ["a1"]);
    assert_eq!(client.rows(ASK).await, now, "the session has no clock");
    let mut valid = client.with_header("featureflight-valid-time", "1960-01-01");
    assert_eq!(valid.rows(ASK).await, Vec::<String>::new());
    let shown = early.rows("SHOW featureflight.system_time").await;
    assert_eq!(shown, [format!("featureflight.system_time|{EARLY}")]);

    let prepared = early.prepare("SELECT now()").await.unwrap();
    assert_eq!(prepared.is_update, Some(false));
    client
        .rows(&format!("SET featureflight.valid_time = '{EARLY}'"))
        .await;
    let both = early.rows("SHOW ALL").await;
    assert!(
        both.contains(&format!("featureflight.valid_time|{EARLY}")),
        "the others stay: {both:?}"
    );
}

#[tokio::test]
async fn a_fixed_clock_cannot_be_changed_and_is_not_ignored() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut early = client.with_header("featureflight-system-time", EARLY);
    for change in [
        "SET featureflight.system_time = '2026-01-01'",
        "RESET featureflight.system_time",
        "SET featureflight.system_time = DEFAULT",
    ] {
        assert_eq!(
            code(early.query(change).await),
            Code::FailedPrecondition,
            "{change}"
        );
    }
    early.rows("RESET ALL").await;
    assert_eq!(early.rows(ASK).await, ["a1"]);
    let mut placed = client.with_header("schema", "history");
    assert_eq!(
        code(placed.query("USE features").await),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn the_default_schema_has_three_headers() {
    let server = Server::start().await;
    let client = server.connect().await;
    let count = "SELECT count(*) FROM examples";
    let all = client
        .clone()
        .rows("SELECT count(*) FROM history.examples")
        .await;
    for name in ["schema", "database"] {
        assert_eq!(
            client.with_header(name, "HISTORY").rows(count).await,
            all,
            "{name}"
        );
    }
    let mut one = client.with_header("catalog", "featureflight");
    one.rows(count).await;
    for (name, wrong) in [("schema", "histroy"), ("catalog", "hive")] {
        let mut wrong = client.with_header(name, wrong);
        assert_eq!(
            code(wrong.query("SELECT 1").await),
            Code::NotFound,
            "{name}"
        );
    }
}

#[tokio::test]
async fn what_is_malformed_or_unknown_is_an_error_everywhere() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute("SELECT 1").await.unwrap());
    for (name, value) in [
        ("featureflight-system-time", "yesterday"),
        ("featureflight-endpoints", "0"),
        ("featureflight-future", "1"),
        ("grpc-timeout", "soon"),
        ("traceparent", "00-garbage"),
    ] {
        let mut wrong = client.with_header(name, value);
        assert_eq!(
            code(wrong.query("SELECT 1").await),
            Code::InvalidArgument,
            "{name}"
        );
        let actions = wrong
            .flight
            .list_actions(wrong.request(arrow_flight::Empty {}))
            .await;
        assert_eq!(
            actions.expect_err(name).code(),
            Code::InvalidArgument,
            "{name}"
        );
        let hello = wrong.request(futures::stream::iter([
            arrow_flight::HandshakeRequest::default(),
        ]));
        let hello = wrong.flight.handshake(hello).await;
        assert_eq!(
            hello.expect_err(name).code(),
            Code::InvalidArgument,
            "{name}"
        );
        let query = CommandStatementQuery {
            query: "SELECT 1".into(),
            transaction_id: None,
        };
        let refused = [
            ("GetSchema", wrong.schema(&query).await.map(|_| ())),
            ("DoGet", wrong.fetch(&ticket).await.map(|_| ())),
            ("DoPut", wrong.update("USE history").await.map(|_| ())),
            (
                "DoAction",
                wrong
                    .action("GetSessionOptions", Vec::new())
                    .await
                    .map(|_| ()),
            ),
            (
                "PollFlightInfo",
                wrong.poll(statement("SELECT 1")).await.map(|_| ()),
            ),
        ];
        for (rpc, outcome) in refused {
            assert_eq!(code(outcome), Code::InvalidArgument, "{rpc}, {name}");
        }
    }
    let mut traced = client.with_header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    assert_eq!(traced.rows("SELECT 1").await, ["1"]);
    // It is for tracing systems: W3C has whoever cannot read it go on without.
    let mut stated = traced.with_header("tracestate", "=,,garbage=\t");
    assert_eq!(stated.rows("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn many_headers_are_read() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let names: [&'static str; 12] = [
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b0", "b1",
    ];
    for name in names {
        client = client.with_header(name, "x".repeat(1_000));
    }
    let mut early = client.with_header("featureflight-system-time", EARLY);
    assert_eq!(early.rows(ASK).await, ["a1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_stops_at_the_deadline() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let info = client.execute(LONG).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut hurried = client.with_header("grpc-timeout", "300m");
    let began = Instant::now();
    let status = hurried.fetch(&ticket).await.expect_err("too late");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let running = || {
        server
            .handle
            .engine
            .queries()
            .iter()
            .any(|q| q.state.name() == "running")
    };
    for _ in 0..200 {
        if !running() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!running());
}

/// What a write reads is read while it is executed, by GetFlightInfo and DoPut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_stops_at_the_deadline_and_writes_nothing() {
    let server = writer().await;
    let client = server.connect().await;
    let mut hurried = client.with_header("grpc-timeout", "400m");
    let rows = LONG.replace("count(*)", "'a', '2026-01-01', 0.5, count(*)");
    let insert = format!("INSERT INTO scores {rows}");
    for by_update in [true, false] {
        let mut said = Vec::new();
        // Where the machine is busy the transport may cut the call off before the server answers.
        while said.last() != Some(&Code::DeadlineExceeded) {
            assert!(said.len() < 10, "{said:?}");
            said.push(if by_update {
                code(hurried.update(&insert).await)
            } else {
                code(hurried.execute(&insert).await)
            });
        }
    }
    let began = Instant::now();
    while server.handle.engine.status().running > 0 {
        assert!(began.elapsed() < Duration::from_secs(2), "it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut client = client.clone();
    let there = client.rows("SELECT count(*) FROM history.scores").await;
    assert_eq!(there, ["0"]);
}

#[tokio::test]
async fn timestamps_are_text_where_a_reader_takes_no_zone() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut texts = client.with_header("featureflight-timestamps", "text");
    let sql = "SELECT write_time FROM history.examples WHERE id = 'C' ORDER BY 1";
    let answer = texts.query(sql).await.unwrap();
    let field = answer.schema.field(0);
    assert_eq!(field.data_type(), &DataType::Utf8);
    assert_eq!(texts.prepare(sql).await.unwrap().dataset(), *answer.schema);
    let mut plain = server.connect().await;
    let zoned = plain.query(sql).await.unwrap();
    assert!(matches!(
        zoned.schema.field(0).data_type(),
        DataType::Timestamp(..)
    ));
    assert_eq!(answer.lines(), zoned.lines());
    let tables = CommandGetTables {
        db_schema_filter_pattern: Some("history".into()),
        table_name_filter_pattern: Some("examples".into()),
        include_schema: true,
        ..Default::default()
    };
    let listed = texts.ask(&tables).await.unwrap();
    let schema = listed.batches[0].column(4).as_binary::<i32>().value(0);
    let schema = try_schema_from_ipc_buffer(schema).unwrap();
    let column = schema.field_with_name("write_time").unwrap();
    assert_eq!(column.data_type(), &DataType::Utf8);
    let mut wrong = client.with_header("featureflight-timestamps", "local");
    assert_eq!(code(wrong.query(sql).await), Code::InvalidArgument);
}

#[tokio::test]
async fn limits_can_be_headers_too() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut few = client.with_header("featureflight-max-rows", "1");
    assert_eq!(
        code(few.query("SELECT * FROM history.examples").await),
        Code::ResourceExhausted
    );
    assert_eq!(few.rows("SELECT 1").await, ["1"]);
}
