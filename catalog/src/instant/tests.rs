use chrono::{DateTime, Months, NaiveDate, TimeDelta};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::error::Kind;

const NOON: &str = "2026-01-31T12:00:00Z";

fn at(text: &str) -> Instant {
    Instant::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn accepted_forms_agree() {
    let noon = at("2026-01-31T12:00:00Z");
    assert_eq!(noon, Instant::from_micros(1_769_860_800_000_000));
    for form in [
        "2026-01-31T12:00:00.000Z",
        "2026-01-31T12:00:00.000000000Z",
        "2026-01-31t12:00:00z",
        "2026-01-31 12:00",
        "2026-01-31 12:00:00",
        "2026-01-31T12:00:00.0",
        "2026-01-31T12:00:00+00",
        "2026-01-31T12:00:00-00:00",
        "2026-01-31T13:30:00+01:30",
        "2026-01-31T13:30:00+0130",
        "2026-01-31T02:00-10",
        "2026-02-01T11:59:00+23:59",
    ] {
        assert_eq!(at(form), noon, "{form}");
    }
    assert_eq!(at("2026-01-31"), at("2026-01-31T00:00:00Z"));
    assert_eq!(
        at("1969-12-31T23:59:59.999999999Z"),
        Instant {
            micros: -1,
            nanos: 999
        }
    );
    assert_eq!(at("0000-01-01"), Instant::MIN);
    assert_eq!(at("9999-12-31T23:59:59.999999999Z"), Instant::MAX);
    assert_eq!(
        at("2024-02-29T00:00:00Z").to_string(),
        "2024-02-29T00:00:00Z"
    );
}

#[test]
fn text_order_is_not_time_order() {
    assert!(at("2026-01-01T00:00:00.500Z") > at("2026-01-01T00:00:00Z"));
    assert_eq!(at("2026-01-01T00:00:00.500Z"), at("2026-01-01T00:00:00.5Z"));
    assert!(at("2026-01-01T00:00:00.000000001Z") > at("2026-01-01T00:00:00Z"));
}

#[test]
fn wrong_forms_say_why_and_what_is_accepted() {
    for (form, reason) in [
        ("", "begin with a date"),
        ("yesterday", "begin with a date"),
        ("2026-1-1", "begin with a date"),
        ("26-01-01", "begin with a date"),
        ("2026-13-01", "no such month"),
        ("2026-00-01", "no such month"),
        ("2026-02-29", "no such day"),
        ("1900-02-29T00:00:00Z", "no such day"),
        ("2026-01-00", "no such day"),
        ("2026-01-01T24:00:00Z", "no such time"),
        ("2026-01-01T00:60:00Z", "no such time"),
        ("2026-06-30T23:59:60Z", "leap second"),
        ("2026-01-01T00:00:00.Z", "no digits"),
        ("2026-01-01T00:00:00.1234567890Z", "more than 9"),
        ("2026-01-01T00:00:00Zjunk", "more text"),
        ("2026-01-01T00:00:00 Z", "zone must be"),
        ("2026-01-01T00:00:00+24:00", "no such offset"),
        ("2026-01-01T00:00:00+1", "zone must be"),
        ("2026-01-01T00", "HH:MM"),
        ("2026-01-01X00:00:00Z", "'T' or a blank"),
        ("2026-01-01T00:00:00Ω", "zone must be"),
        (" 2026-01-01", "begin with a date"),
        ("2026-01-01Z", "'T' or a blank"),
        ("0000-01-01T00:00:00+01:00", "outside the years"),
        ("9999-12-31T23:59:59-01:00", "outside the years"),
        ("２０２６-01-01", "begin with a date"),
    ] {
        let error = Instant::parse(form).expect_err(form);
        assert_eq!(error.kind, Kind::InvalidArgument);
        assert!(error.message.contains(reason), "{form}: {error}");
        assert!(
            error.message.contains("2026-01-31 12:30:00"),
            "{form}: {error}"
        );
    }
    let long = "x".repeat(10_000);
    assert!(Instant::parse(&long).expect_err("long").message.len() < 500);
}

#[test]
fn parsing_agrees_with_chrono() {
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let seconds = rng.random_range(-62_135_596_800_i64..253_402_300_800);
        let nanos = rng.random_range(0..1_000_000_000_u32);
        let time = DateTime::from_timestamp(seconds, nanos).expect("in range");
        let digits = rng.random_range(0..=9_u32);
        let kept = nanos / 10_u32.pow(9 - digits) * 10_u32.pow(9 - digits);
        let fraction = format!("{nanos:09}");
        let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
        if digits > 0 {
            text += &format!(".{}", &fraction[..digits as usize]);
        }
        text += "Z";
        let expected = i128::from(seconds) * 1_000_000_000 + i128::from(kept);
        let instant = at(&text);
        assert_eq!(instant.total_nanos(), expected, "{text}");
        assert_eq!(
            at(&instant.to_string()),
            instant,
            "{text} shown as {instant}"
        );
        let shown = DateTime::parse_from_rfc3339(&instant.to_string()).expect("RFC 3339");
        assert_eq!(
            shown.timestamp_nanos_opt().map_or(expected, i128::from),
            expected
        );
    }
}

