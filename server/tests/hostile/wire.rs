//! The limits that HTTP/2 has, asked of the server below the level of a client library: how many
//! calls and headers it takes, how long a request may drip, and what becomes of a peer that answers
//! no ping.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::ServiceExt;

use super::child::Child;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

const SETTINGS: u8 = 4;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const HEADERS: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A peer that speaks HTTP/2 frame by frame.
struct Wire(TcpStream);

struct WireFrame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Wire {
    async fn open(child: &Child) -> Self {
        let mut stream = TcpStream::connect(&child.address).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(preface).await.unwrap();
        let mut wire = Self(stream);
        wire.send(SETTINGS, 0, 0, &[]).await;
        wire
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // A server that closed meanwhile shows at the next read.
        let _ = self.0.write_all(&frame).await;
    }

    /// None when the connection is closed.
    async fn next(&mut self) -> Option<WireFrame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(WireFrame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next of a kind, acknowledgements left out.
    async fn next_of(&mut self, kind: u8) -> Option<WireFrame> {
        let wanted = async {
            loop {
                let frame = self.next().await?;
                if frame.kind == kind && (frame.flags & ACK == 0 || kind == HEADERS) {
                    return Some(frame);
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, wanted).await;
        found.expect("the server says something or closes")
    }

    /// A call whose body never comes.
    async fn call(&mut self, stream: u32) {
        // HPACK: `:method POST` and `:scheme http` from its table, the rest written out.
        let mut block = vec![0x83, 0x86];
        for (name, value) in [
            (
                ":path",
                "/arrow.flight.protocol.FlightService/GetFlightInfo",
            ),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block).await;
    }
}

fn setting(settings: &[u8], wanted: u16) -> Option<u32> {
    let mut entries = settings.chunks_exact(6);
    let found = entries.find(|entry| entry[..2] == wanted.to_be_bytes());
    found.map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
}

#[tokio::test]
async fn a_connection_has_so_many_calls_and_no_more() {
    let mut child = Child::start(&[("SERVER__MAX_STREAMS", "5")]);
    let mut wire = Wire::open(&child).await;
    let said = wire.next_of(SETTINGS).await.expect("its settings");
    assert_eq!(setting(&said.payload, 3), Some(5), "concurrent streams");
    assert_eq!(setting(&said.payload, 6), Some(16 << 10), "headers");
    wire.send(SETTINGS, ACK, 0, &[]).await;
    for call in 0..6 {
        wire.call(1 + 2 * call).await;
    }
    let refused = wire.next_of(RST_STREAM).await.expect("one is refused");
    assert_eq!(refused.stream, 11, "the sixth");
    assert_eq!(refused.payload, [0, 0, 0, 7], "REFUSED_STREAM");
    child.assert_well("too many calls on a connection").await;
}

/// By any route to the server: a request to the service with a body of its own.
async fn request(
    child: &Child,
    headers: usize,
    body: Body,
) -> Result<http::Response<Body>, tonic::transport::Error> {
    let url = format!("http://{}", child.address);
    let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut request = http::Request::post("/arrow.flight.protocol.FlightService/GetFlightInfo")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for number in 0..headers {
        // HTTP/2 counts 32 bytes more for each.
        request = request.header(format!("x-{number:03}"), "x".repeat(63));
    }
    let answer = channel.oneshot(request.body(body).unwrap());
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.expect("the server answers or closes")
}

#[tokio::test]
async fn headers_are_sixteen_kilobytes_together() {
    let mut child = Child::start(&[]);
    let few = request(&child, 120, Body::empty()).await.unwrap();
    assert_eq!(few.status(), 200, "they are read");
    let many = request(&child, 200, Body::empty()).await.unwrap();
    assert_eq!(many.status(), 431, "they are not");
    child.assert_well("too many headers").await;
}

/// A byte now and then is no pause in which nothing comes.
#[tokio::test]
async fn a_request_that_drips_comes_to_an_end() {
    let mut child = Child::start(&[
        ("SERVER__STALL_TIMEOUT", "5s"),
        ("SERVER__REQUEST_TIMEOUT", "3s"),
    ]);
    // The head of a message of a megabyte, and its bytes one by one.
    let head = Bytes::from_static(&[0, 0, 16, 0, 0]);
    let drops = futures::stream::unfold(head, |piece| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let frame = Ok::<_, Infallible>(Frame::data(piece));
        Some((frame, Bytes::from_static(b"x")))
    });
    let body = Body::new(StreamBody::new(drops));
    let answer = request(&child, 0, body).await.expect("an answer");
    let status = tonic::Status::from_header_map(answer.headers()).expect("a status");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("come to its end"), "{status}");
    child.assert_well("a request that drips").await;
}

/// Pings are sent every half a minute, and their answers are awaited for ten seconds.
#[tokio::test]
async fn a_peer_that_answers_no_ping_is_dropped() {
    let mut child = Child::start(&[]);
    let (mut deaf, mut alive) = (Wire::open(&child).await, Wire::open(&child).await);
    let dropped = async {
        deaf.next_of(PING).await.expect("a ping");
        let closed = async { while deaf.next().await.is_some() {} };
        let closed = tokio::time::timeout(PATIENCE, closed).await;
        closed.expect("closed when no answer came");
    };
    let kept = async {
        for _ in 0..2 {
            let ping = alive.next_of(PING).await.expect("it is still open");
            alive.send(PING, ACK, 0, &ping.payload).await;
        }
    };
    tokio::join!(dropped, kept);
    child.assert_well("a peer that answers no ping").await;
}
