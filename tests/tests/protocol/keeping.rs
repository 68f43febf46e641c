//! What a server holds for its clients, and that it lets go of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::sql::CommandPreparedStatementUpdate;
use featureflight_server::config::{Bytes, Span};
use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::uploads::{into, messages};
use super::writes::{rows, start, writer};

const MANY: i64 = 6_000_000;

fn numbers(count: i64) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    RecordBatch::try_from_iter([("n", numbers)]).unwrap()
}

impl Server {
    fn kept(&self) -> usize {
        self.handle.engine.status().table_memory
    }

    async fn lets_go(&self, what: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.kept() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.kept(), 0, "{what}");
    }
}

/// A client with a large table and tickets that nobody fetches.
async fn with_a_table(server: &Server) -> Client {
    let mut client = server.connect().await;
    let parts = vec![numbers(MANY / 8); 8];
    let uploaded = client.ingest(&into("many"), parts).await;
    assert_eq!(uploaded.unwrap(), MANY);
    assert!(server.kept() >= MANY as usize * 8);
    for sql in [
        "SELECT 1",
        "SELECT v FROM examples",
        "SELECT * FROM information_schema.tables",
        "SHOW TABLES",
    ] {
        client.execute(sql).await.unwrap();
    }
    client
}

#[tokio::test]
async fn a_table_goes_with_its_name_whatever_else_was_executed() {
    let server = Server::start().await;
    let mut client = with_a_table(&server).await;
    client.update("DROP TABLE many").await.unwrap();
    server.lets_go("dropped").await;
    drop(client);

    let mut client = with_a_table(&server).await;
    client.action("CloseSession", Vec::new()).await.unwrap();
    server.lets_go("its session was closed").await;
    drop(client);

    let client = with_a_table(&server).await;
    drop(client);
    server.lets_go("its connection is gone").await;
}

#[tokio::test]
async fn what_reads_a_table_has_it_until_its_ticket_ends() {
    let server = Server::configured(|config| config.server.ticket_ttl = Span::from_secs(4)).await;
    let mut client = with_a_table(&server).await;
    let count = "SELECT count(*), sum(n) FROM many";
    let ticket = only_ticket(&client.execute(count).await.unwrap());
    client.update("DROP TABLE many").await.unwrap();
    let mut other = server.connect().await;
    drop(client);
    let part = MANY / 8;
    let expected = format!("{MANY}|{}", 8 * (part * (part - 1) / 2));
    for _ in 0..2 {
        let answer = other.fetch(&ticket).await.unwrap();
        assert_eq!(answer.lines(), [expected.as_str()], "planned again, too");
    }
    // Nobody asks for anything meanwhile.
    server.lets_go("the ticket has ended").await;
    assert_eq!(code(other.fetch(&ticket).await), Code::Aborted);
}

#[tokio::test]
async fn bound_rows_are_for_statements_that_take_them() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let query = client.prepare("SELECT 1").await.unwrap();
    let command = CommandPreparedStatementUpdate {
        prepared_statement_handle: query.handle,
    };
    // More would come: nobody waits for it.
    let first = messages(&command, vec![numbers(10)]).await;
    let more = futures::stream::iter(first);
    let more = futures::StreamExt::chain(more, futures::stream::pending());
    let request = client.request(more);
    let refused = async { client.flight.do_put(request).await };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    let status = refused.expect("at once").map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("as a query"), "{status}");
}

#[tokio::test]
async fn bound_rows_count_against_the_memory_of_all() {
    let Server { handle, directory } = writer().await;
    handle.stop().await.unwrap();
    let handle = start(directory.path(), |config| {
        config.engine.memory_limit = Bytes(4 << 20);
    });
    let server = Server {
        handle: handle.await,
        directory,
    };
    let mut client = server.connect().await;
    let insert = "INSERT INTO scores (id, at, score, visits) VALUES (?, ?, ?, ?)";
    let handle = client.prepare(insert).await.unwrap().handle;
    let command = CommandPreparedStatementUpdate {
        prepared_statement_handle: handle,
    };
    let row = ("a", "2026-01-01", 1.0, 1);
    let many = vec![rows(&vec![row; 1_000]); 100];
    let refused = client.put(messages(&command, many).await).await;
    assert_eq!(code(refused), Code::ResourceExhausted);
    server.lets_go("refused").await;
    let few = vec![rows(&vec![row; 1_000]); 10];
    client.put(messages(&command, few).await).await.unwrap();
    server.lets_go("written").await;
}
