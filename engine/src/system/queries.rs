//! `system.queries`: running queries and the most recent finished ones.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use featureflight_catalog::Result;
use featureflight_catalog::table::timestamp_type;

use super::feature_groups::micros;
use super::{SystemContext, SystemTable};
use crate::query::QueryStatus;

#[derive(Debug)]
pub(super) struct Queries;

#[async_trait]
impl SystemTable for Queries {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn remarks(&self) -> &'static str {
        "Running queries and the most recent finished ones, newest first"
    }

    fn schema(&self) -> SchemaRef {
        let number = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, false),
            Field::new("session", DataType::Utf8, false),
            Field::new("statement", DataType::Utf8, false),
            Field::new("state", DataType::Utf8, false),
            Field::new("started_at", timestamp_type(), true),
            number("planning_ms", true),
            number("queued_ms", true),
            number("running_ms", true),
            number("rows", false),
            number("bytes", false),
            number("files", false),
            Field::new("progress", DataType::Float64, true),
            Field::new("error", DataType::Utf8, true),
        ]))
    }

    async fn rows(
        &self,
        context: &SystemContext,
        _projection: &[usize],
        _keys: Option<&[String]>,
    ) -> Result<RecordBatch> {
        let queries = context.queries.statuses();
        let text = |value: fn(&QueryStatus) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(queries.iter().map(value)))
        };
        let number = |value: fn(&QueryStatus) -> Option<u64>| -> ArrayRef {
            let values = queries
                .iter()
                .map(|q| value(q).and_then(|n| i64::try_from(n).ok()));
            Arc::new(values.collect::<Int64Array>())
        };
        let started: TimestampMicrosecondArray =
            queries.iter().map(|query| micros(query.started)).collect();
        RecordBatch::try_new(
            self.schema(),
            vec![
                text(|query| &query.id),
                text(|query| &query.session),
                text(|query| &query.statement),
                text(|query| query.state.name()),
                Arc::new(started.with_data_type(timestamp_type())),
                number(|query| query.planning_ms),
                number(|query| query.queued_ms),
                number(|query| query.running_ms),
                number(|query| Some(query.rows)),
                number(|query| Some(query.bytes)),
                number(|query| Some(query.files)),
                Arc::new(
                    queries
                        .iter()
                        .map(|query| query.progress)
                        .collect::<Float64Array>(),
                ),
                Arc::new(
                    queries
                        .iter()
                        .map(|query| query.error.as_deref())
                        .collect::<StringArray>(),
                ),
            ],
        )
        .map_err(crate::error::internal)
    }
}
