//! Connections that say nothing, say it slowly, take nothing, or say far too much.

use std::time::{Duration, Instant};

use arrow_flight::sql::{Any, CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use super::child::{Child, Client};

const HASTY: [(&str, &str); 3] = [
    ("SERVER__HANDSHAKE_TIMEOUT", "1s"),
    ("SERVER__STALL_TIMEOUT", "2s"),
    ("SERVER__MAX_CONNECTIONS", "200"),
];

/// Rows that are cheap to make and many to send.
const MUCH: &str = "SELECT a.value, repeat('x', 200) AS text FROM range(100000000) a";

async fn closed(stream: &mut TcpStream, within: Duration) -> bool {
    let mut buffer = [0; 4_096];
    let all_read = async {
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 {
                return;
            }
        }
    };
    tokio::time::timeout(within, all_read).await.is_ok()
}

#[tokio::test]
async fn clients_that_never_speak_lose_their_place() {
    let mut child = Child::start(&HASTY);
    let before = child.open_files();
    let mut silent = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&child.address).await.unwrap();
        // Some say a part of the first words, some those of another protocol.
        let words: &[u8] = match number % 4 {
            0 => b"",
            1 => b"PRI * HTTP/2.0\r\n",
            2 => b"\x16\x03\x01\x02\x00\x01",
            _ => b"GET / HTTP/1.1\r\n",
        };
        stream.write_all(words).await.unwrap();
        silent.push(stream);
    }
    for stream in &mut silent {
        assert!(closed(stream, Duration::from_secs(10)).await, "still open");
    }
    child.assert_well("silent connections").await;
    drop(silent);
    until("file handles", || child.open_files() <= before + 3).await;
}

#[tokio::test]
async fn requests_that_stop_coming_end() {
    let mut child = Child::start(&HASTY);
    let mut client = child.connect().await;
    let descriptor = FlightDescriptor::new_cmd(
        CommandStatementQuery {
            query: "SELECT 1".into(),
            transaction_id: None,
        }
        .as_any()
        .encode_to_vec(),
    );
    let first = FlightData::new().with_descriptor(descriptor);
    // A first message and then nothing; and nothing at all.
    for messages in [vec![], vec![first]] {
        let silence = futures::stream::pending::<FlightData>();
        let messages = futures::StreamExt::chain(futures::stream::iter(messages), silence);
        let began = Instant::now();
        let answer = client.0.inner_mut().do_put(Request::new(messages)).await;
        let status = answer.map(|_| ()).expect_err("it ends");
        assert!(began.elapsed() < Duration::from_secs(20));
        assert!(
            matches!(
                status.code(),
                Code::DeadlineExceeded | Code::Unimplemented | Code::InvalidArgument
            ),
            "{status}"
        );
    }
    child.assert_well("half a request").await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let mut child = Child::start(&[]);
    child.leave_its_log_unread();
    for _ in 0..5 {
        child.assert_well("its log has no reader").await;
    }
    assert!(child.ends_when_asked().await);
}

#[tokio::test]
async fn one_address_does_not_take_every_place() {
    let mut child = Child::start(&[("SERVER__MAX_CONNECTIONS_PER_ADDRESS", "8")]);
    let mut kept = Vec::new();
    for _ in 0..8 {
        let mut client = child.connect().await;
        client.rows("SELECT 1").await.unwrap();
        kept.push(client);
    }
    let mut ninth = TcpStream::connect(&child.address).await.unwrap();
    assert!(closed(&mut ninth, Duration::from_secs(5)).await);
    drop(kept);
    // Their places are free when the server has seen them go.
    tokio::time::sleep(Duration::from_secs(2)).await;
    child.assert_well("many connections from one address").await;
}

#[tokio::test]
async fn readers_that_take_nothing_hold_nothing() {
    let mut child = Child::start(&[
        ("SERVER__STALL_TIMEOUT", "2s"),
        ("ENGINE__MAX_RUNNING_QUERIES", "32"),
    ]);
    let mut watcher = child.connect().await;
    let mut held = Vec::new();
    let mut grown = Vec::new();
    for _round in 0..8 {
        let before = child.resident_bytes();
        for _ in 0..20 {
            let mut client = child.connect().await;
            let info = client.0.execute(MUCH.into(), None).await.unwrap();
            let ticket = info.endpoint[0].ticket.clone().unwrap();
            let stream = client.0.inner_mut().do_get(ticket).await.unwrap();
            held.push((client, stream.into_inner()));
        }
        all_ended(&mut watcher).await;
        grown.push(child.resident_bytes().saturating_sub(before) >> 20);
    }
    println!("20 silent readers more each time: +{grown:?} MiB");
    // What is on its way out stays in buffers of HTTP/2, of 64 readers at most.
    // All of the 80 would hold some six megabytes each; the allocator's part is never twice the same.
    let later: u64 = grown[4..].iter().sum();
    assert!(
        later < 80 * 5,
        "+{grown:?} MiB for readers that read nothing"
    );
    // What they find when they look again is an error, not an end.
    let mut given_up = 0;
    for (_client, mut stream) in held {
        let status = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a short result that looks whole"),
                Err(status) => break status,
            }
        };
        // Or the connection was cut.
        if status.code() == Code::DeadlineExceeded {
            given_up += 1;
        }
    }
    assert!(
        (60..=64).contains(&given_up),
        "{given_up}: the newest keep their connections"
    );
    child.assert_well("silent readers").await;
}

