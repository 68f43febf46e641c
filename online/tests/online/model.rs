//! The reference: what the contract says a sequence of writes leaves online, in the plainest form.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use featureflight_online::group::{Layout, Ttl};
use featureflight_online::record::{Block, Operation, Record};
use featureflight_online::store::StoredRecord;
use rand::Rng;

/// One write: an identifier, an event time in seconds and, for a put, a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) identifier: String,
    pub(super) time: i64,
    pub(super) operation: Operation,
    pub(super) value: i64,
}

impl Write {
    pub(super) fn put(identifier: &str, time: i64, value: i64) -> Self {
        Self {
            identifier: identifier.to_owned(),
            time,
            operation: Operation::Put,
            value,
        }
    }

    /// Of few identifiers and times, so that all rules are met.
    pub(super) fn random(random: &mut impl Rng, identifiers: u32, value: i64) -> Self {
        Self {
            identifier: format!("id/{}", random.random_range(0..identifiers)),
            time: random.random_range(0..40),
            operation: match random.random_range(0..10) {
                0 => Operation::SoftDelete,
                1 => Operation::HardDelete,
                _ => Operation::Put,
            },
            value,
        }
    }

    pub(super) fn block(&self, group: &str) -> Block {
        block(group, std::slice::from_ref(self), None)
    }

    pub(super) fn record(&self, group: &str) -> Record {
        record(self.block(group))
    }
}

pub(super) fn record(block: Block) -> Record {
    Record {
        block: Arc::new(block),
        row: 0,
    }
}

/// Features `id`, `ts` and `v`; a delete has the first two.
pub(super) fn layout(group: &str, operation: Operation) -> Arc<Layout> {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("ts", DataType::Float64, false),
        Field::new("v", DataType::Int64, true),
    ];
    if operation.is_delete() {
        fields.pop();
    }
    Arc::new(Layout {
        group: group.to_owned(),
        record_identifier: 0,
        event_time: 1,
        schema: Arc::new(Schema::new(fields)),
    })
}

/// Writes of one operation.
pub(super) fn block(group: &str, writes: &[Write], ttl: Option<Ttl>) -> Block {
    let operation = writes[0].operation;
    let layout = layout(group, operation);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            writes.iter().map(|w| &w.identifier),
        )),
        Arc::new(Float64Array::from_iter_values(
            writes.iter().map(|w| w.time as f64),
        )),
    ];
    if !operation.is_delete() {
        columns.push(Arc::new(Int64Array::from_iter_values(
            writes.iter().map(|w| w.value),
        )));
    }
    let rows = RecordBatch::try_new(Arc::clone(&layout.schema), columns).unwrap();
    Block::new(layout, operation, ttl, rows).unwrap()
}

/// What is online: an event time, and a value unless it is softly deleted.
#[derive(Debug, Default)]
pub(super) struct Model(BTreeMap<String, (i64, Option<i64>)>);

impl Model {
    /// False for a hard delete that is refused because it is not newer.
    pub(super) fn apply(&mut self, write: &Write) -> bool {
        let stored = self.0.get(&write.identifier).map(|(time, _)| *time);
        let newer = stored.is_none_or(|stored| write.time > stored);
        let key = write.identifier.clone();
        match (write.operation, newer) {
            (Operation::HardDelete, false) => return false,
            (_, false) => {}
            (Operation::Put, true) => drop(self.0.insert(key, (write.time, Some(write.value)))),
            (Operation::SoftDelete, true) => drop(self.0.insert(key, (write.time, None))),
            (Operation::HardDelete, true) => drop(self.0.remove(&key)),
        }
        true
    }

    /// What a read of `identifier` answers.
    pub(super) fn read(&self, identifier: &str) -> Option<(i64, i64)> {
        let (time, value) = self.0.get(identifier)?;
        Some((*time, (*value)?))
    }
}

/// Event time and value of a stored record.
pub(super) fn read(stored: Option<&StoredRecord>) -> Option<(i64, i64)> {
    let stored = stored?;
    let get = |wanted: &str| {
        let value = stored.values.iter().find(|(name, _)| name == wanted);
        value
            .unwrap_or_else(|| panic!("no {wanted} in {stored:?}"))
            .1
            .clone()
    };
    assert_eq!(get("id"), stored.identifier);
    let time: f64 = get("ts").parse().unwrap();
    Some((time as i64, get("v").parse().unwrap()))
}
