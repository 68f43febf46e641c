//! The text forms of an instant.

use super::{Instant, MICROS_PER_DAY, MICROS_PER_SECOND, calendar};
use crate::error::Result;

/// `YYYY-MM-DDTHH:MM:SSZ` and the same with three fractional digits: what nearly every stored
/// event time looks like. `None` for anything else, right or wrong.
#[inline]
pub(super) fn fixed_form(text: &[u8]) -> Option<Instant> {
    let millis = match text.len() {
        20 if text[19] == b'Z' => 0,
        24 if text[19] == b'.' && text[23] == b'Z' => i64::from(three_digits(text, 20)?),
        _ => return None,
    };
    if text[4] != b'-'
        || text[7] != b'-'
        || text[10] != b'T'
        || text[13] != b':'
        || text[16] != b':'
    {
        return None;
    }
    let year = i64::from(two_digits(text, 0)? * 100 + two_digits(text, 2)?);
    let (month, day) = (two_digits(text, 5)?, two_digits(text, 8)?);
    let (hour, minute, second) = (
        two_digits(text, 11)?,
        two_digits(text, 14)?,
        two_digits(text, 17)?,
    );
    if day == 0
        || day > calendar::days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    let micros = calendar::to_days(year, month, day) * MICROS_PER_DAY
        + seconds * MICROS_PER_SECOND
        + millis * 1_000;
    Some(Instant::from_micros(micros))
}

/// Parses many texts, most of which are of [`fixed_form`] and of the same day as the one before:
/// the date of those is not converted again, and their time of day is taken apart as one word.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// `YYYY-MM-DDT` of a text that was parsed.
    date: [u8; 11],
    /// Midnight of that day, in microseconds.
    midnight: i64,
}

impl Parser {
    /// As [`Instant::parse`].
    #[inline]
    pub(crate) fn parse(&mut self, text: &str) -> Result<Instant> {
        match self.same_day(text.as_bytes()) {
            Some(instant) => Ok(instant),
            None => self.other_day(text),
        }
    }

    #[inline]
    fn same_day(&self, text: &[u8]) -> Option<Instant> {
        let (date, rest) = text.split_first_chunk::<11>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        if *date != self.date {
            return None;
        }
        let millis = match rest {
            b"Z" => 0,
            [b'.', .., b'Z'] if rest.len() == 5 => i64::from(three_digits(rest, 1)?),
            _ => return None,
        };
        Some(Instant::from_micros(
            self.midnight + seconds(*time)? * MICROS_PER_SECOND + millis * 1_000,
        ))
    }

    fn other_day(&mut self, text: &str) -> Result<Instant> {
        if let Some(instant) = fixed_form(text.as_bytes())
            && let Some(date) = text.as_bytes().first_chunk()
        {
            self.date = *date;
            self.midnight = instant.micros - instant.micros.rem_euclid(MICROS_PER_DAY);
            return Ok(instant);
        }
        Instant::parse(text)
    }
}

/// Seconds since midnight at `HH:MM:SS`.
#[inline]
fn seconds(time: [u8; 8]) -> Option<i64> {
    const ZEROS: u64 = u64::from_le_bytes(*b"00:00:00");
    /// Added to a byte, sets the highest bit of what is neither a digit nor, there, a colon.
    const EXCESS: u64 = u64::from_le_bytes([0x76, 0x76, 0x7f, 0x76, 0x76, 0x7f, 0x76, 0x76]);
    const HIGHEST: u64 = u64::from_le_bytes([0x80; 8]);
    let digits = u64::from_le_bytes(time) ^ ZEROS;
    if (digits.wrapping_add(EXCESS) | digits) & HIGHEST != 0 {
        return None;
    }
    let [h, hours, _, m, minutes, _, s, seconds] = digits.to_le_bytes().map(i64::from);
    let (hours, minutes, seconds) = (h * 10 + hours, m * 10 + minutes, s * 10 + seconds);
    (hours < 24 && minutes < 60 && seconds < 60).then_some((hours * 60 + minutes) * 60 + seconds)
}

#[inline]
fn two_digits(text: &[u8], at: usize) -> Option<u32> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[inline]
fn three_digits(text: &[u8], at: usize) -> Option<u32> {
    let ones = text[at + 2].wrapping_sub(b'0');
    (ones <= 9).then_some(two_digits(text, at)? * 10 + u32::from(ones))
}

