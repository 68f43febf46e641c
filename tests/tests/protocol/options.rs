//! Session options as drivers set them, by hand: arrow-flight has no messages for them.

use std::collections::HashMap;

use prost::Message;
use tonic::Code;

use super::client::{Client, Server, code};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) options: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
}

#[derive(Clone, PartialEq, Message)]
struct Errors {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, Failure>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Failure {
    #[prost(int32, tag = "1")]
    value: i32,
}

pub(crate) fn text(text: &str) -> Option<Kind> {
    Some(Kind::Text(text.into()))
}

impl Client {
    /// Which options were refused, and how.
    pub(crate) async fn set(&mut self, options: &[(&str, Option<Kind>)]) -> Vec<(String, i32)> {
        let options = options.iter().cloned();
        let options = options.map(|(name, kind)| (name.to_owned(), Value { kind }));
        let body = Options {
            options: options.collect(),
        }
        .encode_to_vec();
        let results = self.action("SetSessionOptions", body).await.unwrap();
        let errors = Errors::decode(results[0].as_slice()).unwrap().errors;
        let mut refused: Vec<_> = errors
            .into_iter()
            .map(|(name, f)| (name, f.value))
            .collect();
        refused.sort();
        refused
    }

    async fn get(&mut self) -> HashMap<String, Value> {
        let results = self.action("GetSessionOptions", Vec::new()).await.unwrap();
        Options::decode(results[0].as_slice()).unwrap().options
    }
}

const EARLY: &str = "1970-01-01T00:17:00Z";
const ASK: &str = "SELECT v FROM examples WHERE id = 'A'";

#[tokio::test]
async fn options_are_what_set_and_use_set() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let set = [
        ("featureflight.system_time", text(EARLY)),
        ("schema", text("history")),
        ("catalog", text("featureflight")),
        ("max_rows", Some(Kind::Int(1_000))),
        ("query_timeout", text("1 minute")),
    ];
    assert_eq!(client.set(&set).await, []);
    let shown = client.rows("SHOW ALL").await;
    assert!(
        shown.contains(&format!("featureflight.system_time|{EARLY}")),
        "{shown:?}"
    );
    assert!(
        shown.contains(&"featureflight.max_rows|1000".to_owned()),
        "{shown:?}"
    );
    client.rows("SET featureflight.endpoints = 2").await;
    let got = client.get().await;
    let of = |name: &str| match got.get(name).and_then(|value| value.kind.clone()) {
        Some(Kind::Text(text)) => text,
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(of("schema"), "history");
    assert_eq!(of("catalog"), "featureflight");
    assert_eq!(of("featureflight.system_time"), EARLY);
    assert_eq!(of("featureflight.endpoints"), "2");
    assert!(!got.contains_key("featureflight.valid_time"), "its default");

    let back = [("featureflight.system_time", None), ("schema", None)];
    assert_eq!(client.set(&back).await, []);
    assert_ne!(client.rows(ASK).await, ["a1"]);
    let mut other = server.connect().await;
    assert!(!other.get().await.contains_key("featureflight.max_rows"));
}

#[tokio::test]
async fn what_cannot_be_set_is_named_and_the_rest_is_set() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let (name, value, now) = (1, 2, 3);
    let refused = client
        .set(&[
            ("featureflight.system_time", text(EARLY)),
            ("featureflight.valid_time", text("soon")),
            ("datafusion.execution.batch_size", text("1")),
            ("max_rows", Some(Kind::Bool(true))),
            ("endpoints", Some(Kind::Int(-1))),
            ("schema", text("nowhere")),
            ("catalog", text("hive")),
        ])
        .await;
    let expected = [
        ("catalog", value),
        ("datafusion.execution.batch_size", name),
        ("endpoints", value),
        ("featureflight.valid_time", value),
        ("max_rows", value),
        ("schema", value),
    ];
    assert_eq!(
        refused,
        expected.map(|(name, kind)| (name.to_owned(), kind))
    );
    assert_eq!(client.rows(ASK).await, ["a1"]);
    let mut fixed = client.with_header("featureflight-valid-time", EARLY);
    let refused = fixed.set(&[("valid_time", text("2026-01-01"))]).await;
    assert_eq!(refused, [("valid_time".to_owned(), now)]);
    assert_eq!(
        code(client.action("SetSessionOptions", vec![0xff]).await),
        Code::InvalidArgument
    );
}
