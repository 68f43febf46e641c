//! Feature groups from SageMaker and tables from Glue, read with the official clients.
//!
//! A load is whole or fails: what is listed is described, all pages are followed, and throttling
//! or an outage ends it with `Unavailable`, so that the last good snapshot stays. What is wrong
//! with one group or one database alone (deleted meanwhile, not allowed) stays with that one.

mod call;
mod define;
mod groups;
mod metadata;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use super::{CatalogContents, CatalogSource};
use crate::error::{Error, Result};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureMetadata};
use groups::Groups;

/// Calls in flight at once, of one load.
const CONCURRENCY: usize = 8;

/// Which AWS account and region to read, beyond what the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AwsOptions {
    /// Instead of the environment's or the profile's region.
    pub region: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// Glue databases to list besides those that feature groups name.
    pub databases: Vec<String>,
    /// What new feature groups are made with; without it none are.
    pub create: Option<CreateOptions>,
}

/// What `CreateFeatureGroup` needs beside a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// The role that writes the offline store.
    pub role_arn: String,
    /// Where offline stores lie.
    pub s3_uri: String,
    /// Encrypts both stores; AWS's own key without it.
    pub kms_key: Option<String>,
}

/// Credentials, region and endpoints as `aws-config` finds them: environment, profiles, SSO,
/// roles, `AWS_ENDPOINT_URL_*`.
///
/// # Errors
/// `FailedPrecondition` when no region is set anywhere.
pub async fn load_config(options: &AwsOptions) -> Result<SdkConfig> {
    // A version by name: the newest one changes retries and timeouts with an upgrade.
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(retry_config())
        .timeout_config(timeout_config());
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    let config = loader.load().await;
    if config.region().is_none() {
        return Err(Error::precondition(
            "no AWS region is set: set it in the configuration, in AWS_REGION or in the profile",
        ));
    }
    Ok(config)
}

/// Set here, since defaults differ between SDK versions and by environment variable. All tries
/// of one call end within seconds; the refresh is what comes again.
fn retry_config() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(300))
        .with_max_backoff(Duration::from_secs(3))
}

fn timeout_config() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(3))
        .operation_attempt_timeout(Duration::from_secs(10))
        .operation_timeout(Duration::from_secs(30))
        .build()
}

/// SageMaker and Glue as a control plane.
#[derive(Debug)]
pub struct AwsSource {
    sagemaker: aws_sdk_sagemaker::Client,
    glue: aws_sdk_glue::Client,
    groups: Groups,
    /// Lowercase.
    databases: BTreeSet<String>,
    create: Option<CreateOptions>,
}

impl AwsSource {
    /// `options.region` and `options.profile` are in `config` already (see [`load_config`]).
    pub fn new(config: &SdkConfig, options: &AwsOptions) -> Self {
        let sagemaker = aws_sdk_sagemaker::Client::from_conf(
            aws_sdk_sagemaker::config::Builder::from(config)
                .retry_config(retry_config())
                .timeout_config(timeout_config())
                .build(),
        );
        let glue = aws_sdk_glue::Client::from_conf(
            aws_sdk_glue::config::Builder::from(config)
                .retry_config(retry_config())
                .timeout_config(timeout_config())
                .build(),
        );
        Self {
            groups: Groups::new(sagemaker.clone()),
            create: options.create.clone(),
            sagemaker,
            glue,
            databases: options
                .databases
                .iter()
                .map(|name| name.to_lowercase())
                .collect(),
        }
    }
}

#[async_trait]
impl CatalogSource for AwsSource {
    async fn load(&self) -> Result<CatalogContents> {
        let (groups, undescribed) = self.groups.load().await?;
        let mut databases = self.databases.clone();
        databases.extend(
            groups
                .iter()
                .filter_map(|group| Some(group.glue_names()?.0)),
        );
        let (tables, unlisted) = tables::load(&self.glue, databases).await?;
        for database in self
            .databases
            .iter()
            .filter(|name| unlisted.contains_key(*name))
        {
            tracing::warn!(
                database,
                reason = unlisted[database],
                "a configured database is not served"
            );
        }
        Ok(CatalogContents {
            groups,
            tables,
            undescribed,
            unlisted,
        })
    }

    async fn create(&self, definition: FeatureGroup) -> Result<()> {
        let Some(options) = &self.create else {
            return Err(Error::precondition(
                "this server makes no feature groups: set catalog.create.role_arn and \
                 catalog.create.s3_uri, or make them with SageMaker's CreateFeatureGroup",
            ));
        };
        define::create(&self.sagemaker, &self.groups, options, &definition).await
    }

    async fn add_features(&self, group: &str, features: Vec<FeatureDefinition>) -> Result<()> {
        define::add_features(&self.sagemaker, &self.groups, group, &features).await
    }

    async fn drop_group(&self, group: &FeatureGroup) -> Result<()> {
        define::drop_group(&self.sagemaker, &self.groups, group).await
    }

    async fn feature_metadata(
        &self,
        group: &FeatureGroup,
    ) -> Result<BTreeMap<String, FeatureMetadata>> {
        Ok(metadata::load(&self.sagemaker, group).await?)
    }
}