/// Every accepted form; the error is the reason.
pub(super) fn any_form(text: &[u8]) -> Result<Instant, &'static str> {
    let mut rest = Rest(text);
    let days = rest.date()?;
    if rest.0.is_empty() {
        return in_range(days * MICROS_PER_DAY, 0);
    }
    if !(rest.take(b'T') || rest.take(b't') || rest.take(b' ')) {
        return Err("the time must follow the date after a 'T' or a blank");
    }
    let seconds = rest.time()?;
    let (micros, nanos) = rest.fraction()?;
    let offset = rest.zone()?;
    if !rest.0.is_empty() {
        return Err("there is more text after the time");
    }
    let micros = days * MICROS_PER_DAY + (seconds - offset) * MICROS_PER_SECOND + micros;
    in_range(micros, nanos)
}

fn in_range(micros: i64, nanos: u16) -> Result<Instant, &'static str> {
    let instant = Instant { micros, nanos };
    if (Instant::MIN..=Instant::MAX).contains(&instant) {
        Ok(instant)
    } else {
        Err("in UTC it lies outside the years 0000 to 9999")
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn two(&mut self) -> Option<u32> {
        let value = if self.0.len() < 2 {
            None
        } else {
            two_digits(self.0, 0)
        }?;
        self.0 = &self.0[2..];
        Some(value)
    }

    fn date(&mut self) -> Result<i64, &'static str> {
        const FORM: &str = "it must begin with a date as YYYY-MM-DD";
        let century = self.two().ok_or(FORM)?;
        let year = i64::from(century * 100 + self.two().ok_or(FORM)?);
        let month = self.take(b'-').then(|| self.two()).flatten().ok_or(FORM)?;
        let day = self.take(b'-').then(|| self.two()).flatten().ok_or(FORM)?;
        let days_in_month = calendar::days_in_month(year, month);
        if days_in_month == 0 {
            return Err("there is no such month");
        }
        if day == 0 || day > days_in_month {
            return Err("there is no such day in that month");
        }
        Ok(calendar::to_days(year, month, day))
    }

    /// Seconds since midnight.
    fn time(&mut self) -> Result<i64, &'static str> {
        const FORM: &str = "the time must be written as HH:MM or HH:MM:SS";
        let hour = self.two().ok_or(FORM)?;
        let minute = self.take(b':').then(|| self.two()).flatten().ok_or(FORM)?;
        let second = if self.take(b':') {
            self.two().ok_or(FORM)?
        } else {
            0
        };
        match (hour, minute, second) {
            (0..=23, 0..=59, 0..=59) => Ok(i64::from(hour * 3600 + minute * 60 + second)),
            (0..=23, 0..=59, 60) => Err("leap seconds are not supported"),
            _ => Err("there is no such time of day"),
        }
    }

    /// Microseconds and nanoseconds of a fraction, if there is one.
    fn fraction(&mut self) -> Result<(i64, u16), &'static str> {
        if !self.take(b'.') {
            return Ok((0, 0));
        }
        let digits = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits == 0 {
            return Err("there are no digits after the decimal point");
        }
        if digits > 9 {
            return Err("it has more than 9 fractional digits");
        }
        let mut nanos = 0_u32;
        for place in 0..9 {
            let digit = if place < digits {
                self.0[place] - b'0'
            } else {
                0
            };
            nanos = nanos * 10 + u32::from(digit);
        }
        self.0 = &self.0[digits..];
        #[allow(clippy::cast_possible_truncation, reason = "below 1000")]
        Ok((i64::from(nanos / 1_000), (nanos % 1_000) as u16))
    }

    /// Seconds east of UTC.
    fn zone(&mut self) -> Result<i64, &'static str> {
        const FORM: &str = "the zone must be 'Z' or an offset as +HH:MM";
        if self.0.is_empty() || self.take(b'Z') || self.take(b'z') {
            return Ok(0);
        }
        let west = self.take(b'-');
        if !west && !self.take(b'+') {
            return Err(FORM);
        }
        let hours = self.two().ok_or(FORM)?;
        let minutes = if self.take(b':') {
            self.two().ok_or(FORM)?
        } else if self.0.is_empty() {
            0
        } else {
            self.two().ok_or(FORM)?
        };
        if hours > 23 || minutes > 59 {
            return Err("there is no such offset");
        }
        let seconds = i64::from(hours * 3600 + minutes * 60);
        Ok(if west { -seconds } else { seconds })
    }
}