/// Who reads slowly keeps its place no longer than a query may run.
#[tokio::test]
async fn a_reader_that_reads_slowly_ends_with_its_query() {
    let mut child = Child::start(&[
        ("SERVER__STALL_TIMEOUT", "30s"),
        ("ENGINE__QUERY_TIMEOUT", "3s"),
    ]);
    let mut client = child.connect().await;
    let info = client.0.execute(MUCH.into(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = client.0.inner_mut().do_get(ticket).await.unwrap();
    let read = async {
        loop {
            match stream.get_mut().message().await {
                Ok(Some(_)) => tokio::time::sleep(Duration::from_millis(300)).await,
                Ok(None) => panic!("a short result that looks whole"),
                Err(status) => return status,
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(120), read).await;
    let status = status.expect("what was in buffers is read by then");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let mut watcher = child.connect().await;
    all_ended(&mut watcher).await;
    child.assert_well("a slow reader").await;
}

/// Waits until no query for silent readers runs.
async fn all_ended(watcher: &mut Client) {
    let running = "SELECT count(*) FROM system.queries \
                   WHERE state = 'running' AND statement LIKE '%range(100000000) a'";
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if number(watcher, running).await == 0 {
            return;
        }
    }
    panic!("their queries go on");
}

#[tokio::test]
async fn floods_leave_the_server_as_it_was() {
    let mut child = Child::start(&[]);
    child.assert_well("the start").await;
    let before = child.resident_bytes();
    // Calls given up as soon as they are made.
    let client = child.connect().await;
    for round in 0..20 {
        let calls = (0..250).map(|number| {
            let mut client = client.clone();
            async move {
                let sql = format!("SELECT {round} + {number} FROM range(1000000)");
                let call = client.rows(&sql);
                let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
            }
        });
        futures::future::join_all(calls).await;
    }
    drop(client);
    child.assert_well("calls given up").await;
    // More streams on one connection than it may have, all waiting.
    let client = child.connect().await;
    let calls = (0..2_000).map(|_| {
        let mut client = client.clone();
        async move { client.rows("SELECT 1").await }
    });
    let answers = futures::future::join_all(calls).await;
    let good = answers.iter().filter(|answer| answer.is_ok()).count();
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        match refused.code() {
            Code::ResourceExhausted => assert!(refused.message().contains("try again in")),
            // More were executed than tickets are kept, before they were fetched.
            Code::Aborted => {}
            // HTTP/2's own word for a stream too many.
            code => assert_eq!(code, Code::Unavailable, "{refused}"),
        }
    }
    assert!(good > 100, "{good}");
    child.assert_well("many streams").await;
    let grown = child.resident_bytes().saturating_sub(before) >> 20;
    println!("floods: {good} of 2000 answered, +{grown} MiB");
    assert!(grown < 400, "{grown} MiB");
}

#[tokio::test]
async fn messages_and_headers_beyond_the_limits_are_refused() {
    let mut child = Child::start(&[("SERVER__MAX_MESSAGE", "4MiB")]);
    let mut client = child.connect().await;
    let large = FlightDescriptor::new_cmd(vec![0_u8; 20 << 20]);
    let refused = client.0.inner_mut().get_flight_info(large).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    let mut client = child.connect().await;
    let mut request = Request::new(FlightDescriptor::new_cmd(Vec::new()));
    for number in 0..1_000 {
        let value = MetadataValue::try_from("x".repeat(1_000)).unwrap();
        let key = format!("x-header-{number}");
        let key: tonic::metadata::AsciiMetadataKey = key.parse().unwrap();
        request.metadata_mut().insert(key, value);
    }
    assert!(client.0.inner_mut().get_flight_info(request).await.is_err());
    for garbage in [
        vec![0xff; 64],
        b"\x0a\x05type!".to_vec(),
        any("nothing", b"x"),
        any("", b""),
    ] {
        let mut client = child.connect().await;
        let descriptor = FlightDescriptor::new_cmd(garbage.clone());
        let info = client.0.inner_mut().get_flight_info(descriptor).await;
        let code = info.unwrap_err().code();
        assert!(
            matches!(code, Code::InvalidArgument | Code::Unimplemented),
            "{code:?}"
        );
        let ticket = arrow_flight::Ticket::new(garbage);
        let stream = client.0.inner_mut().do_get(ticket).await;
        let code = stream.map(|_| ()).unwrap_err().code();
        assert!(
            matches!(code, Code::InvalidArgument | Code::Unimplemented),
            "{code:?}"
        );
    }
    child.assert_well("messages too large").await;
}

fn any(name: &str, value: &'static [u8]) -> Vec<u8> {
    let any = Any {
        type_url: format!("type.googleapis.com/arrow.flight.protocol.sql.{name}"),
        value: value.into(),
    };
    any.encode_to_vec()
}

async fn number(client: &mut Client, sql: &str) -> i64 {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    let batches = client.batches(sql).await.unwrap();
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} did not come back");
}
