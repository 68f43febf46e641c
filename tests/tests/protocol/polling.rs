//! `PollFlightInfo`.

use std::time::Duration;

use arrow_flight::sql::{CommandGetCatalogs, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{CancelStatus, FlightDescriptor, PollInfo};
use featureflight_tests::faults::Fault;
use prost::Message;
use tonic::{Code, Status};

use super::client::{Client, Server, announced, code, only_ticket};
use super::faults::faulty;
use super::headers::LONG;

pub(crate) fn statement(sql: &str) -> FlightDescriptor {
    let query = CommandStatementQuery {
        query: sql.into(),
        transaction_id: None,
    };
    FlightDescriptor::new_cmd(query.as_any().encode_to_vec())
}

impl Client {
    pub(crate) async fn poll(&mut self, descriptor: FlightDescriptor) -> Result<PollInfo, Status> {
        let request = self.request(descriptor);
        Ok(self.flight.poll_flight_info(request).await?.into_inner())
    }

    pub(crate) async fn poll_to_the_end(
        &mut self,
        descriptor: FlightDescriptor,
    ) -> Result<PollInfo, Status> {
        let mut poll = self.poll(descriptor).await?;
        while let Some(next) = poll.flight_descriptor.take() {
            poll = self.poll(next).await?;
        }
        Ok(poll)
    }
}

#[tokio::test]
async fn what_is_quick_is_complete_at_once_and_says_what_get_flight_info_says() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for sql in [
        "SELECT id, v FROM examples",
        "SELECT 1",
        "SELECT random()",
        "SELECT 1 WHERE false",
    ] {
        let poll = client.poll_to_the_end(statement(sql)).await.unwrap();
        assert_eq!(poll.progress, Some(1.0));
        let info = poll.info.unwrap();
        assert_eq!(info.flight_descriptor, Some(statement(sql)));
        let answer = client.fetch(&only_ticket(&info)).await.unwrap();
        assert_eq!(announced(&info), *answer.schema);
        let plain = client.query(sql).await.unwrap();
        assert_eq!(answer.rows(), plain.rows(), "{sql}");
    }
    let info = client
        .poll_to_the_end(statement("SELECT id FROM examples ORDER BY id"))
        .await
        .unwrap();
    let ticket = only_ticket(&info.info.unwrap());
    let first = client.fetch(&ticket).await.unwrap().lines();
    assert_eq!(client.fetch(&ticket).await.unwrap().lines(), first, "twice");
    let catalogs = CommandGetCatalogs {}.as_any().encode_to_vec();
    let poll = client
        .poll(FlightDescriptor::new_cmd(catalogs))
        .await
        .unwrap();
    assert!(poll.flight_descriptor.is_none() && poll.info.is_some());
    let handle = client.prepare("SELECT 7").await.unwrap().handle;
    let prepared = arrow_flight::sql::CommandPreparedStatementQuery {
        prepared_statement_handle: handle,
    };
    let descriptor = FlightDescriptor::new_cmd(prepared.as_any().encode_to_vec());
    let poll = client.poll_to_the_end(descriptor).await.unwrap();
    let answer = client
        .fetch(&only_ticket(&poll.info.unwrap()))
        .await
        .unwrap();
    assert_eq!(answer.lines(), ["7"]);
}

