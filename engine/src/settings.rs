//! The settings of a session: `SET`, `RESET` and `SHOW` of `featureflight.*`, the same as options
//! and headers of drivers. No other setting can be reached from outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::compute::kernels::cast_utils::parse_interval_month_day_nano;
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Instant, Result};
use featureflight_udf::Clocks;

/// The namespace of every setting.
const NAMESPACE: &str = "featureflight";

/// Endpoints one result may be cut into.
const MAX_ENDPOINTS: u64 = 1_024;

/// What a session's statements run under; `None` is the server's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    pub clocks: Clocks,
    pub query_timeout: Option<Duration>,
    /// Rows and bytes of one result, beyond which it is an error.
    pub max_rows: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Endpoints a result is cut into where it can be.
    pub endpoints: Option<u64>,
    pub writes: WriteSettings,
    /// Queries leave out accepted rows that are not in the offline store yet.
    pub stale: bool,
    /// `DROP TABLE` may drop feature groups.
    pub allow_drop: bool,
    /// Results have ISO-8601 text in place of timestamps, for readers that take no time zone or take it
    /// for another.
    pub text_timestamps: bool,
}

/// How a session's writes are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteSettings {
    /// A delete forgets its record's event time.
    pub hard_deletes: bool,
    /// A put that leaves features out makes them null.
    pub partial_puts: bool,
    /// Of a write some of whose rows are refused the others are accepted.
    pub skip_refused: bool,
}

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    SystemTime,
    ValidTime,
    QueryTimeout,
    MaxRows,
    MaxBytes,
    Endpoints,
    Deletion,
    Partial,
    OnError,
    Fresh,
    Timestamps,
    AllowDrop,
}

/// A value of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Instant(Instant),
    Duration(Duration),
    Count(u64),
    /// Whether it is the second of the setting's two words.
    Switch(bool),
}

impl Setting {
    pub const ALL: [Self; 12] = [
        Self::SystemTime,
        Self::ValidTime,
        Self::QueryTimeout,
        Self::MaxRows,
        Self::MaxBytes,
        Self::Endpoints,
        Self::Deletion,
        Self::Partial,
        Self::OnError,
        Self::Fresh,
        Self::Timestamps,
        Self::AllowDrop,
    ];

