//! Makes and changes the descriptions in the folder, whole or not at all.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{read_group, wrong};
use crate::error::{Error, Kind, Result};
use crate::model::{
    DataCatalogConfig, FeatureDefinition, FeatureGroup, OfflineStoreConfig, S3StorageConfig,
};

/// What stands where AWS has an account and a region.
const ACCOUNT: &str = "000000000000";
const REGION: &str = "local";
const BUCKET: &str = "warehouse";

/// Adds a group that `group` defines, with a place for its files.
pub(super) fn create(dir: &Path, group: FeatureGroup) -> Result<()> {
    let name = group.feature_group_name.clone();
    check_name("feature group", &name)?;
    for definition in &group.feature_definitions {
        check_name("feature", &definition.feature_name)?;
    }
    let group = placed(group, SystemTime::now());
    let path = dir.join("feature-groups").join(format!("{name}.json"));
    put(&path, &group, |unfinished| {
        match fs::hard_link(unfinished, &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::new(
                Kind::AlreadyExists,
                format!("feature group '{name}' exists"),
            )),
            linked => linked.map_err(|error| unwritable(&path, &error)),
        }
    })
}

/// Adds features to the group of this name.
pub(super) fn add_features(dir: &Path, name: &str, features: Vec<FeatureDefinition>) -> Result<()> {
    for definition in &features {
        check_name("feature", &definition.feature_name)?;
    }
    let groups = dir.join("feature-groups");
    for path in super::json_files(&groups)? {
        let mut group = read_group(&path)?;
        if group.feature_group_name != name {
            continue;
        }
        group.feature_definitions.extend(features);
        return put(&path, &group, |unfinished| {
            fs::rename(unfinished, &path).map_err(|error| unwritable(&path, &error))
        });
    }
    Err(Error::not_found(format!(
        "feature group '{name}' does not exist"
    )))
}

/// Removes a group with the Glue table that was given for it, which goes first: alone it would be a
/// table without a group.
pub(super) fn drop_group(dir: &Path, group: &FeatureGroup) -> Result<()> {
    let mut paths = Vec::new();
    let tables = dir.join("glue-tables");
    if let Some(names) = group.glue_names()
        && tables.exists()
    {
        for path in super::json_files(&tables)? {
            let table = super::read_table(&path)?;
            if super::table_key(&table) == names {
                paths.push(path);
            }
        }
    }
    let mut found = false;
    for path in super::json_files(&dir.join("feature-groups"))? {
        if read_group(&path)?.is_same_group(group) {
            paths.push(path);
            found = true;
        }
    }
    if !found {
        return Ok(());
    }
    for path in paths {
        fs::remove_file(&path)
            .and_then(|()| sync(path.parent().unwrap_or(dir)))
            .map_err(|error| {
                let path = path.display();
                Error::unavailable(format!("file '{path}' cannot be removed: {error}"))
            })?;
    }
    Ok(())
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn placed(group: FeatureGroup, now: SystemTime) -> FeatureGroup {
    let epoch = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let name = group.feature_group_name.clone();
    let root = format!("{ACCOUNT}/sagemaker/{REGION}/offline-store/{name}-{epoch}");
    let mut other = group.other;
    other.insert("CreationTime".to_owned(), json!(epoch));
    other.insert("OfflineStoreStatus".to_owned(), json!({"Status": "Active"}));
    FeatureGroup {
        feature_group_arn: Some(format!(
            "arn:aws:sagemaker:{REGION}:{ACCOUNT}:feature-group/{name}"
        )),
        feature_group_status: Some("Created".to_owned()),
        offline_store_config: Some(OfflineStoreConfig {
            s3_storage_config: S3StorageConfig {
                s3_uri: format!("s3://{BUCKET}"),
                resolved_output_s3_uri: Some(format!("s3://{BUCKET}/{root}/data")),
                other: serde_json::Map::new(),
            },
            data_catalog_config: Some(DataCatalogConfig {
                table_name: format!("{}_{epoch}", name.replace('-', "_").to_lowercase()),
                catalog: "AwsDataCatalog".to_owned(),
                database: "sagemaker_featurestore".to_owned(),
                other: serde_json::Map::new(),
            }),
            table_format: None,
            other: serde_json::Map::new(),
        }),
        other,
        ..group
    }
}

/// As AWS wants names of groups and features.
fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let good = name.starts_with(plain)
        && name.ends_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '-' | '_'))
        && name.chars().filter(|c| plain(*c)).count() <= 64;
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "'{name}' cannot name a {what}: letters, digits, hyphens and underscores, at most 64 letters \
         and digits, one at either end"
    )))
}

/// Writes the description beside `path` and lets `name` give it its name.
fn put(path: &Path, group: &FeatureGroup, name: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let json = serde_json::to_value(group).and_then(|json: Value| serde_json::to_vec_pretty(&json));
    let json = json.map_err(|error| wrong(path, &format!("it has no JSON: {error}")))?;
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = path.with_file_name(format!(".{file_name}.{}", rand::random::<u64>()));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&json)?;
        file.sync_all()
    });
    let named = written
        .map_err(|error| unwritable(path, &error))
        .and_then(|()| name(&unfinished));
    fs::remove_file(&unfinished).ok();
    named?;
    sync(path.parent().unwrap_or(path)).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::unavailable(format!(
        "file '{}' cannot be written: {error}",
        path.display()
    ))
}
