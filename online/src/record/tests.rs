use super::*;

#[test]
fn doubles_read_back_as_themselves() {
    for value in [
        0.0,
        -0.0,
        100.0,
        0.1,
        1e300,
        -2.5e-300,
        f64::MAX,
        f64::MIN_POSITIVE,
    ] {
        let text = fractional(value);
        let read: f64 = text.parse().expect("a number");
        assert_eq!(read.to_bits(), value.to_bits(), "{text}");
    }
    assert_eq!(fractional(100.0), "100.0");
}

#[test]
fn event_times_in_seconds_are_exact_or_refused() {
    for text in [
        "1970-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2026-01-31T12:30:00.123456Z",
        "0001-01-01T00:00:00Z",
        "2200-01-01T00:00:00.000001Z",
    ] {
        let instant = Instant::parse(text).expect("an instant");
        let seconds = event_time_seconds(instant).expect(text);
        assert_eq!(Instant::from_seconds(seconds), Some(instant), "{text}");
    }
    for text in [
        "2026-01-31T12:30:00.123456789Z",
        "9999-12-31T23:59:59.999999Z",
    ] {
        let instant = Instant::parse(text).expect("an instant");
        assert_eq!(event_time_seconds(instant), None, "{text}");
    }
}
