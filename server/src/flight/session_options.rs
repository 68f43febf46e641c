//! Session options: what `SET` and `USE` set, for drivers that set it without SQL.
//!
//! arrow-flight does not have these messages; they are Flight's, tag by tag.

use std::collections::HashMap;

use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::Caller;
use featureflight_engine::metadata::CATALOG;
use featureflight_engine::settings::Setting;
use prost::Message;

use super::Service;

/// Options that are not settings of ours.
const CATALOG_OPTION: &str = "catalog";
const SCHEMA_OPTION: &str = "schema";

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, OptionError>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, OptionValue>,
}

/// `SessionOptionValue`: none of its kinds means no value.
#[derive(Clone, PartialEq, Message)]
struct OptionValue {
    #[prost(oneof = "OptionKind", tags = "1, 2, 3, 4, 5")]
    kind: Option<OptionKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OptionKind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(TextList),
}

#[derive(Clone, PartialEq, Message)]
struct TextList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct OptionError {
    #[prost(enumeration = "ErrorKind", tag = "1")]
    value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ErrorKind {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    /// It cannot be set now.
    Error = 3,
}

/// Sets what can be set; the answer names what could not.
pub(super) fn set(
    service: &Service,
    caller: &Caller,
    request: SetSessionOptionsRequest,
) -> SetSessionOptionsResult {
    let mut errors = HashMap::new();
    for (name, value) in request.options {
        if let Err(error) = set_one(service, caller, &name, value) {
            // The protocol has no place for the reason.
            tracing::info!(option = name, %error, "refused a session option");
            let value = match error.kind {
                Kind::NotFound if name != SCHEMA_OPTION && name != CATALOG_OPTION => {
                    ErrorKind::InvalidName
                }
                Kind::FailedPrecondition => ErrorKind::Error,
                _ => ErrorKind::InvalidValue,
            };
            let value = value as i32;
            errors.insert(name, OptionError { value });
        }
    }
    SetSessionOptionsResult { errors }
}

fn set_one(service: &Service, caller: &Caller, name: &str, value: OptionValue) -> Result<()> {
    let text = match value.kind {
        None => None,
        Some(OptionKind::Text(text)) => Some(text),
        Some(OptionKind::Int(number)) => Some(number.to_string()),
        Some(OptionKind::Bool(_) | OptionKind::Double(_) | OptionKind::Texts(_)) => {
            return Err(Error::invalid("options are text or whole numbers"));
        }
    };
    let default = || featureflight_engine::session::DEFAULT_SCHEMA.to_owned();
    match name {
        CATALOG_OPTION if text.as_deref().is_none_or(|text| text == CATALOG) => Ok(()),
        CATALOG_OPTION => Err(Error::not_found("there is one catalog")),
        SCHEMA_OPTION => service
            .engine
            .set_schema(caller, &text.unwrap_or_else(default)),
        _ => {
            let setting = setting(name)?;
            service.engine.set_option(caller, setting, text.as_deref())
        }
    }
}

/// By its name with or without `featureflight.`.
fn setting(name: &str) -> Result<Setting> {
    let known = |setting: &Setting| setting.name() == name || setting.to_string() == name;
    let found = Setting::ALL.into_iter().find(known);
    found.ok_or_else(|| Error::not_found("there is no such option"))
}

/// What holds for this call; what has its default is left out.
pub(super) fn get(caller: &Caller) -> GetSessionOptionsResult {
    let view = caller.view();
    let text = |text: String| OptionValue {
        kind: Some(OptionKind::Text(text)),
    };
    let mut options = HashMap::from([
        (CATALOG_OPTION.to_owned(), text(CATALOG.to_owned())),
        (SCHEMA_OPTION.to_owned(), text(view.schema.clone())),
    ]);
    for setting in Setting::ALL {
        if let Some(value) = setting.get(&view.settings) {
            options.insert(setting.to_string(), text(value));
        }
    }
    GetSessionOptionsResult { options }
}
