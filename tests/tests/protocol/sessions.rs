//! Sessions on the wire: bearer, cookie, connection.

use arrow_flight::HandshakeRequest;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use futures::TryStreamExt;
use tonic::Code;

use super::client::{Client, Server, code};

const SET: &str = "SET featureflight.system_time = '1970-01-01T00:17:00Z'";
const ASK: &str = "SELECT v FROM examples WHERE id = 'A'";

/// The token of a new session, with the client's authorization or without.
pub(super) async fn handshake(
    client: &mut Client,
    authorization: Option<String>,
) -> Result<String, tonic::Status> {
    let mut client = client.clone();
    if let Some(value) = authorization {
        client.headers.push(("authorization", value));
    }
    let request = client.request(futures::stream::iter([HandshakeRequest::default()]));
    let response = client.flight.handshake(request).await?;
    let header = response
        .metadata()
        .get("authorization")
        .expect("a bearer")
        .to_str()
        .unwrap();
    let token = header.strip_prefix("Bearer ").expect("a bearer").to_owned();
    let answers: Vec<_> = response.into_inner().try_collect().await?;
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].payload.as_ref(), token.as_bytes());
    Ok(token)
}

/// The cookie that the answer to a call offers.
async fn offered_cookie(client: &mut Client) -> Option<String> {
    let request = client.request(arrow_flight::Empty {});
    let response = client.flight.list_actions(request).await.unwrap();
    let header = response.metadata().get("set-cookie")?.to_str().unwrap();
    header.split(';').next().map(str::to_owned)
}

pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn a_connection_is_a_session() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    one.rows(SET).await;
    assert_eq!(one.rows(ASK).await, ["a1"]);
    assert_eq!(
        two.rows(ASK).await,
        ["a2b"],
        "another connection, another session"
    );
    assert_eq!(one.clone().rows(ASK).await, ["a1"], "the same connection");
    drop(one);
    assert_eq!(server.connect().await.rows(ASK).await, ["a2b"]);
}

#[tokio::test]
async fn a_bearer_is_a_session_on_any_connection() {
    let server = Server::start().await;
    let mut first = server.connect().await;
    let basic = format!("Basic {}", BASE64_STANDARD.encode("ada:any"));
    let token = handshake(&mut first, Some(basic)).await.unwrap();
    let mut first = first.with_header("authorization", bearer(&token));
    first.rows(SET).await;
    let mut second = server.connect().await;
    assert_eq!(second.rows(ASK).await, ["a2b"], "without the bearer");
    let mut second = second.with_header("authorization", bearer(&token));
    drop(first);
    assert_eq!(
        second.rows(ASK).await,
        ["a1"],
        "after the first connection is gone"
    );
    assert_eq!(
        handshake(&mut second.clone(), None).await.unwrap(),
        token,
        "keeps its session"
    );
    // Go's drivers send no padding.
    let unpadded = format!("Basic {}", BASE64_STANDARD_NO_PAD.encode("ada:any"));
    for authorization in [Some(unpadded), None] {
        let mut client = server.connect().await;
        assert_ne!(handshake(&mut client, authorization).await.unwrap(), token);
    }
}

#[tokio::test]
async fn a_token_that_is_unknown_is_an_error_never_a_fresh_session() {
    let server = Server::start().await;
    let client = server.connect().await;
    for value in [
        "Bearer nobody",
        "Bearer ",
        "Bearer",
        "Digest x",
        "Basic %%%",
        "x",
    ] {
        let mut client = client.with_header("authorization", value);
        assert_eq!(
            code(client.query("SELECT 1").await),
            Code::Unauthenticated,
            "{value}"
        );
        let status = client.query("SELECT 1").await.expect_err("refused");
        assert!(
            !status.message().contains("nobody"),
            "the value is not repeated"
        );
    }
    let mut cookie = client.with_header("cookie", "featureflight-session=nobody");
    assert_eq!(code(cookie.query("SELECT 1").await), Code::Unauthenticated);
    let mut client = client.clone();
    let outcome = handshake(&mut client, Some("Bearer nobody".into())).await;
    assert_eq!(code(outcome), Code::Unauthenticated);
    let mut others = client.with_header("cookie", "theirs=1; more=2");
    assert_eq!(
        others.rows("SELECT 1").await,
        ["1"],
        "other people's cookies are not ours"
    );
}

#[tokio::test]
async fn a_cookie_is_offered_and_then_names_the_session() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let cookie = offered_cookie(&mut client).await.expect("a cookie");
    assert!(cookie.starts_with("featureflight-session="), "{cookie}");
    assert_eq!(offered_cookie(&mut client).await, None, "offered once");

    let mut with_cookie = client.with_header("cookie", format!("a=b; {cookie}"));
    with_cookie.rows(SET).await;
    assert_eq!(
        client.rows(ASK).await,
        ["a1"],
        "it is the connection's session"
    );
    drop((client, with_cookie));
    let mut elsewhere = server.connect().await.with_header("cookie", cookie);
    assert_eq!(
        elsewhere.rows(ASK).await,
        ["a1"],
        "and outlives the connection"
    );
}

#[tokio::test]
async fn an_unused_cookie_ends_with_its_connection() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let cookie = offered_cookie(&mut client).await.expect("a cookie");
    drop(client);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut late = server.connect().await.with_header("cookie", cookie);
    assert_eq!(code(late.query("SELECT 1").await), Code::Unauthenticated);
}

#[tokio::test]
async fn an_idle_bearer_ends() {
    let second = std::time::Duration::from_secs(1);
    let server = Server::configured(|config| config.engine.idle_session_timeout.0 = second).await;
    let mut client = server.connect().await;
    let token = handshake(&mut client, None).await.unwrap();
    let mut client = client.with_header("authorization", bearer(&token));
    client.rows("SELECT 1").await;
    // The pinned statement keeps its session for as long as it can be fetched.
    server.handle.engine.queries();
    let idle = handshake(&mut server.connect().await, None).await.unwrap();
    tokio::time::sleep(second * 3).await;
    let mut idle = server
        .connect()
        .await
        .with_header("authorization", bearer(&idle));
    assert_eq!(code(idle.query("SELECT 1").await), Code::Unauthenticated);
}

#[tokio::test]
async fn closing_ends_the_session() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let token = handshake(&mut client, None).await.unwrap();
    let mut client = client.with_header("authorization", bearer(&token));
    client.rows(SET).await;
    let results = client.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(
        results,
        [vec![8, 1]],
        "CloseSessionResult {{ status: CLOSED }}"
    );
    assert_eq!(code(client.query("SELECT 1").await), Code::Unauthenticated);
}

#[tokio::test]
async fn temporary_views_are_the_sessions_own() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    one.rows("CREATE TEMP VIEW mine AS SELECT 1 AS n").await;
    assert_eq!(one.rows("SELECT n FROM mine").await, ["1"]);
    assert_eq!(code(two.query("SELECT n FROM mine").await), Code::NotFound);
}
