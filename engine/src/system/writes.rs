//! `system.writes`: what waits in the outbox, and how its groups are forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::table::timestamp_type;
use featureflight_catalog::{Instant, Result};
use featureflight_online::forward::LaneStatus;
use featureflight_online::outbox::GroupProgress;

use super::{SystemContext, SystemTable};

#[derive(Debug)]
pub(super) struct Writes;

#[async_trait]
impl SystemTable for Writes {
    fn name(&self) -> &'static str {
        "writes"
    }

    fn remarks(&self) -> &'static str {
        "Feature groups with rows in the outbox or forwarded since the start, and how far they are"
    }

    fn schema(&self) -> SchemaRef {
        let number = |name: &str| Field::new(name, DataType::Int64, false);
        Arc::new(Schema::new(vec![
            Field::new("feature_group", DataType::Utf8, false),
            Field::new("store", DataType::Utf8, true),
            number("waiting_writes"),
            number("waiting_online"),
            number("waiting_offline"),
            Field::new("oldest_waiting_online", timestamp_type(), true),
            Field::new("oldest_waiting_offline", timestamp_type(), true),
            Field::new("waited_seconds", DataType::Float64, true),
            number("sent"),
            number("retried"),
            number("quarantined"),
            number("landed"),
            Field::new("last_landed", timestamp_type(), true),
            Field::new("landing_seconds", DataType::Float64, true),
            number("overdue"),
            Field::new("trouble", DataType::Utf8, true),
        ]))
    }

    async fn rows(
        &self,
        context: &SystemContext,
        _projection: &[usize],
        _keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let (waiting, lanes) = match context.writes.through() {
            Some(gateway) => (
                gateway.outbox.progress().groups,
                gateway.lanes.lock().clone(),
            ),
            None => (BTreeMap::new(), BTreeMap::new()),
        };
        let names: BTreeSet<&String> = waiting.keys().chain(lanes.keys()).collect();
        let (none, idle) = (GroupProgress::default(), LaneStatus::default());
        let rows: Vec<(&String, &GroupProgress, &LaneStatus)> = names
            .into_iter()
            .map(|name| {
                let progress = waiting.get(name).unwrap_or(&none);
                (name, progress, lanes.get(name).unwrap_or(&idle))
            })
            .collect();
        let number = |of: fn(&GroupProgress, &LaneStatus) -> u64| -> ArrayRef {
            let values = rows.iter().map(|(_, waits, lane)| of(waits, lane));
            Arc::new(Int64Array::from_iter_values(values.map(u64::cast_signed)))
        };
        let time = |of: fn(&GroupProgress, &LaneStatus) -> Option<Instant>| -> ArrayRef {
            let times = rows
                .iter()
                .map(|(_, waits, lane)| of(waits, lane).map(|at| at.micros));
            let times: TimestampMicrosecondArray = times.collect();
            Arc::new(times.with_data_type(timestamp_type()))
        };
        let now = Instant::now();
        let waited = rows.iter().map(|(_, waits, _)| {
            let oldest = waits.oldest_online.into_iter().chain(waits.oldest_offline);
            oldest.min().map(|at| (now.micros - at.micros) as f64 / 1e6)
        });
        let landing = rows.iter().map(|(_, _, lane)| lane.landing_seconds);
        let texts = |of: &dyn Fn(&LaneStatus) -> Option<String>| -> ArrayRef {
            let texts = rows.iter().map(|(_, _, lane)| of(lane));
            Arc::new(texts.collect::<StringArray>())
        };
        let columns = vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef,
            texts(&|lane| Some(lane.store.clone()).filter(|store| !store.is_empty())),
            number(|waits, _| waits.requests),
            number(|waits, _| waits.online_rows),
            number(|waits, _| waits.offline_rows),
            time(|waits, _| waits.oldest_online),
            time(|waits, _| waits.oldest_offline),
            Arc::new(waited.collect::<Float64Array>()),
            number(|_, lane| lane.sent),
            number(|_, lane| lane.retried),
            number(|_, lane| lane.quarantined),
            number(|_, lane| lane.landed),
            time(|_, lane| lane.last_landed),
            Arc::new(landing.collect::<Float64Array>()),
            number(|_, lane| lane.overdue),
            texts(&|lane| lane.trouble.clone()),
        ];
        RecordBatch::try_new(self.schema(), columns).map_err(crate::error::internal)
    }
}
