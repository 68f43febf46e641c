use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::future::join_all;

use super::*;
use crate::error::Kind;
use crate::listing::tests::{Counting, counting};
use crate::scan::fixtures::*;

const NOON: &str = "2026-01-31T12:00:00Z";

/// `files` files of `rows` versions; `Visits` counts through all of them.
async fn many(files: i64, rows: i64) -> (Arc<Counting>, Arc<FeatureTable>, Vec<Arc<DataFile>>) {
    let (counting, store) = counting();
    for file in 0..files {
        let first = file * rows;
        let versions: Vec<_> = (first..first + rows)
            .map(|visits| ("a", NOON, visits, NOON))
            .collect();
        put(&store, &format!("{file:03}.parquet"), customers(&versions)).await;
    }
    let table = table(&store, &CUSTOMERS);
    let files = crate::scan::fixtures::files(&table).await;
    (counting, table, files)
}

fn numbered(files: &[Arc<DataFile>]) -> Vec<(usize, Arc<DataFile>)> {
    files.iter().cloned().enumerate().collect()
}

fn visits() -> Columns {
    Columns {
        features: vec![2],
        ..Columns::default()
    }
}

fn reader(requests_in_flight: usize, bytes_ahead: u64) -> Arc<FileReader> {
    let reader = FileReader::new(0).with_settings(ReadSettings {
        requests_in_flight,
        bytes_ahead,
    });
    Arc::new(reader)
}

