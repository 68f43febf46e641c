//! Instants: points in time in UTC, exact to the nanosecond for the years 0000 to 9999.
//!
//! Event times and system times are compared as instants, never as text.

pub(crate) mod calendar;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use arrow::datatypes::{IntervalMonthDayNano, TimeUnit};
use datafusion::scalar::ScalarValue;

use crate::error::{Error, Result};

pub(crate) use parse::Parser;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// The forms a user may write, for messages.
const ACCEPTED_FORMS: &str = "accepted are ISO-8601 dates and times such as 2026-01-31, \
     2026-01-31 12:30:00, 2026-01-31T12:30:00.123456789Z and 2026-01-31T12:30:00+01:00 \
     (up to 9 fractional digits; no zone means UTC), timestamps and dates";

/// Microseconds since 1970-01-01T00:00:00Z (floored) and 0 to 999 nanoseconds. The derived order
/// is the order in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant {
    pub micros: i64,
    pub nanos: u16,
}

impl Instant {
    /// 0000-01-01T00:00:00Z, the earliest event time there can be.
    pub const MIN: Self = Self::from_micros(-62_167_219_200 * MICROS_PER_SECOND);
    /// 9999-12-31T23:59:59.999999999Z, the latest.
    pub const MAX: Self = Self {
        micros: 253_402_300_800 * MICROS_PER_SECOND - 1,
        nanos: 999,
    };

    pub const fn from_micros(micros: i64) -> Self {
        Self { micros, nanos: 0 }
    }

    /// A timestamp of `unit` since the epoch; `None` when it leaves the range of the type.
    #[inline]
    pub fn from_unit(value: i64, unit: TimeUnit) -> Option<Self> {
        match unit {
            TimeUnit::Second => value.checked_mul(MICROS_PER_SECOND).map(Self::from_micros),
            TimeUnit::Millisecond => value.checked_mul(1_000).map(Self::from_micros),
            TimeUnit::Microsecond => Some(Self::from_micros(value)),
            TimeUnit::Nanosecond => Some(Self {
                micros: value.div_euclid(1_000),
                nanos: u16::try_from(value.rem_euclid(1_000)).ok()?,
            }),
        }
    }

