//! Writes small warehouses in the SageMaker layout for the tests: `DescribeFeatureGroup` JSON and
//! Parquet files in hour folders by event time.
//!
//! It shares no code with the scanner. It does not imitate the service's buffering: each call of
//! [`Group::file`] is one object.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use chrono::DateTime;
use parquet::arrow::ArrowWriter;
use serde_json::json;

/// The creation epoch in every location and Glue table name.
pub const EPOCH: i64 = 1_700_000_000;

/// A feature's value in one version.
#[derive(Debug, Clone)]
pub enum Value {
    Text(&'static str),
    Integer(i64),
    Double(f64),
    Null,
}

/// One version. Times are Unix seconds.
#[derive(Debug, Clone)]
pub struct Version {
    /// In definition order, the record identifier and the event time (as stored) among them.
    pub features: Vec<Value>,
    /// Decides the hour folder.
    pub event: i64,
    pub api: i64,
    pub write: i64,
    pub deleted: bool,
}

/// A feature group to write; the first feature is the record identifier, the second the event time.
#[derive(Debug)]
pub struct Group {
    name: &'static str,
    features: Vec<(&'static str, &'static str)>,
    files: Vec<Vec<Version>>,
    online: bool,
}

impl Group {
    /// `features` are names and types (`String`, `Integral`, `Fractional`).
    pub fn new(name: &'static str, features: &[(&'static str, &'static str)]) -> Self {
        Self {
            name,
            features: features.to_vec(),
            files: Vec::new(),
            online: false,
        }
    }

    /// `scores`, a group of every type and with an online store, for tests that write.
    pub fn scores() -> Self {
        let features = [
            ("id", "String"),
            ("at", "String"),
            ("score", "Fractional"),
            ("visits", "Integral"),
        ];
        Self::new("scores", &features).online()
    }

    /// Gives it an online store.
    #[must_use]
    pub fn online(mut self) -> Self {
        self.online = true;
        self
    }

    /// Adds the versions as one object per hour folder they fall in.
    #[must_use]
    pub fn file(mut self, versions: Vec<Version>) -> Self {
        self.files.push(versions);
        self
    }

    fn root(&self) -> String {
        format!(
            "123456789012/sagemaker/eu-west-1/offline-store/{}-{EPOCH}",
            self.name
        )
    }

    fn description(&self) -> serde_json::Value {
        json!({
            "FeatureGroupArn": format!("arn:aws:sagemaker:eu-west-1:123456789012:feature-group/{}", self.name),
            "FeatureGroupName": self.name,
            "RecordIdentifierFeatureName": self.features[0].0,
            "EventTimeFeatureName": self.features[1].0,
            "FeatureDefinitions": self.features.iter()
                .map(|(name, kind)| json!({"FeatureName": name, "FeatureType": kind})).collect::<Vec<_>>(),
            "CreationTime": EPOCH,
            "OnlineStoreConfig": {"EnableOnlineStore": self.online},
            "OfflineStoreConfig": {
                "S3StorageConfig": {
                    "S3Uri": "s3://offline",
                    "ResolvedOutputS3Uri": format!("s3://offline/{}/data", self.root()),
                },
                "DataCatalogConfig": {
                    "TableName": format!("{}_{EPOCH}", self.name.replace('-', "_").to_lowercase()),
                    "Catalog": "AwsDataCatalog",
                    "Database": "SageMaker_FeatureStore",
                },
            },
            "FeatureGroupStatus": "Created",
            "OfflineStoreStatus": {"Status": "Active"},
        })
    }

    /// Writes the group into the warehouse at `directory`.
    pub fn write(&self, directory: &Path) {
        let groups = directory.join("feature-groups");
        fs::create_dir_all(&groups).unwrap();
        fs::write(
            groups.join(format!("{}.json", self.name)),
            self.description().to_string(),
        )
        .unwrap();
        let data = directory.join("s3").join(self.root()).join("data");
        fs::create_dir_all(&data).unwrap();
        for (number, file) in self.files.iter().enumerate() {
            let mut hours: Vec<i64> = file.iter().map(|v| v.event.div_euclid(3600)).collect();
            hours.sort_unstable();
            hours.dedup();
            for hour in hours {
                let at = DateTime::from_timestamp(hour * 3600, 0).unwrap();
                let folder = data.join(at.format("year=%Y/month=%m/day=%d/hour=%H").to_string());
                fs::create_dir_all(&folder).unwrap();
                let rows: Vec<&Version> = file
                    .iter()
                    .filter(|v| v.event.div_euclid(3600) == hour)
                    .collect();
                let name = format!("{}_{number:016}.parquet", at.format("%Y%m%dT%H5959Z"));
                let batch = self.batch(&rows);
                let file = fs::File::create(folder.join(name)).unwrap();
                let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
                writer.write(&batch).unwrap();
                writer.close().unwrap();
            }
        }
    }

