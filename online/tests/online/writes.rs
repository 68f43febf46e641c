//! A request from its batches to the online store and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, NullArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_online::contents::Digester;
use featureflight_online::forward::{ForwardOptions, Forwarder};
use featureflight_online::group::WriteGroup;
use featureflight_online::outbox::{IdempotencyKey, Outbox, OutboxOptions, Receipt, Stage, Stages};
use featureflight_online::record::Operation;
use featureflight_online::store::embedded::EmbeddedStore;
use featureflight_online::validate::{OnError, ValidateOptions};
use featureflight_online::writes::{Once, WriteRequest, read_online, write};
use serde_json::json;
use tempfile::TempDir;

use super::forwarding::Everything;

fn group() -> WriteGroup {
    let group = json!({
        "FeatureGroupName": "customers",
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "ts",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "Integral"},
            {"FeatureName": "ts", "FeatureType": "String"},
            {"FeatureName": "score", "FeatureType": "Fractional"},
            {"FeatureName": "note", "FeatureType": "String"},
        ],
    });
    WriteGroup::new(Arc::new(serde_json::from_value(group).unwrap())).unwrap()
}

fn batch(ids: Vec<i64>, scores: Vec<Option<f64>>) -> RecordBatch {
    let rows = ids.len();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(ids))),
        (
            "ts",
            Arc::new(StringArray::from(vec![
                "2026-01-01T00:00:00.000000001Z";
                rows
            ])),
        ),
        ("score", Arc::new(Float64Array::from(scores))),
        ("note", Arc::new(StringArray::from(vec![Some(""); rows]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

struct Setup {
    outbox: Arc<Outbox>,
    group: WriteGroup,
    dir: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self::open(group(), TempDir::new().unwrap())
    }

    fn open(group: WriteGroup, dir: TempDir) -> Self {
        let options = OutboxOptions {
            reserve_bytes: 0,
            ..OutboxOptions::default()
        };
        Self {
            outbox: Arc::new(Outbox::open(&dir.path().join("outbox"), options).unwrap()),
            group,
            dir,
        }
    }

    /// As after a restart.
    fn reopened(self) -> Self {
        let Self { outbox, group, dir } = self;
        drop(outbox);
        Self::open(group, dir)
    }

    async fn write(
        &self,
        batches: Vec<Result<RecordBatch>>,
        on_error: OnError,
        key: Option<&str>,
    ) -> Result<Receipt> {
        let schema = batch(vec![], vec![]).schema();
        let request = WriteRequest {
            group: &self.group,
            operation: Operation::Put,
            schema: &schema,
            validate: ValidateOptions::default(),
            on_error,
            stages: Stages {
                online: true,
                offline: false,
            },
            once: key.map(|key| Once {
                key: IdempotencyKey {
                    scope: "me".to_owned(),
                    key: key.to_owned(),
                },
                contents: Digester::of_rows(""),
            }),
        };
        write(&self.outbox, request, futures::stream::iter(batches)).await
    }

    fn pending(&self) -> u64 {
        let progress = self.outbox.progress();
        progress
            .groups
            .get("customers")
            .map_or(0, |group| group.online_rows)
    }
}

#[tokio::test]
async fn one_bad_row_refuses_all_or_is_skipped() {
    let setup = Setup::new();
    let batches = || {
        vec![
            Ok(batch(vec![1, 2], vec![Some(0.5), Some(f64::NAN)])),
            Ok(batch(vec![3, 4], vec![Some(f64::INFINITY), None])),
        ]
    };
    let receipt = setup
        .write(batches(), OnError::RefuseAll, Some("k"))
        .await
        .unwrap();
    assert_eq!((receipt.answer.accepted, receipt.accepted_at), (0, None));
    let rows: Vec<u64> = receipt
        .answer
        .refused
        .listed
        .iter()
        .map(|r| r.row)
        .collect();
    assert_eq!(
        (rows, setup.pending()),
        (vec![1, 2], 0),
        "all that is wrong is named"
    );

    // The key is free for the corrected request.
    let receipt = setup
        .write(batches(), OnError::Skip, Some("k"))
        .await
        .unwrap();
    assert_eq!(
        (receipt.answer.accepted, receipt.answer.refused.rows),
        (2, 2)
    );
    assert!(receipt.accepted_at.is_some());
    let repeat = setup
        .write(batches(), OnError::Skip, Some("k"))
        .await
        .unwrap();
    assert_eq!((repeat.answer, repeat.accepted_at), (receipt.answer, None));
    assert_eq!(setup.pending(), 2);
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let mut setup = Setup::new();
    let first = || vec![Ok(batch(vec![1, 2], vec![Some(0.5), None]))];
    let written = setup
        .write(first(), OnError::Skip, Some("k"))
        .await
        .unwrap();
    for reopened in [false, true] {
        if reopened {
            setup = setup.reopened();
        }
        let parts = vec![
            Ok(batch(vec![1], vec![Some(0.5)])),
            Ok(batch(vec![2], vec![None])),
        ];
        let repeat = setup.write(parts, OnError::Skip, Some("k")).await.unwrap();
        assert_eq!(repeat.answer, written.answer);
        for (other, on_error) in [
            (batch(vec![1, 2], vec![Some(0.5), Some(0.0)]), OnError::Skip),
            (batch(vec![2, 1], vec![None, Some(0.5)]), OnError::Skip),
            (batch(vec![1], vec![Some(0.5)]), OnError::Skip),
            (batch(vec![1, 2], vec![Some(0.5), None]), OnError::RefuseAll),
        ] {
            let error = setup.write(vec![Ok(other)], on_error, Some("k")).await;
            assert_eq!(error.unwrap_err().kind, Kind::FailedPrecondition);
        }
    }
    assert_eq!(setup.pending(), 2);
}

#[tokio::test]
async fn a_request_that_breaks_off_leaves_nothing() {
    let setup = Setup::new();
    let batches = vec![
        Ok(batch(vec![1], vec![None])),
        Ok(batch(vec![2], vec![None])),
        Err(Error::new(Kind::Cancelled, "the client went away")),
    ];
    let error = setup.write(batches, OnError::Skip, None).await.unwrap_err();
    assert_eq!((error.kind, setup.pending()), (Kind::Cancelled, 0));
    let other = RecordBatch::try_from_iter([("id", batch(vec![1], vec![None]).column(0).clone())]);
    let batches = vec![Ok(batch(vec![1], vec![None])), Ok(other.unwrap())];
    let error = setup.write(batches, OnError::Skip, None).await.unwrap_err();
    assert_eq!((error.kind, setup.pending()), (Kind::InvalidArgument, 0));
}

#[tokio::test]
async fn what_was_written_is_read_back_with_its_types() {
    let setup = Setup::new();
    let store = EmbeddedStore::open(&setup.dir.path().join("online")).unwrap();
    let router = Arc::new(Everything(Arc::new(store.clone())));
    let _forwarder = Forwarder::start(Arc::clone(&setup.outbox), router, ForwardOptions::default());
    let batches = vec![Ok(batch(vec![1, -2], vec![Some(0.1), None]))];
    setup
        .write(batches, OnError::RefuseAll, None)
        .await
        .unwrap();
    while !setup.outbox.pending_groups(Stage::Online).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let identifiers = ["-2".to_owned(), "7".to_owned(), "1".to_owned()];
    let rows = read_online(&store, &setup.group, &identifiers)
        .await
        .unwrap();
    assert_eq!(rows.schema(), setup.group.shape.state_schema);
    assert_eq!(
        rows.column(0).as_primitive::<Int64Type>().values(),
        &[-2, 1]
    );
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.values(), &[1_767_225_600_000_000; 2]);
    let scores: Vec<_> = rows
        .column(2)
        .as_primitive::<Float64Type>()
        .iter()
        .collect();
    assert_eq!(scores, [None, Some(0.1)]);
    assert_eq!(rows.column(3).as_string_view().value(0), "");
}

/// Rows of nulls take no bytes: many may be there at once.
#[tokio::test]
async fn a_request_lets_others_have_their_turn_and_can_be_given_up() {
    let setup = Setup::new();
    let nulls: ArrayRef = Arc::new(NullArray::new(1 << 22));
    let columns = ["id", "ts", "score", "note"].map(|name| (name, Arc::clone(&nulls), true));
    let nulls = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let schema = nulls.schema();
    let request = || WriteRequest {
        group: &setup.group,
        operation: Operation::Put,
        schema: &schema,
        validate: ValidateOptions::default(),
        on_error: OnError::Skip,
        stages: Stages {
            online: true,
            offline: false,
        },
        once: None,
    };
    let few = futures::stream::iter([Ok(nulls.slice(0, 10_000))]);
    let receipt = write(&setup.outbox, request(), few).await.unwrap();
    assert_eq!(receipt.answer.accepted, 0);
    assert_eq!(
        receipt.answer.refused.rows, 10_000,
        "they have no identifier"
    );
    let batches = futures::stream::iter(vec![Ok(nulls); 4]);
    let work = write(&setup.outbox, request(), batches);
    let began = Instant::now();
    let ended = tokio::time::timeout(Duration::from_millis(300), work).await;
    assert!(ended.is_err(), "it is not done so soon: {ended:?}");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(setup.pending(), 0);
}