    /// Unix seconds, rounded to the microsecond; `None` for NaN, infinities and years outside
    /// 0000 to 9999.
    #[inline]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        // The fraction is split off first: it is exact, the product with a million is not.
        let whole = seconds.floor();
        if !(-1e12..=1e12).contains(&whole) {
            return None;
        }
        let fraction = ((seconds - whole) * 1e6).round();
        #[allow(
            clippy::cast_possible_truncation,
            reason = "both are whole and far inside i64"
        )]
        let micros = whole as i64 * MICROS_PER_SECOND + fraction as i64;
        let instant = Self::from_micros(micros);
        (Self::MIN..=Self::MAX)
            .contains(&instant)
            .then_some(instant)
    }

    /// ISO-8601: date only, blank or `T`, 0 to 9 fractional digits, `Z`, an offset, or none (UTC).
    ///
    /// # Errors
    /// `InvalidArgument` that says what is wrong and lists the accepted forms.
    #[inline]
    pub fn parse(text: &str) -> Result<Self> {
        match parse::fixed_form(text.as_bytes()) {
            Some(instant) => Ok(instant),
            None => Self::parse_any(text),
        }
    }

    #[cold]
    fn parse_any(text: &str) -> Result<Self> {
        parse::any_form(text.as_bytes()).map_err(|reason| {
            let shown: String = text.chars().take(64).collect();
            let dots = if shown.len() < text.len() { "..." } else { "" };
            Error::invalid(format!(
                "'{shown}{dots}' is not a point in time: {reason}; {ACCEPTED_FORMS}"
            ))
        })
    }

    /// A constant of SQL: a timestamp of any unit and zone, a date (midnight UTC) or text.
    ///
    /// # Errors
    /// `InvalidArgument` for a null or any other type; it lists the accepted forms.
    pub fn from_scalar(value: &ScalarValue) -> Result<Self> {
        let null = || Error::invalid(format!("null is not a point in time; {ACCEPTED_FORMS}"));
        let range = || Error::invalid(format!("{value} is out of range; {ACCEPTED_FORMS}"));
        let timestamp = |stored: Option<i64>, unit: TimeUnit| {
            Self::from_unit(stored.ok_or_else(null)?, unit).ok_or_else(range)
        };
        match value {
            ScalarValue::TimestampSecond(v, _) => timestamp(*v, TimeUnit::Second),
            ScalarValue::TimestampMillisecond(v, _) => timestamp(*v, TimeUnit::Millisecond),
            ScalarValue::TimestampMicrosecond(v, _) => timestamp(*v, TimeUnit::Microsecond),
            ScalarValue::TimestampNanosecond(v, _) => timestamp(*v, TimeUnit::Nanosecond),
            ScalarValue::Date32(days) => Ok(Self::from_micros(
                i64::from(days.ok_or_else(null)?) * MICROS_PER_DAY,
            )),
            ScalarValue::Date64(millis) => timestamp(*millis, TimeUnit::Millisecond),
            ScalarValue::Utf8(text)
            | ScalarValue::LargeUtf8(text)
            | ScalarValue::Utf8View(text) => Self::parse(text.as_deref().ok_or_else(null)?),
            ScalarValue::Dictionary(_, inner) => Self::from_scalar(inner),
            ScalarValue::Null => Err(null()),
            other => Err(Error::invalid(format!(
                "{other} of type {} is not a point in time; {ACCEPTED_FORMS}",
                other.data_type()
            ))),
        }
    }

    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// The last whole microsecond at or before this instant.
    pub const fn to_micros_floor(self) -> i64 {
        self.micros
    }

    /// The first whole microsecond at or after this instant.
    pub const fn to_micros_ceil(self) -> i64 {
        if self.nanos == 0 {
            self.micros
        } else {
            self.micros.saturating_add(1)
        }
    }

    /// Nanoseconds since 1970-01-01T00:00:00Z.
    pub fn total_nanos(self) -> i128 {
        i128::from(self.micros) * 1_000 + i128::from(self.nanos)
    }

    /// The instant of [`Self::total_nanos`]; `None` out of range.
    pub fn from_total_nanos(nanos: i128) -> Option<Self> {
        Some(Self {
            micros: i64::try_from(nanos.div_euclid(1_000)).ok()?,
            nanos: u16::try_from(nanos.rem_euclid(1_000)).ok()?,
        })
    }

    /// This instant minus `interval`: its months as calendar months in UTC (the 31st becomes the
    /// last day of a shorter month), then its days of 24 hours, then its nanoseconds. `None` when
    /// the result is out of range.
    pub fn checked_sub_interval(self, interval: IntervalMonthDayNano) -> Option<Self> {
        let days = self.micros.div_euclid(MICROS_PER_DAY);
        let time_of_day = self.micros.rem_euclid(MICROS_PER_DAY);
        let days = calendar::sub_months(days, i64::from(interval.months))?
            .checked_sub(i64::from(interval.days))?;
        let micros = days.checked_mul(MICROS_PER_DAY)?.checked_add(time_of_day)?;
        let moved = Self {
            micros,
            nanos: self.nanos,
        };
        Self::from_total_nanos(moved.total_nanos() - i128::from(interval.nanoseconds))
    }

    /// `None` where the platform's clock cannot hold it.
    pub fn to_system_time(self) -> Option<SystemTime> {
        let size = Duration::from_micros(self.micros.unsigned_abs());
        let micros = if self.micros < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(size)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(size)
        };
        micros?.checked_add(Duration::from_nanos(u64::from(self.nanos)))
    }
}

/// Saturates at the range of the type, three hundred thousand years away.
impl From<SystemTime> for Instant {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i128::try_from(after.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        Self::from_total_nanos(nanos).unwrap_or(if nanos < 0 {
            Self {
                micros: i64::MIN,
                nanos: 0,
            }
        } else {
            Self {
                micros: i64::MAX,
                nanos: 999,
            }
        })
    }
}

/// As RFC 3339 in UTC with as many fractional digits as are needed (0, 3, 6 or 9).
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = calendar::from_days(self.micros.div_euclid(MICROS_PER_DAY));
        let time = self.micros.rem_euclid(MICROS_PER_DAY);
        let (seconds, micros) = (time / MICROS_PER_SECOND, time % MICROS_PER_SECOND);
        let sign = if year < 0 {
            "-"
        } else if year > 9999 {
            "+"
        } else {
            ""
        };
        write!(
            f,
            "{sign}{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            year.abs(),
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        )?;
        match (micros, self.nanos) {
            (0, 0) => {}
            (_, 0) if micros % 1_000 == 0 => write!(f, ".{:03}", micros / 1_000)?,
            (_, 0) => write!(f, ".{micros:06}")?,
            (_, nanos) => write!(f, ".{micros:06}{nanos:03}")?,
        }
        f.write_str("Z")
    }
}
