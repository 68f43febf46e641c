//! A fake of the SageMaker Feature Store runtime, over HTTP in the service's protocol (REST-JSON),
//! for the real AWS client to talk to.
//!
//! It answers `PutRecord`, `GetRecord`, `DeleteRecord` (soft and hard), `BatchWriteRecord` and
//! `BatchGetRecord`: a strictly greater event time wins online, everything accepted is appended to
//! an offline log, deletes leave their markers there, a hard delete that is not newer is refused.
//! Tests script what goes wrong: throttling, failures, answers lost after the write was carried
//! out, entries left unprocessed or failed, poison, an outage, expired credentials, a service or a
//! role without `BatchWriteRecord`. Tests in other languages steer it by `POST /steer/...` and read
//! the offline log by `GET /steer/offline`.
//!
//! What it does not do: check signatures (it only wants one to be there), expire records, types of
//! values, `ListRecords`, `UpdateRecord`, `TargetStores`, ARNs in place of names, capacity.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use featureflight_catalog::Instant;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::loopback::{Loopback, sdk_config};

/// The fake, serving on a port of the loopback interface until dropped.
#[derive(Debug)]
pub struct FakeRuntime {
    service: Arc<Mutex<Service>>,
    server: Loopback,
}

/// What goes wrong, as parts of all calls or entries.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct Faults {
    /// Calls throttled.
    pub throttled: f64,
    /// Calls failed with 500 or 503, nothing done.
    pub failed: f64,
    /// Calls carried out whose answer never comes.
    pub unanswered: f64,
    /// Calls carried out whose connection breaks in the answer.
    pub broken: f64,
    /// Entries of a batch left unprocessed.
    pub unprocessed: f64,
    /// Entries of a batch that fail with `InternalFailure`.
    pub entry_failed: f64,
    /// Identifiers that are refused with `ValidationError`.
    pub poison: HashSet<String>,
    /// Identifiers on which the service fails with `InternalFailure`.
    pub crashing: HashSet<String>,
    /// Everything answers 503.
    pub away: bool,
    pub credentials_expired: bool,
    /// `BatchWriteRecord` is not known.
    pub without_batches: bool,
    /// The role may not call `BatchWriteRecord`.
    pub batches_denied: bool,
}

/// A row of the offline log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineRow {
    pub group: String,
    pub identifier: String,
    pub event_time: Instant,
    pub is_deleted: bool,
    /// When it came, to the whole second.
    pub invoked_at: Instant,
    pub values: BTreeMap<String, String>,
}

/// A record of the online store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlineRecord {
    pub event_time: Instant,
    /// `None` after a soft delete.
    pub values: Option<BTreeMap<String, String>>,
    /// `TtlDuration` as it came.
    pub ttl: Option<Value>,
}

#[derive(Debug)]
struct Service {
    /// By name: record identifier and event time.
    groups: HashMap<String, (String, String)>,
    online: BTreeMap<(String, String), OnlineRecord>,
    offline: Vec<OfflineRow>,
    faults: Faults,
    random: StdRng,
    calls: BTreeMap<&'static str, usize>,
}

/// An error answer: HTTP status, code, message.
type Failure = (StatusCode, &'static str, String);

impl FakeRuntime {
    /// # Panics
    /// When no port can be had.
    pub async fn start() -> Self {
        let service = Arc::new(Mutex::new(Service {
            groups: HashMap::new(),
            online: BTreeMap::new(),
            offline: Vec::new(),
            faults: Faults::default(),
            random: StdRng::seed_from_u64(7),
            calls: BTreeMap::new(),
        }));
        let server = Loopback::serve(&service, answer).await;
        Self { service, server }
    }

    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// What the AWS client needs to talk to the fake instead of AWS.
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.server.url)
    }

    pub fn add_group(&self, name: &str, record_identifier: &str, event_time: &str) {
        let columns = (record_identifier.to_owned(), event_time.to_owned());
        self.service.lock().groups.insert(name.to_owned(), columns);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.service.lock().faults = faults;
    }

    pub fn online(&self, group: &str, identifier: &str) -> Option<OnlineRecord> {
        let key = (group.to_owned(), identifier.to_owned());
        self.service.lock().online.get(&key).cloned()
    }

    /// Everything written, in the order it was carried out.
    pub fn offline(&self) -> Vec<OfflineRow> {
        self.service.lock().offline.clone()
    }

    /// Calls so far, refused ones included.
    pub fn calls(&self, operation: &'static str) -> usize {
        self.service
            .lock()
            .calls
            .get(operation)
            .copied()
            .unwrap_or(0)
    }

    pub fn all_calls(&self) -> usize {
        self.service.lock().calls.values().sum()
    }
}

