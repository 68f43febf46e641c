//! Which feature groups exist, and what `DescribeFeatureGroup` says about each.
//!
//! `ListFeatureGroups` names them. `Search` answers with most of a group, a hundred at a time: a
//! group whose search record is as it was when it was last described is not described again, so
//! a refresh of thousands of groups stays within the quotas. The search index may lag behind; it
//! only ever decides whether to ask, never what is served.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sagemaker::Client;
use aws_sdk_sagemaker::types::ResourceType;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::CONCURRENCY;
use super::call::{Body, CallError, CallResult, Class, pages, take_array};
use crate::error::Result;
use crate::model::FeatureGroup;

const LIST: &str = "sagemaker:ListFeatureGroups";
const SEARCH: &str = "sagemaker:Search";
const DESCRIBE: &str = "sagemaker:DescribeFeatureGroup";

/// Descriptions are asked for again after this, whatever the search says.
const MAX_AGE: Duration = Duration::from_mins(15);

/// The feature groups of an account and region.
#[derive(Debug)]
pub(super) struct Groups {
    client: Client,
    known: Mutex<HashMap<String, Known>>,
}

/// A description and the search record it was asked for.
#[derive(Debug, Clone)]
struct Known {
    group: Arc<FeatureGroup>,
    record: u64,
    since: Instant,
}

/// A group that exists, by name.
#[derive(Debug, Default)]
struct Listed {
    status: Option<String>,
    /// A hash of its search record, if the search was allowed and knows the group.
    record: Option<u64>,
}

enum Description {
    Group(Arc<FeatureGroup>),
    /// Deleted after it was listed.
    Gone,
    /// Why there is none, for this group alone.
    Failed(CallError),
}

impl Groups {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// All groups, and the reasons of those that could not be described.
    pub(super) async fn load(&self) -> Result<(Vec<Arc<FeatureGroup>>, BTreeMap<String, String>)> {
        let listed = self.discover().await?;
        let total = listed.len();
        let calls: Vec<_> = listed
            .iter()
            .map(|(name, listed)| self.description(name, listed))
            .collect();
        let descriptions: Vec<_> = futures::stream::iter(calls)
            .buffered(CONCURRENCY)
            .try_collect()
            .await?;
        self.known
            .lock()
            .retain(|name, _| listed.contains_key(name));

        let mut groups = Vec::with_capacity(total);
        let mut undescribed = BTreeMap::new();
        let mut denied = Vec::new();
        for ((name, listed), description) in listed.into_iter().zip(descriptions) {
            match description {
                Description::Group(group) => groups.push(group),
                Description::Gone => {}
                Description::Failed(failed) => {
                    groups.push(placeholder(&name, listed.status)?);
                    undescribed.insert(name, failed.error.message.clone());
                    denied.extend((failed.class == Class::Denied).then_some(failed));
                }
            }
        }
        // Nothing may be described at all: that is the server's set-up, not a group's.
        match denied.pop() {
            Some(failed) if denied.len() + 1 == total => Err(failed.into()),
            _ => Ok((groups, undescribed)),
        }
    }

    async fn discover(&self) -> CallResult<BTreeMap<String, Listed>> {
        let optional =
            |failed: &CallError| matches!(failed.class, Class::Denied | Class::Unsupported);
        let (listed, searched) = tokio::join!(self.list(), self.search());
        match (listed, searched) {
            (Ok(mut listed), Ok(searched)) => {
                for (name, found) in searched {
                    if let Some(listed) = listed.get_mut(&name) {
                        listed.record = found.record;
                    }
                }
                Ok(listed)
            }
            (Ok(listed), Err(failed)) if optional(&failed) => {
                tracing::debug!(error = %failed.error, "every feature group is described anew");
                Ok(listed)
            }
            (Err(failed), Ok(searched)) if optional(&failed) => Ok(searched),
            (Err(failed), _) | (Ok(_), Err(failed)) => Err(failed),
        }
    }

    async fn list(&self) -> CallResult<BTreeMap<String, Listed>> {
        let mut listed = BTreeMap::new();
        let call = async |token| {
            let body = Body::default();
            let request = self
                .client
                .list_feature_groups()
                .max_results(100)
                .set_next_token(token);
            let outcome = request.customize().interceptor(body.clone()).send().await;
            body.answer(LIST, outcome)
        };
        pages(LIST, call, |mut page| {
            for summary in take_array(&mut page, "FeatureGroupSummaries") {
                let name = text(&summary, "FeatureGroupName")
                    .ok_or_else(|| CallError::odd_answer(LIST, "a group has no name"))?;
                let status = text(&summary, "FeatureGroupStatus");
                listed.insert(
                    name,
                    Listed {
                        status,
                        record: None,
                    },
                );
            }
            Ok(())
        })
        .await?;
        Ok(listed)
    }

