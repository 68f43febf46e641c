//! An immutable picture of the catalog ([`CatalogSnapshot`], made by [`build`]), and the task
//! that keeps it fresh ([`Catalog`]): one refresh at a time, the last good picture served while
//! the source is away.

mod build;
mod descriptions;
mod live;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::FeatureGroup;
use crate::table::{FeatureTable, RawTable};

pub use live::{Catalog, RefreshTask};

/// A feature group and whether it can be read.
#[derive(Debug, Clone)]
pub struct GroupEntry {
    pub group: Arc<FeatureGroup>,
    pub serving: Serving,
}

/// A relation of the snapshot, or why there is none.
#[derive(Debug, Clone)]
pub enum Serving {
    Served(Arc<FeatureTable>),
    /// It has an online store alone: it can be written and looked up there, and has no state to read.
    OnlineOnly,
    /// The reason, a clause for the user: "it has no offline store".
    Unavailable(String),
}

/// A Glue table and whether it can be read raw.
#[derive(Debug, Clone)]
pub struct RawEntry {
    pub database: String,
    pub name: String,
    /// The group that claims it; `None` for an orphan.
    pub feature_group: Option<String>,
    /// The table, or the reason as a clause for the user.
    pub serving: std::result::Result<Arc<RawTable>, String>,
}

/// Everything known at one moment. Never changes.
#[derive(Debug, Default)]
pub struct CatalogSnapshot {
    /// By the exact name of the definition.
    pub groups: BTreeMap<String, GroupEntry>,
    /// By lowercase database, then lowercase table name.
    pub raw: BTreeMap<String, BTreeMap<String, RawEntry>>,
    /// When the source was read.
    pub taken_at: Option<SystemTime>,
}

/// How the background refresh is doing.
#[derive(Debug, Clone, Default)]
pub struct CatalogHealth {
    /// When the snapshot being served was read from the source.
    pub last_success: Option<SystemTime>,
    /// The message of the newest failed refresh, until one succeeds.
    pub last_error: Option<String>,
}

#[cfg(test)]
mod tests;