async fn answer(
    State(service): State<Arc<Mutex<Service>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(what) = uri.path().strip_prefix("/steer/") {
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        return match service.lock().steer(what, &body) {
            Some(answer) => axum::Json(answer).into_response(),
            None => StatusCode::BAD_REQUEST.into_response(),
        };
    }
    let (answer, lost) = {
        let mut service = service.lock();
        let answer = service.answer(&method, &uri, &headers, &body);
        (answer, service.loses_the_answer())
    };
    match lost {
        Lost::No => {}
        // Longer than any client of the tests waits.
        Lost::Silent => tokio::time::sleep(Duration::from_secs(30)).await,
        Lost::Broken => {
            let broken = futures::stream::iter([
                Ok(Bytes::from_static(b"{")),
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
            ]);
            return Body::from_stream(broken).into_response();
        }
    }
    match answer {
        Ok(json) => axum::Json(json).into_response(),
        Err((status, code, message)) => {
            let body = axum::Json(json!({"Message": message}));
            (status, [("x-amzn-errortype", code)], body).into_response()
        }
    }
}

enum Lost {
    No,
    Silent,
    Broken,
}

fn whole_second() -> Instant {
    let now = Instant::now().micros;
    Instant::from_micros(now - now.rem_euclid(1_000_000))
}

fn validation(message: impl Into<String>) -> Failure {
    (StatusCode::BAD_REQUEST, "ValidationError", message.into())
}

fn failure() -> Failure {
    let message = "internal failure".to_owned();
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalFailure",
        message,
    )
}

impl Service {
    /// `groups`: a `DescribeFeatureGroup` response; `faults`: `{"poison": [identifiers], "away":
    /// bool}`, in place of all others; `offline`: the log, times in microseconds.
    fn steer(&mut self, what: &str, body: &Value) -> Option<Value> {
        match what {
            "groups" => {
                let text = |key: &str| body[key].as_str().map(str::to_owned);
                let columns = (
                    text("RecordIdentifierFeatureName")?,
                    text("EventTimeFeatureName")?,
                );
                self.groups.insert(text("FeatureGroupName")?, columns);
            }
            "faults" => {
                let poison = body["poison"].as_array().into_iter().flatten();
                self.faults = Faults {
                    poison: poison
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect(),
                    away: body["away"].as_bool().unwrap_or(false),
                    ..Faults::default()
                };
            }
            "offline" => {
                let rows = self.offline.iter().map(|row| {
                    json!({
                        "group": row.group,
                        "values": row.values,
                        "is_deleted": row.is_deleted,
                        "invoked_at": row.invoked_at.micros,
                    })
                });
                return Some(rows.collect());
            }
            _ => return None,
        }
        Some(Value::Null)
    }

    fn chance(&mut self, part: f64) -> bool {
        part > 0.0 && self.random.random_bool(part)
    }

    fn loses_the_answer(&mut self) -> Lost {
        if self.chance(self.faults.unanswered) {
            Lost::Silent
        } else if self.chance(self.faults.broken) {
            Lost::Broken
        } else {
            Lost::No
        }
    }

    fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Value, Failure> {
        let group = uri.path().strip_prefix("/FeatureGroup/").map(decode);
        let operation = match (method.as_str(), uri.path(), &group) {
            ("PUT", _, Some(_)) => "PutRecord",
            ("GET", _, Some(_)) => "GetRecord",
            ("DELETE", _, Some(_)) => "DeleteRecord",
            ("POST", "/BatchWriteRecord", _) => "BatchWriteRecord",
            ("POST", "/BatchGetRecord", _) => "BatchGetRecord",
            _ => "unknown",
        };
        *self.calls.entry(operation).or_default() += 1;
        self.refuse(operation, headers)?;
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let query = query(uri);
        match (operation, group) {
            ("PutRecord", Some(group)) => self.put(&group, &body["Record"], &body["TtlDuration"]),
            ("DeleteRecord", Some(group)) => self.delete(&group, &query),
            ("GetRecord", Some(group)) => {
                let identifier = query.get("RecordIdentifierValueAsString");
                let identifier = identifier.ok_or_else(|| validation("no identifier"))?;
                self.known(&group)?;
                let record = self.get(&group, identifier);
                Ok(record.map_or(json!({}), |record| json!({"Record": record})))
            }
            ("BatchWriteRecord", _) => self.batch_write(&body),
            ("BatchGetRecord", _) => self.batch_get(&body),
            _ => Err((
                StatusCode::NOT_FOUND,
                "UnknownOperationException",
                String::new(),
            )),
        }
    }

