//! The settings of a session: `SET`, `RESET` and `SHOW` of `featureflight.*`. No other setting can
//! be reached from SQL.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use featureflight_catalog::{Error, Instant, Result};
use featureflight_udf::Clocks;

/// The namespace of every setting.
const NAMESPACE: &str = "featureflight";

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    SystemTime,
    ValidTime,
}

impl Setting {
    pub const ALL: [Self; 2] = [Self::SystemTime, Self::ValidTime];

    /// The name within the namespace.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemTime => "system_time",
            Self::ValidTime => "valid_time",
        }
    }

    /// What it does, for `system` tables and documentation.
    pub fn description(self) -> &'static str {
        match self {
            Self::SystemTime => {
                "only versions written to the offline store by then; now() follows it"
            }
            Self::ValidTime => "only versions whose event time is not later",
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

    /// Its value as text, `None` when it has its default.
    pub fn get(self, clocks: Clocks) -> Option<String> {
        let clock = match self {
            Self::SystemTime => clocks.system,
            Self::ValidTime => clocks.valid,
        };
        clock.map(|instant| instant.to_string())
    }

    pub(crate) fn put(self, clocks: &mut Clocks, value: Option<Instant>) {
        match self {
            Self::SystemTime => clocks.system = value,
            Self::ValidTime => clocks.valid = value,
        }
    }
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
        known.join(" and ")
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
pub(crate) fn show(settings: &[Setting], clocks: Clocks) -> Result<RecordBatch> {
    let names: StringArray = settings.iter().map(|s| Some(s.to_string())).collect();
    let values: StringArray = settings.iter().map(|s| s.get(clocks)).collect();
    RecordBatch::try_new(show_schema(), vec![Arc::new(names), Arc::new(values)])
        .map_err(crate::error::internal)
}
