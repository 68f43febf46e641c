//! `CommandGetTables`, with each relation's schema on demand.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::CommandGetTables;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use featureflight_engine::metadata::{CATALOG, FEATURES, TableInfo};

use super::encode::{self, Messages};
use super::{Service, catalogs, column_metadata, pattern};

/// Rows of one batch.
const TABLES_AT_ONCE: usize = 64;

pub(super) fn schema(command: &CommandGetTables) -> SchemaRef {
    let mut fields = vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("table_type", DataType::Utf8, false),
    ];
    if command.include_schema {
        fields.push(Field::new("table_schema", DataType::Binary, false));
    }
    Arc::new(Schema::new(fields))
}

/// The relations by schema, name and type. Their schemas are written as they are sent: those of
/// some thousand wide groups are gigabytes.
pub(super) async fn messages(
    service: &Service,
    caller: &Caller,
    command: CommandGetTables,
) -> Result<Messages> {
    let mut tables = Vec::new();
    if catalogs::selected(command.catalog.as_deref()) {
        let schemas = command.db_schema_filter_pattern.as_deref();
        let names = command.table_name_filter_pattern.as_deref();
        tables = service
            .engine
            .tables(caller, &|name| pattern::matches(schemas, name), &|name| {
                pattern::matches(names, name)
            })
            .await?;
        let types = &command.table_types;
        tables.retain(|table| types.is_empty() || types.iter().any(|kind| kind == table.kind));
        tables.sort_by(|a, b| (&a.schema, &a.name, a.kind).cmp(&(&b.schema, &b.name, b.kind)));
    }
    let announced = schema(&command);
    let of = SchemaRef::clone(&announced);
    let writes = service.engine.gateway().is_some();
    let mut left = tables.into_iter();
    let batches = std::iter::from_fn(move || {
        let some: Vec<_> = left.by_ref().take(TABLES_AT_ONCE).collect();
        (!some.is_empty()).then(|| batch(&some, &of, command.include_schema, writes))
    });
    encode::messages(announced, futures::stream::iter(batches))
}

/// `writes` says whether feature groups can be written.
fn batch(
    tables: &[TableInfo],
    schema: &SchemaRef,
    include_schema: bool,
    writes: bool,
) -> Result<RecordBatch> {
    let text = |value: fn(&TableInfo) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(tables.iter().map(value)))
    };
    let mut columns = vec![
        text(|_| CATALOG),
        text(|t| &t.schema),
        text(|t| &t.name),
        text(|t| t.kind),
    ];
    if include_schema {
        let schemas = tables
            .iter()
            .map(|table| relation_schema(table, writes))
            .collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(BinaryArray::from_iter_values(schemas)));
    }
    RecordBatch::try_new(SchemaRef::clone(schema), columns)
        .map_err(|error| Error::internal(format!("GetTables: {error}")))
}

fn relation_schema(table: &TableInfo, writes: bool) -> Result<prost::bytes::Bytes> {
    let TableInfo { schema, name, .. } = table;
    // What is written to a group is written here; `history` and the rest are views of it.
    let writable = writes && table.kind == "TABLE" && schema == FEATURES;
    let columns = column_metadata::describe_table(&table.columns, CATALOG, schema, name, writable);
    let mut columns = Schema::clone(&columns);
    if let Some(remarks) = &table.remarks {
        columns.metadata.insert(
            featureflight_engine::metadata::REMARKS.to_owned(),
            remarks.clone(),
        );
    }
    encode::schema_message(&columns)
}