    /// What fails before anything is looked at.
    fn refuse(&mut self, operation: &str, headers: &HeaderMap) -> Result<(), Failure> {
        let signed = headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("/eu-west-1/sagemaker/aws4_request"));
        if !signed {
            let message = "no signature for sagemaker".to_owned();
            return Err((
                StatusCode::FORBIDDEN,
                "MissingAuthenticationTokenException",
                message,
            ));
        }
        let faults = self.faults.clone();
        if faults.away || self.chance(faults.failed) {
            let message = "try again".to_owned();
            return Err((
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                message,
            ));
        }
        if faults.credentials_expired {
            let message = "the security token is expired".to_owned();
            return Err((StatusCode::FORBIDDEN, "ExpiredTokenException", message));
        }
        if self.chance(faults.throttled) {
            let message = "rate exceeded".to_owned();
            return Err((StatusCode::BAD_REQUEST, "ThrottlingException", message));
        }
        if operation == "BatchWriteRecord" && faults.without_batches {
            return Err((
                StatusCode::NOT_FOUND,
                "UnknownOperationException",
                String::new(),
            ));
        }
        if operation == "BatchWriteRecord" && faults.batches_denied {
            let message = "not authorized to perform sagemaker:BatchWriteRecord".to_owned();
            return Err((StatusCode::FORBIDDEN, "AccessDeniedException", message));
        }
        Ok(())
    }

    fn known(&self, group: &str) -> Result<(String, String), Failure> {
        let columns = self.groups.get(group).cloned();
        columns.ok_or_else(|| validation(format!("Resource Not Found: no feature group {group}")))
    }

    fn put(&mut self, group: &str, record: &Value, ttl: &Value) -> Result<Value, Failure> {
        let (identifier_name, time_name) = self.known(group)?;
        let mut values = BTreeMap::new();
        for value in record.as_array().into_iter().flatten() {
            let text = |key: &str| value[key].as_str().map(str::to_owned);
            let (Some(name), Some(text)) = (text("FeatureName"), text("ValueAsString")) else {
                return Err(validation("a feature without a name or a value"));
            };
            if values.insert(name.clone(), text).is_some() {
                return Err(validation(format!("feature {name} comes twice")));
            }
        }
        let get = |name: &str| {
            let value = values.get(name).cloned();
            value.ok_or_else(|| validation(format!("feature {name} is required")))
        };
        let (identifier, time) = (get(&identifier_name)?, event_time(&get(&time_name)?)?);
        self.check_poison(&identifier)?;
        self.offline.push(OfflineRow {
            group: group.to_owned(),
            identifier: identifier.clone(),
            event_time: time,
            is_deleted: false,
            invoked_at: whole_second(),
            values: values.clone(),
        });
        let key = (group.to_owned(), identifier);
        if self
            .online
            .get(&key)
            .is_none_or(|stored| time > stored.event_time)
        {
            let record = OnlineRecord {
                event_time: time,
                values: Some(values),
                ttl: Some(ttl.clone()).filter(|ttl| !ttl.is_null()),
            };
            self.online.insert(key, record);
        }
        Ok(json!({}))
    }

    fn check_poison(&self, identifier: &str) -> Result<(), Failure> {
        if self.faults.poison.contains(identifier) {
            return Err(validation("a value is not of its feature's type"));
        }
        if self.faults.crashing.contains(identifier) {
            return Err(failure());
        }
        Ok(())
    }

    fn delete(&mut self, group: &str, query: &HashMap<String, String>) -> Result<Value, Failure> {
        let (identifier_name, time_name) = self.known(group)?;
        let get = |name: &str| {
            let value = query.get(name).cloned();
            value.ok_or_else(|| validation(format!("{name} is required")))
        };
        let identifier = get("RecordIdentifierValueAsString")?;
        let text = get("EventTime")?;
        let time = event_time(&text)?;
        self.check_poison(&identifier)?;
        let hard = query
            .get("DeletionMode")
            .is_some_and(|mode| mode == "HardDelete");
        let key = (group.to_owned(), identifier.clone());
        let newer = self
            .online
            .get(&key)
            .is_none_or(|stored| time > stored.event_time);
        if hard && !newer {
            let message = "EventTime must be later than the EventTime of the stored record";
            return Err(validation(message));
        }
        self.offline.push(OfflineRow {
            group: group.to_owned(),
            identifier: identifier.clone(),
            event_time: time,
            is_deleted: true,
            invoked_at: whole_second(),
            values: BTreeMap::from([(identifier_name, identifier), (time_name, text)]),
        });
        if hard {
            self.online.remove(&key);
        } else if newer {
            let record = OnlineRecord {
                event_time: time,
                values: None,
                ttl: None,
            };
            self.online.insert(key, record);
        }
        Ok(json!({}))
    }

    fn get(&self, group: &str, identifier: &str) -> Option<Value> {
        let key = (group.to_owned(), identifier.to_owned());
        let values = self.online.get(&key)?.values.as_ref()?;
        let values = values
            .iter()
            .map(|(name, text)| json!({"FeatureName": name, "ValueAsString": text}));
        Some(values.collect())
    }

    fn batch_write(&mut self, body: &Value) -> Result<Value, Failure> {
        let entries = body["Entries"].as_array().cloned().unwrap_or_default();
        if entries.is_empty() || entries.len() > 25 {
            return Err(validation("1 to 25 entries"));
        }
        let (mut errors, mut unprocessed) = (Vec::new(), Vec::new());
        for entry in entries {
            if self.chance(self.faults.unprocessed) {
                unprocessed.push(entry);
                continue;
            }
            let group = entry["FeatureGroupName"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let ttl = if entry["TtlDuration"].is_null() {
                &body["TtlDuration"]
            } else {
                &entry["TtlDuration"]
            };
            let done = if self.chance(self.faults.entry_failed) {
                Err(failure())
            } else {
                self.put(&group, &entry["Record"], ttl)
            };
            if let Err((_, code, message)) = done {
                errors.push(json!({"Entry": entry, "ErrorCode": code, "ErrorMessage": message}));
            }
        }
        Ok(json!({"Errors": errors, "UnprocessedEntries": unprocessed}))
    }

    fn batch_get(&mut self, body: &Value) -> Result<Value, Failure> {
        let (mut records, mut unprocessed) = (Vec::new(), Vec::new());
        for asked in body["Identifiers"].as_array().into_iter().flatten() {
            let group = asked["FeatureGroupName"].as_str().unwrap_or_default();
            self.known(group)?;
            let identifiers = asked["RecordIdentifiersValueAsString"].as_array();
            let identifiers = identifiers.cloned().unwrap_or_default();
            if identifiers.len() > 100 {
                return Err(validation("at most 100 identifiers"));
            }
            let mut left = Vec::new();
            for identifier in identifiers {
                if self.chance(self.faults.unprocessed) {
                    left.push(identifier);
                    continue;
                }
                let identifier = identifier.as_str().unwrap_or_default();
                if let Some(record) = self.get(group, identifier) {
                    records.push(json!({
                        "FeatureGroupName": group,
                        "RecordIdentifierValueAsString": identifier,
                        "Record": record,
                    }));
                }
            }
            if !left.is_empty() {
                unprocessed.push(json!({
                    "FeatureGroupName": group,
                    "RecordIdentifiersValueAsString": left,
                }));
            }
        }
        Ok(json!({"Records": records, "Errors": [], "UnprocessedIdentifiers": unprocessed}))
    }
}

fn event_time(text: &str) -> Result<Instant, Failure> {
    let seconds = text.parse().ok().and_then(Instant::from_seconds);
    let instant = seconds.or_else(|| Instant::parse(text).ok());
    instant.ok_or_else(|| validation(format!("EventTime {text} is malformed")))
}

fn query(uri: &Uri) -> HashMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let pairs = pairs.filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits: Vec<u8> = rest.by_ref().take(2).collect();
        let digits = String::from_utf8(digits).unwrap();
        bytes.push(u8::from_str_radix(&digits, 16).unwrap());
    }
    String::from_utf8(bytes).unwrap()
}
