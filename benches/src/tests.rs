use std::fs;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::answer::Answer;
use crate::sink::ParquetSink;
use crate::{floor, slow_s3};

fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
    let text = rows
        .clone()
        .map(|row| (row % 3 > 0).then(|| format!("t{}", row % 100)));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(rows)) as _),
        ("text", Arc::new(StringArray::from_iter(text)) as _),
    ])
    .unwrap()
}

async fn answer(folder: &std::path::Path, batches: &[RecordBatch]) -> Answer {
    let path = folder.join("answer.parquet");
    let mut sink = ParquetSink::create(&path, &batches[0].schema(), 2).unwrap();
    for batch in batches {
        sink.write(batch.clone()).await.unwrap();
    }
    sink.close().await.unwrap();
    Answer::of(&path, Some("text")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_its_rows_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    // More than one row group.
    let batches = [batch(0..1_100_000), batch(1_100_000..1_200_000)];
    let forwards = answer(folder.path(), &batches).await;
    assert_eq!(
        (forwards.rows, forwards.matched),
        (1_200_000, Some(800_000))
    );
    let backwards = answer(folder.path(), &[batches[1].clone(), batches[0].clone()]).await;
    assert_eq!(forwards, backwards);
    let other = answer(folder.path(), &[batch(1..1_200_001)]).await;
    assert_eq!(other.rows, forwards.rows);
    assert_ne!(other.checksum, forwards.checksum);
}

#[tokio::test]
async fn the_floor_reads_every_file_below_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let below = folder.path().join(name);
        fs::create_dir(&below).unwrap();
        answer(&below, &[batch(0..100)]).await;
    }
    let arguments = floor::Arguments {
        folders: vec![folder.path().to_owned()],
    };
    let line = floor::run(&arguments, 2).unwrap();
    assert_eq!(
        (&line["rows"], &line["files_read"]),
        (&200.into(), &2.into())
    );
    assert!(line["bytes_read"].as_u64().unwrap() > 1000);
}

/// A client of a stand-in over `folder`, without latency.
async fn s3(folder: &std::path::Path) -> AmazonS3 {
    let bucket = Arc::new(slow_s3::Bucket::read(folder).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = slow_s3::router(bucket, Duration::ZERO);
    tokio::spawn(async move { axum::serve(listener, router).await });
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id("bench")
        .with_secret_access_key("bench")
        .with_bucket_name("bucket")
        .build()
        .unwrap()
}

#[tokio::test]
async fn s3_lists_in_pages_and_by_folder() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["year=2026/day=01", "year=2026/day=02", "year=20260"] {
        let below = folder.path().join(name);
        fs::create_dir_all(&below).unwrap();
        for file in 0..700 {
            fs::write(below.join(format!("{file:03}.parquet")), "x").unwrap();
        }
    }
    let store = s3(folder.path()).await;
    let prefix = Path::from("year=2026");
    let all: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    assert_eq!(all.len(), 1400);
    let folders = store.list_with_delimiter(Some(&prefix)).await.unwrap();
    let expected = [
        Path::from("year=2026/day=01"),
        Path::from("year=2026/day=02"),
    ];
    assert_eq!(folders.common_prefixes, expected);
    assert!(folders.objects.is_empty());
    let after = Path::from("year=2026/day=02/690.parquet");
    let rest: Vec<_> = store
        .list_with_offset(Some(&prefix), &after)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(rest.len(), 9);
}

#[tokio::test]
async fn s3_gives_ranges_of_the_object_that_was_listed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a=b"), "0123456789").unwrap();
    let store = s3(folder.path()).await;
    let key = Path::from("a=b");
    let ranges = store.get_ranges(&key, &[0..2, 8..20]).await.unwrap();
    assert_eq!(ranges, ["01".as_bytes(), "89".as_bytes()]);
    let listed = store.head(&key).await.unwrap();
    assert_eq!(listed.size, 10);
    let options = |etag: Option<String>| GetOptions {
        range: Some(GetRange::Suffix(3)),
        if_match: etag,
        ..GetOptions::default()
    };
    let end = store.get_opts(&key, options(listed.e_tag)).await.unwrap();
    assert_eq!(end.bytes().await.unwrap(), "789");
    let changed = store.get_opts(&key, options(Some("\"other\"".to_owned())));
    assert!(matches!(changed.await, Err(Error::Precondition { .. })));
    let absent = store.get(&Path::from("absent")).await;
    assert!(matches!(absent, Err(Error::NotFound { .. })));
}
