//! The JSON of a Glue `Table`, as the API answers and as `aws glue get-table` prints it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{GlueColumn, GlueTable};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Table {
    name: String,
    database_name: String,
    storage_descriptor: Option<StorageDescriptor>,
    partition_keys: Option<Vec<Column>>,
    parameters: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StorageDescriptor {
    columns: Option<Vec<Column>>,
    location: Option<String>,
    input_format: Option<String>,
    serde_info: Option<SerdeInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SerdeInfo {
    serialization_library: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Column {
    name: String,
    r#type: Option<String>,
    comment: Option<String>,
}

impl GlueTable {
    /// From a `Table` structure, or a response that wraps one as `Table`.
    ///
    /// # Errors
    /// What is missing or of the wrong type.
    pub(crate) fn from_json(json: Value) -> Result<Self, serde_json::Error> {
        let json = match json {
            Value::Object(mut object) => object.remove("Table").unwrap_or(Value::Object(object)),
            other => other,
        };
        let table: Table = serde_json::from_value(json)?;
        let storage = table.storage_descriptor.unwrap_or_default();
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            database: table.database_name,
            name: table.name,
            columns: columns(storage.columns),
            partition_keys: columns(table.partition_keys),
            location: given(storage.location),
            serde: given(
                storage
                    .serde_info
                    .and_then(|info| info.serialization_library),
            ),
            input_format: given(storage.input_format),
            parameters: table.parameters.unwrap_or_default(),
        })
    }
}

fn columns(columns: Option<Vec<Column>>) -> Vec<GlueColumn> {
    let column = |column: Column| GlueColumn {
        name: column.name,
        hive_type: column.r#type.unwrap_or_default(),
        comment: column.comment,
    };
    columns
        .unwrap_or_default()
        .into_iter()
        .map(column)
        .collect()
}
