//! The names of data files, by which their rows rank where nothing else decides.

/// Of `{latest event time}_{16 letters and digits}.parquet`: what is before the suffix, and it.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (latest, rest) = name.split_once('_')?;
    let suffix = rest.strip_suffix(".parquet")?;
    let alphanumeric = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_ours = latest.len() == 16 && suffix.len() == 16;
    (is_ours && alphanumeric(latest) && alphanumeric(suffix)).then_some((latest, suffix))
}

/// Whether this writer, or SageMaker, named a file so.
pub(super) fn is_service_like(name: &str) -> bool {
    parts(name).is_some()
}

/// The last such name before `name`: no other is in between.
pub(super) fn before(name: &str) -> Option<String> {
    let (latest, suffix) = parts(name)?;
    let mut suffix = suffix.as_bytes().to_vec();
    for byte in suffix.iter_mut().rev() {
        let lower = match *byte {
            b'0' => None,
            b'A' => Some(b'9'),
            b'a' => Some(b'Z'),
            other => Some(other - 1),
        };
        *byte = lower.unwrap_or(b'z');
        if lower.is_some() {
            let suffix = String::from_utf8(suffix).ok()?;
            return Some(format!("{latest}_{suffix}.parquet"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_is_next_to_it() {
        for (name, expected) in [
            ("0000000000000001", "0000000000000000"),
            ("000000000000000A", "0000000000000009"),
            ("000000000000000a", "000000000000000Z"),
            ("00000000000B0000", "00000000000Azzzz"),
        ] {
            let name = format!("20260201T123100Z_{name}.parquet");
            let found = before(&name).unwrap();
            assert_eq!(found, format!("20260201T123100Z_{expected}.parquet"));
            assert!(found < name && is_service_like(&found));
        }
        for name in [
            "20260201T123100Z_0000000000000000.parquet",
            "part-00000-1.c000.snappy.parquet",
            "20260201T123100Z_000000000000001.parquet",
            "20260201T123100Z_00000000000000-1.parquet",
            "20260201T123100Z_0000000000000001.parquet.crc",
        ] {
            assert_eq!(before(name), None, "{name}");
        }
    }
}
