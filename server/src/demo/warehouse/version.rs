//! A version before it is in a file.

/// A feature's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Integral(i64),
    Fractional(f64),
    Text(String),
    /// Text known at compile time.
    Name(&'static str),
}

/// One version of a record. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Version {
    /// Position of the customer among all.
    pub(super) customer: usize,
    pub(super) event_time: i64,
    /// Whole seconds, as the service has it.
    pub(super) api_invocation_time: i64,
    pub(super) is_deleted: bool,
    /// In the order of the definition, identifier and event time among them.
    pub(super) values: Vec<Value>,
}

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

/// The record identifier of a customer.
pub(super) fn name(customer: usize) -> String {
    format!("C{customer:06}")
}

pub(super) fn customer_id(customer: usize) -> Value {
    Value::Text(name(customer))
}

/// `time` as the service wants text: UTC, to the second or to the millisecond.
pub(super) fn iso(time: i64, millis: bool) -> Value {
    let format = if millis {
        "%Y-%m-%dT%H:%M:%S%.3fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Value::Text(utc(time).format(format).to_string())
}

/// `time` as Unix seconds, to the millisecond.
pub(super) fn unix_seconds(time: i64) -> Value {
    // Milliseconds of this century need 41 bits, a double has 53.
    #[allow(clippy::cast_precision_loss)]
    let millis = (time / 1000) as f64;
    Value::Fractional(millis / 1000.0)
}

/// Euros out of cents.
pub(super) fn euros(cents: u32) -> Value {
    Value::Fractional(f64::from(cents) / 100.0)
}

/// A moment of microseconds; the epoch for what no calendar has.
pub(in crate::demo) fn utc(time: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_micros(time).unwrap_or_default()
}

impl Value {
    pub(super) fn integral(&self) -> Option<i64> {
        match self {
            Self::Integral(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn fractional(&self) -> Option<f64> {
        match self {
            Self::Fractional(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            Self::Name(value) => Some(value),
            _ => None,
        }
    }
}
