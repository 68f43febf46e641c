//! Makes and changes feature groups with SageMaker, and waits until SageMaker is done with it.
//!
//! No call is sent twice: an answer that was lost is an error, since the group may be there.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_sagemaker::Client;
use aws_sdk_sagemaker::config::Builder;
use aws_sdk_sagemaker::operation::create_feature_group::CreateFeatureGroupError;
use aws_sdk_sagemaker::types::{
    FeatureDefinition as Definition, FeatureType as Type, OfflineStoreConfig, OnlineStoreConfig,
    OnlineStoreSecurityConfig, S3StorageConfig, TtlDuration, TtlDurationUnit,
};
use serde_json::Value;
use tokio::time::Instant;

use super::CreateOptions;
use super::call::{Body, CallError, Class};
use super::groups::Groups;
use crate::error::{Error, Kind, Result};
use crate::model::{FeatureDefinition, FeatureGroup, FeatureType};

const CREATE: &str = "sagemaker:CreateFeatureGroup";
const UPDATE: &str = "sagemaker:UpdateFeatureGroup";
const DELETE: &str = "sagemaker:DeleteFeatureGroup";

/// Features that one update adds (AWS quota).
const FEATURES_AT_ONCE: usize = 100;

/// How long SageMaker may take; mostly it is a quarter of a minute.
const LONGEST: Duration = Duration::from_secs(100);
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Ends a group, which takes its online store along and leaves its data in S3 and in Glue.
///
/// # Errors
/// `FailedPrecondition` with SageMaker's reason when it refuses or fails; `Unavailable` when it is
/// not done in time, or the answer was lost.
pub(super) async fn drop_group(
    client: &Client,
    groups: &Groups,
    group: &FeatureGroup,
) -> Result<()> {
    let name = &group.feature_group_name;
    let there = match groups.describe(name).await {
        Ok(there) => there,
        Err(failed) if failed.class == Class::Absent => return Ok(()),
        Err(failed) => return Err(failed.into()),
    };
    if !there.is_same_group(group) {
        return Ok(());
    }
    if there.feature_group_status.as_deref() != Some("Deleting") {
        let request = client.delete_feature_group().feature_group_name(name);
        let sent = request.customize().config_override(once()).send().await;
        match Body::done(DELETE, sent) {
            Err(failed) if failed.class != Class::Absent => return Err(doubtful(failed)),
            _ => {}
        }
    }
    settled(groups, name, "deleted", |group| match group {
        None => Change::Done,
        Some(group) => match group.feature_group_status.as_deref() {
            Some("DeleteFailed") => Change::Failed(failure(group)),
            _ => Change::GoesOn,
        },
    })
    .await
}

fn failure(group: &FeatureGroup) -> String {
    let reason = group.other.get("FailureReason").and_then(Value::as_str);
    reason.unwrap_or("no reason is given").to_owned()
}

/// Where a change is.
enum Change {
    GoesOn,
    Done,
    /// Why.
    Failed(String),
}

/// Makes the group that `definition` defines.
///
/// # Errors
/// `AlreadyExists`; `FailedPrecondition` with SageMaker's reason when it refuses or fails;
/// `Unavailable` when it is not done in time, or the answer was lost.
pub(super) async fn create(
    client: &Client,
    groups: &Groups,
    options: &CreateOptions,
    definition: &FeatureGroup,
) -> Result<()> {
    let name = &definition.feature_group_name;
    let storage = S3StorageConfig::builder()
        .s3_uri(&options.s3_uri)
        .set_kms_key_id(options.kms_key.clone())
        .build();
    let offline = OfflineStoreConfig::builder()
        .s3_storage_config(storage)
        .build();
    let features = definition.feature_definitions.iter().map(feature);
    let body = Body::default();
    let request = client
        .create_feature_group()
        .feature_group_name(name)
        .record_identifier_feature_name(&definition.record_identifier_feature_name)
        .event_time_feature_name(&definition.event_time_feature_name)
        .set_feature_definitions(Some(features.collect()))
        .set_online_store_config(online(definition, options))
        .offline_store_config(offline)
        .role_arn(&options.role_arn);
    let sent = request
        .customize()
        .config_override(once())
        .interceptor(body.clone())
        .send()
        .await;
    if let Err(failure) = &sent
        && failure
            .as_service_error()
            .is_some_and(CreateFeatureGroupError::is_resource_in_use)
    {
        return Err(Error::new(
            Kind::AlreadyExists,
            format!("feature group '{name}' exists"),
        ));
    }
    body.answer(CREATE, sent).map_err(doubtful)?;
    let created = |group: Option<&FeatureGroup>| match group {
        Some(group) => match group.feature_group_status.as_deref() {
            Some("Created") => Change::Done,
            Some("CreateFailed") => Change::Failed(failure(group)),
            _ => Change::GoesOn,
        },
        // It may not be known everywhere yet.
        None => Change::GoesOn,
    };
    settled(groups, name, "created", created).await
}

