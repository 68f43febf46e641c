//! A fake of the SageMaker control plane and of Glue's reading side, over HTTP in the services'
//! protocol (awsJson1.1), for the real AWS clients to talk to.
//!
//! It answers `ListFeatureGroups`, `DescribeFeatureGroup` (with paged definitions), `Search` (for
//! `FeatureGroup` and `FeatureMetadata`, filters with `Equals` and `Contains`),
//! `DescribeFeatureMetadata`, `CreateFeatureGroup`, `UpdateFeatureGroup` and `DeleteFeatureGroup` (which
//! take a while, as many calls of `DescribeFeatureGroup` as tests say, and may fail then), `GetTables`, `GetTable`
//! and `GetDatabases`. Tests add groups and tables while it runs, choose page sizes, throttle, deny, take it away and count calls; other
//! languages steer it by `POST /steer/...`.
//!
//! What it does not do: check signatures (it only wants one to be there), other writes, IAM,
//! eventual consistency of the search index, sorting, the other filters, catalogs and resource
//! links of Glue, and quotas.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_config::SdkConfig;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::loopback::{Loopback, sdk_config};

/// The fake, serving on a port of the loopback interface until dropped.
#[derive(Debug)]
pub struct FakeAws {
    account: Arc<Mutex<Account>>,
    server: Loopback,
}

/// What exists and how the fake behaves.
#[derive(Debug)]
struct Account {
    groups: BTreeMap<String, Value>,
    /// Descriptions by group and feature.
    metadata: BTreeMap<(String, String), Value>,
    /// By database, then table, as they are stored: lowercase.
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    pages: PageSizes,
    throttled: usize,
    throttled_operation: Option<String>,
    away: bool,
    denied: BTreeSet<String>,
    undescribable: BTreeMap<String, Failure>,
    /// What is being changed, and after how many more looks it is done.
    changes: BTreeMap<String, (Value, usize)>,
    looks: usize,
    changes_fail: Option<String>,
    updates_show_late: bool,
    calls: HashMap<String, usize>,
}

/// The most items the fake puts on one page, whatever is asked for.
#[derive(Debug, Clone, Copy)]
pub struct PageSizes {
    pub groups: usize,
    pub definitions: usize,
    pub tables: usize,
}

