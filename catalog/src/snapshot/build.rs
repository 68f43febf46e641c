//! Makes a snapshot of what a source answered: what is served, and why the rest is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::{CatalogSnapshot, GroupEntry, RawEntry, Serving};
use crate::error::{Error, Result};
use crate::model::{FeatureGroup, OfflineStoreConfig};
use crate::source::{CatalogContents, GlueTable};
use crate::storage::{Location, S3Url, Storage};
use crate::table::{FeatureTable, RawTable, Shape};

impl CatalogSnapshot {
    /// The picture of `contents`, read from the source at `taken_at`. Groups that are as they
    /// were in `previous` keep their entries.
    ///
    /// # Errors
    /// `FailedPrecondition` when the source names a group twice, and those of
    /// [`Storage::check`]. What is wrong with one group or table is a reason in its entry.
    pub fn build(
        contents: CatalogContents,
        storage: &dyn Storage,
        previous: Option<&Self>,
        taken_at: SystemTime,
    ) -> Result<Self> {
        let mut groups: BTreeMap<String, GroupEntry> = BTreeMap::new();
        for group in contents.groups {
            let name = group.feature_group_name.clone();
            let reason = contents.undescribed.get(&name).cloned();
            let known = previous.and_then(|snapshot| snapshot.groups.get(&name));
            let entry = match (reason, known) {
                (Some(reason), _) => GroupEntry {
                    group,
                    serving: Serving::Unavailable(reason),
                },
                (None, Some(known)) if known.is_served() && known.group == group => known.clone(),
                (None, _) => group_entry(group, storage),
            };
            if groups.insert(name.clone(), entry).is_some() {
                return Err(Error::precondition(format!(
                    "feature group '{name}' is defined twice"
                )));
            }
        }
        let raw = raw_entries(contents.tables, &contents.unlisted, &groups, storage);
        let snapshot = Self {
            groups,
            raw,
            taken_at: Some(taken_at),
        };
        storage.check(&snapshot.locations())?;
        Ok(snapshot)
    }

    /// Which other group than this one has files in `location`, above it or below.
    pub fn group_beside(&self, group: &str, location: &Location) -> Option<&str> {
        let groups = self.groups.iter().filter(|(name, _)| *name != group);
        let mut groups = groups.filter_map(|(name, entry)| match &entry.serving {
            Serving::Served(table) => Some((name, &table.files.location)),
            Serving::OnlineOnly | Serving::Unavailable(_) => None,
        });
        let (name, _) = groups.find(|(_, other)| meet(other, location))?;
        Some(name)
    }

    /// Who else has files in `location`, above it or below: not the group of this name.
    pub(super) fn neighbour(&self, group: &str, location: &Location) -> Option<String> {
        if let Some(name) = self.group_beside(group, location) {
            return Some(format!("feature group '{name}'"));
        }
        let raw = self.raw.values().flat_map(BTreeMap::values);
        let mut raw = raw.filter(|entry| entry.feature_group.as_deref() != Some(group));
        let found = raw.find(|entry| {
            let table = entry.serving.as_ref().ok();
            table.is_some_and(|table| meet(&table.files.location, location))
        })?;
        Some(format!("table '{}.{}'", found.database, found.name))
    }

    fn locations(&self) -> Vec<Location> {
        let groups = self
            .groups
            .values()
            .filter_map(|entry| match &entry.serving {
                Serving::Served(table) => Some(table.files.location.clone()),
                Serving::OnlineOnly | Serving::Unavailable(_) => None,
            });
        let raw = self.raw.values().flat_map(BTreeMap::values);
        let raw = raw.filter_map(|entry| Some(entry.serving.as_ref().ok()?.files.location.clone()));
        groups.chain(raw).collect()
    }
}

impl GroupEntry {
    fn is_served(&self) -> bool {
        matches!(self.serving, Serving::Served(_))
    }
}

fn group_entry(group: Arc<FeatureGroup>, storage: &dyn Storage) -> GroupEntry {
    let table = offline_location(&group, storage)
        .and_then(|location| FeatureTable::new(Arc::clone(&group), location));
    let serving = match table {
        Ok(table) => Serving::Served(Arc::new(table)),
        Err(_) if is_online_only(&group) => Serving::OnlineOnly,
        Err(reason) => Serving::Unavailable(reason),
    };
    GroupEntry { group, serving }
}