    fn batch(&self, rows: &[&Version]) -> RecordBatch {
        let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
        for (position, (name, kind)) in self.features.iter().enumerate() {
            let values = rows.iter().map(|v| &v.features[position]);
            let array: ArrayRef = match *kind {
                "String" => Arc::new(StringArray::from_iter(values.map(|v| match v {
                    Value::Text(text) => Some(*text),
                    _ => None,
                }))),
                "Integral" => Arc::new(Int64Array::from_iter(values.map(|v| match v {
                    Value::Integer(value) => Some(*value),
                    _ => None,
                }))),
                _ => Arc::new(Float64Array::from_iter(values.map(|v| match v {
                    Value::Double(value) => Some(*value),
                    _ => None,
                }))),
            };
            columns.push((name, array, true));
        }
        let times = |of: fn(&Version) -> i64| -> ArrayRef {
            let millis = rows.iter().map(|v| of(v) * 1000);
            Arc::new(TimestampMillisecondArray::from_iter_values(millis).with_timezone("UTC"))
        };
        columns.push(("write_time", times(|v| v.write), false));
        columns.push(("api_invocation_time", times(|v| v.api), false));
        let deleted = BooleanArray::from_iter(rows.iter().map(|v| Some(v.deleted)));
        columns.push(("is_deleted", Arc::new(deleted), false));
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }
}

/// Record, event, value, api, write, deleted.
type Example = (&'static str, i64, Option<&'static str>, i64, i64, bool);

/// The worked examples of the offline store's official semantics: duplicates, a late row,
/// tombstones and a record that came back.
const EXAMPLES: [Example; 9] = [
    ("A", 100, Some("a1"), 100, 1000, false),
    ("A", 200, Some("a2"), 200, 1100, false),
    ("A", 200, Some("a2b"), 210, 1110, false),
    ("A", 150, Some("a15"), 900, 2000, false),
    ("B", 100, Some("b1"), 100, 1000, false),
    ("B", 300, None, 300, 1200, true),
    ("C", 100, Some("c1"), 100, 1000, false),
    ("C", 300, None, 300, 1200, true),
    ("C", 400, Some("c4"), 400, 1300, false),
];

/// The texts of the examples' event times, in the forms found in real stores.
fn event_text(event: i64) -> &'static str {
    match event {
        100 => "1970-01-01T00:01:40Z",
        150 => "1970-01-01T00:02:30.000Z",
        200 => "1970-01-01 00:03:20",
        300 => "1970-01-01T01:05:00+01:00",
        400 => "1970-01-01T00:06:40.000000000Z",
        _ => unreachable!("no example has this event time"),
    }
}

/// The warehouse of the `.slt` files: `examples` (String event time), `examples-fractional`
/// (Fractional event time, a hyphen in its name), `MixedCase` (original case in every name).
pub fn write_examples(directory: &Path) {
    let version = |position: usize, fractional: bool| {
        let (id, event, value, api, write, deleted) = EXAMPLES[position];
        #[expect(clippy::cast_precision_loss, reason = "small constants")]
        let time = if fractional {
            Value::Double(event as f64)
        } else {
            Value::Text(event_text(event))
        };
        let value = value.map_or(Value::Null, Value::Text);
        Version {
            features: vec![Value::Text(id), time, value],
            event,
            api,
            write,
            deleted,
        }
    };
    for (name, kind) in [
        ("examples", "String"),
        ("examples-fractional", "Fractional"),
    ] {
        let fractional = kind == "Fractional";
        let mut group = Group::new(
            name,
            &[("id", "String"), ("event_time", kind), ("v", "String")],
        );
        for rows in [vec![8, 0, 5], vec![4, 1, 6, 3], vec![2, 7]] {
            group = group.file(
                rows.into_iter()
                    .map(|row| version(row, fractional))
                    .collect(),
            );
        }
        group.write(directory);
    }
    let mixed = [
        ("Id", "Integral"),
        ("EventTime", "String"),
        ("ZipCode", "String"),
        ("zipCode2", "Fractional"),
    ];
    let row = |id, text, event, zip, number| Version {
        features: vec![
            Value::Integer(id),
            Value::Text(text),
            Value::Text(zip),
            Value::Double(number),
        ],
        event,
        api: event + 1,
        write: event + 600,
        deleted: false,
    };
    Group::new("MixedCase", &mixed)
        .file(vec![
            row(1, "2026-01-01T00:00:00Z", 1_767_225_600, "10115", 0.5),
            row(2, "2026-01-01T12:00:00.250Z", 1_767_268_800, "20095", 1.5),
        ])
        .file(vec![row(
            1,
            "2026-01-02T00:00:00Z",
            1_767_312_000,
            "80331",
            2.5,
        )])
        .write(directory);
}