/// An error answer: HTTP status, code, message.
type Failure = (StatusCode, &'static str, String);

impl FakeAws {
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let account = Arc::new(Mutex::new(Account {
            groups: BTreeMap::new(),
            metadata: BTreeMap::new(),
            tables: BTreeMap::new(),
            pages: PageSizes {
                groups: 100,
                definitions: 100,
                tables: 100,
            },
            throttled: 0,
            throttled_operation: None,
            away: false,
            denied: BTreeSet::new(),
            undescribable: BTreeMap::new(),
            changes: BTreeMap::new(),
            looks: 2,
            changes_fail: None,
            updates_show_late: false,
            calls: HashMap::new(),
        }));
        let server = Loopback::serve(&account, answer).await;
        Self { account, server }
    }

    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// What the AWS clients need to talk to the fake instead of AWS.
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.server.url)
    }

    /// Adds or replaces a group: the whole `DescribeFeatureGroup` response.
    pub fn put_group(&self, group: Value) {
        self.account.lock().put_group(group);
    }

    pub fn remove_group(&self, name: &str) {
        self.account.lock().groups.remove(name);
    }

    /// Adds or replaces a Glue `Table`; names are stored in lowercase, as Glue does.
    pub fn put_table(&self, table: Value) {
        self.account.lock().put_table(table);
    }

    /// What people wrote about a feature: fields of `DescribeFeatureMetadata`.
    pub fn put_metadata(&self, group: &str, feature: &str, metadata: Value) {
        self.account
            .lock()
            .metadata
            .insert((group.to_owned(), feature.to_owned()), metadata);
    }

    pub fn set_page_sizes(&self, pages: PageSizes) {
        self.account.lock().pages = pages;
    }

    /// The next `calls` calls get a `ThrottlingException`; 0 ends throttling.
    pub fn throttle(&self, calls: usize) {
        let mut account = self.account.lock();
        account.throttled = calls;
        account.throttled_operation = None;
    }

    /// As [`FakeAws::throttle`], for calls of one operation.
    pub fn throttle_operation(&self, operation: &str, calls: usize) {
        let mut account = self.account.lock();
        account.throttled = calls;
        account.throttled_operation = Some(operation.to_owned());
    }

    /// While away, every call is answered with 503 and no error body.
    pub fn set_away(&self, away: bool) {
        self.account.lock().away = away;
    }

    /// Calls of this operation (`Search`, `GetTables`, ...) get an `AccessDeniedException`.
    pub fn deny(&self, operation: &str) {
        self.account.lock().denied.insert(operation.to_owned());
    }

    pub fn allow(&self, operation: &str) {
        self.account.lock().denied.remove(operation);
    }

    /// Describing this group fails with this code, though it is listed.
    pub fn fail_describe(&self, group: &str, code: &'static str) {
        let failure = (StatusCode::BAD_REQUEST, code, format!("{group}: {code}"));
        self.account
            .lock()
            .undescribable
            .insert(group.to_owned(), failure);
    }

    /// Updates show only once they are done, as where an answer comes from a copy that lags.
    pub fn show_updates_late(&self) {
        self.account.lock().updates_show_late = true;
    }

    /// Creations, updates and deletions from now on end after so many looks at the group.
    pub fn change_after(&self, looks: usize) {
        self.account.lock().looks = looks;
    }

    /// Creations, updates and deletions from now on fail for this reason, or not any more.
    pub fn fail_changes(&self, reason: Option<&str>) {
        self.account.lock().changes_fail = reason.map(str::to_owned);
    }

    /// The description of a group as it stands.
    pub fn group(&self, name: &str) -> Option<Value> {
        self.account.lock().groups.get(name).cloned()
    }

    /// How often an operation was called since the last [`FakeAws::forget_calls`], refused calls
    /// included.
    pub fn calls(&self, operation: &str) -> usize {
        self.account
            .lock()
            .calls
            .get(operation)
            .copied()
            .unwrap_or_default()
    }

    pub fn forget_calls(&self) {
        self.account.lock().calls.clear();
    }
}

async fn answer(
    State(account): State<Arc<Mutex<Account>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = serde_json::from_slice(&body).unwrap_or_default();
    let mut account = account.lock();
    if let Some(what) = uri.path().strip_prefix("/steer/") {
        return match account.steer(what, request) {
            Some(()) => StatusCode::OK.into_response(),
            None => (StatusCode::BAD_REQUEST, format!("cannot steer '{what}' so")).into_response(),
        };
    }
    if account.away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let (status, json) = match account.call(&method, &headers, &request) {
        Ok(json) => (StatusCode::OK, json),
        Err((status, code, message)) => (status, json!({"__type": code, "message": message})),
    };
    (
        status,
        [("content-type", "application/x-amz-json-1.1")],
        if json.is_null() {
            String::new()
        } else {
            json.to_string()
        },
    )
        .into_response()
}

fn refused(code: &'static str, message: impl Into<String>) -> Failure {
    (StatusCode::BAD_REQUEST, code, message.into())
}

fn invalid(message: impl Into<String>) -> Failure {
    refused("ValidationException", message)
}

/// A required text parameter.
fn text<'a>(request: &'a Value, key: &str) -> Result<&'a str, Failure> {
    request[key]
        .as_str()
        .ok_or_else(|| invalid(format!("{key} is required")))
}

impl Account {
    fn put_group(&mut self, group: Value) {
        let name = group["FeatureGroupName"].as_str().unwrap().to_owned();
        self.groups.insert(name, group);
    }

