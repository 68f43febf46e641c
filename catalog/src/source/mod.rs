//! Where feature groups come from.

pub mod aws;
pub mod files;
mod glue_json;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureMetadata};

/// A Glue `Table` structure, as far as the catalog reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlueTable {
    pub database: String,
    pub name: String,
    pub columns: Vec<GlueColumn>,
    pub partition_keys: Vec<GlueColumn>,
    /// Absent or empty for views.
    pub location: Option<String>,
    /// The `SerDe`'s class name, if given.
    pub serde: Option<String>,
    /// The input format's class name, if given.
    pub input_format: Option<String>,
    pub parameters: BTreeMap<String, String>,
}

/// A column or partition key of a Glue table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GlueColumn {
    pub name: String,
    /// As Hive writes types: `bigint`, `array<string>`.
    pub hive_type: String,
    pub comment: Option<String>,
}

/// All a source knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct CatalogContents {
    pub groups: Vec<Arc<FeatureGroup>>,
    pub tables: Vec<GlueTable>,
    /// Groups of `groups` that the source lists but could not describe, with the reason as a
    /// clause. Their definitions are empty.
    pub undescribed: BTreeMap<String, String>,
    /// Databases (lowercase) whose tables the source could not list, with the reason as a clause.
    pub unlisted: BTreeMap<String, String>,
}

/// A control plane to read feature groups and Glue tables from.
#[async_trait]
pub trait CatalogSource: Send + Sync + fmt::Debug {
    /// Every group and table, all pages followed.
    ///
    /// # Errors
    /// Whenever the answer would not be whole: a group or table is never left out because asking
    /// for it failed.
    async fn load(&self) -> Result<CatalogContents>;

    /// Makes the feature group that `definition` defines; its places and times are the source's to
    /// set.
    ///
    /// # Errors
    /// `AlreadyExists` for a name that is taken, `InvalidArgument` for a definition that cannot be,
    /// and always where groups are not made through this source.
    async fn create(&self, _definition: FeatureGroup) -> Result<()> {
        Err(defines_nothing())
    }

    /// Adds features to a group.
    ///
    /// # Errors
    /// `NotFound` for a group that is not there; else as [`Self::create`].
    async fn add_features(&self, _group: &str, _features: Vec<FeatureDefinition>) -> Result<()> {
        Err(defines_nothing())
    }

    /// Ends a group; its files stay. Done as well when it is not there any more, or another one has
    /// its name by now.
    ///
    /// # Errors
    /// As [`Self::create`]; `Unavailable` when it may have ended, or will.
    async fn drop_group(&self, _group: &FeatureGroup) -> Result<()> {
        Err(defines_nothing())
    }

    /// Descriptions of one group's features, by exact name; features without one are absent.
    ///
    /// # Errors
    /// Those of the source; `FailedPrecondition` when the descriptions cannot be understood.
    async fn feature_metadata(
        &self,
        group: &FeatureGroup,
    ) -> Result<BTreeMap<String, FeatureMetadata>>;
}

fn defines_nothing() -> Error {
    Error::invalid(
        "feature groups cannot be defined here: make them with SageMaker's CreateFeatureGroup",
    )
}
