use std::sync::Arc;

use chrono::DateTime;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::error::Kind;

fn location() -> (Arc<InMemory>, Location) {
    let store = Arc::new(InMemory::new());
    let location = Location {
        store: Arc::clone(&store) as Arc<dyn ObjectStore>,
        prefix: Path::from("g/data"),
        url: "s3://b/g/data".to_owned(),
        rewritten: true,
    };
    (store, location)
}

async fn put(store: &InMemory, name: &str, text: String) {
    let path = Path::from(format!("g/data/{name}"));
    store.put(&path, text.into()).await.expect("put");
}

async fn mark(store: &InMemory, mark: &Replaced) {
    let json = serde_json::to_string(mark).expect("JSON");
    put(store, Replaced::NAME, json).await;
}

fn replacement(file: Option<&str>, files: &[&str]) -> Replacement {
    Replacement {
        folder: "hour=00".to_owned(),
        file: file.map(str::to_owned),
        files: files.iter().map(|name| (*name).to_owned()).collect(),
        at: 0,
        kept: true,
    }
}

fn done(recent: Vec<Replacement>) -> Replaced {
    Replaced {
        count: recent.len() as u64,
        recent,
        under_way: None,
    }
}

/// What a list that was torn by a replacement may have.
fn listed(names: &[&str]) -> Vec<ObjectMeta> {
    let object = |name: &&str| ObjectMeta {
        location: Path::from(format!("g/data/hour=00/{name}")),
        last_modified: DateTime::UNIX_EPOCH,
        size: 1,
        e_tag: None,
        version: None,
    };
    names.iter().map(object).collect()
}

fn names(objects: &[ObjectMeta]) -> Vec<String> {
    let name = |object: &ObjectMeta| object.location.filename().unwrap_or_default().to_owned();
    let mut names: Vec<_> = objects.iter().map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_torn_list_becomes_what_is_there_afterwards() {
    let joined = replacement(Some("c"), &["a", "b"]);
    let again = replacement(Some("e"), &["c", "d"]);
    let forgotten = replacement(None, &["a"]);
    for (recent, expected) in [
        (vec![joined.clone()], vec!["c", "d", "x"]),
        (vec![joined, again.clone()], vec!["e", "x"]),
        (vec![again, forgotten], vec!["b", "e", "x"]),
    ] {
        let (store, location) = location();
        let before = begin(&location).await.expect("a count");
        let there: Vec<&str> = expected.clone();
        for name in &there {
            put(&store, &format!("hour=00/{name}"), "1".to_owned()).await;
        }
        mark(&store, &done(recent.clone())).await;
        let moved = ["a", "b", "c", "d", "e"];
        for seen in 0_u32..32 {
            // What no replacement touches is in every list.
            let is_moved = |name: &str| {
                let mut all = recent.iter();
                all.any(|one| {
                    one.file.as_deref() == Some(name) || one.files.iter().any(|f| f == name)
                })
            };
            let mut torn = vec!["x"];
            for (bit, name) in moved.iter().enumerate() {
                let always = there.contains(name) && !is_moved(name);
                let ever = is_moved(name);
                if always || (ever && seen & (1 << bit) != 0) {
                    torn.push(name);
                }
            }
            let (objects, replaced) = settle(&location, before, listed(&torn))
                .await
                .expect("a list");
            assert_eq!(names(&objects), expected, "{recent:?}: {torn:?}");
            for one in recent.iter().flat_map(|one| &one.files) {
                assert!(replaced.contains(&format!("g/data/hour=00/{one}")), "{one}");
            }
        }
    }
}

#[tokio::test]
async fn what_was_replaced_before_the_list_was_begun_is_only_named() {
    let (store, location) = location();
    mark(&store, &done(vec![replacement(Some("c"), &["a", "b"])])).await;
    let before = begin(&location).await.expect("a count");
    assert_eq!(before, 1);
    // A folder left out of the list, for its hour.
    let (objects, replaced) = settle(&location, before, listed(&["x"]))
        .await
        .expect("a list");
    assert_eq!((names(&objects), replaced.len()), (vec!["x".to_owned()], 2));
}

#[tokio::test]
async fn a_list_waits_for_what_is_half_replaced() {
    let (store, location) = location();
    let half = Replaced {
        under_way: Some(replacement(Some("c"), &["a", "b"])),
        ..Replaced::default()
    };
    mark(&store, &half).await;
    let before = begin(&location).await.expect("a count");
    let ends = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            put(&store, "hour=00/c", "1".to_owned()).await;
            mark(&store, &done(vec![replacement(Some("c"), &["a", "b"])])).await;
        })
    };
    let (objects, _) = settle(&location, before, listed(&["b"]))
        .await
        .expect("a list");
    assert_eq!(names(&objects), ["c"]);
    ends.await.expect("its end");

    mark(&store, &half).await;
    let error = settle(&location, before, listed(&["b"])).await;
    let error = error.expect_err("it never ends");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.message.contains("half replaced"), "{error}");
}

#[tokio::test]
async fn what_is_not_known_is_an_error() {
    let (store, location) = location();
    for count in [2, u64::MAX] {
        let forgotten = Replaced {
            count,
            ..done(vec![replacement(Some("c"), &["a"])])
        };
        mark(&store, &forgotten).await;
        let error = settle(&location, 0, listed(&["a"])).await;
        assert_eq!(error.expect_err("one is unknown").kind, Kind::Unavailable);
    }
    // A mark that went back.
    mark(&store, &Replaced::default()).await;
    let error = settle(&location, 1, listed(&["a"])).await;
    assert_eq!(error.expect_err("it was ahead").kind, Kind::Unavailable);
    // A new file that is not there.
    mark(&store, &done(vec![replacement(Some("c"), &["a"])])).await;
    let error = settle(&location, 0, listed(&["a"])).await;
    assert_eq!(error.expect_err("it is lost").kind, Kind::Unavailable);
    put(&store, Replaced::NAME, "{".to_owned()).await;
    let error = begin(&location).await.expect_err("no mark");
    assert_eq!(error.kind, Kind::DataLoss);
    assert!(error.message.contains("_replaced.json"), "{error}");
}

/// Of buckets that nobody rewrites nothing more is asked.
#[tokio::test]
async fn marks_elsewhere_mean_nothing() {
    let (store, mut location) = location();
    location.rewritten = false;
    put(&store, Replaced::NAME, "{".to_owned()).await;
    let before = begin(&location).await.expect("no look");
    let (objects, replaced) = settle(&location, before, listed(&["a"]))
        .await
        .expect("a list");
    assert_eq!((objects.len(), replaced.len()), (1, 0));
}
