//! What the headers of a call say: settings, default schema, deadline, trace. Drivers send what
//! their users put into a connection string as headers. One that is malformed, or that claims to
//! be ours and is unknown, is an error: a clock that is quietly ignored reads the future.

use std::str::FromStr;
use std::time::Duration;

use featureflight_catalog::{Error, Result};
use featureflight_engine::metadata::CATALOG;
use featureflight_engine::settings::{Setting, Value};
use tonic::metadata::{KeyRef, MetadataMap};

/// Headers of ours.
const OURS: &str = "featureflight-";

/// The one that is no setting.
pub(super) const IDEMPOTENCY_KEY: &str = "featureflight-idempotency-key";

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) settings: Vec<(Setting, Value)>,
    pub(crate) schema: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) trace: Option<Trace>,
    /// Names the write of this call.
    pub(crate) idempotency_key: Option<String>,
}

/// The caller's place in a distributed trace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) id: String,
    pub(crate) parent: String,
}

/// # Errors
/// `InvalidArgument` that names the header and its form.
pub(crate) fn read(metadata: &MetadataMap) -> Result<Headers> {
    let mut headers = Headers::default();
    for name in ours(metadata) {
        if name == IDEMPOTENCY_KEY {
            headers.idempotency_key = one(metadata, &name)?.map(str::to_owned);
            continue;
        }
        let setting = setting(&name)?;
        let text = one(metadata, &name)?.unwrap_or_default();
        let value = setting.parse(text).map_err(|error| Error {
            message: format!("the header {name}: {}", error.message),
            ..error
        })?;
        headers.settings.push((setting, value));
    }
    headers.schema = schema(metadata)?;
    headers.timeout = one(metadata, "grpc-timeout")?.map(timeout).transpose()?;
    headers.trace = one(metadata, "traceparent")?.map(trace).transpose()?;
    Ok(headers)
}

/// Each once.
fn ours(metadata: &MetadataMap) -> Vec<String> {
    let mut names: Vec<String> = metadata
        .keys()
        .map(|key| match key {
            KeyRef::Ascii(key) => key.as_str(),
            KeyRef::Binary(key) => key.as_str(),
        })
        .filter(|name| name.starts_with(OURS))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn setting(name: &str) -> Result<Setting> {
    let header = |setting: &Setting| format!("{OURS}{}", setting.name().replace('_', "-"));
    let found = Setting::ALL.into_iter().find(|s| header(s) == name);
    found.ok_or_else(|| {
        let settings = Setting::ALL.iter().map(header);
        let known: Vec<_> = settings.chain([IDEMPOTENCY_KEY.to_owned()]).collect();
        Error::invalid(format!(
            "this server does not know the header {name}; it knows {}",
            known.join(", ")
        ))
    })
}

/// The value of a header that may come once, or several times with one value.
fn one<'a>(metadata: &'a MetadataMap, name: &str) -> Result<Option<&'a str>> {
    let mut values = metadata.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err(Error::invalid(format!(
            "the header {name} comes twice, with different values"
        )));
    }
    let text = first.to_str().map(str::trim).ok();
    let text = text.filter(|text| !text.is_empty());
    text.map(Some)
        .ok_or_else(|| Error::invalid(format!("the header {name} has no value, or none in ASCII")))
}

/// The default schema: `schema`, or `database` as other engines call it. `catalog`, and a
/// `database` that means it, can only be the one there is.
fn schema(metadata: &MetadataMap) -> Result<Option<String>> {
    if let Some(catalog) = one(metadata, "catalog")?
        && !catalog.eq_ignore_ascii_case(CATALOG)
    {
        return Err(Error::not_found(format!(
            "there is no catalog `{catalog}`; the one catalog is {CATALOG}"
        )));
    }
    let database = one(metadata, "database")?.filter(|name| !name.eq_ignore_ascii_case(CATALOG));
    match (one(metadata, "schema")?, database) {
        (Some(schema), Some(database)) if schema != database => Err(Error::invalid(format!(
            "the headers schema and database name two default schemas, `{schema}` and `{database}`"
        ))),
        (schema, database) => Ok(schema.or(database).map(str::to_owned)),
    }
}

