//! The ticket of a write holds its answer: whoever lost the first one need not write again.

use std::time::Duration;

use arrow_flight::CancelStatus;
use featureflight_server::Config;
use featureflight_server::config::Secret;
use tonic::Code;

use super::client::{Client, Server, code, only_ticket};
use super::writes::{start, writer};

const SKIP: &str = "SET featureflight.on_error = 'skip'";
/// Two of its rows are refused.
const MIXED: &str = "INSERT INTO scores VALUES ('a', '2026-01-01', 1, 1), ('b', 'soon', 1, 1), \
                     (NULL, '2026-01-01', 1, 1)";

async fn restarted(server: Server, change: impl FnOnce(&mut Config)) -> Server {
    let Server { handle, directory } = server;
    handle.stop().await.unwrap();
    let handle = start(directory.path(), change).await;
    Server { handle, directory }
}

fn keyed(config: &mut Config) {
    config.server.signing_key = Some(Secret::new("0123456789abcdef0123456789abcdef"));
}

async fn versions(client: &mut Client) -> Vec<String> {
    client.rows("SELECT count(*) FROM history.scores").await
}

#[tokio::test]
async fn a_forgotten_write_is_answered_by_its_ticket() {
    let server = restarted(writer().await, |config| config.server.max_tickets = 1).await;
    let mut client = server.connect().await;
    client.update(SKIP).await.unwrap();
    let prepared = client.prepare(MIXED).await.unwrap().handle;
    let prepared = arrow_flight::sql::CommandPreparedStatementQuery {
        prepared_statement_handle: prepared,
    };
    let by_text = client.execute(MIXED).await.unwrap();
    let kept = client.fetch(&only_ticket(&by_text)).await.unwrap();
    let by_handle = client.info(&prepared).await.unwrap();
    let view = "CREATE TEMP VIEW once AS SELECT 1 AS x";
    let effect = client.execute(view).await.unwrap();
    // Reasons that are too long for a ticket end early; the counts do not.
    let wrong = "INSERT INTO scores SELECT 'x', 'soon', 1, value FROM range(500)";
    let wrong = client.execute(wrong).await.unwrap();
    assert!(only_ticket(&wrong).ticket.len() < 4_500);
    let query = client.execute("SELECT id FROM scores").await.unwrap();
    client.rows("SELECT 1").await;
    for _ in 0..2 {
        for write in [&by_text, &by_handle] {
            let answer = client.fetch(&only_ticket(write)).await.unwrap();
            assert_eq!(answer.schema, kept.schema);
            assert_eq!(answer.lines(), kept.lines());
        }
        let answer = client.fetch(&only_ticket(&effect)).await.unwrap();
        assert_eq!(answer.lines(), ["OK"]);
    }
    assert!(kept.lines()[0].starts_with("1|2|2 rows refused"));
    let refused = client.fetch(&only_ticket(&wrong)).await.unwrap().lines();
    assert!(
        refused[0].starts_with("0|500|500 rows refused"),
        "{refused:?}"
    );
    assert!(refused.last().unwrap().contains(" ..."), "{refused:?}");
    assert_eq!(
        code(client.fetch(&only_ticket(&query)).await),
        Code::Aborted
    );
    assert_eq!(versions(&mut client).await, ["2"], "each was written once");
    // What was done is not undone, and its ticket can be kept.
    let cancelled = client.cancel(&by_text).await.unwrap();
    assert_eq!(cancelled, CancelStatus::NotCancellable);
    let renewed = client.renew(&by_text.endpoint[0]).await.unwrap();
    let renewed = client.fetch(&renewed.ticket.unwrap()).await.unwrap();
    assert_eq!(renewed.lines(), kept.lines());
    assert!(only_ticket(&by_text).ticket.len() < 2_000);
}

#[tokio::test]
async fn a_write_is_answered_after_a_restart_under_the_same_key() {
    let server = restarted(writer().await, keyed).await;
    let mut client = server.connect().await;
    client.update(SKIP).await.unwrap();
    let ticket = only_ticket(&client.execute(MIXED).await.unwrap());
    let before = client.fetch(&ticket).await.unwrap().lines();
    let server = restarted(server, keyed).await;
    let mut client = server.connect().await;
    assert_eq!(client.fetch(&ticket).await.unwrap().lines(), before);
    assert_eq!(versions(&mut client).await, ["1"]);
    // Another key: nobody knows what the ticket was of.
    let server = restarted(server, |_| {}).await;
    let gone = server.connect().await.fetch(&ticket).await.unwrap_err();
    assert_eq!(gone.code(), Code::Aborted);
    let said = gone.message();
    assert!(said.contains("featureflight-idempotency-key"), "{said}");
}

#[tokio::test]
async fn an_expired_ticket_of_a_write_does_not_say_to_write_again() {
    let server = writer().await;
    let brief = Duration::from_secs(1);
    let server = restarted(server, |config| config.server.ticket_ttl.0 = brief).await;
    let mut client = server.connect().await;
    let insert = "INSERT INTO scores VALUES ('a', '2026-01-01', 1, 1)";
    let ticket = only_ticket(&client.execute(insert).await.unwrap());
    tokio::time::sleep(brief * 2 + brief / 4).await;
    let gone = client.fetch(&ticket).await.unwrap_err();
    assert_eq!(gone.code(), Code::Aborted);
    let said = gone.message();
    assert!(said.contains("featureflight-idempotency-key"), "{said}");
    assert!(!said.contains("run the statement again"), "{said}");
}
