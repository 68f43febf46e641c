//! The text form of a double, and event times as doubles.

use featureflight_catalog::Instant;

/// The shortest decimal or scientific text that reads back as the same double.
pub fn fractional(value: f64) -> String {
    format!("{value:?}")
}

/// The double that stands for `instant` where event times are Unix seconds; `None` where no
/// double does, because the instant is finer than a microsecond or too far away for microseconds.
pub fn event_time_seconds(instant: Instant) -> Option<f64> {
    // Read from decimal text, which gives the nearest double; a quotient may be its neighbour.
    let micros = instant.micros.unsigned_abs();
    let sign = if instant.micros < 0 { "-" } else { "" };
    let text = format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let value: f64 = text.parse().ok()?;
    (Instant::from_seconds(value) == Some(instant)).then_some(value)
}