    /// The name within the namespace.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemTime => "system_time",
            Self::ValidTime => "valid_time",
            Self::QueryTimeout => "query_timeout",
            Self::MaxRows => "max_rows",
            Self::MaxBytes => "max_bytes",
            Self::Endpoints => "endpoints",
            Self::Deletion => "deletion",
            Self::Partial => "partial",
            Self::OnError => "on_error",
            Self::Fresh => "fresh",
            Self::Timestamps => "timestamps",
            Self::AllowDrop => "allow_drop",
        }
    }

    /// What it does, for `system` tables and documentation.
    pub fn description(self) -> &'static str {
        match self {
            Self::SystemTime => {
                "only versions written to the offline store by then; now() follows it"
            }
            Self::ValidTime => "only versions whose event time is not later",
            Self::QueryTimeout => {
                "a query that takes longer is an error; the server's own limit stays"
            }
            Self::MaxRows => "a result with more rows is an error",
            Self::MaxBytes => "a result with more bytes is an error",
            Self::Endpoints => {
                "for parallel readers: parts a result is cut into where that repeats no work"
            }
            Self::Deletion => {
                "'soft': DELETE remembers when; 'hard': it removes the record from the online store"
            }
            Self::Partial => {
                "'refuse': an INSERT gives every feature; 'null': those it leaves out become null"
            }
            Self::Fresh => {
                "false: queries leave out accepted rows that are not in the offline store yet"
            }
            Self::Timestamps => {
                "'zoned': results have timestamps in UTC; 'text': ISO-8601 text in their place"
            }
            Self::AllowDrop => "true: DROP TABLE may delete feature groups with all their records",
            Self::OnError => {
                "'abort': one refused row refuses the write; 'skip': the other rows are written"
            }
        }
    }

    /// The setting a (possibly qualified) name stands for, ignoring case.
    ///
    /// # Errors
    /// `InvalidArgument` that lists the settings there are.
    pub fn named(parts: &[String]) -> Result<Self> {
        let name = match parts {
            [namespace, name] if namespace.eq_ignore_ascii_case(NAMESPACE) => name,
            _ => return Err(unknown(parts)),
        };
        Self::ALL
            .into_iter()
            .find(|setting| setting.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| unknown(parts))
    }

    /// One setting, or all of them for `ALL` and `featureflight` (`.*`).
    pub(crate) fn several(parts: &[String]) -> Result<Vec<Self>> {
        match parts {
            [all] if all.eq_ignore_ascii_case("all") || all.eq_ignore_ascii_case(NAMESPACE) => {
                Ok(Self::ALL.to_vec())
            }
            _ => Ok(vec![Self::named(parts)?]),
        }
    }

    /// A value from text: an instant, a span of time (`30s`, `5 minutes`), a number or a word.
    ///
    /// # Errors
    /// `InvalidArgument` that names the setting and the accepted forms.
    pub fn parse(self, text: &str) -> Result<Value> {
        let text = text.trim();
        let value = match self {
            Self::SystemTime | Self::ValidTime => Value::Instant(
                Instant::parse(text).map_err(|error| self.named_error(&error.message))?,
            ),
            Self::QueryTimeout => {
                let span = parse_interval_month_day_nano(text).ok();
                Value::Duration(span.and_then(duration).ok_or_else(|| self.wrong(text))?)
            }
            Self::MaxRows | Self::MaxBytes | Self::Endpoints => {
                Value::Count(text.parse().map_err(|_| self.wrong(text))?)
            }
            Self::Deletion
            | Self::Partial
            | Self::OnError
            | Self::Fresh
            | Self::Timestamps
            | Self::AllowDrop => {
                let words = self.words().into_iter().flatten();
                let mut known = words.enumerate();
                let found = known.find(|(_, word)| word.eq_ignore_ascii_case(text));
                Value::Switch(found.ok_or_else(|| self.wrong(text))?.0 == 1)
            }
        };
        self.checked(value)
    }

    /// A value from a constant of SQL.
    ///
    /// # Errors
    /// As [`Setting::parse`].
    pub(crate) fn of_scalar(self, value: &ScalarValue) -> Result<Value> {
        if let Some(Some(text)) = value.try_as_str() {
            return self.parse(text);
        }
        let value = match (self, value) {
            (Self::SystemTime | Self::ValidTime, value) => Value::Instant(
                Instant::from_scalar(value).map_err(|error| self.named_error(&error.message))?,
            ),
            (Self::QueryTimeout, ScalarValue::IntervalMonthDayNano(Some(span))) => {
                Value::Duration(duration(*span).ok_or_else(|| self.wrong(&value.to_string()))?)
            }
            (Self::MaxRows | Self::MaxBytes | Self::Endpoints, value)
                if value.data_type().is_integer() =>
            {
                return self.parse(&value.to_string());
            }
            (Self::Fresh, ScalarValue::Boolean(Some(fresh))) => Value::Switch(!fresh),
            (Self::AllowDrop, ScalarValue::Boolean(Some(allowed))) => Value::Switch(*allowed),
            (_, other) => return Err(self.wrong(&other.to_string())),
        };
        self.checked(value)
    }

    /// The words of a setting that has two values; the first is the default.
    fn words(self) -> Option<[&'static str; 2]> {
        match self {
            Self::Deletion => Some(["soft", "hard"]),
            Self::Partial => Some(["refuse", "null"]),
            Self::OnError => Some(["abort", "skip"]),
            Self::Fresh => Some(["true", "false"]),
            Self::Timestamps => Some(["zoned", "text"]),
            Self::AllowDrop => Some(["false", "true"]),
            _ => None,
        }
    }

    fn switch(self, settings: &mut Settings) -> Option<&mut bool> {
        match self {
            Self::Deletion => Some(&mut settings.writes.hard_deletes),
            Self::Partial => Some(&mut settings.writes.partial_puts),
            Self::OnError => Some(&mut settings.writes.skip_refused),
            Self::Fresh => Some(&mut settings.stale),
            Self::AllowDrop => Some(&mut settings.allow_drop),
            Self::Timestamps => Some(&mut settings.text_timestamps),
            _ => None,
        }
    }

    fn checked(self, value: Value) -> Result<Value> {
        match (self, value) {
            (_, Value::Count(0)) => Err(self.wrong("0")),
            (Self::Endpoints, Value::Count(count)) if count > MAX_ENDPOINTS => {
                Err(self.named_error(&format!("{count} is more than {MAX_ENDPOINTS}")))
            }
            _ => Ok(value),
        }
    }

    fn wrong(self, text: &str) -> Error {
        self.named_error(&format!(
            "`{text}` is not {}",
            match self {
                Self::SystemTime | Self::ValidTime => "a timestamp",
                Self::QueryTimeout => "a span of time like '30s' or '5 minutes', longer than zero",
                Self::MaxRows | Self::MaxBytes | Self::Endpoints => "a whole number above zero",
                Self::Deletion => "'soft' or 'hard'",
                Self::Partial => "'refuse' or 'null'",
                Self::OnError => "'abort' or 'skip'",
                Self::Fresh | Self::AllowDrop => "true or false",
                Self::Timestamps => "'zoned' or 'text'",
            }
        ))
    }

    pub(crate) fn named_error(self, message: &str) -> Error {
        Error::invalid(format!("{self}: {message}"))
    }

    /// Its value as text, `None` when it has its default.
    pub fn get(self, settings: &Settings) -> Option<String> {
        match self {
            Self::SystemTime => settings.clocks.system.map(|at| at.to_string()),
            Self::ValidTime => settings.clocks.valid.map(|at| at.to_string()),
            Self::QueryTimeout => settings
                .query_timeout
                .map(|limit| format!("{} ms", limit.as_millis())),
            Self::MaxRows => settings.max_rows.map(|count| count.to_string()),
            Self::MaxBytes => settings.max_bytes.map(|count| count.to_string()),
            Self::Endpoints => settings.endpoints.map(|count| count.to_string()),
            Self::Deletion
            | Self::Partial
            | Self::OnError
            | Self::Fresh
            | Self::AllowDrop
            | Self::Timestamps => {
                let set = self.switch(&mut { *settings }).copied();
                let word = self.words().map(|[_, second]| second.to_owned());
                word.filter(|_| set == Some(true))
            }
        }
    }

    /// Sets it, `None` to its default. A value of another setting's type means the default.
    pub(crate) fn put(self, settings: &mut Settings, value: Option<Value>) {
        let instant = match value {
            Some(Value::Instant(at)) => Some(at),
            _ => None,
        };
        let count = match value {
            Some(Value::Count(count)) => Some(count),
            _ => None,
        };
        match self {
            Self::SystemTime => settings.clocks.system = instant,
            Self::ValidTime => settings.clocks.valid = instant,
            Self::QueryTimeout => {
                settings.query_timeout = match value {
                    Some(Value::Duration(limit)) => Some(limit),
                    _ => None,
                }
            }
            Self::MaxRows => settings.max_rows = count,
            Self::MaxBytes => settings.max_bytes = count,
            Self::Endpoints => settings.endpoints = count,
            Self::Deletion
            | Self::Partial
            | Self::OnError
            | Self::Fresh
            | Self::AllowDrop
            | Self::Timestamps => {
                if let Some(switch) = self.switch(settings) {
                    *switch = value == Some(Value::Switch(true));
                }
            }
        }
    }
}

