use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, FixedSizeBinaryArray, Int64Array, NullArray, RecordBatch, StringArray,
};
use arrow::datatypes::SchemaRef;
use featureflight_catalog::{Kind, Result};

use super::{Server, lines, server, server_with};
use crate::EngineOptions;
use crate::caller::Caller;
use crate::temp_tables::{IfExists, Target, Upload};

fn target(table: &str) -> Target {
    Target {
        table: table.into(),
        schema: None,
        catalog: None,
        temporary: true,
        create: true,
        if_exists: IfExists::Fail,
    }
}

fn rows(ids: &[&str], numbers: &[i64]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("id", Arc::new(StringArray::from(ids.to_vec())) as ArrayRef),
        ("n", Arc::new(Int64Array::from(numbers.to_vec()))),
    ])
    .unwrap()
}

impl Server {
    fn begin(&self, target: Target, schema: SchemaRef) -> Result<Upload> {
        self.engine
            .upload(&Caller::from(&self.session), target, schema)
    }

    fn upload(&self, target: Target, batches: &[RecordBatch]) -> Result<u64> {
        let mut upload = self.begin(target, batches[0].schema())?;
        for batch in batches {
            upload.push(batch.clone())?;
        }
        upload.finish()
    }

    fn reserved(&self) -> usize {
        self.engine.core.memory.kept().reserved()
    }

    /// Waits for the query that was read to its end: its own threads let go of its plan after
    /// the last batch was handed over.
    async fn gives_back_to(&self, wanted: usize) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.reserved() != wanted && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.reserved(), wanted);
    }
}

#[tokio::test]
async fn an_upload_is_a_table_of_its_session() {
    let server = server().await;
    let sent = [rows(&["a", "b"], &[1, 2]), rows(&["c"], &[3])];
    assert_eq!(server.upload(target("Spine"), &sent).unwrap(), 3);
    assert_eq!(
        server.lines("SELECT id, n FROM spine").await,
        ["a 1", "b 2", "c 3"]
    );
    assert_eq!(
        server.lines("SELECT sum(n) FROM temp.\"Spine\"").await,
        ["6"]
    );
    assert_eq!(
        server
            .lines("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'temp'")
            .await,
        ["Spine LOCAL TEMPORARY"]
    );
    let travel = server
        .error("SELECT * FROM spine FOR SYSTEM_TIME AS OF '2026-01-01'")
        .await;
    assert_eq!(travel.kind, Kind::InvalidArgument);
    assert!(travel.message.contains("temporary table"), "{travel}");

    let other = Arc::new(crate::session::Session::new("other"));
    let unknown = server
        .engine
        .pin(&other, "SELECT * FROM spine", Vec::new())
        .await;
    assert_eq!(unknown.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn rows_that_come_one_by_one_are_read_as_they_came() {
    let server = server().await;
    let sent: Vec<_> = (0..2_000).map(|n| rows(&["x"], &[n])).collect();
    assert_eq!(server.upload(target("t"), &sent).unwrap(), 2_000);
    let got = server.rows("SELECT n FROM t").await.unwrap();
    let whole: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_000));
    assert_eq!(got.len(), 1, "one batch");
    assert_eq!(got[0].column(0), &whole);
}

