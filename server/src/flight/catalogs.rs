//! `CommandGetCatalogs`: there is one.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use featureflight_catalog::{Error, Result};
use featureflight_engine::metadata::CATALOG;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "catalog_name",
        DataType::Utf8,
        false,
    )]))
}

pub(super) fn batch() -> Result<RecordBatch> {
    RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(vec![CATALOG]))])
        .map_err(|error| Error::internal(format!("GetCatalogs: {error}")))
}

/// Whether a command's catalog filter lets ours pass: absent means any, the empty one means
/// relations without a catalog, of which there are none.
pub(super) fn selected(filter: Option<&str>) -> bool {
    filter.is_none_or(|name| name == CATALOG)
}
