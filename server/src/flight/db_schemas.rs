//! `CommandGetDbSchemas`.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetDbSchemas;
use featureflight_catalog::{Error, Result};
use featureflight_engine::metadata::CATALOG;
use featureflight_engine::session::Session;

use super::{Service, catalogs, pattern};

/// Drivers compare it exactly, nullability included.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, false),
    ]))
}

pub(super) fn batch(
    service: &Service,
    session: &Session,
    command: &CommandGetDbSchemas,
) -> Result<RecordBatch> {
    let mut names = service.engine.schemas(session);
    names.retain(|name| {
        catalogs::selected(command.catalog.as_deref())
            && pattern::matches(command.db_schema_filter_pattern.as_deref(), name)
    });
    names.sort();
    let catalogs = StringArray::from(vec![CATALOG; names.len()]);
    RecordBatch::try_new(
        schema(),
        vec![Arc::new(catalogs), Arc::new(StringArray::from(names))],
    )
    .map_err(|error| Error::internal(format!("GetDbSchemas: {error}")))
}
