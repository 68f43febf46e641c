use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::folders::{Folder, Overlap, whole_days};
use super::*;
use crate::error::Kind;
use crate::scan::fixtures::{PREFIX, file_set, memory, put};

/// Counts pages of a thousand objects as an S3 client would request them, and fails on demand.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) inner: InMemory,
    pub(crate) lists: Arc<AtomicUsize>,
    pub(crate) gets: AtomicUsize,
    pub(crate) fail: AtomicBool,
    /// Fails after this many objects of a flat list.
    pub(crate) fail_after: AtomicUsize,
    /// How long a get takes, in milliseconds.
    pub(crate) delay: AtomicU64,
    /// Gets under way, and the most there ever were.
    pub(crate) under_way: AtomicUsize,
    pub(crate) most_under_way: AtomicUsize,
    /// The objects of the gets so far, in order.
    pub(crate) got: Mutex<Vec<Path>>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counting")
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic {
        store: "test",
        source: "broken".into(),
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.got.lock().push(path.clone());
        let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::Relaxed);
        let delay = self.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let result = self.inner.get_opts(path, options).await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        result
    }

    async fn get_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.fail.load(Ordering::Relaxed) {
            return futures::stream::once(async { Err(broken()) }).boxed();
        }
        let after = self.fail_after.load(Ordering::Relaxed);
        let pages = Arc::clone(&self.lists);
        let objects = self
            .inner
            .list(prefix)
            .enumerate()
            .map(move |(at, object)| {
                if at > 0 && at % 1_000 == 0 {
                    pages.fetch_add(1, Ordering::Relaxed);
                }
                object
            });
        if after == 0 {
            return objects.boxed();
        }
        objects
            .take(after)
            .chain(futures::stream::once(async { Err(broken()) }))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.fail.load(Ordering::Relaxed) {
            return Err(broken());
        }
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

pub(crate) fn counting() -> (Arc<Counting>, Arc<dyn ObjectStore>) {
    let store = Arc::new(Counting::default());
    (Arc::clone(&store), store)
}

fn at(text: &str) -> Instant {
    Instant::parse(text).expect("a time")
}

fn range(from: &str, to: &str) -> EventRange {
    EventRange {
        from: Some(at(from)),
        to: Some(at(to)),
    }
}

async fn keys(store: &Arc<dyn ObjectStore>, range: EventRange) -> Vec<String> {
    let list = Lister::new(Duration::ZERO)
        .list(&file_set(store), range, None)
        .await
        .expect("a list");
    names(&list)
}

fn names(list: &FileList) -> Vec<String> {
    let name = |file: &Arc<DataFile>| file.meta.location.as_ref()[PREFIX.len() + 1..].to_owned();
    list.files.iter().map(name).collect()
}

#[tokio::test]
async fn only_data_files_count() {
    let store = memory();
    for key in [
        "year=2026/month=01/day=31/hour=12/20260131T125959Z_abc.parquet",
        "year=2026/month=01/day=31/hour=12/part-00000.c000.parquet",
        "direct.parquet",
        "backfill/a.parquet",
    ] {
        put(&store, key, "x").await;
    }
    for key in [
        "customers2026-01-31T12:00:00Z.txt",
        "_feature_store_spark_init",
        "_temporary/0/a.parquet",
        "year=2026/_SUCCESS",
        "year=2026/month=01/day=31/hour=12/.hidden.parquet",
        "year=2026/month=01/day=31/hour=12/_x.parquet",
        "year=2026/month=01/day=31/hour=12/x.parquet.crc",
        "year=2026/month=01/day=31/hour=12/x.csv",
    ] {
        put(&store, key, "x").await;
    }
    put(
        &store,
        "year=2026/month=01/day=31/hour=12/empty.parquet",
        "",
    )
    .await;
    // A sibling whose name begins with the prefix's last segment is another table's.
    store
        .put(&Path::from(format!("{PREFIX}2/x.parquet")), "x".into())
        .await
        .expect("put");
    let expected = [
        "backfill/a.parquet",
        "direct.parquet",
        "year=2026/month=01/day=31/hour=12/20260131T125959Z_abc.parquet",
        "year=2026/month=01/day=31/hour=12/part-00000.c000.parquet",
    ];
    assert_eq!(keys(&store, EventRange::ALL).await, expected);
    let bounded = range("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z");
    assert_eq!(keys(&store, bounded).await, expected);
}

