use std::sync::Arc;

use arrow::array::RecordBatch;
use featureflight_catalog::{Kind, Result};
use futures::TryStreamExt;

use super::{Server, lines, server};
use crate::query::{PinnedQuery, QueryState};

impl Server {
    async fn slice(&self, query: &Arc<PinnedQuery>, slice: usize) -> Result<Vec<RecordBatch>> {
        let stream = self.engine.run_slice(query, Some(slice), None).await?;
        stream.try_collect().await
    }
}

async fn with_files(files: usize) -> Server {
    let server = server().await;
    for file in 0..files {
        let (id, time) = (format!("d{file}"), format!("2026-01-02T{file:02}:00:00Z"));
        server.put("customers", "more", &[(&id, &time, 1, &time)]);
    }
    server
        .rows("SET featureflight.endpoints = 3")
        .await
        .unwrap();
    server
}

#[tokio::test]
async fn slices_are_the_whole_together() {
    let server = with_files(7).await;
    for sql in [
        "SELECT * FROM history.customers",
        "SELECT customer_id, age + 1 AS older FROM history.customers WHERE age < 31",
        "SELECT age FROM sagemaker_featurestore.customers_1",
        "SELECT age FROM history.customers UNION ALL SELECT age FROM history.customers WHERE age > 1",
    ] {
        let query = server.pin(sql).await.unwrap();
        assert!(query.slices > 1, "{sql}");
        let whole = lines(&server.rows_of(&query).await.unwrap());
        let mut together = Vec::new();
        for slice in 0..query.slices {
            let rows = lines(&server.slice(&query, slice).await.unwrap());
            assert_eq!(
                rows,
                lines(&server.slice(&query, slice).await.unwrap()),
                "again"
            );
            together.extend(rows);
        }
        together.sort();
        assert_eq!(together, whole, "{sql}");
        let error = server.slice(&query, query.slices).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument);
    }
}

#[tokio::test]
async fn there_are_no_more_slices_than_were_asked_for() {
    let server = with_files(7).await;
    let sql = ["SELECT age FROM history.customers"; 10].join(" UNION ALL ");
    let query = server.pin(&sql).await.unwrap();
    assert_eq!(query.slices, 3);
    let whole = lines(&server.rows_of(&query).await.unwrap());
    let mut together = Vec::new();
    for slice in 0..3 {
        let rows = lines(&server.slice(&query, slice).await.unwrap());
        assert!(!rows.is_empty());
        together.extend(rows);
    }
    together.sort();
    assert_eq!(together, whole);
}

#[tokio::test]
async fn what_shares_work_or_has_an_order_stays_whole() {
    let server = with_files(7).await;
    for sql in [
        "SELECT * FROM customers",
        "SELECT count(*) FROM history.customers",
        "SELECT DISTINCT age FROM history.customers",
        "SELECT * FROM history.customers ORDER BY age",
        "SELECT * FROM history.customers LIMIT 5",
        "SELECT * FROM history.customers WHERE age > (SELECT min(age) FROM history.customers)",
        "SELECT * FROM history.customers a JOIN history.customers b USING (customer_id)",
        "SELECT age, row_number() OVER (ORDER BY age) FROM history.customers",
        "SELECT 1",
        "SHOW ALL",
    ] {
        let query = server.pin(sql).await.unwrap();
        assert_eq!(query.slices, 1, "{sql}");
    }
    let query = server.pin("SELECT * FROM customers").await.unwrap();
    assert_eq!(query.whole_because, Some("its parts share work"));
    server.rows("RESET featureflight.endpoints").await.unwrap();
    let query = server.pin("SELECT * FROM history.customers").await.unwrap();
    assert_eq!((query.slices, query.whole_because), (1, None));
}

#[tokio::test]
async fn the_log_adds_slices_up_and_begins_anew() {
    let server = with_files(7).await;
    let query = server
        .pin("SELECT age FROM history.customers")
        .await
        .unwrap();
    let whole = server.rows_of(&query).await.unwrap();
    let rows: usize = whole.iter().map(RecordBatch::num_rows).sum();
    for _ in 0..2 {
        for slice in 0..query.slices {
            server.slice(&query, slice).await.unwrap();
        }
        let status = query.watch().status();
        assert_eq!(status.rows, rows as u64);
        assert_eq!(status.state, QueryState::Succeeded);
        assert_eq!(status.progress, Some(1.0));
    }
}

#[tokio::test]
async fn a_statement_that_does_not_repeat_gives_each_slice_once() {
    let server = with_files(7).await;
    let sql = "SELECT random() AS x FROM history.customers";
    let query = server.pin(sql).await.unwrap();
    for slice in 0..query.slices {
        server.slice(&query, slice).await.unwrap();
        let again = server.slice(&query, slice).await.unwrap_err();
        assert_eq!(again.kind, Kind::Aborted);
    }
}