#[test]
fn mutated_fixed_forms_never_pass_wrongly() {
    let mut rng = StdRng::seed_from_u64(8);
    for _ in 0..50_000 {
        let mut text = b"2026-02-28T23:59:58.123Z".to_vec();
        if rng.random_bool(0.5) {
            text = b"2026-02-28T23:59:58Z".to_vec();
        }
        for _ in 0..rng.random_range(1..4) {
            let place = rng.random_range(0..text.len());
            text[place] = b"0123456789-:.TZ +z/"[rng.random_range(0..19)];
        }
        let text = String::from_utf8(text).expect("ASCII");
        if let Ok(instant) = Instant::parse(&text) {
            // Chrono wants the seconds and an offset; give it both where ours are optional.
            let full = text.replace(' ', "T");
            if let Ok(theirs) = DateTime::parse_from_rfc3339(&full)
                && theirs.timestamp_subsec_nanos() < 1_000_000_000
            {
                assert_eq!(instant.micros, theirs.timestamp_micros(), "{text}");
            }
        } else {
            // What chrono takes and we refuse is a leap second.
            if let Ok(theirs) = DateTime::parse_from_rfc3339(&text) {
                assert!(
                    theirs.timestamp_subsec_nanos() >= 1_000_000_000 || text.contains(":60"),
                    "{text}"
                );
            }
        }
    }
}

/// What one parser makes of texts that mostly share their day is what the general form makes of
/// each, also where a byte was damaged.
#[test]
fn parsing_in_a_row_agrees_with_parsing_alone() {
    let mut rng = StdRng::seed_from_u64(12);
    let mut parser = Parser::default();
    let (mut right, mut wrong) = (0, 0);
    let mut day = 0_i64;
    for _ in 0..200_000 {
        if rng.random_bool(0.1) {
            day = rng.random_range(-719_528..2_932_897);
        }
        let seconds = day * 86_400 + rng.random_range(0..86_400);
        let time = DateTime::from_timestamp(seconds, 0).expect("in range");
        let mut text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
        match rng.random_range(0..8) {
            0..3 => text += "Z",
            3..6 => text += &format!(".{:03}Z", rng.random_range(0..1_000)),
            6 => text += &format!(".{:09}Z", rng.random_range(0..1_000_000_000)),
            _ => text += ["", "+01:00", "-0530", ".5", ".12Z", "z"][rng.random_range(0..6)],
        }
        let mut bytes = text.into_bytes();
        if rng.random_bool(0.3) {
            let place = rng.random_range(0..bytes.len());
            bytes[place] = match rng.random_range(0..3) {
                0 => rng.random_range(0..128),
                1 => b"/0123456789:;-.TZz @"[rng.random_range(0..20)],
                _ => bytes[place] ^ (1 << rng.random_range(0..7)),
            };
        }
        if rng.random_bool(0.02) {
            bytes.truncate(rng.random_range(0..bytes.len()));
        }
        let text = String::from_utf8(bytes).expect("ASCII");
        let expected = parse::any_form(text.as_bytes());
        let found = parser.parse(&text);
        assert_eq!(found.is_ok(), expected.is_ok(), "{text}");
        if let (Ok(found), Ok(expected)) = (&found, &expected) {
            assert_eq!(found, expected, "{text}");
            right += 1;
        } else {
            wrong += 1;
        }
    }
    assert!(right > 100_000 && wrong > 10_000, "{right} and {wrong}");
    for text in [
        "2026-01-31T23:59:60Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T23:60:00Z",
    ] {
        let mut parser = Parser::default();
        parser.parse(NOON).expect("a time");
        assert!(parser.parse(text).is_err(), "{text}");
    }
}