    fn put_table(&mut self, mut table: Value) {
        let stored = |name: &Value| name.as_str().unwrap().to_lowercase();
        let (database, name) = (stored(&table["DatabaseName"]), stored(&table["Name"]));
        table["DatabaseName"] = json!(database);
        table["Name"] = json!(name);
        self.tables.entry(database).or_default().insert(name, table);
    }

    /// `groups`: a group; `tables`: a table; `throttle`: `{"calls": n}`; `deny`:
    /// `{"denied": bool}`, every operation; `away`: `{"away": bool}`.
    fn steer(&mut self, what: &str, body: Value) -> Option<()> {
        match what {
            "groups" if body["FeatureGroupName"].is_string() => self.put_group(body),
            "tables" if body["Name"].is_string() && body["DatabaseName"].is_string() => {
                self.put_table(body);
            }
            "throttle" => {
                self.throttled = usize::try_from(body["calls"].as_u64()?).ok()?;
                self.throttled_operation = None;
            }
            "deny" if body["denied"].as_bool()? => drop(self.denied.insert("*".to_owned())),
            "deny" => self.denied.clear(),
            "away" => self.away = body["away"].as_bool()?,
            _ => return None,
        }
        Some(())
    }

    fn call(
        &mut self,
        method: &Method,
        headers: &HeaderMap,
        request: &Value,
    ) -> Result<Value, Failure> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let target = header("x-amz-target").unwrap_or_default();
        let (service, operation) = target.split_once('.').unwrap_or_default();
        *self.calls.entry(operation.to_owned()).or_default() += 1;
        if method != Method::POST || header("content-type") != Some("application/x-amz-json-1.1") {
            return Err(refused("SerializationException", "not awsJson1.1"));
        }
        if !header("authorization").is_some_and(|text| text.starts_with("AWS4-HMAC-SHA256 ")) {
            return Err((
                StatusCode::FORBIDDEN,
                "MissingAuthenticationTokenException",
                String::new(),
            ));
        }
        if self.throttled > 0
            && self
                .throttled_operation
                .as_deref()
                .is_none_or(|it| it == operation)
        {
            self.throttled -= 1;
            return Err(refused("ThrottlingException", "Rate exceeded"));
        }
        if self.denied.contains(operation) || self.denied.contains("*") {
            let message = format!(
                "User: arn:aws:iam::123456789012:user/test is not authorized to perform: {operation}"
            );
            return Err(refused("AccessDeniedException", message));
        }
        match (service, operation) {
            ("SageMaker", "ListFeatureGroups") => self.list_feature_groups(request),
            ("SageMaker", "DescribeFeatureGroup") => {
                self.look(request);
                self.describe_feature_group(request)
            }
            ("SageMaker", "CreateFeatureGroup") => self.create_feature_group(request),
            ("SageMaker", "UpdateFeatureGroup") => self.update_feature_group(request),
            ("SageMaker", "DeleteFeatureGroup") => self.delete_feature_group(request),
            ("SageMaker", "DescribeFeatureMetadata") => self.describe_feature_metadata(request),
            ("SageMaker", "Search") => self.search(request),
            ("AWSGlue", "GetTables") => self.get_tables(request),
            ("AWSGlue", "GetTable") => self.get_table(request),
            ("AWSGlue", "GetDatabases") => self.get_databases(request),
            _ => Err(refused("UnknownOperationException", target)),
        }
    }

    /// By name or ARN.
    fn group(&self, request: &Value) -> Result<(&str, &Value), Failure> {
        let name = text(request, "FeatureGroupName")?;
        let name = name.rsplit('/').next().unwrap_or(name);
        let found = self.groups.get_key_value(name);
        let found = found.map(|(name, group)| (name.as_str(), group));
        found.ok_or_else(|| {
            refused(
                "ResourceNotFound",
                format!("FeatureGroup {name} does not exist"),
            )
        })
    }

    fn list_feature_groups(&self, request: &Value) -> Result<Value, Failure> {
        let part = request["NameContains"].as_str().unwrap_or_default();
        let keys = [
            "FeatureGroupName",
            "FeatureGroupArn",
            "CreationTime",
            "FeatureGroupStatus",
            "OfflineStoreStatus",
        ];
        let summaries = self
            .groups
            .values()
            .filter(|group| text(group, "FeatureGroupName").is_ok_and(|n| n.contains(part)));
        let summaries = summaries.map(|group| {
            keys.iter()
                .filter_map(|key| Some(((*key).to_owned(), group.get(key)?.clone())))
                .collect()
        });
        page(
            request,
            "FeatureGroupSummaries",
            summaries.collect(),
            self.pages.groups,
        )
    }

    fn describe_feature_group(&self, request: &Value) -> Result<Value, Failure> {
        let (name, group) = self.group(request)?;
        if let Some(failure) = self.undescribable.get(name) {
            return Err(failure.clone());
        }
        let definitions = group["FeatureDefinitions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let paged = page(
            request,
            "FeatureDefinitions",
            definitions,
            self.pages.definitions,
        )?;
        let mut group = group.clone();
        group["FeatureDefinitions"] = paged["FeatureDefinitions"].clone();
        // The service model says it is always there.
        group["NextToken"] = paged.get("NextToken").cloned().unwrap_or_else(|| json!(""));
        Ok(group)
    }

    /// A change comes nearer to its end.
    fn look(&mut self, request: &Value) {
        let Ok((name, _)) = self.group(request) else {
            return;
        };
        let name = name.to_owned();
        let Some((_, looks)) = self.changes.get_mut(&name) else {
            return;
        };
        if *looks > 0 {
            *looks -= 1;
        } else if let Some((group, _)) = self.changes.remove(&name) {
            if group.is_null() {
                self.groups.remove(&name);
                return;
            }
            if group["FeatureGroupStatus"] == "Created" {
                let table = glue_table(&group);
                self.put_table(table);
            }
            self.groups.insert(name, group);
        }
    }

    fn create_feature_group(&mut self, request: &Value) -> Result<Value, Failure> {
        let name = text(request, "FeatureGroupName")?.to_owned();
        if self.groups.contains_key(&name) {
            let message = format!("FeatureGroup {name} already exists");
            return Err(refused("ResourceInUse", message));
        }
        for required in [
            "RecordIdentifierFeatureName",
            "EventTimeFeatureName",
            "RoleArn",
        ] {
            text(request, required)?;
        }
        check_features(&request["FeatureDefinitions"], 2_500)?;
        let storage = &request["OfflineStoreConfig"]["S3StorageConfig"];
        let uri = text(storage, "S3Uri")?;
        let arn = format!("arn:aws:sagemaker:eu-west-1:123456789012:feature-group/{name}");
        let mut group = request.clone();
        group["FeatureGroupArn"] = json!(arn);
        group["FeatureGroupStatus"] = json!("Creating");
        group["CreationTime"] = json!(1_700_000_000);
        let root =
            format!("{uri}/123456789012/sagemaker/eu-west-1/offline-store/{name}-1700000000");
        group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"] =
            json!(format!("{root}/data"));
        group["OfflineStoreConfig"]["DataCatalogConfig"] = json!({
            "TableName": format!("{}_1700000000", name.replace('-', "_").to_lowercase()),
            "Catalog": "AwsDataCatalog",
            "Database": "sagemaker_featurestore",
        });
        let mut changed = group.clone();
        match &self.changes_fail {
            None => changed["FeatureGroupStatus"] = json!("Created"),
            Some(reason) => {
                changed["FeatureGroupStatus"] = json!("CreateFailed");
                changed["FailureReason"] = json!(reason);
            }
        }
        self.changes.insert(name.clone(), (changed, self.looks));
        self.groups.insert(name, group);
        Ok(json!({"FeatureGroupArn": arn}))
    }

    fn update_feature_group(&mut self, request: &Value) -> Result<Value, Failure> {
        let (name, group) = self.group(request)?;
        let (name, mut group) = (name.to_owned(), group.clone());
        let added = &request["FeatureAdditions"];
        check_features(added, 100)?;
        let arn = group["FeatureGroupArn"].clone();
        let mut changed = group.clone();
        if !self.updates_show_late {
            group["LastUpdateStatus"] = json!({"Status": "InProgress"});
        }
        changed["LastUpdateStatus"] = match &self.changes_fail {
            None => json!({"Status": "Successful"}),
            Some(reason) => json!({"Status": "Failed", "FailureReason": reason}),
        };
        if self.changes_fail.is_none()
            && let Some(definitions) = changed["FeatureDefinitions"].as_array_mut()
        {
            definitions.extend(added.as_array().into_iter().flatten().cloned());
        }
        self.changes.insert(name.clone(), (changed, self.looks));
        self.groups.insert(name, group);
        Ok(json!({"FeatureGroupArn": arn}))
    }

    /// Its table stays, and so do its files.
    fn delete_feature_group(&mut self, request: &Value) -> Result<Value, Failure> {
        let (name, group) = self.group(request)?;
        let (name, mut group) = (name.to_owned(), group.clone());
        let mut changed = group.clone();
        group["FeatureGroupStatus"] = json!("Deleting");
        if let Some(reason) = &self.changes_fail {
            changed["FeatureGroupStatus"] = json!("DeleteFailed");
            changed["FailureReason"] = json!(reason);
        } else {
            changed = Value::Null;
        }
        self.changes.insert(name.clone(), (changed, self.looks));
        self.groups.insert(name, group);
        Ok(Value::Null)
    }

    fn feature_record(&self, group: &Value, feature: &Value) -> Value {
        let key = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (name, feature_name) = (key(group, "FeatureGroupName"), key(feature, "FeatureName"));
        let mut record = json!({
            "FeatureGroupArn": group["FeatureGroupArn"], "FeatureGroupName": name,
            "FeatureName": feature_name, "FeatureType": feature["FeatureType"],
            "CreationTime": 1_700_000_000, "LastModifiedTime": 1_700_000_000,
        });
        let metadata = self.metadata.get(&(name, feature_name));
        for (key, value) in metadata.and_then(Value::as_object).into_iter().flatten() {
            record[key] = value.clone();
        }
        record
    }

    fn describe_feature_metadata(&self, request: &Value) -> Result<Value, Failure> {
        let (_, group) = self.group(request)?;
        let name = text(request, "FeatureName")?;
        let definitions = group["FeatureDefinitions"].as_array().into_iter().flatten();
        let feature = definitions
            .into_iter()
            .find(|feature| feature["FeatureName"] == name);
        let feature =
            feature.ok_or_else(|| refused("ResourceNotFound", format!("no feature {name}")))?;
        Ok(self.feature_record(group, feature))
    }

    fn search(&self, request: &Value) -> Result<Value, Failure> {
        let resource = text(request, "Resource")?;
        let records: Vec<Value> = match resource {
            "FeatureGroup" => self.groups.values().cloned().collect(),
            "FeatureMetadata" => self
                .groups
                .values()
                .flat_map(|group| {
                    let features = group["FeatureDefinitions"].as_array().into_iter().flatten();
                    features.map(|feature| self.feature_record(group, feature))
                })
                .collect(),
            _ => return Err(invalid(format!("resource {resource}"))),
        };
        let filters = request["SearchExpression"]["Filters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut results = Vec::new();
        for record in records {
            let mut matches = true;
            for filter in &filters {
                let (value, wanted) = (&record[text(filter, "Name")?], text(filter, "Value")?);
                matches &= match filter["Operator"].as_str() {
                    None | Some("Equals") => value == wanted,
                    Some("Contains") => value.as_str().is_some_and(|value| value.contains(wanted)),
                    Some(other) => return Err(invalid(format!("operator {other}"))),
                };
            }
            if matches {
                results.push(json!({resource: record}));
            }
        }
        page(request, "Results", results, self.pages.groups)
    }

    fn database(&self, request: &Value) -> Result<&BTreeMap<String, Value>, Failure> {
        let name = text(request, "DatabaseName")?;
        let missing = || {
            refused(
                "EntityNotFoundException",
                format!("Database {name} not found."),
            )
        };
        self.tables.get(name).ok_or_else(missing)
    }

    fn get_tables(&self, request: &Value) -> Result<Value, Failure> {
        if !request["Expression"].is_null() {
            return Err(invalid("Expression is not supported by this fake"));
        }
        let tables = self.database(request)?.values().cloned().collect();
        page(request, "TableList", tables, self.pages.tables)
    }

    fn get_table(&self, request: &Value) -> Result<Value, Failure> {
        let name = text(request, "Name")?;
        let missing = || {
            refused(
                "EntityNotFoundException",
                format!("Table {name} not found."),
            )
        };
        let table = self.database(request)?.get(name).ok_or_else(missing)?;
        Ok(json!({"Table": table}))
    }

    fn get_databases(&self, request: &Value) -> Result<Value, Failure> {
        let names = self
            .tables
            .keys()
            .map(|name| json!({"Name": name}))
            .collect();
        page(request, "DatabaseList", names, self.pages.tables)
    }
}

