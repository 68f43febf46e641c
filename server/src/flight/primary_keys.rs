//! `CommandGetPrimaryKeys`: the record identifier, in `features` only.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetPrimaryKeys;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use featureflight_engine::metadata::CATALOG;

use super::{Service, catalogs};

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The command names a table, it is no pattern. A table that does not exist has no key.
pub(super) async fn batch(
    service: &Service,
    caller: &Caller,
    command: &CommandGetPrimaryKeys,
) -> Result<RecordBatch> {
    let mut tables = Vec::new();
    if catalogs::selected(command.catalog.as_deref()) {
        let wanted = command.db_schema.as_deref();
        tables = service
            .engine
            .tables(
                caller,
                &|name| wanted.is_none_or(|wanted| wanted == name),
                &|name| name == command.table,
            )
            .await?;
        tables.sort_by(|a, b| a.schema.cmp(&b.schema));
    }
    let mut rows = Vec::new();
    for table in &tables {
        for (sequence, column) in (1..).zip(&table.primary_key) {
            rows.push((
                table.schema.as_str(),
                table.name.as_str(),
                column.as_str(),
                sequence,
            ));
        }
    }
    let text = |value: fn(&(&'_ str, &'_ str, &'_ str, i32)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(value)))
    };
    let columns = vec![
        text(|_| CATALOG.to_owned()),
        text(|row| row.0.to_owned()),
        text(|row| row.1.to_owned()),
        text(|row| row.2.to_owned()),
        new_null_array(&DataType::Utf8, rows.len()),
        Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(schema(), columns)
        .map_err(|error| Error::internal(format!("GetPrimaryKeys: {error}")))
}