#[tokio::test]
async fn a_prefix_without_objects_is_empty() {
    assert!(keys(&memory(), EventRange::ALL).await.is_empty());
    assert!(
        keys(&memory(), range("2026-01-01", "2026-01-02"))
            .await
            .is_empty()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let local: Arc<dyn ObjectStore> = Arc::new(
        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).expect("a store"),
    );
    assert!(keys(&local, EventRange::ALL).await.is_empty());
    assert!(
        keys(&local, range("2026-01-01", "2026-01-02"))
            .await
            .is_empty()
    );
}

/// Two files in every hour of `days` days from 2026-01-01, and a few strays.
async fn fill(
    store: &Arc<dyn ObjectStore>,
    days: i64,
    per_hour: usize,
) -> Vec<(String, Option<Instant>)> {
    let mut all = Vec::new();
    for hour in 0..days * 24 {
        let start = at("2026-01-01").micros + hour * 3_600_000_000;
        let text = Instant::from_micros(start).to_string();
        for file in 0..per_hour {
            let folder = format!(
                "year={}/month={}/day={}/hour={}",
                &text[..4],
                &text[5..7],
                &text[8..10],
                &text[11..13]
            );
            all.push((
                format!("{folder}/{file}.parquet"),
                Some(Instant::from_micros(start)),
            ));
        }
    }
    for stray in [
        "direct.parquet",
        "archive/year=1999/month=01/day=01/hour=01/x.parquet",
        "year=2026/in-year.parquet",
        "year=2026/month=01/in-month.parquet",
        "year=2026/month=01/day=01/in-day.parquet",
        "year=2026/month=02/day=30/hour=01/no-such-day.parquet",
        "year=2026/month=02/day=01/hour=24/no-such-hour.parquet",
        "year=2026/month=02/day=01/minute=01/x.parquet",
        "year=2026/month=13/day=01/hour=01/x.parquet",
        "year=twenty/month=01/day=01/hour=01/x.parquet",
        "Year=2026/month=01/day=01/hour=01/x.parquet",
    ] {
        all.push((stray.to_owned(), None));
    }
    for (key, _) in &all {
        put(store, key, "x").await;
    }
    all.sort();
    all
}

#[tokio::test]
async fn pruning_keeps_a_day_of_slack_and_every_stray() {
    let local_folder = tempfile::tempdir().expect("a folder");
    let local: Arc<dyn ObjectStore> = Arc::new(
        object_store::local::LocalFileSystem::new_with_prefix(local_folder.path())
            .expect("a store"),
    );
    // The large one is walked, the small ones are listed flat.
    for (store, days, per_hour, cases) in [
        (memory(), 50, 1, 15),
        (memory(), 50, 5, 15),
        (local, 50, 4, 5),
    ] {
        let all = fill(&store, days, per_hour).await;
        let mut rng = StdRng::seed_from_u64(5);
        for case in 0..cases {
            let bound = |rng: &mut StdRng| {
                let offset = rng.random_range(-5 * 24 * 60..(days + 5) * 24 * 60);
                Instant::from_micros(at("2026-01-01").micros + offset * 60_000_000)
            };
            let (a, b) = (bound(&mut rng), bound(&mut rng));
            let range = match case % 5 {
                0 => EventRange {
                    from: Some(a),
                    to: None,
                },
                1 => EventRange {
                    from: None,
                    to: Some(a),
                },
                2 => EventRange {
                    from: Some(a),
                    to: Some(a),
                },
                _ => EventRange {
                    from: Some(a.min(b)),
                    to: Some(a.max(b)),
                },
            };
            let day = 86_400_000_000;
            let expected: Vec<_> = all
                .iter()
                .filter(|(_, hour)| {
                    hour.is_none_or(|hour| {
                        let last = hour.micros + 3_600_000_000;
                        range.from.is_none_or(|from| last + day >= from.micros)
                            && range.to.is_none_or(|to| hour.micros - day <= to.micros)
                    })
                })
                .map(|(key, _)| key.clone())
                .collect();
            assert_eq!(keys(&store, range).await, expected, "{range:?}");
        }
    }
}

