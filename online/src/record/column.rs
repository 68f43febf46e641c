//! Stored text back into columns of a group's state.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use featureflight_catalog::table::EventTimeForm;
use featureflight_catalog::{Error, Instant, Result};

use crate::group::WriteGroup;
use crate::store::StoredRecord;

/// The feature at `at` of every record, in the type of the group's state schema.
pub(crate) fn column(group: &WriteGroup, at: usize, records: &[StoredRecord]) -> Result<ArrayRef> {
    let field = group.shape.state_schema.field(at);
    let name = field.name();
    let wrong = |record: &StoredRecord, kind: &str| {
        let group = group.name();
        let identifier = &record.identifier;
        Error::data_loss(format!(
            "feature '{name}' of record '{identifier}' of feature group '{group}' is not {kind} in \
             the online store"
        ))
    };
    let texts = records.iter().map(|record| {
        let mut values = record.values.iter();
        let found = values.find(|(stored, _)| stored == name);
        (record, found.map(|(_, text)| text.as_str()))
    });
    if at == group.shape.event_time {
        let instants = texts.map(|(record, text)| {
            let instant = text.and_then(|text| instant(group.shape.event_time_form, text));
            let instant = instant.ok_or_else(|| wrong(record, "a point in time"))?;
            Ok(Some(instant.to_micros_floor()))
        });
        let micros: TimestampMicrosecondArray = instants.collect::<Result<_>>()?;
        return Ok(Arc::new(micros.with_timezone("UTC")));
    }
    Ok(match field.data_type() {
        DataType::Int64 => {
            let parse = |(record, text): (&StoredRecord, Option<&str>)| {
                let parsed = text.map(str::parse).transpose();
                parsed.map_err(|_| wrong(record, "an integer"))
            };
            Arc::new(texts.map(parse).collect::<Result<Int64Array>>()?)
        }
        DataType::Float64 => {
            let parse = |(record, text): (&StoredRecord, Option<&str>)| {
                let parsed = text.map(str::parse).transpose();
                parsed.map_err(|_| wrong(record, "a number"))
            };
            Arc::new(texts.map(parse).collect::<Result<Float64Array>>()?)
        }
        _ => Arc::new(texts.map(|(_, text)| text).collect::<StringViewArray>()),
    })
}

fn instant(form: EventTimeForm, text: &str) -> Option<Instant> {
    match form {
        EventTimeForm::Text => Instant::parse(text).ok(),
        EventTimeForm::Seconds => Instant::from_seconds(text.parse().ok()?),
    }
}