#[tokio::test]
async fn errors_come_with_the_poll() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    assert_eq!(
        code(
            client
                .poll_to_the_end(statement("SELECT x FROM nowhere"))
                .await
        ),
        Code::NotFound
    );
    let failing = "SELECT 1 / (length(id) - 1) FROM examples";
    assert_eq!(
        code(client.poll_to_the_end(statement(failing)).await),
        Code::InvalidArgument
    );
    let ticket = client.execute("SELECT 1").await.unwrap().endpoint[0]
        .ticket
        .clone()
        .unwrap();
    let foreign = FlightDescriptor::new_cmd(ticket.ticket);
    assert_eq!(
        code(client.poll(foreign).await),
        Code::InvalidArgument,
        "a ticket is no poll"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_computes_says_so_until_it_is_cancelled() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let first = client.poll(statement(LONG)).await.unwrap();
    let next = first.flight_descriptor.expect("still computing");
    assert!(first.expiration_time.is_some());
    let second = client.poll(next.clone()).await.unwrap();
    let info = second.info.expect("an info");
    assert!(info.endpoint.is_empty());
    assert_eq!(announced(&info).fields().len(), 1);
    assert_eq!(client.cancel(&info).await.unwrap(), CancelStatus::Cancelled);
    assert_eq!(code(client.poll(next).await), Code::Cancelled);
    let state = |q: &featureflight_engine::query::QueryStatus| q.state.name().to_owned();
    let states: Vec<_> = server.handle.engine.queries().iter().map(state).collect();
    assert_eq!(states, ["cancelled"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_session_polls_for_ends_with_it() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let first = client.poll(statement(LONG)).await.unwrap();
    let next = first.flight_descriptor.expect("still computing");
    client.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(code(client.poll(next).await), Code::Aborted);
    let under_way = async || {
        while server.handle.engine.status().running > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(2), under_way()).await;
    ended.expect("the work has ended");
}

/// A file after the other comes in; nothing of the answer is there before the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_the_files_that_were_read() {
    let (server, storage) = faulty(None).await;
    let mut client = server.connect().await;
    let sql = "SELECT count(*) FROM history.examples";
    storage.fail(Fault::Stalled, 0);
    let mut poll = client.poll(statement(sql)).await.unwrap();
    let mut seen = Vec::new();
    let shown = format!("SELECT progress FROM system.queries WHERE statement = '{sql}'");
    while let Some(next) = poll.flight_descriptor.take() {
        let progress = poll.progress.unwrap_or_default();
        assert!((0.0..1.0).contains(&progress), "{progress}");
        let listed: f64 = client.rows(&shown).await[0].parse().unwrap_or_default();
        assert!((progress..1.0).contains(&listed), "{listed}, {progress}");
        seen.push(progress);
        assert!(seen.len() < 60, "it does not end: {seen:?}");
        storage.fail(Fault::Stalled, 1);
        poll = client.poll(next).await.unwrap();
    }
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    let between = seen.iter().filter(|progress| **progress > 0.0);
    assert!(between.count() > 1, "{seen:?}");
    assert_eq!(poll.progress, Some(1.0));
    storage.fail(Fault::None, 0);
    let answer = client.fetch(&only_ticket(&poll.info.unwrap())).await;
    assert_eq!(answer.unwrap().lines(), ["9"]);
    let shown = shown.replace("progress", "progress, running_ms > 1000");
    assert_eq!(client.rows(&shown).await, ["1.0|true"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_polls_for_is_given_up() {
    let brief = Duration::from_secs(2);
    let server = Server::configured(|config| config.server.poll_ttl.0 = brief).await;
    let mut client = server.connect().await;
    let mut computing = client.poll(statement(LONG)).await.unwrap();
    let said = computing.expiration_time.take().expect("until when to ask");
    let until = std::time::UNIX_EPOCH + Duration::from_secs(said.seconds.unsigned_abs());
    assert!(until <= std::time::SystemTime::now() + brief);
    let mut next = computing.flight_descriptor.expect("still computing");
    // Whoever asks keeps it.
    for _ in 0..3 {
        next = client.poll(next).await.unwrap().flight_descriptor.unwrap();
    }
    let mut ready = client.poll(statement("SELECT 1")).await.unwrap();
    while let Some(next) = ready.flight_descriptor.take() {
        ready = client.poll(next).await.unwrap();
    }
    tokio::time::sleep(brief + brief / 2).await;
    let gone = client.poll(next).await.expect_err("given up");
    assert_eq!(gone.code(), Code::Aborted);
    assert!(gone.message().contains("idempotency key"), "{gone}");
    assert_eq!(
        server.handle.engine.status().running,
        0,
        "its work has ended"
    );
    // A ticket that was given lives on.
    let ticket = only_ticket(&ready.info.unwrap());
    assert_eq!(client.fetch(&ticket).await.unwrap().lines(), ["1"]);
}

/// Several endpoints are read by runs of their own, so none is begun before they are fetched.
#[tokio::test]
async fn several_endpoints_are_ready_when_they_are_planned() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client = client.with_header("featureflight-endpoints", "4");
    let sql = "SELECT id FROM history.examples";
    let poll = client.poll_to_the_end(statement(sql)).await.unwrap();
    let info = poll.info.unwrap();
    assert!(info.endpoint.len() > 1 && poll.progress == Some(1.0));
    assert_eq!(server.handle.engine.status().running, 0);
    let mut rows = 0;
    for endpoint in info.endpoint {
        rows += client
            .fetch(&endpoint.ticket.unwrap())
            .await
            .unwrap()
            .rows();
    }
    assert_eq!(rows, 9);
}
