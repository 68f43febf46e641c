//! Every online store against the reference model: one suite for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use featureflight_catalog::{Instant, Kind};
use featureflight_online::group::{Ttl, TtlUnit};
use featureflight_online::record::Operation;
use featureflight_online::store::dynamodb::DynamoDbStore;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::store::redis::RedisStore;
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_online::store::{OnlineStore, Outcome, Trouble};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::model::{Model, Write, block, layout, read, record};
use crate::fake_runtime::FakeRuntime;
use crate::loopback::{Loopback, sdk_config};
use crate::servers::Server;

const TIMEOUT: Duration = Duration::from_secs(10);

/// One write after the other: outcomes and what is read afterwards are the model's.
async fn obeys_the_model(store: &dyn OnlineStore) {
    let mut random = StdRng::seed_from_u64(11);
    let mut model = Model::default();
    let identifiers: Vec<String> = (0..8).map(|at| format!("id/{at}")).collect();
    let group = layout("orders", Operation::Put);
    for value in 0..400 {
        let write = Write::random(&mut random, 8, value);
        let counts = model.apply(&write);
        let outcome = store.write(&[write.record("orders")]).await.remove(0);
        match outcome {
            Outcome::Done => assert!(counts, "{write:?} should be stale"),
            Outcome::Stale(_) => assert!(!counts, "{write:?} is not stale"),
            other => panic!("{write:?}: {other:?}"),
        }
        if value % 10 == 0 {
            let found = store.get(&group, &identifiers).await.unwrap();
            for (identifier, found) in identifiers.iter().zip(&found) {
                assert_eq!(
                    read(found.as_ref()),
                    model.read(identifier),
                    "{identifier} after {write:?}"
                );
            }
        }
    }
}

/// Many records in one call, of another group with the same identifiers.
async fn takes_batches(store: &dyn OnlineStore) {
    let writes: Vec<Write> = (0..230)
        .map(|at| Write::put(&format!("id/{at}"), 1_000 + at, at))
        .collect();
    for chunk in writes.chunks(store.limit().records) {
        let mut records: Vec<_> = chunk.iter().map(|write| write.record("returns")).collect();
        records.reverse();
        let outcomes = store.write(&records).await;
        assert_eq!(outcomes, vec![Outcome::Done; records.len()]);
    }
    let mut identifiers: Vec<String> = writes
        .iter()
        .map(|write| write.identifier.clone())
        .collect();
    identifiers.push("nobody".to_owned());
    identifiers.push("id/7".to_owned());
    let group = layout("returns", Operation::Put);
    let found = store.get(&group, &identifiers).await.unwrap();
    for (at, found) in found.iter().enumerate().take(230) {
        let at = i64::try_from(at).unwrap();
        assert_eq!(read(found.as_ref()), Some((1_000 + at, at)));
    }
    assert_eq!(found[230], None);
    assert_eq!(found[231], found[7]);
    assert!(store.get(&group, &[]).await.unwrap().is_empty());
}

fn in_seconds(seconds: u32) -> Ttl {
    Ttl {
        unit: TtlUnit::Seconds,
        value: seconds,
    }
}

/// What has outlived its time is not there, and anything counts as newer than it.
async fn expires(store: &dyn OnlineStore) {
    let now = Instant::now().micros / 1_000_000;
    let group = layout("brief", Operation::Put);
    let get = async |identifier: &str| {
        let identifiers = [identifier.to_owned()];
        store.get(&group, &identifiers).await.unwrap().remove(0)
    };
    let send = async |write: Write, ttl| {
        let record = record(block("brief", &[write], ttl));
        store.write(&[record]).await.remove(0)
    };
    let dead = Write::put("a", now - 100, 1);
    assert_eq!(send(dead, Some(in_seconds(50))).await, Outcome::Done);
    assert_eq!(get("a").await, None, "it is past its time on arrival");
    assert_eq!(
        send(Write::put("a", now - 1_000, 2), None).await,
        Outcome::Done
    );
    assert_eq!(
        read(get("a").await.as_ref()),
        Some((now - 1_000, 2)),
        "an older one counts"
    );

    assert_eq!(
        send(Write::put("b", now, 3), Some(in_seconds(3))).await,
        Outcome::Done
    );
    let there = get("b").await.expect("it is not past its time");
    assert_eq!(
        there.expires_at,
        Some(Instant::from_micros((now + 3) * 1_000_000))
    );
    assert_eq!(send(Write::put("b", now - 5, 4), None).await, Outcome::Done);
    assert_eq!(
        read(get("b").await.as_ref()),
        Some((now, 3)),
        "an older one does not count yet"
    );
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    assert_eq!(get("b").await, None);
    assert_eq!(send(Write::put("b", now - 5, 5), None).await, Outcome::Done);
    assert_eq!(read(get("b").await.as_ref()), Some((now - 5, 5)));
}