/// Adds features to a group.
///
/// # Errors
/// `NotFound`; else as [`create`]. Some may have been added then.
pub(super) async fn add_features(
    client: &Client,
    groups: &Groups,
    name: &str,
    features: &[FeatureDefinition],
) -> Result<()> {
    for some in features.chunks(FEATURES_AT_ONCE) {
        let body = Body::default();
        let request = client
            .update_feature_group()
            .feature_group_name(name)
            .set_feature_additions(Some(some.iter().map(feature).collect()));
        let sent = request
            .customize()
            .config_override(once())
            .interceptor(body.clone())
            .send()
            .await;
        body.answer(UPDATE, sent).map_err(doubtful)?;
        let updated = |group: Option<&FeatureGroup>| match group {
            Some(group) => updated(group, some),
            None => Change::GoesOn,
        };
        settled(groups, name, "updated", updated).await?;
    }
    Ok(())
}

/// An update is seen by its features; what an earlier one said may be there still.
fn updated(group: &FeatureGroup, added: &[FeatureDefinition]) -> Change {
    let last = group.other.get("LastUpdateStatus");
    let text = |key: &str| last.and_then(|last| last.get(key)?.as_str());
    let has = |feature: &FeatureDefinition| {
        let mut known = group.feature_definitions.iter();
        known.any(|known| known.feature_name == feature.feature_name)
    };
    match text("Status") {
        Some("Failed") => Change::Failed(
            text("FailureReason")
                .unwrap_or("no reason is given")
                .to_owned(),
        ),
        Some("InProgress") => Change::GoesOn,
        _ if added.iter().all(has) => Change::Done,
        _ => Change::GoesOn,
    }
}

/// Asks until the change is done or failed. Giving up does not stop SageMaker.
async fn settled(
    groups: &Groups,
    name: &str,
    what: &str,
    change: impl Fn(Option<&FeatureGroup>) -> Change,
) -> Result<()> {
    let end = Instant::now() + LONGEST;
    let mut wait = FIRST_LOOK;
    while Instant::now() < end {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LOOK_EVERY);
        let group = match groups.describe(name).await {
            Ok(group) => Some(group),
            Err(failed) if failed.class == Class::Absent => None,
            // Throttling ends.
            Err(failed) if failed.class == Class::Away => continue,
            Err(failed) => return Err(failed.into()),
        };
        match change(group.as_ref()) {
            Change::GoesOn => {}
            Change::Done => {
                groups.forget(name);
                return Ok(());
            }
            Change::Failed(reason) => {
                groups.forget(name);
                return Err(Error::precondition(format!(
                    "feature group '{name}' could not be {what}: {reason}"
                )));
            }
        }
    }
    Err(Error::unavailable(format!(
        "feature group '{name}' is not {what} after {} seconds; SageMaker goes on with it: see its \
         status in system.feature_groups",
        LONGEST.as_secs()
    )))
}

fn once() -> Builder {
    Builder::new().retry_config(RetryConfig::disabled())
}

/// Without an answer nobody knows whether it was done.
fn doubtful(failed: CallError) -> Error {
    match failed.class {
        Class::Away => Error {
            message: format!(
                "{}: it may have been done all the same, see system.feature_groups",
                failed.error.message
            ),
            ..failed.error
        },
        _ => failed.error,
    }
}

fn feature(definition: &FeatureDefinition) -> Definition {
    let kind = match &definition.feature_type {
        FeatureType::Integral => Type::Integral,
        FeatureType::Fractional => Type::Fractional,
        FeatureType::String => Type::String,
        FeatureType::Other(other) => Type::from(other.as_str()),
    };
    Definition::builder()
        .feature_name(&definition.feature_name)
        .feature_type(kind)
        .build()
}

fn online(definition: &FeatureGroup, options: &CreateOptions) -> Option<OnlineStoreConfig> {
    let config = definition.other.get("OnlineStoreConfig")?;
    if config.get("EnableOnlineStore")?.as_bool() != Some(true) {
        return None;
    }
    let security = options.kms_key.as_ref().map(|key| {
        OnlineStoreSecurityConfig::builder()
            .kms_key_id(key.clone())
            .build()
    });
    let ttl = config.get("TtlDuration").and_then(|ttl| {
        let value = i32::try_from(ttl.get("Value")?.as_i64()?).ok()?;
        let unit = TtlDurationUnit::from(ttl.get("Unit")?.as_str()?);
        Some(TtlDuration::builder().unit(unit).value(value).build())
    });
    let config = OnlineStoreConfig::builder()
        .enable_online_store(true)
        .set_security_config(security)
        .set_ttl_duration(ttl);
    Some(config.build())
}
