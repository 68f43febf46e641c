//! A server's start and end.

use std::time::{Duration, Instant};

use featureflight_catalog::Kind;
use featureflight_server::Config;
use featureflight_server::serve::serve;
use tokio::sync::oneshot;

use super::client::{Server, only_ticket};

#[tokio::test]
async fn a_taken_port_is_said_in_one_line() {
    let server = Server::start().await;
    let mut config = Config::for_warehouse(server.directory.path());
    config.server.listen = server.handle.local_addr.to_string();
    let error = serve(&config, std::future::pending())
        .await
        .expect_err("taken");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains(&config.server.listen), "{error}");
    assert_eq!(error.message.lines().count(), 1);
}

#[tokio::test]
async fn beyond_loopback_only_when_told_so() {
    let server = Server::start().await;
    let mut config = Config::for_warehouse(server.directory.path());
    config.server.listen = "0.0.0.0:0".into();
    let error = serve(&config, std::future::pending())
        .await
        .expect_err("refused");
    assert_eq!(error.kind, Kind::InvalidArgument);
    assert!(error.message.contains("--insecure"), "{error}");
}

#[tokio::test]
async fn what_is_no_warehouse_or_no_address_is_said() {
    let empty = tempfile::tempdir().unwrap();
    let mut config = Config::for_warehouse(empty.path());
    config.server.listen = "127.0.0.1:0".into();
    let error = serve(&config, std::future::pending())
        .await
        .expect_err("no warehouse");
    assert_eq!(error.message.lines().count(), 1, "{error}");
    assert!(
        error.message.contains(empty.path().to_str().unwrap()),
        "{error}"
    );
    config.server.listen = "nonsense".into();
    let error = serve(&config, std::future::pending())
        .await
        .expect_err("no address");
    assert!(error.message.contains("nonsense"), "{error}");
}

#[tokio::test]
async fn the_shutdown_future_ends_it() {
    let server = Server::start().await;
    let mut config = Config::for_warehouse(server.directory.path());
    config.server.listen = "127.0.0.1:0".into();
    let (stop, stopped) = oneshot::channel::<()>();
    let second = serve(&config, async { drop(stopped.await) }).await.unwrap();
    stop.send(()).unwrap();
    second.finished().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_result_gets_its_grace_and_no_more() {
    let grace = Duration::from_millis(500);
    let server = Server::configured(|config| config.server.shutdown_grace.0 = grace).await;
    let mut client = server.connect().await;
    let endless = "SELECT a.id FROM history.examples a CROSS JOIN (history.examples b \
         CROSS JOIN (history.examples c CROSS JOIN (history.examples d \
         CROSS JOIN (history.examples e CROSS JOIN (history.examples f \
         CROSS JOIN (history.examples g CROSS JOIN history.examples h))))))";
    let ticket = only_ticket(&client.execute(endless).await.unwrap());
    let mut messages = client.flight.do_get(ticket).await.unwrap().into_inner();
    messages.message().await.unwrap().expect("it runs");
    let began = Instant::now();
    server.handle.stop().await.unwrap();
    assert!(began.elapsed() >= grace, "{:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    let rest = async { while let Ok(Some(_)) = messages.message().await {} };
    tokio::time::timeout(Duration::from_secs(5), rest)
        .await
        .expect("cut off");
    let end = messages.message().await;
    assert!(!matches!(end, Ok(Some(_))), "no more rows");
}

#[tokio::test]
async fn an_idle_client_does_not_hold_the_end_up() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.rows("SELECT 1").await;
    let began = Instant::now();
    server.handle.stop().await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert!(client.query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_stay() {
    let server = Server::configured(|config| config.server.max_connections = 1).await;
    let mut first = server.connect().await;
    assert_eq!(first.rows("SELECT 1").await, ["1"]);
    let url = format!("http://{}", server.handle.local_addr);
    let second = tonic::transport::Channel::from_shared(url)
        .unwrap()
        .connect_lazy();
    let mut second = arrow_flight::flight_service_client::FlightServiceClient::new(second);
    assert!(second.list_actions(arrow_flight::Empty {}).await.is_err());
    assert_eq!(first.rows("SELECT 1").await, ["1"]);
    drop(first);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.connect().await.rows("SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_finishes_what_it_began_and_begins_nothing() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let server = Server::start().await;
    let mut client = server.connect().await;
    let url = format!("http://{}", server.handle.local_addr);
    let channel = tonic::transport::Channel::from_shared(url).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    for service in ["", "arrow.flight.protocol.FlightService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let response = health.check(request).await.unwrap().into_inner();
        assert_eq!(response.status(), ServingStatus::Serving, "{service}");
    }
    let planned = only_ticket(&client.execute("SELECT id FROM examples").await.unwrap());
    let began = Instant::now();
    let stopping = tokio::spawn(server.handle.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let status = client.execute("SELECT 1").await.expect_err("stopping");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let request = HealthCheckRequest::default();
    let response = health.check(request).await.unwrap().into_inner();
    assert_eq!(response.status(), ServingStatus::NotServing);
    assert!(client.fetch(&planned).await.unwrap().rows() > 0);
    stopping.await.unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