#[tokio::test]
async fn a_bounded_listing_opens_few_folders() {
    let (counts, store) = counting();
    fill(&store, 90, 50).await;
    let lister = Lister::new(Duration::ZERO);
    let one_day = range("2026-02-15T00:00:00Z", "2026-02-15T23:59:59Z");
    let list = lister
        .list(&file_set(&store), one_day, None)
        .await
        .expect("a list");
    // 108,000 objects: a flat list takes more than a hundred pages.
    assert!(counts.lists.load(Ordering::Relaxed) < 130, "{counts:?}");
    assert!(list.listed < 10_000, "{}", list.listed);
    assert_eq!(list.pruned, list.listed - list.files.len());
    assert_eq!(list.files.len(), (24 + 24 + 24 + 1) * 50 + 11);
}

#[tokio::test]
async fn unpadded_folders_are_hours_too() {
    let store = memory();
    put(&store, "year=2026/month=1/day=5/hour=7/x.parquet", "x").await;
    let lister = Lister::new(Duration::ZERO);
    let list = lister
        .list(&file_set(&store), EventRange::ALL, None)
        .await
        .expect("a list");
    assert_eq!(list.files[0].hour, Some(at("2026-01-05T07:00:00Z")));
    assert!(
        keys(&store, range("2026-02-01", "2026-02-02"))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn other_sets_are_never_pruned() {
    let store = memory();
    put(&store, "year=2020/month=01/day=05/hour=07/x.parquet", "x").await;
    let set = FileSet {
        hourly: false,
        ..file_set(&store)
    };
    let list = Lister::new(Duration::ZERO)
        .list(&set, range("2026-02-01", "2026-02-02"), None)
        .await;
    assert_eq!(list.expect("a list").files.len(), 1);
}

#[tokio::test]
async fn a_listing_is_whole_or_an_error() {
    let (counts, store) = counting();
    fill(&store, 20, 20).await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    let bounded = range("2026-01-03", "2026-01-03");
    for (fail, after) in [(true, 0), (false, 1), (false, 500)] {
        counts.fail.store(fail, Ordering::Relaxed);
        counts.fail_after.store(after, Ordering::Relaxed);
        for range in [EventRange::ALL, bounded] {
            let error = lister.list(&set, range, None).await.expect_err("not whole");
            assert_eq!(error.kind, Kind::Unavailable);
            assert!(
                error.message.contains(&format!("s3://bucket/{PREFIX}")),
                "{error}"
            );
        }
    }
    counts.fail.store(false, Ordering::Relaxed);
    counts.fail_after.store(0, Ordering::Relaxed);
    let list = lister
        .list(&set, bounded, None)
        .await
        .expect("a failure is not cached");
    assert_eq!(list.files.len(), (1 + 24 + 24 + 1) * 20 + 11);
}

#[tokio::test]
async fn cached_listings_serve_narrower_ranges() {
    let (counts, store) = counting();
    fill(&store, 3, 1).await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    let whole = lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    let again = lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    assert!(Arc::ptr_eq(&whole, &again));
    let narrow = lister
        .list(
            &set,
            range("2026-01-05T12:00:00Z", "2026-01-05T13:00:00Z"),
            None,
        )
        .await
        .expect("a list");
    assert_eq!(counts.lists.load(Ordering::Relaxed), 1);
    assert_eq!(
        (narrow.listed, narrow.listed_at),
        (whole.listed, whole.listed_at)
    );
    assert!(narrow.files.len() < whole.files.len());
    assert_eq!(narrow.pruned, whole.files.len() - narrow.files.len());
}

#[tokio::test]
async fn a_small_bounded_listing_serves_everything() {
    let (counts, store) = counting();
    fill(&store, 3, 1).await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    lister
        .list(&set, range("2026-01-05", "2026-01-05"), None)
        .await
        .expect("a list");
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    assert_eq!(counts.lists.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_listing_older_than_asked_is_not_used() {
    let store = memory();
    put(&store, "a.parquet", "x").await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    let first = lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    put(&store, "b.parquet", "x").await;
    let stale = lister
        .list(&set, EventRange::ALL, Some(first.listed_at))
        .await
        .expect("a list");
    assert_eq!(
        stale.files.len(),
        1,
        "the cached listing is as old as asked"
    );
    let fresh = lister
        .list(&set, EventRange::ALL, Some(SystemTime::now()))
        .await
        .expect("a list");
    assert_eq!(fresh.files.len(), 2);
    // The newer one stays.
    let cached = lister
        .list(&set, EventRange::ALL, Some(fresh.listed_at))
        .await
        .expect("a list");
    assert!(Arc::ptr_eq(&fresh, &cached));
}

#[tokio::test]
async fn listings_expire_and_can_be_forgotten() {
    let (counts, store) = counting();
    put(&store, "a.parquet", "x").await;
    let set = file_set(&store);
    let lists = |expected| assert_eq!(counts.lists.load(Ordering::Relaxed), expected);
    let lister = Lister::new(Duration::from_millis(50));
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    tokio::time::sleep(Duration::from_millis(80)).await;
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    lists(2);
    let lister = Lister::new(Duration::from_mins(1));
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    lists(3);
    lister.forget(&set);
    lister
        .list(&set, EventRange::ALL, None)
        .await
        .expect("a list");
    lists(4);
    let off = Lister::new(Duration::ZERO);
    off.list(&set, EventRange::ALL, None).await.expect("a list");
    off.list(&set, EventRange::ALL, None).await.expect("a list");
    lists(6);
}

#[tokio::test]
async fn listings_at_the_same_time_are_one() {
    let (counts, store) = counting();
    fill(&store, 2, 1).await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    let listings = (0..20).map(|_| lister.list(&set, EventRange::ALL, None));
    let lists = futures::future::join_all(listings).await;
    assert_eq!(counts.lists.load(Ordering::Relaxed), 1);
    assert!(
        lists
            .iter()
            .all(|list| list.as_ref().expect("a list").files.len() == 59)
    );

    // Who began it may leave; the others get it all the same.
    lister.forget(&set);
    let mut first = Box::pin(lister.list(&set, EventRange::ALL, None));
    let _ = futures::poll!(&mut first);
    let second = lister.list(&set, EventRange::ALL, None);
    drop(first);
    assert_eq!(second.await.expect("a list").files.len(), 59);
}

#[test]
fn ranges_compose() {
    let (early, late) = (
        range("2026-01-01", "2026-01-10"),
        range("2026-01-05", "2026-01-20"),
    );
    assert_eq!(early.intersect(late), range("2026-01-05", "2026-01-10"));
    assert_eq!(early.hull(late), range("2026-01-01", "2026-01-20"));
    assert_eq!(early.intersect(EventRange::ALL), early);
    assert_eq!(early.hull(EventRange::ALL), EventRange::ALL);
    assert!(EventRange::ALL.covers(early) && !early.covers(EventRange::ALL));
    assert!(early.covers(early) && !early.covers(late));
    let nothing = range("2026-01-02", "2026-01-01");
    assert!(nothing.is_empty() && early.covers(nothing));
    assert_eq!(nothing.hull(early), early);
    assert!(
        early.contains(at("2026-01-10")) && !early.contains(at("2026-01-10T00:00:00.000000001Z"))
    );
}

#[tokio::test]
async fn nothing_is_listed_for_an_empty_range() {
    let (counts, store) = counting();
    fill(&store, 1, 1).await;
    let lister = Lister::new(Duration::ZERO);
    let list = lister
        .list(&file_set(&store), range("2026-01-02", "2026-01-01"), None)
        .await
        .expect("a list");
    assert!(list.files.is_empty());
    assert_eq!(counts.lists.load(Ordering::Relaxed), 0);
}

#[test]
fn folders_overlap_with_slack() {
    let folder = |path: &str| {
        path.split('/')
            .try_fold(Folder::default(), Folder::child)
            .expect("a folder")
    };
    let day = range("2026-06-15T00:00:00Z", "2026-06-15T12:00:00Z");
    for (path, expected) in [
        ("year=2026", Overlap::Partial),
        ("year=2025", Overlap::Outside),
        ("year=2026/month=06", Overlap::Partial),
        ("year=2026/month=05", Overlap::Outside),
        ("year=2026/month=06/day=15", Overlap::Inside),
        ("year=2026/month=06/day=14", Overlap::Inside),
        ("year=2026/month=06/day=13", Overlap::Partial),
        ("year=2026/month=06/day=16", Overlap::Partial),
        ("year=2026/month=06/day=17", Overlap::Outside),
        ("year=2026/month=06/day=13/hour=22", Overlap::Outside),
        ("year=2026/month=06/day=13/hour=23", Overlap::Inside),
        ("year=2026/month=06/day=16/hour=12", Overlap::Inside),
        ("year=2026/month=06/day=16/hour=13", Overlap::Outside),
    ] {
        assert_eq!(folder(path).overlap(day), expected, "{path}");
    }
    let new_year = range("2025-12-31T23:00:00Z", "2026-01-01T01:00:00Z");
    assert_eq!(folder("year=2026").overlap(new_year), Overlap::Partial);
    assert_eq!(
        folder("year=2025/month=12").overlap(new_year),
        Overlap::Partial
    );
    let wide = whole_days(range("2026-06-15T03:00:00Z", "2026-06-15T12:00:00Z"));
    assert_eq!(wide, range("2026-06-15", "2026-06-16"));
    let widest = EventRange {
        from: Some(Instant::from_micros(i64::MIN)),
        to: Some(Instant::from_micros(i64::MAX)),
    };
    assert_eq!(
        folder("year=9999").overlap(whole_days(widest)),
        Overlap::Inside
    );
}

#[tokio::test]
async fn splits_are_balanced_and_repeatable() {
    let store = memory();
    for size in 1..=40_usize {
        put(
            &store,
            &format!("{size:02}.parquet"),
            vec![b'x'; size * size * 500],
        )
        .await;
    }
    let lister = Lister::new(Duration::ZERO);
    let list = lister
        .list(&file_set(&store), EventRange::ALL, None)
        .await
        .expect("a list");
    for parts in [1, 2, 3, 8, 39, 40, 100] {
        let groups = list.split(parts);
        assert_eq!(groups.len(), parts.min(40));
        let mut all: Vec<_> = groups.concat();
        all.sort_by(|a, b| a.meta.location.cmp(&b.meta.location));
        assert_eq!(all, list.files);
        assert_eq!(groups, list.split(parts));
        if parts <= 8 {
            let loads: Vec<u64> = groups
                .iter()
                .map(|g| g.iter().map(|f| f.meta.size).sum())
                .collect();
            let (low, high) = (
                loads.iter().min().expect("some"),
                loads.iter().max().expect("some"),
            );
            assert!(high - low < list.bytes() / 10, "{loads:?}");
        }
    }
    assert_eq!(
        list.prune(range("2026-01-02", "2026-01-01")).split(4),
        vec![Vec::new()]
    );
}

#[tokio::test]
async fn what_one_statement_saw_the_next_one_sees() {
    let store = memory();
    let old = "year=2026/month=01/day=01/hour=00/a.parquet";
    put(&store, old, "x").await;
    let (lister, set) = (Lister::new(Duration::from_mins(1)), file_set(&store));
    // A wide listing, then a newer narrow one, then a look at the narrow range again.
    for key in 0..5_000 {
        put(
            &store,
            &format!("year=2026/month=06/day=01/hour=00/{key}.parquet"),
            "x",
        )
        .await;
    }
    let narrow = range("2026-01-01", "2026-01-01");
    let whole = lister.list(&set, EventRange::ALL, None).await;
    assert_eq!(whole.expect("a list").files.len(), 5_001);
    put(&store, &old.replace("a.parquet", "b.parquet"), "x").await;
    let newer = lister
        .list(&set, narrow, Some(SystemTime::now()))
        .await
        .expect("a list");
    assert_eq!(newer.files.len(), 2);
    let again = lister.list(&set, narrow, None).await.expect("a list");
    assert_eq!(again.files.len(), 2);
}
