//! Requests that a client breaks off: what came until then is not all there is, and means nothing.

use std::time::Duration;

use arrow_flight::FlightData;
use arrow_flight::sql::{CommandPreparedStatementQuery, CommandPreparedStatementUpdate};
use futures::StreamExt;
use tonic::Code;

use super::client::{Client, code};
use super::uploads::{into, messages, spine};
use super::writes::{append, rows, writer};

impl Client {
    /// Sends `messages`, waits until they are there, and cancels the call before its end.
    async fn break_off(&mut self, messages: Vec<FlightData>) {
        let unending = futures::stream::iter(messages).chain(futures::stream::pending());
        let request = self.request(unending);
        let call = self.flight.do_put(request);
        let cancelled = tokio::time::timeout(Duration::from_millis(300), call).await;
        assert!(cancelled.is_err(), "it was answered before its end");
        // Long enough for the server to do what it must not.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn an_upload_leaves_no_table_and_no_rows() {
    let server = writer().await;
    let mut client = server.connect().await;
    let batches = vec![spine(&[("A", 1)]), spine(&[("B", 2)])];
    client.break_off(messages(&into("t"), batches).await).await;
    assert_eq!(code(client.query("SELECT * FROM t").await), Code::NotFound);

    let sent = vec![rows(&[("a", "2026-01-01T00:00:00Z", 0.5, 1)])];
    client
        .break_off(messages(&append(), sent.clone()).await)
        .await;
    let count = "SELECT count(*) FROM history.scores";
    assert_eq!(client.rows(count).await, ["0"]);
    assert_eq!(client.ingest(&append(), sent).await.unwrap(), 1);
    assert_eq!(client.rows(count).await, ["1"], "the next one counts");
}

#[tokio::test]
async fn bound_rows_are_not_bound_and_not_written() {
    let server = writer().await;
    let mut client = server.connect().await;
    let sql = "INSERT INTO scores VALUES ($1, $2, $3, $4)";
    let handle = client.prepare(sql).await.unwrap().handle;
    let sent = || vec![rows(&[("a", "2026-01-01T00:00:00Z", 0.5, 1)])];
    let update = CommandPreparedStatementUpdate {
        prepared_statement_handle: handle.clone(),
    };
    client.break_off(messages(&update, sent()).await).await;
    let bind = CommandPreparedStatementQuery {
        prepared_statement_handle: handle,
    };
    client.break_off(messages(&bind, sent()).await).await;
    assert_eq!(
        code(client.info(&bind).await),
        Code::InvalidArgument,
        "nothing is bound"
    );
    assert_eq!(
        client.rows("SELECT count(*) FROM history.scores").await,
        ["0"]
    );
}
