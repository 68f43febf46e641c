//! Messages of which the end never comes.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use http::Request;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::bytes::Bytes;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service, ServiceExt};

use super::child::Child;

const CONNECTIONS: usize = 8;
const CALLS: usize = 60;

/// Sent of each message, of which a little more is announced: tonic reserves all of it at once.
const SENT: usize = 4 << 20;
const PIECE: usize = 64 << 10;

/// A call whose one message stops half-way; what the server says to that, if anything.
fn half_a_message(piece: &Bytes) -> Request<Body> {
    let announced = u32::try_from(SENT + PIECE).unwrap();
    let prefix = [&[0], &announced.to_be_bytes()[..]].concat();
    let pieces = stream::iter(vec![piece.clone(); SENT / PIECE]);
    let data = stream::iter([prefix.into()]).chain(pieces);
    let frames = data.map(|data| Ok::<_, Status>(Frame::data(data)));
    Request::post("/arrow.flight.protocol.FlightService/DoPut")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(frames.chain(stream::pending()))))
        .unwrap()
}

#[tokio::test]
async fn half_sent_messages_take_a_share_and_no_more() {
    let mut child = Child::start(&[("ENGINE__MEMORY_LIMIT", "256MiB")]);
    child.assert_well("the start").await;
    let before = child.resident_bytes();
    child.forget_peak();
    let piece = Bytes::from(vec![7; PIECE]);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let url = format!("http://{}", child.address);
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        for _ in 0..CALLS {
            let (mut channel, request) = (channel.clone(), half_a_message(&piece));
            calls.spawn(async move {
                let answer = channel.ready().await.unwrap().call(request).await;
                answer.unwrap().headers().get("grpc-status").cloned()
            });
        }
    }
    // Most are refused: the others stay as they are.
    let kept = CONNECTIONS * CALLS / 4;
    let mut refused = 0;
    while calls.len() > kept {
        let answer = tokio::time::timeout(Duration::from_secs(60), calls.join_next()).await;
        let status = answer.expect("most are refused").unwrap().unwrap();
        assert_eq!(status.as_ref().and_then(|s| s.to_str().ok()), Some("8"));
        refused += 1;
    }
    let grown = child.peak_bytes().saturating_sub(before) >> 20;
    println!("{refused} refused, {} kept, {grown} MiB", calls.len());
    assert!(grown < 600, "{grown} MiB");
    child.assert_well("half a message of many").await;
    let mut client = child.connect().await;
    let sql = "SELECT value % 1000 AS n, count(*) FROM range(1000000) GROUP BY n";
    assert_eq!(client.rows(sql).await.unwrap(), 1_000);
    calls.shutdown().await;
    // What they held is free for others.
    let large = piece.slice(..1 << 10).repeat(32 << 10);
    let began = Instant::now();
    while let Err(status) = super::messages::upload_bytes(&mut client, &large).await {
        assert!(began.elapsed() < Duration::from_secs(20), "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