/// What is forgotten is as if it had never been written; nothing else changes.
async fn forgets(store: &dyn OnlineStore) {
    let there = async |group: &str, identifier: &str| {
        let identifiers = [identifier.to_owned()];
        let group = layout(group, Operation::Put);
        let found = store.get(&group, &identifiers);
        found.await.unwrap().remove(0).is_some()
    };
    let send = async |group: &str, write: Write| {
        let outcome = store.write(&[write.record(group)]).await.remove(0);
        assert_eq!(outcome, Outcome::Done);
    };
    for group in ["gone", "gone-too", "gon"] {
        for identifier in ["a", "a*", "é:{b}"] {
            send(group, Write::put(identifier, 50, 1)).await;
        }
    }
    let deleted = Write {
        operation: Operation::SoftDelete,
        ..Write::put("a", 60, 0)
    };
    send("gone", deleted).await;
    assert!(store.forget("gone", "a").await.unwrap(), "a delete's mark");
    assert!(!store.forget("gone", "a").await.unwrap(), "again");
    send("gone", Write::put("a", 1, 2)).await;
    assert!(there("gone", "a").await, "older than what was forgotten");
    assert!(store.forget("gone", "a*").await.unwrap());
    assert!(!there("gone", "a*").await && there("gone", "é:{b}").await);

    for at in 0..60 {
        send("gone", Write::put(&format!("id/{at}"), 1, at)).await;
    }
    store.clear("gone").await.unwrap();
    store.clear("gone").await.unwrap();
    for identifier in ["a", "é:{b}", "id/0", "id/59"] {
        assert!(!there("gone", identifier).await, "{identifier}");
        assert!(!store.forget("gone", identifier).await.unwrap());
    }
    for group in ["gone-too", "gon"] {
        for identifier in ["a", "a*", "é:{b}"] {
            assert!(there(group, identifier).await, "{group} {identifier}");
        }
    }
}

#[tokio::test]
async fn embedded() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path()).unwrap();
    obeys_the_model(&store).await;
    takes_batches(&store).await;
    forgets(&store).await;
    expires(&store).await;
    let group = layout("brief", Operation::Put);
    let dead = record(block(
        "brief",
        &[Write::put("z", 0, 1)],
        Some(in_seconds(1)),
    ));
    store.write(&[dead]).await;
    assert_eq!(store.sweep(10).unwrap(), 1);
    assert_eq!(store.sweep(10).unwrap(), 0);
    let second = EmbeddedStore::open(dir.path()).expect_err("it is open");
    assert!(
        second.message.contains("records.redb"),
        "{}",
        second.message
    );
    let before = store.get(&group, &["a".to_owned()]).await.unwrap();
    drop(store);
    let store = EmbeddedStore::open(dir.path()).unwrap();
    assert_eq!(store.get(&group, &["a".to_owned()]).await.unwrap(), before);
}

