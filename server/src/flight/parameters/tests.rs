//! Parameters as clients send them, and as nobody should.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatchOptions, StringArray};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::{FlightDescriptor, error::FlightError};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).expect("a batch")
}

fn row() -> RecordBatch {
    batch(vec![
        ("1", Arc::new(Int64Array::from(vec![7]))),
        ("2", Arc::new(StringArray::from(vec![Some("seven")]))),
        ("3", Arc::new(StringArray::from(vec![None::<&str>]))),
    ])
}

async fn encode(batches: Vec<RecordBatch>, handling: DictionaryHandling) -> Vec<FlightData> {
    let batches = futures::stream::iter(batches.into_iter().map(Ok::<_, FlightError>));
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(FlightDescriptor::new_cmd("command")))
        .with_dictionary_handling(handling)
        .build(batches)
        .try_collect()
        .await
        .expect("encoded")
}

async fn received(messages: Vec<FlightData>) -> Result<Vec<RecordBatch>> {
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let kept = Kept::from(MemoryConsumer::new("parameters").register(&pool));
    let messages = futures::stream::iter(messages.into_iter().map(Ok)).boxed();
    receive(messages, &kept).await
}

#[tokio::test]
async fn rows_arrive_and_survive_the_handle() {
    let rows = batch(vec![
        (
            "1",
            Arc::new(Int64Array::from(vec![Some(7), None, Some(9)])) as ArrayRef,
        ),
        (
            "2",
            Arc::new(StringArray::from(vec!["seven", "none", "nine"])),
        ),
        (
            "3",
            Arc::new(StringArray::from(vec![None, Some("x"), Some("y")])),
        ),
    ]);
    let sent = vec![rows.slice(0, 1), rows.slice(1, 2)];
    let messages = encode(sent.clone(), DictionaryHandling::Hydrate).await;
    let got = received(messages).await.expect("read");
    assert_eq!(got, sent);
    let kept = write(&got).expect("kept");
    assert_eq!(read(&kept).expect("read back"), sent);
    let text = |text: &str| ScalarValue::Utf8(Some(text.into()));
    assert_eq!(
        featureflight_engine::parameters::values(&got).expect("values"),
        [
            [
                ScalarValue::Int64(Some(7)),
                text("seven"),
                ScalarValue::Utf8(None)
            ],
            [ScalarValue::Int64(None), text("none"), text("x")],
            [ScalarValue::Int64(Some(9)), text("nine"), text("y")],
        ]
    );
}

#[tokio::test]
async fn no_row_is_no_binding() {
    assert!(received(Vec::new()).await.expect("read").is_empty());
    let alone = FlightData::new().with_descriptor(FlightDescriptor::new_cmd("command"));
    assert!(received(vec![alone]).await.expect("read").is_empty());
    let options = RecordBatchOptions::new().with_row_count(Some(0));
    let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options);
    let bare = encode(vec![bare.expect("no columns")], DictionaryHandling::Hydrate).await;
    assert!(received(bare).await.expect("read").is_empty());
}

#[tokio::test]
async fn columns_without_rows_bind_none() {
    let none = row().slice(0, 0);
    let sent = encode(vec![none.clone()], DictionaryHandling::Hydrate).await;
    let got = received(sent).await.expect("read");
    assert_eq!(got, [none]);
    let kept = read(&write(&got).expect("kept")).expect("read back");
    assert_eq!(kept, got);
}

#[tokio::test]
async fn too_much_is_refused() {
    let long = "x".repeat(MAX_BYTES + 1);
    let messages = encode(
        vec![batch(vec![("1", Arc::new(StringArray::from(vec![long])))])],
        DictionaryHandling::Hydrate,
    )
    .await;
    assert_eq!(
        received(messages).await.expect_err("refused").kind,
        Kind::ResourceExhausted
    );
}

/// arrow-ipc panics on a field without a type, and trusts lengths: neither may reach it.
#[tokio::test]
async fn damaged_messages_are_errors() {
    let messages = encode(vec![row()], DictionaryHandling::Hydrate).await;
    let rows_first = messages.iter().rev().cloned().collect();
    assert!(received(rows_first).await.is_err());
    let (schema, rows) = (&messages[0], &messages[1]);
    for position in 0..schema.data_header.len() {
        let _ = received(vec![changed(schema, position), rows.clone()]).await;
    }
    for position in 0..rows.data_header.len() {
        let _ = received(vec![schema.clone(), changed(rows, position)]).await;
    }
    let mut cut = rows.clone();
    cut.data_body = cut.data_body.slice(..cut.data_body.len() / 2);
    assert!(received(vec![schema.clone(), cut]).await.is_err());
}

fn changed(message: &FlightData, position: usize) -> FlightData {
    let mut header = message.data_header.to_vec();
    header[position] = header[position].wrapping_add(0x55);
    FlightData {
        data_header: header.into(),
        ..message.clone()
    }
}

#[tokio::test]
async fn rows_that_take_no_bytes_are_limited_in_number() {
    let nulls: ArrayRef = Arc::new(NullArray::new(MAX_ROWS / 2));
    let half = batch(vec![("1", nulls)]);
    let sent = |batches| encode(batches, DictionaryHandling::Hydrate);
    let all = received(sent(vec![half.clone(), half.clone()]).await).await;
    assert_eq!(all.expect("as many as may be").len(), 2);
    let beyond = vec![half.clone(), half.clone(), half.slice(0, 1)];
    let error = received(sent(beyond).await).await.expect_err("too many");
    assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    assert!(error.message.contains("rows"), "{error}");
}
