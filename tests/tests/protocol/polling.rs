//! `PollFlightInfo`.

use std::time::Duration;

use arrow_flight::sql::{CommandGetCatalogs, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{CancelStatus, FlightDescriptor, PollInfo};
use prost::Message;
use tonic::{Code, Status};

use super::client::{Client, Server, announced, code, only_ticket};
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