#[test]
fn seconds_round_to_the_microsecond() {
    let micros = |seconds| Instant::from_seconds(seconds).map(|i| (i.micros, i.nanos));
    assert_eq!(micros(0.0), Some((0, 0)));
    assert_eq!(micros(-0.5), Some((-500_000, 0)));
    assert_eq!(
        micros(1_700_000_000.123_456),
        Some((1_700_000_000_123_456, 0))
    );
    assert_eq!(micros(1.000_000_4), Some((1_000_000, 0)));
    assert_eq!(micros(1.999_999_9), Some((2_000_000, 0)));
    assert_eq!(micros(-62_167_219_200.0), Some((Instant::MIN.micros, 0)));
    for outside in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        1e15,
        -1e13,
        253_402_300_800.0,
        253_402_300_799.999_999_9,
    ] {
        assert_eq!(Instant::from_seconds(outside), None, "{outside}");
    }
    let mut rng = StdRng::seed_from_u64(9);
    for _ in 0..20_000 {
        let exact = rng.random_range(0..4_102_444_800_000_000_i64);
        let text = format!("{}.{:06}", exact / 1_000_000, exact % 1_000_000);
        let seconds: f64 = text.parse().expect("a number");
        assert_eq!(micros(seconds), Some((exact, 0)), "{text}");
    }
}

#[test]
fn units_floor() {
    let nanos = |value| Instant::from_unit(value, TimeUnit::Nanosecond).expect("fits");
    assert_eq!(
        nanos(-1),
        Instant {
            micros: -1,
            nanos: 999
        }
    );
    assert_eq!(
        nanos(1_001),
        Instant {
            micros: 1,
            nanos: 1
        }
    );
    assert_eq!(nanos(i64::MIN).total_nanos(), i128::from(i64::MIN));
    assert_eq!(
        Instant::from_unit(-1, TimeUnit::Second),
        Some(Instant::from_micros(-1_000_000))
    );
    assert_eq!(Instant::from_unit(i64::MAX, TimeUnit::Second), None);
    assert_eq!(Instant::from_unit(i64::MIN, TimeUnit::Millisecond), None);
    assert_eq!(nanos(1_001).to_micros_ceil(), 2);
    assert_eq!(nanos(1_001).to_micros_floor(), 1);
    assert_eq!(nanos(-1).to_micros_ceil(), 0);
}

#[test]
fn scalars_of_every_kind() {
    let noon = at("2026-01-31T12:00:00Z");
    let micros = noon.micros;
    for value in [
        ScalarValue::TimestampSecond(Some(micros / 1_000_000), None),
        ScalarValue::TimestampMillisecond(Some(micros / 1_000), Some("+05:00".into())),
        ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
        ScalarValue::TimestampNanosecond(Some(micros * 1_000), Some("Europe/Berlin".into())),
        ScalarValue::from("2026-01-31 12:00"),
        ScalarValue::Utf8View(Some("2026-01-31T13:00+01".into())),
    ] {
        assert_eq!(
            Instant::from_scalar(&value).expect("a point in time"),
            noon,
            "{value:?}"
        );
    }
    let day = Instant::from_scalar(&ScalarValue::Date32(Some(20_484))).expect("a date");
    assert_eq!(day, at("2026-01-31"));
    assert_eq!(
        Instant::from_scalar(&ScalarValue::Date64(Some(micros / 1_000))).expect("a date"),
        noon
    );
    for wrong in [
        ScalarValue::Null,
        ScalarValue::Utf8(None),
        ScalarValue::TimestampNanosecond(None, None),
        ScalarValue::Date32(None),
        ScalarValue::Int64(Some(5)),
        ScalarValue::TimestampSecond(Some(i64::MAX), None),
    ] {
        let error = Instant::from_scalar(&wrong).expect_err("not a point in time");
        assert!(error.message.contains("accepted are"), "{error}");
    }
}