    async fn search(&self) -> CallResult<BTreeMap<String, Listed>> {
        let mut found = BTreeMap::new();
        let call = async |token| {
            let body = Body::default();
            let request = self.client.search().resource(ResourceType::FeatureGroup);
            let request = request.max_results(100).set_next_token(token);
            let outcome = request.customize().interceptor(body.clone()).send().await;
            body.answer(SEARCH, outcome)
        };
        pages(SEARCH, call, |mut page| {
            for result in take_array(&mut page, "Results") {
                let record = &result["FeatureGroup"];
                let name = text(record, "FeatureGroupName")
                    .ok_or_else(|| CallError::odd_answer(SEARCH, "a group has no name"))?;
                let status = text(record, "FeatureGroupStatus");
                let mut hasher = DefaultHasher::new();
                record.to_string().hash(&mut hasher);
                found.insert(
                    name,
                    Listed {
                        status,
                        record: Some(hasher.finish()),
                    },
                );
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    /// What is known of a group, or else what AWS says now.
    async fn description(&self, name: &str, listed: &Listed) -> CallResult<Description> {
        if let (Some(record), Some(known)) = (listed.record, self.known.lock().get(name))
            && known.record == record
            && known.since.elapsed() < MAX_AGE
        {
            return Ok(Description::Group(Arc::clone(&known.group)));
        }
        let since = Instant::now();
        let group = match self.describe(name).await {
            Ok(group) => Arc::new(group),
            Err(failed) => match failed.class {
                Class::Away => return Err(failed),
                Class::Absent => return Ok(Description::Gone),
                Class::Denied | Class::Unsupported | Class::Refused => {
                    return Ok(Description::Failed(failed));
                }
            },
        };
        match listed.record {
            Some(record) if is_settled(&group) => {
                let known = Known {
                    group: Arc::clone(&group),
                    record,
                    since,
                };
                self.known.lock().insert(name.to_owned(), known);
            }
            _ => drop(self.known.lock().remove(name)),
        }
        Ok(Description::Group(group))
    }

    /// The next load asks for the group, whatever the search says.
    pub(super) fn forget(&self, name: &str) {
        self.known.lock().remove(name);
    }

    pub(super) async fn describe(&self, name: &str) -> CallResult<FeatureGroup> {
        let mut whole: Option<Value> = None;
        let call = async |token| {
            let body = Body::default();
            let request = self.client.describe_feature_group();
            let request = request.feature_group_name(name).set_next_token(token);
            let outcome = request.customize().interceptor(body.clone()).send().await;
            body.answer(DESCRIBE, outcome)
        };
        pages(DESCRIBE, call, |mut page| {
            match &mut whole {
                None => {
                    if let Some(page) = page.as_object_mut() {
                        page.remove("NextToken");
                    }
                    whole = Some(page);
                }
                Some(whole) => {
                    let more = take_array(&mut page, "FeatureDefinitions");
                    let definitions = whole["FeatureDefinitions"].as_array_mut();
                    definitions
                        .ok_or_else(|| CallError::odd_answer(DESCRIBE, "no feature definitions"))?
                        .extend(more);
                }
            }
            Ok(())
        })
        .await?;
        serde_json::from_value(whole.unwrap_or_default())
            .map_err(|error| CallError::odd_answer(DESCRIBE, error))
    }
}

/// A group that is being changed looks different soon, perhaps before the search index does.
fn is_settled(group: &FeatureGroup) -> bool {
    let updating = group
        .other
        .get("LastUpdateStatus")
        .and_then(|status| text(status, "Status"));
    group.feature_group_status.as_deref() == Some("Created")
        && updating.as_deref() != Some("InProgress")
}

/// Stands for a group that exists but could not be described.
fn placeholder(name: &str, status: Option<String>) -> CallResult<Arc<FeatureGroup>> {
    let group = json!({
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "",
        "EventTimeFeatureName": "",
        "FeatureDefinitions": [],
        "FeatureGroupStatus": status,
    });
    serde_json::from_value(group)
        .map(Arc::new)
        .map_err(|error| CallError::odd_answer(LIST, error))
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}
