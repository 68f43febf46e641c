//! Several endpoints for parallel readers, and what results say of themselves.

use arrow_flight::FlightInfo;
use serde_json::Value;

use super::client::{Client, Server, only_ticket};

async fn fetch_all(client: &mut Client, info: &FlightInfo) -> Vec<String> {
    let mut rows = Vec::new();
    for endpoint in &info.endpoint {
        let ticket = endpoint.ticket.as_ref().unwrap();
        rows.extend(client.fetch(ticket).await.unwrap().lines());
    }
    rows.sort();
    rows
}

fn about(info: &FlightInfo) -> Value {
    serde_json::from_slice(&info.app_metadata).unwrap()
}

#[tokio::test]
async fn slices_are_the_whole_together_by_option_and_by_header() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let sql = "SELECT * FROM history.examples UNION ALL SELECT * FROM history.examples";
    let mut whole = client.rows(sql).await;
    whole.sort();
    let mut asking = client.with_header("featureflight-endpoints", "4");
    let by_header = asking.execute(sql).await.unwrap();
    client.rows("SET featureflight.endpoints = 4").await;
    let by_option = client.execute(sql).await.unwrap();
    for info in [by_header, by_option] {
        assert!(info.endpoint.len() > 1);
        assert!(!info.ordered);
        assert!(
            info.endpoint
                .iter()
                .all(|endpoint| endpoint.location.is_empty())
        );
        assert_eq!(about(&info)["endpoints"], info.endpoint.len());
        let mut elsewhere = server.connect().await;
        assert_eq!(fetch_all(&mut elsewhere, &info).await, whole);
        assert_eq!(fetch_all(&mut client, &info).await, whole, "again");
    }
}

#[tokio::test]
async fn what_cannot_be_cut_has_one_endpoint_and_says_why() {
    let server = Server::start().await;
    let client = server.connect().await;
    let mut asking = client.with_header("featureflight-endpoints", "4");
    let info = asking.execute("SELECT * FROM examples").await.unwrap();
    only_ticket(&info);
    let said = about(&info);
    assert_eq!(said["endpoints"], 1);
    assert!(said["one_endpoint_because"].as_str().is_some(), "{said}");
    let info = asking
        .execute("SELECT * FROM history.examples ORDER BY id")
        .await
        .unwrap();
    only_ticket(&info);
}

#[tokio::test]
async fn an_advertised_address_is_every_endpoints_location() {
    let address = "grpc+tcp://gateway.example:50051";
    let server = Server::configured(|config| {
        config.server.advertised_address = Some(address.into());
    })
    .await;
    let info = server.connect().await.execute("SELECT 1").await.unwrap();
    let location: Vec<_> = info.endpoint[0]
        .location
        .iter()
        .map(|l| l.uri.as_str())
        .collect();
    assert_eq!(location, [address]);
    let mut config = featureflight_server::Config::for_warehouse(server.directory.path());
    config.server.advertised_address = Some("gateway.example".into());
    let refused = featureflight_server::serve(&config, std::future::pending()).await;
    assert!(
        refused
            .expect_err("no location")
            .message
            .contains("grpc+tcp://")
    );
}

#[tokio::test]
async fn results_say_rows_bytes_files_and_times() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let info = client
        .execute("SELECT * FROM history.examples")
        .await
        .unwrap();
    let said = about(&info);
    assert!(said["files"].as_u64().unwrap() > 0, "{said}");
    let request = client.request(only_ticket(&info));
    let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(message) = messages.message().await.unwrap() {
        last = Some(message);
    }
    let at_end: Value = serde_json::from_slice(&last.unwrap().app_metadata).unwrap();
    let trailers = messages.trailers().await.unwrap().expect("trailers");
    let rows = client.rows("SELECT count(*) FROM history.examples").await;
    for (key, header) in [
        ("query_id", "featureflight-query-id"),
        ("rows", "featureflight-rows"),
        ("bytes", "featureflight-bytes"),
        ("files", "featureflight-files"),
        ("queued_ms", "featureflight-queued-ms"),
        ("planned_ms", "featureflight-planned-ms"),
        ("executed_ms", "featureflight-executed-ms"),
    ] {
        let trailer = trailers
            .get(header)
            .unwrap_or_else(|| panic!("{header}"))
            .to_str()
            .unwrap();
        let metadata = at_end[key].to_string();
        if key == "executed_ms" {
            assert!(trailer.parse::<u64>().unwrap() >= metadata.parse::<u64>().unwrap());
        } else {
            assert_eq!(trailer, metadata.trim_matches('"'), "{key}");
        }
    }
    assert_eq!(at_end["rows"].to_string(), rows[0]);
    let id = at_end["query_id"].as_str().unwrap();
    let logged = client
        .rows(&format!(
            "SELECT rows, bytes, files, state, progress, \
             planning_ms >= 0 AND queued_ms >= 0 AND running_ms >= 0 \
             FROM system.queries WHERE id = '{id}'"
        ))
        .await;
    assert_eq!(
        logged,
        [format!(
            "{}|{}|{}|succeeded|1.0|true",
            at_end["rows"], at_end["bytes"], at_end["files"]
        )]
    );
}

#[tokio::test]
async fn a_result_without_rows_or_with_an_error_has_no_false_trailers() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let ticket = only_ticket(
        &client
            .execute("SELECT 1 / (length(id) - 1) FROM examples")
            .await
            .unwrap(),
    );
    let request = client.request(ticket);
    let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
    let failure = loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an error must not look complete"),
            Err(status) => break status,
        }
    };
    assert!(failure.metadata().get("featureflight-rows").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_computes_is_kept_alive() {
    let server = Server::configured(|config| {
        config.server.keep_alive.0 = std::time::Duration::from_millis(100);
    })
    .await;
    let mut client = server.connect().await;
    let ticket = only_ticket(&client.execute(super::headers::LONG).await.unwrap());
    let request = client.request(ticket);
    let mut messages = client.flight.do_get(request).await.unwrap().into_inner();
    let schema = messages.message().await.unwrap().expect("the schema");
    let mut kept = vec![schema];
    for _ in 0..3 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), messages.message());
        let next = next.await.expect("in time").unwrap();
        kept.push(next.expect("a keep-alive"));
    }
    let batches = arrow_flight::utils::flight_data_to_batches(&kept).unwrap();
    assert_eq!(batches.len(), 3);
    assert!(batches.iter().all(|batch| batch.num_rows() == 0));
}
