mod accept;
mod damage;
mod erase;
mod faults;
mod keys;
mod settle;

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use featureflight_catalog::Kind;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::group::Layout;
use crate::record::{Block, Operation, Record};
use crate::validate::Refusals;

const ONLINE: Stages = Stages {
    online: true,
    offline: false,
};

/// No checkpoint but those a test asks for, and the one at the end.
fn options() -> OutboxOptions {
    OutboxOptions {
        checkpoint: std::time::Duration::from_secs(3_600),
        reserve_bytes: 0,
        ..OutboxOptions::default()
    }
}

fn layout(group: &str) -> Arc<Layout> {
    Arc::new(Layout {
        group: group.to_owned(),
        record_identifier: 0,
        event_time: 1,
        schema: Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("ts", DataType::Float64, false),
            Field::new("v", DataType::Int64, true),
        ])),
    })
}

/// One put of every value, of the record `id`, at the value's second.
fn block(group: &str, id: &str, values: &[i64]) -> Block {
    let layout = layout(group);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![id; values.len()])),
        Arc::new(arrow::array::Float64Array::from_iter_values(
            values.iter().map(|v| *v as f64),
        )),
        Arc::new(Int64Array::from(values.to_vec())),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&layout.schema), columns).expect("rows");
    Block::new(layout, Operation::Put, None, rows).expect("block")
}

async fn write(outbox: &Outbox, group: &str, id: &str, values: &[i64]) -> Result<Receipt> {
    let mut draft = outbox.draft(ONLINE);
    draft.push(&block(group, id, values)).await?;
    draft.commit(Refusals::default()).await
}

/// What is pending online of a group, in order: identifier and value.
fn pending(outbox: &Outbox, group: &str) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for block in outbox.pending(group, Stage::Online) {
        let rows = Arc::new(block.read().expect("rows"));
        for row in block.unsettled(Stage::Online) {
            let value = rows.text(2, row).expect("a value");
            found.push((rows.identifier(row), value.parse().expect("a number")));
        }
    }
    found
}

fn values(outbox: &Outbox) -> Vec<i64> {
    pending(outbox, "g")
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

fn settle_all(outbox: &Outbox) {
    for group in outbox.pending_groups(Stage::Online) {
        for block in outbox.pending(&group, Stage::Online) {
            outbox.settle(
                block.position,
                Stage::Online,
                &block.unsettled(Stage::Online),
            );
        }
    }
}

/// What a crash at this moment leaves: the files as they are, while the outbox goes on.
fn crash_image(dir: &TempDir) -> TempDir {
    let image = TempDir::new().expect("a directory");
    for entry in std::fs::read_dir(dir.path()).expect("files") {
        let entry = entry.expect("a file");
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).expect("a copy");
    }
    image
}

fn segments(dir: &TempDir) -> Vec<PathBuf> {
    let files = segment::list(dir.path()).expect("segments");
    files.into_iter().map(|(_, path)| path).collect()
}

fn open(dir: &TempDir) -> Outbox {
    Outbox::open(dir.path(), options()).expect("an outbox")
}