#[tokio::test]
async fn an_upload_without_rows_is_a_table_without_rows() {
    let server = server().await;
    assert_eq!(server.upload(target("t"), &[rows(&[], &[])]).unwrap(), 0);
    let query = server.pin("SELECT * FROM t").await.unwrap();
    assert_eq!(query.schema.fields().len(), 2);
    assert!(server.rows_of(&query).await.unwrap().is_empty());
    assert_eq!(server.lines("SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn clocks_leave_uploads_alone() {
    let server = server().await;
    server.upload(target("t"), &[rows(&["a"], &[1])]).unwrap();
    server
        .rows("SET featureflight.system_time = '1990-01-01'")
        .await
        .unwrap();
    assert_eq!(server.lines("SELECT id FROM t").await, ["a"]);
}

#[tokio::test]
async fn what_is_there_already_decides() {
    let server = server().await;
    let sent = [rows(&["a"], &[1])];
    let with = |create, if_exists| Target {
        create,
        if_exists,
        ..target("t")
    };
    let append = || with(false, IfExists::Append);
    assert_eq!(
        server.upload(append(), &sent).unwrap_err().kind,
        Kind::NotFound
    );
    server.upload(target("t"), &sent).unwrap();
    assert_eq!(
        server.upload(target("t"), &sent).unwrap_err().kind,
        Kind::AlreadyExists
    );
    server.upload(append(), &[rows(&["b"], &[2])]).unwrap();
    assert_eq!(server.lines("SELECT * FROM t").await, ["a 1", "b 2"]);

    // By name, in any order; a column of nulls has no type of its own.
    let nulls: ArrayRef = Arc::new(NullArray::new(1));
    let id: ArrayRef = Arc::new(StringArray::from(vec!["c"]));
    let turned = RecordBatch::try_from_iter_with_nullable([("n", nulls, true), ("id", id, true)]);
    server.upload(append(), &[turned.unwrap()]).unwrap();
    assert_eq!(
        server.lines("SELECT count(n), count(id) FROM t").await,
        ["2 3"]
    );

    let other =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let other = [other.unwrap()];
    let misfit = server.upload(append(), &other).unwrap_err();
    assert_eq!(misfit.kind, Kind::InvalidArgument);
    assert!(misfit.message.contains("1 columns for its 2"), "{misfit}");
    server
        .upload(with(true, IfExists::Replace), &other)
        .unwrap();
    assert_eq!(server.lines("SELECT * FROM t").await, ["1"]);
    server.rows("DROP TABLE t").await.unwrap();
    assert_eq!(server.error("SELECT * FROM t").await.kind, Kind::NotFound);
    server.rows("DROP TABLE IF EXISTS t").await.unwrap();
}

#[tokio::test]
async fn names_that_hide_something_and_tables_that_would_stay_are_refused() {
    let server = server().await;
    let sent = [rows(&["a"], &[1])];
    server
        .rows("CREATE TEMP VIEW v AS SELECT 1 AS x")
        .await
        .unwrap();
    for taken in [
        "customers",
        "CUSTOMERS",
        "loyal_customers",
        "customers_1",
        "v",
    ] {
        let error = server.upload(target(taken), &sent).unwrap_err();
        assert_eq!(error.kind, Kind::AlreadyExists, "{taken}: {error}");
    }
    server.upload(target("t"), &sent).unwrap();
    for hiding in ["CREATE TEMP VIEW t AS SELECT 1 AS x"] {
        assert_eq!(server.error(hiding).await.kind, Kind::AlreadyExists);
    }
    let elsewhere = [
        Target {
            temporary: false,
            ..target("x")
        },
        Target {
            schema: Some("features".into()),
            ..target("x")
        },
        Target {
            catalog: Some("other".into()),
            ..target("x")
        },
        target(""),
    ];
    for wrong in elsewhere {
        let error = server.upload(wrong.clone(), &sent).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument, "{wrong:?}");
    }
    let here = Target {
        schema: Some("temp".into()),
        catalog: Some("featureflight".into()),
        ..target("x")
    };
    server.upload(here, &sent).unwrap();
}

#[tokio::test]
async fn an_upload_that_ends_early_leaves_nothing() {
    let server = server().await;
    let sent = rows(&["a"], &[1]);
    let before = server.reserved();
    let mut upload = server.begin(target("t"), sent.schema()).unwrap();
    upload.push(sent).unwrap();
    assert!(server.reserved() > before);
    drop(upload);
    assert_eq!(server.reserved(), before);
    assert_eq!(server.error("SELECT * FROM t").await.kind, Kind::NotFound);
}

#[tokio::test]
async fn memory_is_given_back_when_nobody_reads_it() {
    let server = server().await;
    let before = server.reserved();
    server.upload(target("t"), &[rows(&["a"], &[1])]).unwrap();
    let held = server.reserved();
    assert!(held > before);
    let query = server.pin("SELECT id FROM t").await.unwrap();
    server.rows("DROP TABLE t").await.unwrap();
    assert_eq!(server.reserved(), held, "a pinned query still reads it");
    assert_eq!(lines(&server.rows_of(&query).await.unwrap()), ["a"]);
    drop(query);
    server.gives_back_to(before).await;

    server.upload(target("t"), &[rows(&["a"], &[1])]).unwrap();
    server.session.end();
    assert_eq!(server.reserved(), before, "gone with the session");
}

#[tokio::test]
async fn limits_are_the_sessions_and_say_their_setting() {
    let server = server_with(EngineOptions {
        max_upload_rows: 3,
        max_upload_bytes: 4_096,
        ..EngineOptions::default()
    })
    .await;
    let two = rows(&["a", "b"], &[1, 2]);
    server
        .upload(target("one"), std::slice::from_ref(&two))
        .unwrap();
    let error = server
        .upload(target("two"), std::slice::from_ref(&two))
        .unwrap_err();
    assert_eq!(error.kind, Kind::ResourceExhausted);
    assert!(error.message.contains("engine.max_upload_rows"), "{error}");
    let mut early = server.begin(target("two"), two.schema()).unwrap();
    let error = early.push(two.clone()).unwrap_err();
    assert_eq!(error.kind, Kind::ResourceExhausted, "before it is kept");
    let replace = Target {
        if_exists: IfExists::Replace,
        ..target("one")
    };
    server.upload(replace.clone(), &[two]).unwrap();
    let wide = rows(&[&"x".repeat(8_000)], &[1]);
    let error = server.upload(replace, &[wide]).unwrap_err();
    assert!(error.message.contains("engine.max_upload)"), "{error}");
    assert_eq!(
        server.lines("SELECT count(*) FROM one").await,
        ["2"],
        "as it was"
    );
}

#[tokio::test]
async fn the_memory_of_the_server_is_a_limit_too() {
    let server = server_with(EngineOptions {
        memory_limit_bytes: 1 << 20,
        ..EngineOptions::default()
    })
    .await;
    let wide = rows(&[&"x".repeat(2 << 20)], &[1]);
    let error = server.upload(target("t"), &[wide]).unwrap_err();
    assert_eq!(error.kind, Kind::ResourceExhausted);
}

#[tokio::test]
async fn a_spine_is_joined_point_in_time() {
    let server = server().await;
    let spine = RecordBatch::try_from_iter([
        (
            "customer_id",
            Arc::new(StringArray::from(vec!["c1", "c1", "c9"])) as ArrayRef,
        ),
        (
            "ts",
            Arc::new(arrow::array::TimestampNanosecondArray::from(vec![
                super::millis("2026-01-01T10:30:00Z") * 1_000_000,
                super::millis("2026-01-01T11:00:00Z") * 1_000_000 - 1,
                super::millis("2026-01-01T11:00:00Z") * 1_000_000,
            ])),
        ),
    ])
    .unwrap();
    server.upload(target("spine"), &[spine]).unwrap();
    let joined = server
        .lines("SELECT customer_id, age FROM point_in_time_join(TABLE(spine), 'customers:age')")
        .await;
    assert_eq!(joined, ["c1 30", "c1 30", "c9"]);
}

#[tokio::test]
async fn nulls_without_a_type_count_as_what_they_become() {
    let server = server_with(EngineOptions {
        max_upload_bytes: 1 << 20,
        ..EngineOptions::default()
    })
    .await;
    let wide = FixedSizeBinaryArray::try_from_iter([vec![7_u8; 1_000]].into_iter());
    let wide: ArrayRef = Arc::new(wide.unwrap());
    let wide = RecordBatch::try_from_iter([("c", wide)]).unwrap();
    server.upload(target("t"), &[wide]).unwrap();
    let nulls = |rows| {
        let nulls: ArrayRef = Arc::new(NullArray::new(rows));
        RecordBatch::try_from_iter([("c", nulls)]).unwrap()
    };
    let append = Target {
        if_exists: IfExists::Append,
        ..target("t")
    };
    let before = server.reserved();
    let error = server
        .upload(append.clone(), &[nulls(600), nulls(600)])
        .unwrap_err();
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(error.message.contains("engine.max_upload)"), "{error}");
    assert_eq!(server.reserved(), before);
    server.upload(append, &[nulls(600)]).unwrap();
    assert!(
        server.reserved() - before >= 600_000,
        "for as long as they are kept"
    );
    let all = server.lines("SELECT count(*), count(c) FROM t").await;
    assert_eq!(all, ["601 1"]);
}