/// gRPC's form: up to eight digits and a unit.
fn timeout(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::invalid(format!(
            "the header grpc-timeout is `{text}`, not up to eight digits and one of H, M, S, m, u, n"
        ))
    };
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count = u64::from_str(digits).map_err(|_| wrong())?;
    match unit {
        "H" => Ok(Duration::from_secs(count * 3_600)),
        "M" => Ok(Duration::from_secs(count * 60)),
        "S" => Ok(Duration::from_secs(count)),
        "m" => Ok(Duration::from_millis(count)),
        "u" => Ok(Duration::from_micros(count)),
        "n" => Ok(Duration::from_nanos(count)),
        _ => Err(wrong()),
    }
}

/// W3C Trace Context: version, trace, parent, flags; newer versions may say more.
fn trace(text: &str) -> Result<Trace> {
    let wrong = || {
        Error::invalid(format!(
            "the header traceparent is `{text}`, not VERSION-TRACE-PARENT-FLAGS in lowercase \
             hexadecimal digits (2, 32, 16 and 2)"
        ))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, id, parent, flags, more @ ..] = parts.as_slice() else {
        return Err(wrong());
    };
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |text: &str| text.bytes().any(|b| b != b'0');
    let formed = hex(version, 2) && hex(id, 32) && hex(parent, 16) && hex(flags, 2);
    let known = *version != "ff" && (*version != "00" || more.is_empty());
    if !(formed && known && set(id) && set(parent)) {
        return Err(wrong());
    }
    Ok(Trace {
        id: (*id).to_owned(),
        parent: (*parent).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use featureflight_catalog::Kind;
    use tonic::metadata::MetadataValue;

    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> Result<Headers> {
        let mut metadata = MetadataMap::new();
        for (name, value) in pairs {
            let value = MetadataValue::try_from(*value).expect("a header");
            metadata.append(*name, value);
        }
        read(&metadata)
    }

    #[test]
    fn what_is_said_is_read() {
        let read = of(&[
            ("featureflight-max-rows", "7"),
            ("database", "history"),
            ("catalog", "FeatureFlight"),
            ("grpc-timeout", "250m"),
            (
                "traceparent",
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
            ("user-agent", "any"),
        ])
        .expect("read");
        assert_eq!(read.settings, [(Setting::MaxRows, Value::Count(7))]);
        assert_eq!(read.schema.as_deref(), Some("history"));
        assert_eq!(read.timeout, Some(Duration::from_millis(250)));
        assert_eq!(
            read.trace.map(|trace| trace.parent).as_deref(),
            Some("00f067aa0ba902b7")
        );
        assert_eq!(
            of(&[("database", "featureflight")]).expect("read"),
            Headers::default()
        );
        assert_eq!(of(&[]).expect("read"), Headers::default());
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for pairs in [
            &[("featureflight-system-time", "yesterday")][..],
            &[("featureflight-system-time", "")],
            &[("featureflight-system-time", " ")],
            &[("featureflight-system_time", "2026-01-01")],
            &[("featureflight-sytem-time", "2026-01-01")],
            &[("featureflight-", "1")],
            &[
                ("featureflight-valid-time", "2026-01-01"),
                ("featureflight-valid-time", "2026-01-02"),
            ],
            &[("schema", "history"), ("database", "features")],
            &[("schema", "")],
            &[("grpc-timeout", "250")],
            &[("grpc-timeout", "m")],
            &[("grpc-timeout", "123456789S")],
            &[("grpc-timeout", "-1S")],
            &[("grpc-timeout", "1s")],
            &[("traceparent", trace)],
            &[("traceparent", zero)],
            &[("traceparent", "garbage")],
        ] {
            let error = of(pairs).expect_err(pairs[0].1);
            assert_eq!(error.kind, Kind::InvalidArgument, "{pairs:?}: {error}");
        }
        let error = of(&[("catalog", "hive")]).expect_err("one catalog");
        assert_eq!(error.kind, Kind::NotFound);
    }
}