fn check_features(features: &Value, most: usize) -> Result<(), Failure> {
    let features = features.as_array().map_or(&[][..], Vec::as_slice);
    let known = |feature: &Value| {
        let kinds = ["Integral", "Fractional", "String"];
        let kind = feature["FeatureType"].as_str();
        feature["FeatureName"].is_string() && kind.is_some_and(|kind| kinds.contains(&kind))
    };
    if features.is_empty() || features.len() > most || !features.iter().all(known) {
        return Err(invalid(format!("1 to {most} features of a known type")));
    }
    Ok(())
}

/// The table that the service makes for a group.
fn glue_table(group: &Value) -> Value {
    let definitions = group["FeatureDefinitions"].as_array().into_iter().flatten();
    let features = definitions.map(|definition| {
        let kind = match definition["FeatureType"].as_str() {
            Some("Integral") => "bigint",
            Some("Fractional") => "double",
            _ => "string",
        };
        let name = definition["FeatureName"].as_str().unwrap().to_lowercase();
        json!({"Name": name, "Type": kind})
    });
    let mut columns: Vec<Value> = features.collect();
    columns.extend([
        json!({"Name": "write_time", "Type": "timestamp"}),
        json!({"Name": "api_invocation_time", "Type": "timestamp"}),
        json!({"Name": "is_deleted", "Type": "boolean"}),
    ]);
    let config = &group["OfflineStoreConfig"];
    json!({
        "Name": config["DataCatalogConfig"]["TableName"],
        "DatabaseName": config["DataCatalogConfig"]["Database"],
        "TableType": "EXTERNAL_TABLE",
        "StorageDescriptor": {
            "Columns": columns,
            "Location": config["S3StorageConfig"]["ResolvedOutputS3Uri"],
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            },
        },
    })
}

/// One page of `items` under `key`. Tokens name the list they belong to, so that a token of
/// another call is refused; the last page has none.
fn page(request: &Value, key: &str, items: Vec<Value>, size: usize) -> Result<Value, Failure> {
    let asked = match &request["MaxResults"] {
        Value::Null => size,
        asked => match asked.as_u64().and_then(|asked| usize::try_from(asked).ok()) {
            Some(asked @ 1..=100) => asked.min(size),
            _ => return Err(invalid("MaxResults is not between 1 and 100")),
        },
    };
    let start = match request["NextToken"].as_str() {
        None => 0,
        Some(token) => {
            let offset = token
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('@'));
            offset
                .and_then(|offset| offset.parse().ok())
                .ok_or_else(|| invalid("NextToken is not valid"))?
        }
    };
    let end = (start + asked).min(items.len());
    let mut page = json!({key: items.get(start..end).unwrap_or_default()});
    if end < items.len() {
        page["NextToken"] = json!(format!("{key}@{end}"));
    }
    Ok(page)
}
