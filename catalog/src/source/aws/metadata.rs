//! What people wrote about the features of one group.

use std::collections::BTreeMap;

use aws_sdk_sagemaker::Client;
use aws_sdk_sagemaker::types::{Filter, Operator, ResourceType, SearchExpression};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::CONCURRENCY;
use super::call::{Body, CallError, CallResult, Class, pages, take_array};
use crate::model::{FeatureGroup, FeatureMetadata};

const SEARCH: &str = "sagemaker:Search";
const DESCRIBE: &str = "sagemaker:DescribeFeatureMetadata";

type Metadata = BTreeMap<String, FeatureMetadata>;

/// By search, a hundred features at a time; where that is not allowed, feature by feature.
pub(super) async fn load(client: &Client, group: &FeatureGroup) -> CallResult<Metadata> {
    match search(client, &group.feature_group_name).await {
        Err(failed) if matches!(failed.class, Class::Denied | Class::Unsupported) => {
            describe_all(client, group).await
        }
        outcome => outcome,
    }
}

async fn search(client: &Client, group: &str) -> CallResult<Metadata> {
    let mut metadata = Metadata::new();
    let this_group = SearchExpression::builder()
        .filters(
            Filter::builder()
                .name("FeatureGroupName")
                .operator(Operator::Equals)
                .value(group)
                .build(),
        )
        .build();
    let call = async |token| {
        let body = Body::default();
        let request = client.search().resource(ResourceType::FeatureMetadata);
        let request = request.search_expression(this_group.clone());
        let request = request.max_results(100).set_next_token(token);
        let outcome = request.customize().interceptor(body.clone()).send().await;
        body.answer(SEARCH, outcome)
    };
    pages(SEARCH, call, |mut page| {
        for mut result in take_array(&mut page, "Results") {
            let record = result["FeatureMetadata"].take();
            if record["FeatureGroupName"] == group {
                add(&mut metadata, SEARCH, record)?;
            }
        }
        Ok(())
    })
    .await?;
    Ok(metadata)
}

async fn describe_all(client: &Client, group: &FeatureGroup) -> CallResult<Metadata> {
    let calls: Vec<_> = group
        .feature_definitions
        .iter()
        .map(|definition| describe(client, &group.feature_group_name, &definition.feature_name))
        .collect();
    let answers: Vec<_> = futures::stream::iter(calls)
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    let mut metadata = Metadata::new();
    for answer in answers.into_iter().flatten() {
        add(&mut metadata, DESCRIBE, answer)?;
    }
    Ok(metadata)
}

/// `None` for a feature that does not exist any more.
async fn describe(client: &Client, group: &str, feature: &str) -> CallResult<Option<Value>> {
    let body = Body::default();
    let request = client.describe_feature_metadata();
    let request = request.feature_group_name(group).feature_name(feature);
    let outcome = request.customize().interceptor(body.clone()).send().await;
    match body.answer(DESCRIBE, outcome) {
        Ok(answer) => Ok(Some(answer)),
        Err(failed) if failed.class == Class::Absent => Ok(None),
        Err(failed) => Err(failed),
    }
}

/// Every feature has a record; only those say something that have a description or parameters.
fn add(metadata: &mut Metadata, operation: &str, record: Value) -> CallResult<()> {
    let Some(name) = record["FeatureName"].as_str().map(str::to_owned) else {
        return Err(CallError::odd_answer(operation, "a feature has no name"));
    };
    let entry: FeatureMetadata =
        serde_json::from_value(record).map_err(|error| CallError::odd_answer(operation, error))?;
    let described = entry
        .description
        .as_deref()
        .is_some_and(|text| !text.is_empty());
    let parameters = entry.other.get("Parameters").and_then(Value::as_array);
    if described || parameters.is_some_and(|parameters| !parameters.is_empty()) {
        metadata.insert(name, entry);
    }
    Ok(())
}
