//! Feature groups from a folder of `DescribeFeatureGroup` responses, and Glue tables from a
//! folder of `GetTable` responses, as the AWS command line prints them.
//!
//! ```text
//! DIR/feature-groups/NAME.json    one DescribeFeatureGroup response each
//! DIR/glue-tables/NAME.json       optional: one GetTable response each, or the bare table
//! ```
//!
//! Descriptions of features stand in the group's file, in the shape `DescribeFeatureMetadata`
//! answers with:
//!
//! ```json
//! "FeatureMetadata": [{"FeatureName": "age", "Description": "in years", "Parameters": []}]
//! ```

mod define;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;

use super::{CatalogContents, CatalogSource, GlueColumn, GlueTable};
use crate::error::{Error, Result};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureMetadata, FeatureType, METADATA_KEY};

/// A folder as a control plane. Read anew on every load; [`define`] writes to it.
#[derive(Debug, Clone)]
pub struct FilesSource {
    dir: PathBuf,
    /// One change of a description at a time.
    changes: Arc<tokio::sync::Mutex<()>>,
}

impl FilesSource {
    /// `dir` holds `feature-groups/`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            changes: Arc::default(),
        }
    }
}

#[async_trait]
impl CatalogSource for FilesSource {
    async fn load(&self) -> Result<CatalogContents> {
        let dir = self.dir.clone();
        blocking(move || load(&dir)).await
    }

    async fn create(&self, definition: FeatureGroup) -> Result<()> {
        let dir = self.dir.clone();
        blocking(move || define::create(&dir, definition)).await
    }

    async fn drop_group(&self, group: &FeatureGroup) -> Result<()> {
        let (dir, group) = (self.dir.clone(), group.clone());
        let changes = Arc::clone(&self.changes).lock_owned().await;
        blocking(move || {
            let _one = changes;
            define::drop_group(&dir, &group)
        })
        .await
    }

    async fn add_features(&self, group: &str, features: Vec<FeatureDefinition>) -> Result<()> {
        let (dir, group) = (self.dir.clone(), group.to_owned());
        let changes = Arc::clone(&self.changes).lock_owned().await;
        blocking(move || {
            let _one = changes;
            define::add_features(&dir, &group, features)
        })
        .await
    }

