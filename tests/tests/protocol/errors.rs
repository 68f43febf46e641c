//! Errors: the code says what to do next, the message what is wrong, the metadata which request.

use arrow_flight::sql::{
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate,
};
use arrow_flight::{Criteria, Empty, FlightData, FlightDescriptor};
use futures::TryStreamExt;
use tonic::Code;

use super::client::{Server, alone, code};

#[tokio::test]
async fn codes_follow_what_to_do_next() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let cases = [
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT", Code::InvalidArgument),
        ("", Code::InvalidArgument),
        ("SELECT nothing FROM examples", Code::InvalidArgument),
        ("SELECT * FROM nothing", Code::NotFound),
        ("SELECT * FROM nowhere.nothing", Code::NotFound),
        (
            "SELECT * FROM examples FOR SYSTEM_TIME AS OF 'soon'",
            Code::InvalidArgument,
        ),
        (
            "SELECT * FROM examples VERSION AS OF 1",
            Code::InvalidArgument,
        ),
        ("SET featureflight.nothing = '1'", Code::InvalidArgument),
        ("SELECT CAST('x' AS BIGINT)", Code::InvalidArgument),
        ("SELECT min(MAP {'a': 1})", Code::InvalidArgument),
    ];
    for (sql, expected) in cases {
        let status = client.query(sql).await.expect_err(sql);
        assert_eq!(status.code(), expected, "{sql}: {}", status.message());
        assert!(
            status.metadata().get("featureflight-request-id").is_some(),
            "{sql}"
        );
        for leak in ["DataFusion", "Error(", "src/", ".rs", "panicked"] {
            assert!(
                !status.message().contains(leak),
                "{sql}: {}",
                status.message()
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut flight = client.flight.clone();
    assert_eq!(
        code(flight.list_flights(Criteria::default()).await),
        Code::Unimplemented
    );
    let none = futures::stream::iter(Vec::<FlightData>::new());
    assert_eq!(code(flight.do_exchange(none).await), Code::Unimplemented);
    for action in ["BeginTransaction", "nonsense"] {
        assert_eq!(
            code(client.action(action, Vec::new()).await),
            Code::Unimplemented,
            "{action}"
        );
    }
    let plan = CommandStatementSubstraitPlan::default();
    for outcome in [
        client.info(&plan).await.map(|_| ()),
        client.schema(&plan).await.map(|_| ()),
        client.put(vec![alone(&plan)]).await.map(|_| ()),
    ] {
        let status = outcome.expect_err("no plans are taken");
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains("send SQL"), "{status}");
    }
}

#[tokio::test]
async fn listed_actions_are_those_that_work() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let actions = client
        .flight
        .list_actions(Empty {})
        .await
        .unwrap()
        .into_inner();
    let actions: Vec<_> = actions.try_collect().await.unwrap();
    let names: Vec<_> = actions
        .iter()
        .map(|action| action.r#type.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "CreatePreparedStatement",
            "ClosePreparedStatement",
            "CancelFlightInfo",
            "CancelQuery",
            "RenewFlightEndpoint",
            "SetSessionOptions",
            "GetSessionOptions",
            "CloseSession"
        ]
    );
    for name in names {
        let outcome = client.action(name, vec![0xff, 0xff]).await;
        assert!(
            outcome.is_ok() || code(outcome) == Code::InvalidArgument,
            "{name}"
        );
    }
}

#[tokio::test]
async fn there_are_no_transactions() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let transaction_id = Some(vec![1].into());
    let query = CommandStatementQuery {
        query: "SELECT 1".into(),
        transaction_id: transaction_id.clone(),
    };
    assert_eq!(code(client.info(&query).await), Code::InvalidArgument);
    let update = CommandStatementUpdate {
        query: "USE history".into(),
        transaction_id,
    };
    assert_eq!(
        code(client.put(vec![alone(&update)]).await),
        Code::InvalidArgument
    );
    let empty = CommandStatementQuery {
        query: "SELECT 1".into(),
        transaction_id: Some(Vec::new().into()),
    };
    assert!(client.info(&empty).await.is_ok(), "an empty id is none");
}

/// A clock in a header that was quietly ignored would read the future.
#[tokio::test]
async fn a_header_of_ours_that_means_nothing_is_refused() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut travelling = client.with_header("featureflight-sistem-time", "2026-01-01");
    let status = travelling.query("SELECT 1").await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("featureflight-sistem-time"));
    let mut other = client.with_header("x-something", "1");
    assert_eq!(other.rows("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn too_much_at_once_is_refused_and_the_server_lives_on() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let long = format!("SELECT '{}'", "x".repeat(300 << 10));
    assert_eq!(code(client.query(&long).await), Code::ResourceExhausted);
    let huge = format!("SELECT '{}'", "x".repeat(65 << 20));
    assert_eq!(code(client.query(&huge).await), Code::ResourceExhausted);
    let mut headers = client.clone();
    headers.headers.push(("x-long", "x".repeat(64 << 10)));
    assert!(headers.query("SELECT 1").await.is_err());
    assert_eq!(server.connect().await.rows("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn an_upload_without_a_command_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    assert_eq!(code(client.put(Vec::new()).await), Code::InvalidArgument);
    assert_eq!(
        code(client.put(vec![FlightData::new()]).await),
        Code::InvalidArgument
    );
    let bare = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(vec![0xff]));
    assert_eq!(code(client.put(vec![bare]).await), Code::InvalidArgument);
}

/// Long chains and deep nesting overflow stacks elsewhere; here they are answers or errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_ends_the_process() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let bombs = [
        format!("SELECT {}1", "1+".repeat(20_000)),
        format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("SELECT 1 WHERE {} 1=1", "1=2 OR ".repeat(10_000)),
        format!("SELECT 1{}", "::int".repeat(5_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(3_000)),
        "SELECT repeat('x', 2147483647)".to_owned(),
    ];
    for bomb in bombs {
        let outcome = client.query(&bomb).await;
        assert!(outcome.is_err(), "{}", &bomb[..40]);
    }
    assert_eq!(client.rows("SELECT 1").await, ["1"]);
}