/// The rows of all streams, by the number of their file.
async fn rows(run: FileRun, streams: usize) -> BTreeMap<usize, Vec<i64>> {
    let tasks = run.streams(streams).into_iter().map(|mut stream| {
        tokio::spawn(async move {
            let mut rows: Vec<(usize, u64, Vec<i64>)> = Vec::new();
            while let Some((number, batch)) = stream.try_next().await.expect("rows") {
                let values = batch.features[0].as_primitive::<Int64Type>().values();
                rows.push((number, batch.first_row, values.to_vec()));
            }
            rows
        })
    });
    let mut all: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for (number, first_row, values) in join_all(tasks).await.into_iter().flat_map(Result::unwrap) {
        let file = all.entry(number).or_default();
        assert_eq!(file.len() as u64, first_row);
        file.extend(values);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_row_comes_once() {
    let (_, table, files) = many(40, 30).await;
    for (streams, requests, bytes) in [(1, 1, 1), (3, 32, u64::MAX), (4, 2, 4_000), (60, 5, 0)] {
        let metrics = ScanMetrics::unobserved();
        let numbers = numbered(&files)
            .into_iter()
            .map(|(at, file)| (1_000 - at, file));
        let run = reader(requests, bytes).open_many(&table, numbers, &visits(), &metrics);
        let rows = rows(run, streams).await;
        assert_eq!(rows.len(), 40);
        for (number, values) in rows {
            let first = (1_000 - number as i64) * 30;
            assert_eq!(values, (first..first + 30).collect::<Vec<_>>());
        }
        assert_eq!(metrics.files_read.value(), 40);
        let size: u64 = files.iter().map(|file| file.meta.size).sum();
        assert_eq!(metrics.bytes_scanned.value() as u64, size);
    }
}

#[tokio::test]
async fn files_are_opened_in_the_order_given() {
    let (store, table, files) = many(30, 1).await;
    let mut order = numbered(&files);
    order.reverse();
    store.got.lock().clear();
    let metrics = ScanMetrics::unobserved();
    let run = reader(4, u64::MAX).open_many(&table, order, &visits(), &metrics);
    rows(run, 1).await;
    let expected: Vec<_> = files
        .iter()
        .rev()
        .map(|file| file.meta.location.clone())
        .collect();
    assert_eq!(*store.got.lock(), expected);
}

#[tokio::test]
async fn requests_in_flight_are_bounded_over_all_streams() {
    let (store, table, files) = many(60, 1).await;
    store.delay.store(2, Ordering::Relaxed);
    for limit in [1, 7] {
        store.most_under_way.store(0, Ordering::Relaxed);
        let metrics = ScanMetrics::unobserved();
        let run = reader(limit, u64::MAX).open_many(&table, numbered(&files), &visits(), &metrics);
        assert_eq!(rows(run, 20).await.len(), 60);
        assert_eq!(store.most_under_way.load(Ordering::Relaxed), limit);
    }
}

#[tokio::test]
async fn bytes_ahead_are_bounded() {
    let (store, table, files) = many(60, 100).await;
    let size = files[0].meta.size;
    let metrics = ScanMetrics::unobserved();
    let opened = async |bytes| {
        store.got.lock().clear();
        let run = reader(32, bytes).open_many(&table, numbered(&files), &visits(), &metrics);
        let mut streams = run.streams(1);
        assert!(streams[0].try_next().await.expect("rows").is_some());
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.got.lock().len()
    };
    assert_eq!(opened(0).await, 2, "one is read and one is ahead");
    assert_eq!(opened(4 * size).await, 5);
    assert_eq!(opened(u64::MAX).await, 33);
}

#[tokio::test]
async fn files_nobody_wants_are_left_out() {
    let (store, table, files) = many(50, 5).await;
    let metrics = ScanMetrics::unobserved();
    // Everything even, until the end is reached.
    let ended = Arc::new(AtomicBool::new(false));
    let run = reader(4, u64::MAX)
        .open_many(&table, numbered(&files), &visits(), &metrics)
        .wanted({
            let ended = Arc::clone(&ended);
            move |number| number % 2 == 0 && !ended.load(Ordering::Relaxed)
        });
    store.got.lock().clear();
    let mut stream = run.streams(1).remove(0);
    let mut seen = Vec::new();
    while let Some((number, batch)) = stream.try_next().await.expect("rows") {
        assert_eq!(batch.rows, 5, "what was begun is read to its end");
        seen.push(number);
        if number == 20 {
            ended.store(true, Ordering::Relaxed);
        }
    }
    assert_eq!(seen, (0..=20).step_by(2).collect::<Vec<_>>());
    let opened = store.got.lock().len();
    assert!(opened <= seen.len() + 4, "{opened} files were opened");
}

#[tokio::test]
async fn dropped_streams_stop_all_work() {
    let (store, table, files) = many(60, 1).await;
    store.delay.store(5, Ordering::Relaxed);
    let metrics = ScanMetrics::unobserved();
    let run = reader(8, u64::MAX).open_many(&table, numbered(&files), &visits(), &metrics);
    let mut streams = run.streams(2);
    assert!(streams[0].try_next().await.expect("rows").is_some());
    drop(streams);
    let begun = store.got.lock().len();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(store.got.lock().len(), begun);
    assert!(begun < 20);
}

#[tokio::test]
async fn errors_end_a_stream() {
    let (_, table, files) = many(9, 1).await;
    let store = Arc::clone(&table.files.location.store);
    put(&store, "004.parquet", customers(&[])).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let metrics = ScanMetrics::unobserved();
    let run = reader(2, u64::MAX)
        .open_many(&table, numbered(&files), &visits(), &metrics)
        .wanted({
            let asked = Arc::clone(&asked);
            move |number| asked.fetch_max(number, Ordering::Relaxed) < 100
        });
    let mut stream = run.streams(1).remove(0);
    for number in 0..4 {
        let (dealt, _) = stream.try_next().await.expect("rows").expect("a batch");
        assert_eq!(dealt, number);
    }
    let error = stream.try_next().await.expect_err("replaced");
    assert_eq!(error.kind, Kind::Aborted, "{error}");
    assert!(stream.try_next().await.expect("the end").is_none());
    assert!(asked.load(Ordering::Relaxed) < 8);
}

#[tokio::test]
async fn without_files_there_are_no_rows() {
    let (_, table, _) = many(0, 0).await;
    let metrics = ScanMetrics::unobserved();
    let run = reader(2, 0).open_many(&table, Vec::new(), &visits(), &metrics);
    assert!(rows(run, 3).await.is_empty());
}
