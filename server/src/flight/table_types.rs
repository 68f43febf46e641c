//! `CommandGetTableTypes`.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use featureflight_catalog::{Error, Result};
use featureflight_engine::metadata::LOCAL_TEMPORARY;

/// The kinds that `TableInfo` knows, in order.
const TYPES: [&str; 4] = [LOCAL_TEMPORARY, "SYSTEM TABLE", "TABLE", "VIEW"];

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "table_type",
        DataType::Utf8,
        false,
    )]))
}

pub(super) fn batch() -> Result<RecordBatch> {
    RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(TYPES.to_vec()))])
        .map_err(|error| Error::internal(format!("GetTableTypes: {error}")))
}
