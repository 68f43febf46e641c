//! What a write answers.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use featureflight_catalog::Result;
use featureflight_online::validate::Refusals;

/// The outcome of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Rows that are durable.
    pub accepted: u64,
    /// Rows left out, with their reasons.
    pub refused: Refusals,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("accepted", DataType::Int64, false),
        Field::new("refused", DataType::Int64, false),
        Field::new("reasons", DataType::Utf8, true),
    ]))
});

/// How many rows were accepted and refused, and the first reasons.
pub(crate) fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

impl Written {
    /// One row, for drivers that fetch the result of whatever they run.
    pub(crate) fn row(&self) -> Result<RecordBatch> {
        let count = |rows: u64| Arc::new(Int64Array::from(vec![rows.cast_signed()]));
        let reasons = (!self.refused.is_empty()).then(|| self.refused.to_string());
        let columns = vec![
            count(self.accepted) as _,
            count(self.refused.rows) as _,
            Arc::new(StringArray::from(vec![reasons])) as _,
        ];
        RecordBatch::try_new(schema(), columns).map_err(crate::error::internal)
    }
}