#[tokio::test]
async fn redis() {
    let server = Server::redis();
    let url = format!("redis://127.0.0.1:{}", server.port);
    let store = RedisStore::new(&url, "ff", TIMEOUT).unwrap();
    obeys_the_model(&store).await;
    takes_batches(&store).await;
    forgets(&store).await;
    let [odd, other] = ["a[b]*", "a[b]*c"].map(|prefix| RedisStore::new(&url, prefix, TIMEOUT));
    let (odd, other) = (odd.unwrap(), other.unwrap());
    other.write(&[Write::put("a", 1, 1).record("gone")]).await;
    forgets(&odd).await;
    assert!(other.forget("gone", "a").await.unwrap(), "another's");
    expires(&store).await;

    // A server without TLS: a failure, not a panic.
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let secure = RedisStore::new(&url, "ff", Duration::from_secs(2)).unwrap();
    let outcome = secure
        .write(&[Write::put("a", 1, 1).record("orders")])
        .await
        .remove(0);
    assert!(
        matches!(outcome, Outcome::Retry(Trouble::Away, _)),
        "{outcome:?}"
    );
    let wrong = RedisStore::new("redis://user:secret@[", "ff", TIMEOUT).expect_err("no URL");
    assert!(!wrong.message.contains("secret"), "{}", wrong.message);

    // A server that comes back has forgotten the script; one that is gone is no refusal.
    let port = server.port;
    drop(server);
    let write = Write::put("a", 5, 5).record("orders");
    let outcome = store.write(std::slice::from_ref(&write)).await.remove(0);
    assert!(
        matches!(outcome, Outcome::Retry(Trouble::Away, _)),
        "{outcome:?}"
    );
    let _server = Server::redis_on(port);
    let mut outcome = outcome;
    for _ in 0..50 {
        outcome = store.write(std::slice::from_ref(&write)).await.remove(0);
        if outcome == Outcome::Done {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(outcome, Outcome::Done);
    let found = store
        .get(&layout("orders", Operation::Put), &["a".to_owned()])
        .await
        .unwrap();
    assert_eq!(read(found[0].as_ref()), Some((5, 5)));
}

#[tokio::test]
async fn dynamodb() {
    let server = Server::dynamodb();
    let store = DynamoDbStore::new(&server.aws(), "features", TIMEOUT, 8);
    store.create_table().await.unwrap();
    store.create_table().await.expect("it is there");
    obeys_the_model(&store).await;
    takes_batches(&store).await;
    forgets(&store).await;
    expires(&store).await;
    // What DynamoDB takes away by itself, in seconds.
    let client = aws_sdk_dynamodb::Client::new(&server.aws());
    let described = client.describe_time_to_live().table_name("features");
    let described = described.send().await.unwrap();
    let ttl = described.time_to_live_description().unwrap();
    assert_eq!(ttl.attribute_name(), Some("expires_at"));
    assert_eq!(ttl.time_to_live_status().unwrap().as_str(), "ENABLED");
    let brief = record(block(
        "brief",
        &[Write::put("c", 1_000, 1)],
        Some(in_seconds(7)),
    ));
    assert_eq!(store.write(&[brief]).await, [Outcome::Done]);
    let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let item = client
        .get_item()
        .table_name("features")
        .key("record_identifier", text("c"))
        .key("feature_group", text("brief"));
    let item = item.send().await.unwrap().item.unwrap();
    assert_eq!(item["expires_at"].as_n().unwrap(), "1007");
    let absent = DynamoDbStore::new(&server.aws(), "absent", TIMEOUT, 8);
    let outcome = absent
        .write(&[Write::put("a", 1, 1).record("orders")])
        .await
        .remove(0);
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

/// The outbox retries, the client below it does not.
#[tokio::test]
async fn a_dynamodb_that_fails_is_asked_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Loopback::serve(&asked, |State(asked): State<Arc<AtomicUsize>>| async move {
        asked.fetch_add(1, Ordering::SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    })
    .await;
    let store = DynamoDbStore::new(&sdk_config(&server.url), "features", TIMEOUT, 8);
    let outcome = store
        .write(&[Write::put("a", 1, 1).record("orders")])
        .await
        .remove(0);
    assert!(
        matches!(outcome, Outcome::Retry(Trouble::Away, _)),
        "{outcome:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn sagemaker() {
    let fake = FakeRuntime::start().await;
    for group in ["orders", "returns", "brief"] {
        fake.add_group(group, "id", "ts");
    }
    let store = SageMakerStore::new(&fake.sdk_config(), TIMEOUT, 8);
    obeys_the_model(&store).await;
    takes_batches(&store).await;
    assert_eq!(fake.calls("BatchWriteRecord"), 230_usize.div_ceil(25));
    let refused = store.forget("orders", "id/1").await.unwrap_err();
    assert_eq!(refused.kind, Kind::FailedPrecondition);
    let refused = store.clear("orders").await.unwrap_err();
    assert_eq!(refused.kind, Kind::FailedPrecondition);
    // The service expires records itself; the time to live is passed on.
    let record = record(block(
        "brief",
        &[Write::put("a", 1, 1)],
        Some(in_seconds(7)),
    ));
    assert_eq!(store.write(&[record]).await, [Outcome::Done]);
    let ttl = fake.online("brief", "a").unwrap().ttl.unwrap();
    assert_eq!(ttl, serde_json::json!({"Unit": "Seconds", "Value": 7}));
}