    async fn feature_metadata(
        &self,
        group: &FeatureGroup,
    ) -> Result<BTreeMap<String, FeatureMetadata>> {
        metadata(group).map_err(|why| {
            Error::precondition(format!(
                "feature group '{}': {why}",
                group.feature_group_name
            ))
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("the catalog folder broke off").with_source(error))?
}

fn load(dir: &Path) -> Result<CatalogContents> {
    let groups_dir = dir.join("feature-groups");
    if !groups_dir.is_dir() {
        return Err(Error::precondition(format!(
            "'{}' is not a catalog: it has no folder 'feature-groups' of DescribeFeatureGroup \
             responses",
            dir.display()
        )));
    }
    let mut groups: Vec<Arc<FeatureGroup>> = Vec::new();
    let mut seen: HashMap<String, PathBuf> = HashMap::new();
    for path in json_files(&groups_dir)? {
        let group = read_group(&path)?;
        let name = group.feature_group_name.clone();
        if let Some(first) = seen.insert(name.clone(), path.clone()) {
            return Err(wrong(
                &path,
                &format!(
                    "it defines feature group '{name}' again, after '{}'",
                    first.display()
                ),
            ));
        }
        groups.push(Arc::new(group));
    }
    let mut tables = read_tables(&dir.join("glue-tables"))?;
    let known: HashSet<_> = tables.iter().map(table_key).collect();
    let derived: Vec<_> = groups
        .iter()
        .filter_map(|group| glue_table(group))
        .collect();
    tables.extend(
        derived
            .into_iter()
            .filter(|table| !known.contains(&table_key(table))),
    );
    Ok(CatalogContents {
        groups,
        tables,
        ..CatalogContents::default()
    })
}

fn table_key(table: &GlueTable) -> (String, String) {
    (table.database.to_lowercase(), table.name.to_lowercase())
}

fn read_group(path: &Path) -> Result<FeatureGroup> {
    let json = read_json(path)?;
    if json.get("FeatureGroupName").is_none() {
        return Err(wrong(
            path,
            "it is not a DescribeFeatureGroup response: 'FeatureGroupName' is missing",
        ));
    }
    let group: FeatureGroup = serde_json::from_value(json).map_err(|error| {
        wrong(
            path,
            &format!("it is not a DescribeFeatureGroup response: {error}"),
        )
    })?;
    let more = group
        .other
        .get("NextToken")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !more.is_empty() {
        return Err(wrong(
            path,
            "it is only the first page of the response ('NextToken' is set): ask for the other \
             pages with --next-token, add their FeatureDefinitions and remove 'NextToken'",
        ));
    }
    metadata(&group).map_err(|why| wrong(path, &why))?;
    Ok(group)
}

fn read_tables(dir: &Path) -> Result<Vec<GlueTable>> {
    let mut tables = Vec::new();
    if !dir.exists() {
        return Ok(tables);
    }
    let mut seen: HashMap<(String, String), PathBuf> = HashMap::new();
    for path in json_files(dir)? {
        let table = read_table(&path)?;
        if let Some(first) = seen.insert(table_key(&table), path.clone()) {
            return Err(wrong(
                &path,
                &format!(
                    "it defines table '{}.{}' again, after '{}'",
                    table.database,
                    table.name,
                    first.display()
                ),
            ));
        }
        tables.push(table);
    }
    Ok(tables)
}

fn read_table(path: &Path) -> Result<GlueTable> {
    GlueTable::from_json(read_json(path)?)
        .map_err(|error| wrong(path, &format!("it is not a GetTable response: {error}")))
}

/// The table the service would have made in Glue for a group; none where it makes none.
fn glue_table(group: &FeatureGroup) -> Option<GlueTable> {
    let store = group.offline_store_config.as_ref()?;
    let (database, name) = group.glue_names()?;
    let column = |name: &str, hive_type: &str| GlueColumn {
        name: name.to_lowercase(),
        hive_type: hive_type.to_owned(),
        comment: None,
    };
    let mut columns: Vec<_> = group
        .feature_definitions
        .iter()
        .map(|definition| match &definition.feature_type {
            FeatureType::String => column(&definition.feature_name, "string"),
            FeatureType::Integral => column(&definition.feature_name, "bigint"),
            FeatureType::Fractional => column(&definition.feature_name, "double"),
            FeatureType::Other(other) => column(&definition.feature_name, other),
        })
        .collect();
    columns.push(column("write_time", "timestamp"));
    columns.push(column("api_invocation_time", "timestamp"));
    columns.push(column("is_deleted", "boolean"));
    let mut parameters = BTreeMap::new();
    if store.is_iceberg() {
        parameters.insert("table_type".to_owned(), "ICEBERG".to_owned());
    }
    let class = |name: &str| Some(format!("org.apache.hadoop.hive.ql.io.parquet.{name}"));
    Some(GlueTable {
        database,
        name,
        columns,
        partition_keys: Vec::new(),
        location: store.s3_storage_config.resolved_output_s3_uri.clone(),
        serde: class("serde.ParquetHiveSerDe"),
        input_format: class("MapredParquetInputFormat"),
        parameters,
    })
}

/// The descriptions that stand in a group's own JSON.
fn metadata(group: &FeatureGroup) -> Result<BTreeMap<String, FeatureMetadata>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        feature_name: String,
        #[serde(flatten)]
        metadata: FeatureMetadata,
    }

    let Some(json) = group.other.get(METADATA_KEY) else {
        return Ok(BTreeMap::new());
    };
    let entries = Vec::<Entry>::deserialize(json).map_err(|error| {
        format!("'{METADATA_KEY}' is not a list of {{FeatureName, Description}}: {error}")
    })?;
    let mut metadata = BTreeMap::new();
    for entry in entries {
        let name = entry.feature_name;
        if !group
            .feature_definitions
            .iter()
            .any(|definition| definition.feature_name == name)
        {
            return Err(format!(
                "'{METADATA_KEY}' describes feature '{name}', which is not defined"
            ));
        }
        if metadata.insert(name.clone(), entry.metadata).is_some() {
            return Err(format!("'{METADATA_KEY}' describes feature '{name}' twice"));
        }
    }
    Ok(metadata)
}

/// The `.json` files of a folder by name; hidden ones are editors' and tools'.
fn json_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error: std::io::Error| {
        Error::precondition(format!(
            "folder '{}' cannot be read: {error}",
            dir.display()
        ))
        .with_source(error)
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(|error| {
        Error::precondition(format!("file '{}' cannot be read: {error}", path.display()))
            .with_source(error)
    })?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(path, &format!("it is not JSON: {error}")))
}

fn wrong(path: &Path, why: &str) -> Error {
    Error::precondition(format!("file '{}' cannot be used: {why}", path.display()))
}

#[cfg(test)]
mod tests;