#[test]
fn system_times_before_1970_floor() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_nanos(1);
    assert_eq!(
        Instant::from(before),
        Instant {
            micros: -1,
            nanos: 999
        }
    );
    for instant in [
        at("1969-07-20T20:17:40.000000001Z"),
        at("2026-01-31T12:00:00.123456789Z"),
    ] {
        assert_eq!(instant.to_system_time().map(Instant::from), Some(instant));
    }
    assert!(Instant::now() > at("2024-01-01"));
}

#[test]
fn shows_as_many_digits_as_needed() {
    for text in [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00.100Z",
        "2026-01-31T12:00:00.123400Z",
        "2026-01-31T12:00:00.000000100Z",
        "0000-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
    ] {
        assert_eq!(at(text).to_string(), text);
    }
    assert_eq!(
        Instant::from_micros(i64::MAX).to_string(),
        "+294247-01-10T04:00:54.775807Z"
    );
    assert_eq!(
        Instant::from_micros(i64::MIN).to_string(),
        "-290308-12-21T19:59:05.224192Z"
    );
}

#[test]
fn intervals_count_calendar_months_then_days_then_time() {
    let minus = |text, months, days, nanos| {
        at(text)
            .checked_sub_interval(IntervalMonthDayNano::new(months, days, nanos))
            .map(|instant| instant.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        minus("2026-03-31T01:02:03Z", 1, 0, 0),
        some("2026-02-28T01:02:03Z")
    );
    assert_eq!(
        minus("2024-03-31T00:00:00Z", 1, 1, 0),
        some("2024-02-28T00:00:00Z")
    );
    assert_eq!(
        minus("2026-01-15T00:00:00Z", 13, 0, 0),
        some("2024-12-15T00:00:00Z")
    );
    assert_eq!(
        minus("2026-01-31T00:00:00Z", -1, 0, 0),
        some("2026-02-28T00:00:00Z")
    );
    assert_eq!(
        minus("2026-01-01T00:00:00Z", 0, 30, 1),
        some("2025-12-01T23:59:59.999999999Z")
    );
    assert_eq!(
        minus("2026-01-01T00:00:00Z", 0, 0, -1),
        some("2026-01-01T00:00:00.000000001Z")
    );
    let furthest = IntervalMonthDayNano::new(i32::MAX, i32::MAX, i64::MAX);
    assert_eq!(
        Instant::from_micros(i64::MIN).checked_sub_interval(furthest),
        None
    );

    let mut rng = StdRng::seed_from_u64(10);
    for _ in 0..5_000 {
        let seconds = rng.random_range(-5_000_000_000_i64..5_000_000_000);
        let (months, days) = (
            rng.random_range(0..600_u32),
            rng.random_range(-400..400_i64),
        );
        let nanos = rng.random_range(-1_000_000_000_000_i64..1_000_000_000_000);
        let theirs = DateTime::from_timestamp(seconds, 0)
            .expect("in range")
            .naive_utc()
            - Months::new(months)
            - TimeDelta::days(days)
            - TimeDelta::nanoseconds(nanos);
        let interval = IntervalMonthDayNano::new(
            i32::try_from(months).expect("small"),
            i32::try_from(days).expect("small"),
            nanos,
        );
        let ours = Instant::from_micros(seconds * 1_000_000).checked_sub_interval(interval);
        let expected = i128::from(theirs.and_utc().timestamp()) * 1_000_000_000
            + i128::from(theirs.and_utc().timestamp_subsec_nanos());
        assert_eq!(ours.map(Instant::total_nanos), Some(expected));
    }
}

#[test]
fn calendar_agrees_with_chrono() {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");
    for days in (-720_000..2_940_000).step_by(17) {
        let date = epoch + TimeDelta::days(days);
        let expected = (
            i64::from(chrono::Datelike::year(&date)),
            chrono::Datelike::month(&date),
            chrono::Datelike::day(&date),
        );
        assert_eq!(calendar::from_days(days), expected);
        assert_eq!(calendar::to_days(expected.0, expected.1, expected.2), days);
    }
}
