//! Ending a query before its time, and giving a ticket more of it.

use std::time::{Duration, Instant};

use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt};
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightEndpoint, FlightInfo,
    RenewFlightEndpointRequest,
};
use prost::Message;
use tonic::{Code, Status};

use super::client::{Client, Server, code, only_ticket};
use super::headers::LONG;

impl Client {
    pub(crate) async fn cancel(&mut self, info: &FlightInfo) -> Result<CancelStatus, Status> {
        let request = CancelFlightInfoRequest {
            info: Some(info.clone()),
        };
        let results = self
            .action("CancelFlightInfo", request.encode_to_vec())
            .await?;
        Ok(CancelFlightInfoResult::decode(results[0].as_slice())
            .unwrap()
            .status())
    }

    async fn cancel_query(&mut self, info: &FlightInfo) -> Result<i32, Status> {
        let request = ActionCancelQueryRequest {
            info: info.encode_to_vec().into(),
        };
        let results = self
            .action("CancelQuery", request.as_any().encode_to_vec())
            .await?;
        let any = Any::decode(results[0].as_slice()).unwrap();
        let result: ActionCancelQueryResult = any.unpack().unwrap().unwrap();
        Ok(result.result)
    }

    pub(crate) async fn renew(
        &mut self,
        endpoint: &FlightEndpoint,
    ) -> Result<FlightEndpoint, Status> {
        let request = RenewFlightEndpointRequest {
            endpoint: Some(endpoint.clone()),
        };
        let results = self
            .action("RenewFlightEndpoint", request.encode_to_vec())
            .await?;
        Ok(FlightEndpoint::decode(results[0].as_slice()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_actions_stop_work_within_two_seconds() {
    let server = Server::start().await;
    for older in [false, true] {
        let mut client = server.connect().await;
        let info = client.execute(LONG).await.unwrap();
        let ticket = only_ticket(&info);
        let mut reader = client.clone();
        let reading = tokio::spawn(async move { reader.fetch(&ticket).await.map(|_| ()) });
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        if older {
            assert_eq!(client.cancel_query(&info).await.unwrap(), 1);
        } else {
            assert_eq!(client.cancel(&info).await.unwrap(), CancelStatus::Cancelled);
        }
        assert_eq!(code(reading.await.unwrap()), Code::Cancelled);
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(
            code(client.fetch(&only_ticket(&info)).await),
            Code::Cancelled
        );
        assert_eq!(
            client.cancel(&info).await.unwrap(),
            CancelStatus::Cancelled,
            "again"
        );
    }
}

#[tokio::test]
async fn what_waits_or_is_done_or_is_not_ours() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let info = client.execute("SELECT 1").await.unwrap();
    assert_eq!(client.cancel(&info).await.unwrap(), CancelStatus::Cancelled);
    assert_eq!(
        code(client.fetch(&only_ticket(&info)).await),
        Code::Cancelled
    );

    let info = client.execute("SELECT 1").await.unwrap();
    client.fetch(&only_ticket(&info)).await.unwrap();
    assert_eq!(
        client.cancel(&info).await.unwrap(),
        CancelStatus::NotCancellable
    );
    let again = client.fetch(&only_ticket(&info)).await.unwrap();
    assert_eq!(again.rows(), 1, "what was not cancelled stays");
    assert_eq!(
        code(client.cancel(&FlightInfo::new()).await),
        Code::InvalidArgument
    );
    let tables = client
        .info(&arrow_flight::sql::CommandGetCatalogs {})
        .await
        .unwrap();
    assert_eq!(code(client.cancel(&tables).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_result_of_which_slices_are_left_is_not_done() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut asking = client.with_header("featureflight-endpoints", "4");
    let sql = "SELECT id FROM history.examples UNION ALL SELECT id FROM history.examples";
    let info = asking.execute(sql).await.unwrap();
    let tickets: Vec<_> = info.endpoint.iter().flat_map(|one| &one.ticket).collect();
    client.fetch(tickets[0]).await.unwrap();
    let state = "SELECT state FROM system.queries WHERE statement LIKE '%history.examples%' AND statement NOT LIKE '%system%'";
    assert_eq!(client.rows(state).await, ["planned"]);
    assert_eq!(client.cancel(&info).await.unwrap(), CancelStatus::Cancelled);
    for ticket in &tickets {
        assert_eq!(code(client.fetch(ticket).await), Code::Cancelled);
    }
    let info = asking.execute(sql).await.unwrap();
    for ticket in info.endpoint.iter().flat_map(|one| &one.ticket) {
        client.fetch(ticket).await.unwrap();
    }
    assert_eq!(
        client.cancel(&info).await.unwrap(),
        CancelStatus::NotCancellable
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_cancels_for_the_owner_alone() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute(LONG).await.unwrap());
    let mut reader = client.clone();
    let reading = tokio::spawn(async move { reader.fetch(&ticket).await.map(|_| ()) });
    let mut running = Vec::new();
    while running.is_empty() {
        running = client
            .rows("SELECT id FROM system.queries WHERE state = 'running' AND statement LIKE '%1000000%'")
            .await;
    }
    let cancel = format!("CANCEL QUERY '{}'", running[0]);
    let mut other = server.connect().await;
    assert_eq!(code(other.query(&cancel).await), Code::PermissionDenied);
    assert_eq!(client.update(&cancel).await.unwrap(), 0);
    assert_eq!(code(reading.await.unwrap()), Code::Cancelled);
}

#[tokio::test]
async fn a_ticket_lives_longer_when_it_is_renewed() {
    let second = Duration::from_secs(1);
    let server = Server::configured(|config| config.server.ticket_ttl.0 = second * 3).await;
    let mut client = server.connect().await;
    let info = client.execute("SELECT id FROM examples").await.unwrap();
    let first = info.endpoint[0].clone();
    assert!(first.expiration_time.is_some());
    tokio::time::sleep(second * 2).await;
    let renewed = client.renew(&first).await.unwrap();
    assert!(renewed.expiration_time.unwrap().seconds >= first.expiration_time.unwrap().seconds);
    tokio::time::sleep(second * 5 / 2).await;
    assert_eq!(
        code(client.fetch(first.ticket.as_ref().unwrap()).await),
        Code::Aborted
    );
    client
        .fetch(renewed.ticket.as_ref().unwrap())
        .await
        .unwrap();
    tokio::time::sleep(second * 5 / 2).await;
    assert_eq!(code(client.renew(&renewed).await), Code::Aborted);

    let mut slices = client.with_header("featureflight-endpoints", "4");
    let sql = "SELECT id FROM history.examples UNION ALL SELECT id FROM history.examples";
    let info = slices.execute(sql).await.unwrap();
    let mut apart = Vec::new();
    for endpoint in &info.endpoint {
        let part = client.fetch(endpoint.ticket.as_ref().unwrap()).await;
        let renewed = client.renew(endpoint).await.unwrap().ticket.unwrap();
        let again = client.fetch(&renewed).await.unwrap().lines();
        assert_eq!(again, part.unwrap().lines(), "the same slice");
        apart.extend(again);
    }
    assert!(info.endpoint.len() > 1 && apart.len() == 18);

    let once = client.execute("SELECT random()").await.unwrap().endpoint[0].clone();
    assert_eq!(once.expiration_time, None, "good once");
    assert_eq!(code(client.renew(&once).await), Code::FailedPrecondition);
}

#[tokio::test]
async fn what_is_renewed_weighs_as_before() {
    let server = Server::configured(|config| config.server.max_tickets = 3).await;
    let mut client = server.connect().await;
    let mut kept = Vec::new();
    for _ in 0..9 {
        let endpoint = client.execute("SELECT 1").await.unwrap().endpoint[0].clone();
        kept.push(client.renew(&endpoint).await.unwrap());
    }
    let mut good = 0;
    for endpoint in kept {
        good += usize::from(client.fetch(&endpoint.ticket.unwrap()).await.is_ok());
    }
    assert_eq!(good, 3);
}

#[tokio::test]
async fn actions_that_are_absent_say_why() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    for (absent, why) in [
        ("BeginTransaction", "transactions"),
        ("EndTransaction", "transactions"),
        ("BeginSavepoint", "savepoints"),
        ("EndSavepoint", "savepoints"),
        ("CreatePreparedSubstraitPlan", "Substrait"),
        ("MakeCoffee", "ListActions"),
    ] {
        let status = client.action(absent, Vec::new()).await.expect_err(absent);
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(why), "{}", status.message());
    }
}