/// A span of time without months, which have no fixed length.
fn duration(span: IntervalMonthDayNano) -> Option<Duration> {
    let days = u64::try_from(span.days).ok()?;
    let nanos = u64::try_from(span.nanoseconds).ok()?;
    let whole = Duration::from_nanos(nanos) + Duration::from_secs(days.checked_mul(86_400)?);
    (span.months == 0 && whole >= Duration::from_millis(1)).then_some(whole)
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAMESPACE}.{}", self.name())
    }
}

fn unknown(parts: &[String]) -> Error {
    let known: Vec<_> = Setting::ALL.iter().map(|s| format!("`{s}`")).collect();
    Error::invalid(format!(
        "there is no setting `{}`: the settings are {}",
        parts.join("."),
        known.join(", ")
    ))
}

/// The columns `SHOW featureflight.*` answers.
pub(crate) fn show_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ]))
}

/// One row per setting; null where it has its default.
///
/// # Errors
/// None in practice.
pub(crate) fn show(wanted: &[Setting], settings: &Settings) -> Result<RecordBatch> {
    let names: StringArray = wanted.iter().map(|s| Some(s.to_string())).collect();
    let values: StringArray = wanted.iter().map(|s| s.get(settings)).collect();
    RecordBatch::try_new(show_schema(), vec![Arc::new(names), Arc::new(values)])
        .map_err(crate::error::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_or_refused() {
        let timeout = |text| Setting::QueryTimeout.parse(text);
        let seconds = |n| Ok(Value::Duration(Duration::from_secs(n)));
        assert_eq!(timeout("30s").map_err(|e| e.message), seconds(30));
        assert_eq!(timeout("5 minutes").map_err(|e| e.message), seconds(300));
        assert_eq!(timeout("1 day").map_err(|e| e.message), seconds(86_400));
        for wrong in ["", "soon", "-1s", "0s", "1 month"] {
            assert!(timeout(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Setting::MaxRows.parse("10").map_err(|e| e.message),
            Ok(Value::Count(10))
        );
        for wrong in ["", "0", "-1", "many", "1.5"] {
            assert!(Setting::MaxRows.parse(wrong).is_err(), "{wrong}");
        }
        assert!(Setting::Endpoints.parse("1025").is_err());
        assert!(Setting::SystemTime.parse("yesterday").is_err());
    }

    #[test]
    fn what_is_shown_can_be_set_again() {
        let mut settings = Settings::default();
        for (setting, text) in [
            (Setting::SystemTime, "2026-01-01T00:00:00Z"),
            (Setting::ValidTime, "2026-01-01T00:00:00Z"),
            (Setting::QueryTimeout, "1500 ms"),
            (Setting::MaxRows, "7"),
            (Setting::MaxBytes, "8"),
            (Setting::Endpoints, "9"),
            (Setting::Deletion, "hard"),
            (Setting::Partial, "null"),
            (Setting::OnError, "skip"),
            (Setting::Fresh, "false"),
            (Setting::Timestamps, "text"),
            (Setting::AllowDrop, "true"),
        ] {
            assert_eq!(setting.get(&settings), None);
            let value = setting.parse(text).ok();
            setting.put(&mut settings, value);
            let shown = setting.get(&settings).unwrap_or_default();
            assert_eq!(setting.parse(&shown).ok(), value, "{setting}");
            let mut reset = settings;
            setting.put(&mut reset, None);
            assert_eq!(setting.get(&reset), None);
        }
    }
}
