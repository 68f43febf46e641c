//! What may be written to a feature group: its definition, checked once, in the forms that
//! validation, the outbox and the online stores need.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use featureflight_catalog::model::{FeatureGroup, FeatureType};
use featureflight_catalog::table::{EventTimeForm, Shape};
use featureflight_catalog::{Error, Instant, Result};
use serde::{Deserialize, Serialize};

/// Features a group may have (AWS quota).
pub const MAX_FEATURES: usize = 2_500;

/// A feature group that takes writes.
#[derive(Debug)]
pub struct WriteGroup {
    pub group: Arc<FeatureGroup>,
    pub shape: Shape,
    /// The group's own time to live. A record keeps the one it was accepted under.
    pub ttl: Option<Ttl>,
    /// The columns of a put: all features in the definition's order.
    pub puts: Arc<Layout>,
    /// The columns of a delete: record identifier and event time.
    pub deletes: Arc<Layout>,
}

impl WriteGroup {
    /// # Errors
    /// `FailedPrecondition` for a group that cannot be written: a definition this version does not
    /// know, too many features, or a group that is not `Created`.
    pub fn new(group: Arc<FeatureGroup>) -> Result<Self> {
        let name = group.feature_group_name.clone();
        let refuse = |why: String| {
            Error::precondition(format!("feature group '{name}' cannot be written: {why}"))
        };
        let count = group.feature_definitions.len();
        if count > MAX_FEATURES {
            return Err(refuse(format!(
                "it has {count} features, more than {MAX_FEATURES}"
            )));
        }
        if let Some(status) = group.feature_group_status.as_deref()
            && status != "Created"
        {
            return Err(refuse(format!(
                "its status is '{status}', it must be 'Created'"
            )));
        }
        let shape = Shape::new(&group).map_err(refuse)?;
        let ttl = group_ttl(&group).map_err(refuse)?;
        let fields = group.feature_definitions.iter().map(|definition| {
            Field::new(
                &definition.feature_name,
                written_type(definition.feature_type.clone()),
                true,
            )
        });
        let fields: Vec<_> = fields
            .enumerate()
            .map(|(at, field)| {
                field.with_nullable(at != shape.record_identifier && at != shape.event_time)
            })
            .collect();
        let key = vec![
            fields[shape.record_identifier].clone(),
            fields[shape.event_time].clone(),
        ];
        let layout = |record_identifier, event_time, fields: Vec<Field>| {
            Arc::new(Layout {
                group: name.clone(),
                record_identifier,
                event_time,
                schema: Arc::new(Schema::new(fields)),
            })
        };
        Ok(Self {
            puts: layout(shape.record_identifier, shape.event_time, fields),
            deletes: layout(0, 1, key),
            group,
            shape,
            ttl,
        })
    }

    pub fn name(&self) -> &str {
        &self.group.feature_group_name
    }
}

/// The type a feature is kept in from its validation to its online store: text as `Utf8`, an event
/// time in the form of its definition.
fn written_type(kind: FeatureType) -> DataType {
    match kind {
        FeatureType::Integral => DataType::Int64,
        FeatureType::Fractional => DataType::Float64,
        FeatureType::String | FeatureType::Other(_) => DataType::Utf8,
    }
}

/// The columns of written rows, and which of them are the record identifier and the event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub group: String,
    /// Position in `schema`.
    pub record_identifier: usize,
    /// Position in `schema`; its column is `Utf8` (ISO-8601 in UTC) or `Float64` (Unix seconds).
    pub event_time: usize,
    /// Fields of type `Int64`, `Float64` or `Utf8`, named as the features.
    pub schema: SchemaRef,
}

impl Layout {
    pub fn event_time_form(&self) -> EventTimeForm {
        match self.schema.field(self.event_time).data_type() {
            DataType::Float64 => EventTimeForm::Seconds,
            _ => EventTimeForm::Text,
        }
    }
}

/// How long a record lives online after its event time: AWS's `TtlDuration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ttl {
    pub unit: TtlUnit,
    /// At least 1.
    pub value: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TtlUnit {
    Seconds,
    Minutes,
    Hours,
    Days,
    Weeks,
}

impl Ttl {
    pub fn duration(self) -> Duration {
        let unit = match self.unit {
            TtlUnit::Seconds => 1,
            TtlUnit::Minutes => 60,
            TtlUnit::Hours => 3_600,
            TtlUnit::Days => 86_400,
            TtlUnit::Weeks => 604_800,
        };
        Duration::from_secs(unit * u64::from(self.value))
    }

    /// When a record of this event time stops being there; `None` beyond what an instant can hold.
    pub fn expiry(self, event_time: Instant) -> Option<Instant> {
        let nanos = i128::try_from(self.duration().as_nanos()).ok()?;
        Instant::from_total_nanos(event_time.total_nanos().checked_add(nanos)?)
    }
}

fn group_ttl(group: &FeatureGroup) -> Result<Option<Ttl>, String> {
    let Some(ttl) = group
        .other
        .get("OnlineStoreConfig")
        .and_then(|config| config.get("TtlDuration"))
        .filter(|ttl| !ttl.is_null())
    else {
        return Ok(None);
    };
    let parsed: Ttl = serde_json::from_value(ttl.clone())
        .map_err(|why| format!("its TtlDuration {ttl} is not understood: {why}"))?;
    if parsed.value == 0 {
        return Err("its TtlDuration is 0, it must be at least 1".to_owned());
    }
    Ok(Some(parsed))
}
