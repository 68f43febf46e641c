//! `system.quarantine`: accepted records that their online store refuses for good.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::table::timestamp_type;
use featureflight_catalog::{Error, Instant, Result};
use featureflight_online::outbox::Quarantined;
use featureflight_online::record::Operation;

use super::{SystemContext, SystemTable};

/// The oldest records that are shown.
const SHOWN: usize = 10_000;

#[derive(Debug)]
pub(super) struct Quarantine;

#[async_trait]
impl SystemTable for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn remarks(&self) -> &'static str {
        "Accepted records that their online store refuses, with the reason: CALL redrive(id) sends \
         one again, CALL discard(id) forgets it"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let time = |name: &str| Field::new(name, timestamp_type(), false);
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            text("feature_group"),
            text("record_identifier"),
            text("event_time"),
            text("operation"),
            text("reason"),
            Field::new("attempts", DataType::Int64, false),
            time("accepted_at"),
            time("quarantined_at"),
        ]))
    }

    async fn rows(
        &self,
        context: &SystemContext,
        _projection: &[usize],
        _keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let found = match context.writes.through() {
            Some(gateway) => {
                let outbox = Arc::clone(&gateway.outbox);
                let listed = tokio::task::spawn_blocking(move || outbox.quarantined(SHOWN)).await;
                listed.map_err(|error| {
                    Error::internal("the quarantine broke off").with_source(error)
                })??
            }
            None => Vec::new(),
        };
        let text = |of: fn(&Quarantined) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(found.iter().map(of)))
        };
        let time = |of: fn(&Quarantined) -> Instant| -> ArrayRef {
            let times = found.iter().map(|one| of(one).micros);
            let times = TimestampMicrosecondArray::from_iter_values(times);
            Arc::new(times.with_data_type(timestamp_type()))
        };
        let number = |of: fn(&Quarantined) -> u64| -> ArrayRef {
            let numbers = found.iter().map(|one| of(one).cast_signed());
            Arc::new(Int64Array::from_iter_values(numbers))
        };
        let columns = vec![
            number(|one| one.id),
            text(|one| &one.group),
            text(|one| &one.identifier),
            text(|one| &one.event_time),
            text(|one| match one.operation {
                Operation::Put => "put",
                Operation::SoftDelete => "soft delete",
                Operation::HardDelete => "hard delete",
            }),
            text(|one| &one.reason),
            number(|one| u64::from(one.attempts)),
            time(|one| one.accepted_at),
            time(|one| one.quarantined_at),
        ];
        RecordBatch::try_new(self.schema(), columns).map_err(crate::error::internal)
    }
}