/// Whether one lies in the other.
fn meet(one: &Location, other: &Location) -> bool {
    let bucket = |location: &Location| S3Url::parse(&location.url).ok().map(|url| url.bucket);
    bucket(one) == bucket(other)
        && (one.prefix.prefix_matches(&other.prefix) || other.prefix.prefix_matches(&one.prefix))
}

fn is_online_only(group: &FeatureGroup) -> bool {
    let status = group.feature_group_status.as_deref();
    group.offline_store_config.is_none()
        && group.has_online_store()
        && status.is_none_or(|status| status == "Created")
        && Shape::new(group).is_ok()
}

/// Where a group's offline data lies. A store that replication left (`Blocked`, `Disabled`) still
/// has data to read; a group that is not `Created` may have none, or half.
fn offline_location(group: &FeatureGroup, storage: &dyn Storage) -> Result<Location, String> {
    let status = group.feature_group_status.as_deref().unwrap_or("Created");
    if status != "Created" {
        let cause = match group
            .other
            .get("FailureReason")
            .and_then(|cause| cause.as_str())
        {
            Some(cause) if !cause.is_empty() => format!(" ({cause})"),
            _ => String::new(),
        };
        return Err(format!("its status is {status}{cause}"));
    }
    let store = group
        .offline_store_config
        .as_ref()
        .ok_or("it has no offline store")?;
    check_table_format(store)?;
    let url = group
        .data_url()
        .ok_or("its description names no ResolvedOutputS3Uri to read from")?;
    storage.locate(url).map_err(|error| error.message)
}

fn check_table_format(store: &OfflineStoreConfig) -> Result<(), String> {
    match store.table_format.as_deref() {
        None | Some("Glue" | "Default") => Ok(()),
        Some("Iceberg") => {
            Err("its offline store is an Iceberg table, which is not served yet".to_owned())
        }
        Some(other) => Err(format!(
            "its offline store has table format {other}, which this version does not know"
        )),
    }
}

/// Tables that Lake Formation hides look like tables that do not exist.
const MISSING: &str =
    "the Glue table its feature group names does not exist, or this server may not see it";

type RawEntries = BTreeMap<String, BTreeMap<String, RawEntry>>;

/// The tables of the source, and a placeholder for each that a group claims but Glue lacks.
fn raw_entries(
    tables: Vec<GlueTable>,
    unlisted: &BTreeMap<String, String>,
    groups: &BTreeMap<String, GroupEntry>,
    storage: &dyn Storage,
) -> RawEntries {
    let mut entries = RawEntries::new();
    for entry in groups.values() {
        let Some((database, name)) = entry.group.glue_names() else {
            continue;
        };
        let reason = match unlisted.get(&database) {
            Some(reason) => reason.clone(),
            None => MISSING.to_owned(),
        };
        let placeholder = RawEntry {
            database: database.clone(),
            name: name.clone(),
            feature_group: Some(entry.group.feature_group_name.clone()),
            serving: Err(reason),
        };
        // Two groups may name one table of their own; the first by name is said to own it.
        entries
            .entry(database)
            .or_default()
            .entry(name)
            .or_insert(placeholder);
    }
    for table in tables {
        let (database, name) = (table.database.to_lowercase(), table.name.to_lowercase());
        let database_entries = entries.entry(database.clone()).or_default();
        let feature_group = database_entries
            .get(&name)
            .and_then(|placeholder| placeholder.feature_group.clone());
        let serving = raw_table(&table, feature_group.clone(), storage).map(Arc::new);
        let entry = RawEntry {
            database,
            name: name.clone(),
            feature_group,
            serving,
        };
        database_entries.insert(name, entry);
    }
    entries
}

fn raw_table(
    table: &GlueTable,
    feature_group: Option<String>,
    storage: &dyn Storage,
) -> Result<RawTable, String> {
    let url = table.location.as_deref().unwrap_or_default();
    if url.is_empty() {
        return Err(
            "the Glue table has no location (a view, or a link to another table)".to_owned(),
        );
    }
    let location = storage.locate(url).map_err(|error| error.message)?;
    RawTable::new(table, location, feature_group)
}
