use std::time::Duration;

use super::*;
use crate::scan::fixtures::{file_set, memory, put};

fn at(text: &str) -> Instant {
    Instant::parse(text).expect("a time")
}

fn pin(ttl: u64) -> Pin {
    Pin::new(
        Arc::new(Lister::new(Duration::from_secs(ttl))),
        Instant::now(),
    )
}

fn january() -> EventRange {
    EventRange {
        from: Some(at("2026-01-01")),
        to: Some(at("2026-01-31")),
    }
}

const JANUARY: &str = "year=2026/month=01/day=15/hour=00";
const JUNE: &str = "year=2026/month=06/day=15/hour=00";

#[tokio::test]
async fn a_statement_keeps_its_files() {
    let store = memory();
    put(&store, &format!("{JANUARY}/a.parquet"), "x").await;
    put(&store, &format!("{JUNE}/a.parquet"), "x").await;
    let (pin, set) = (pin(0), file_set(&store));
    let first = pin.files(&set, EventRange::ALL, None).await.expect("files");
    put(&store, &format!("{JANUARY}/b.parquet"), "x").await;
    let second = pin.files(&set, EventRange::ALL, None).await.expect("files");
    assert!(Arc::ptr_eq(&first, &second));
    // Another range of the same statement sees the same picture.
    let narrow = pin.files(&set, january(), None).await.expect("files");
    assert_eq!((first.files.len(), narrow.files.len()), (2, 1));
    assert_eq!(pin.pinned_files(), 2);
    pin.freeze();
    let frozen = pin.files(&set, january(), None).await.expect("files");
    assert!(Arc::ptr_eq(&narrow, &frozen));
}

#[tokio::test]
async fn nothing_is_listed_after_the_freeze() {
    let (store, other) = (memory(), memory());
    put(&store, &format!("{JANUARY}/a.parquet"), "x").await;
    let (pin, set) = (pin(60), file_set(&store));
    pin.files(&set, january(), None).await.expect("files");
    pin.freeze();
    pin.files(&set, january(), None).await.expect("known");
    let mut unknown = file_set(&other);
    unknown.location.url = "s3://bucket/other".to_owned();
    for (set, range, cut) in [
        (&unknown, EventRange::ALL, None),
        (
            &set,
            EventRange {
                from: Some(at("2026-05-01")),
                to: None,
            },
            None,
        ),
        (&set, january(), Some(Instant::now())),
    ] {
        // A cut of now is newer than the pinned listing only if the statement began after it.
        let error = match pin.files(set, range, cut).await {
            Err(error) => error,
            Ok(list) => {
                assert!(cut.is_some() && Instant::from(list.listed_at) >= pin.started);
                continue;
            }
        };
        assert_eq!(error.kind, Kind::Aborted);
        assert!(error.message.contains("run it again"), "{error}");
    }
}

#[tokio::test]
async fn a_cut_newer_than_the_cached_listing_lists_again() {
    let store = memory();
    put(&store, &format!("{JANUARY}/a.parquet"), "x").await;
    let set = file_set(&store);
    let lister = Arc::new(Lister::new(Duration::from_mins(1)));
    let before = Instant::now();
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&store, &format!("{JANUARY}/b.parquet"), "x").await;
    let files = async |cut: Option<Instant>| {
        let pin = Pin::new(Arc::clone(&lister), Instant::now());
        pin.files(&set, EventRange::ALL, cut)
            .await
            .expect("files")
            .files
            .len()
    };
    assert_eq!(files(None).await, 1, "within the TTL");
    assert_eq!(
        files(Some(before)).await,
        1,
        "the listing is newer than the cut"
    );
    assert_eq!(files(Some(Instant::now())).await, 2);
    put(&store, &format!("{JANUARY}/c.parquet"), "x").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(
        files(Some(Instant::MAX)).await,
        3,
        "a cut in the future asks for the statement's start"
    );
}

#[tokio::test]
async fn two_cuts_of_one_statement_keep_their_own_files() {
    let store = memory();
    put(&store, &format!("{JANUARY}/a.parquet"), "x").await;
    let set = file_set(&store);
    let lister = Arc::new(Lister::new(Duration::from_mins(1)));
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    tokio::time::sleep(Duration::from_millis(5)).await;
    put(&store, &format!("{JANUARY}/b.parquet"), "x").await;
    let pin = Pin::new(lister, Instant::now());
    let cut = Some(Instant::now());
    let uncut = pin.files(&set, EventRange::ALL, None).await.expect("files");
    let current = pin.files(&set, EventRange::ALL, cut).await.expect("files");
    assert_eq!((uncut.files.len(), current.files.len()), (1, 2));
    pin.freeze();
    for _ in 0..2 {
        assert!(Arc::ptr_eq(
            &uncut,
            &pin.files(&set, EventRange::ALL, None).await.expect("files")
        ));
        assert!(Arc::ptr_eq(
            &current,
            &pin.files(&set, EventRange::ALL, cut).await.expect("files")
        ));
    }
    assert_eq!(pin.pinned_files(), 2);
}
