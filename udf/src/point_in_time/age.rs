//! How far back a match may lie: an instant less an interval, months by the calendar in UTC.

use std::fmt;

use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, Months};
use featureflight_catalog::{Error, Instant, Result};

/// An age as `EXPLAIN` shows it: `1 month 2 days 1.5 seconds`.
#[derive(Debug)]
pub(crate) struct Age(pub(crate) IntervalMonthDayNano);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        } = self.0;
        let mut parts = Vec::new();
        let plural = |count: i32| if count == 1 { "" } else { "s" };
        if months != 0 {
            parts.push(format!("{months} month{}", plural(months)));
        }
        if days != 0 {
            parts.push(format!("{days} day{}", plural(days)));
        }
        if nanoseconds != 0 || parts.is_empty() {
            let sign = if nanoseconds < 0 { "-" } else { "" };
            let nanoseconds = nanoseconds.unsigned_abs();
            let fraction = format!(".{:09}", nanoseconds % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
            parts.push(format!(
                "{sign}{}{fraction} seconds",
                nanoseconds / 1_000_000_000
            ));
        }
        f.write_str(&parts.join(" "))
    }
}

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// `time` less `age`: first its months (the last day of a month where the day does not exist),
/// then its days of 24 hours, then its nanoseconds. Beyond what an [`Instant`] holds, the least or
/// greatest one.
///
/// # Errors
/// `InvalidArgument` when months are counted from a time no calendar has.
pub(crate) fn before(time: Instant, age: IntervalMonthDayNano) -> Result<Instant> {
    let Some(micros) = months_before(time.micros, age.months)? else {
        return Ok(saturated(age.months > 0));
    };
    let nanos = i128::from(micros) * 1000 + i128::from(time.nanos)
        - i128::from(age.days) * NANOS_PER_DAY
        - i128::from(age.nanoseconds);
    // A remainder of 1000 always fits.
    let rest = u16::try_from(nanos.rem_euclid(1000)).unwrap_or(0);
    Ok(i64::try_from(nanos.div_euclid(1000)).map_or_else(
        |_| saturated(nanos < 0),
        |micros| Instant {
            micros,
            nanos: rest,
        },
    ))
}

fn saturated(least: bool) -> Instant {
    if least {
        Instant {
            micros: i64::MIN,
            nanos: 0,
        }
    } else {
        Instant {
            micros: i64::MAX,
            nanos: 999,
        }
    }
}

/// `None` beyond the calendar.
fn months_before(micros: i64, months: i32) -> Result<Option<i64>> {
    if months == 0 {
        return Ok(Some(micros));
    }
    let date = DateTime::from_timestamp_micros(micros).ok_or_else(|| {
        Error::invalid("a time of the spine is outside of the calendar that max_age counts in")
    })?;
    let count = Months::new(months.unsigned_abs());
    let moved = if months > 0 {
        date.checked_sub_months(count)
    } else {
        date.checked_add_months(count)
    };
    Ok(moved.map(|date| date.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn less(time: &str, months: i32, days: i32, nanoseconds: i64) -> String {
        let time: DateTime<chrono::Utc> = time.parse().unwrap();
        let nanos = u16::try_from(time.timestamp_subsec_nanos() % 1000).unwrap();
        let instant = Instant {
            micros: time.timestamp_micros(),
            nanos,
        };
        let age = IntervalMonthDayNano {
            months,
            days,
            nanoseconds,
        };
        let result = before(instant, age).unwrap();
        let date = DateTime::from_timestamp_micros(result.micros).unwrap();
        format!(
            "{}{:03}",
            date.format("%Y-%m-%dT%H:%M:%S%.6f"),
            result.nanos
        )
    }

    #[test]
    fn months_end_on_the_last_day_there_is() {
        assert_eq!(
            less("2026-03-31T12:00:00Z", 1, 0, 0),
            "2026-02-28T12:00:00.000000000"
        );
        assert_eq!(
            less("2024-03-31T12:00:00Z", 1, 0, 0),
            "2024-02-29T12:00:00.000000000"
        );
        assert_eq!(
            less("2024-02-29T00:00:00Z", 12, 0, 0),
            "2023-02-28T00:00:00.000000000"
        );
        assert_eq!(
            less("2026-01-31T00:00:00Z", -1, 0, 0),
            "2026-02-28T00:00:00.000000000"
        );
    }

    #[test]
    fn months_come_before_days_and_days_have_24_hours() {
        assert_eq!(
            less("2026-03-31T00:00:00Z", 1, 1, 0),
            "2026-02-27T00:00:00.000000000"
        );
        assert_eq!(
            less("2026-03-30T01:00:00Z", 0, 1, 0),
            "2026-03-29T01:00:00.000000000"
        );
    }

    #[test]
    fn nanoseconds_borrow_from_microseconds() {
        assert_eq!(
            less("1970-01-01T00:00:00Z", 0, 0, 1),
            "1969-12-31T23:59:59.999999999"
        );
        assert_eq!(
            less("2026-01-01T00:00:00.000000001Z", 0, 0, 2),
            "2025-12-31T23:59:59.999999999"
        );
    }

    #[test]
    fn ages_can_be_read() {
        let text = |months, days, nanoseconds| {
            Age(IntervalMonthDayNano {
                months,
                days,
                nanoseconds,
            })
            .to_string()
        };
        assert_eq!(text(0, 30, 0), "30 days");
        assert_eq!(text(1, 1, 1), "1 month 1 day 0.000000001 seconds");
        assert_eq!(text(0, 0, -3_600_000_000_000), "-3600 seconds");
        assert_eq!(text(0, 0, 0), "0 seconds");
    }

    #[test]
    fn ages_beyond_time_leave_nothing_out() {
        let time = Instant::from_micros(0);
        let age = IntervalMonthDayNano {
            months: i32::MAX,
            days: 0,
            nanoseconds: 0,
        };
        assert_eq!(before(time, age).unwrap().micros, i64::MIN);
        let age = IntervalMonthDayNano {
            months: 0,
            days: i32::MAX,
            nanoseconds: i64::MAX,
        };
        assert_eq!(before(time, age).unwrap().micros, i64::MIN);
        assert!(
            before(
                Instant::from_micros(i64::MAX),
                IntervalMonthDayNano::new(1, 0, 0)
            )
            .is_err()
        );
    }
}
