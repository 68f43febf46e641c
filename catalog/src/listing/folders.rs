//! The `year=YYYY/month=MM/day=DD/hour=HH` folders and what event times they may hold.

use crate::instant::{Instant, calendar};

use super::EventRange;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

const KEYS: [&str; 4] = ["year", "month", "day", "hour"];

/// Zero to four leading folders of an hour path, all valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Folder {
    values: [u32; 4],
    depth: usize,
}

/// How the event times a folder may hold lie to a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlap {
    Outside,
    Partial,
    /// Every hour below may hold event times in the range.
    Inside,
}

impl Folder {
    /// The folder `segment` below this one; `None` when it is not the next level of an hour path.
    pub(super) fn child(self, segment: &str) -> Option<Self> {
        let digits = segment
            .strip_prefix(KEYS.get(self.depth)?)?
            .strip_prefix('=')?;
        let longest = if self.depth == 0 { 4 } else { 2 };
        if digits.is_empty()
            || digits.len() > longest
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let value: u32 = digits.parse().ok()?;
        let valid = match self.depth {
            0 => true,
            1 => (1..=12).contains(&value),
            2 => {
                let last = calendar::days_in_month(i64::from(self.values[0]), self.values[1]);
                (1..=last).contains(&value)
            }
            _ => value <= 23,
        };
        let mut child = self;
        child.values[self.depth] = value;
        child.depth += 1;
        valid.then_some(child)
    }

    /// The hour folder that holds the object of this path below the table's prefix.
    pub(super) fn hour_of(relative: &str) -> Option<Instant> {
        let mut segments = relative.split('/');
        let mut folder = Self::default();
        for _ in KEYS {
            folder = folder.child(segments.next()?)?;
        }
        segments.next()?;
        Some(Instant::from_micros(folder.span().0))
    }

    /// True for a day folder, whose children are hours.
    pub(super) fn is_day(self) -> bool {
        self.depth == 3
    }

    /// First microsecond and the one after the last, as written.
    fn span(self) -> (i64, i64) {
        let [year, month, day, hour] = self.values;
        let year = i64::from(year);
        let days = |year, month, day| calendar::to_days(year, month, day) * DAY;
        match self.depth {
            0 => (i64::MIN, i64::MAX),
            1 => (days(year, 1, 1), days(year + 1, 1, 1)),
            2 if month == 12 => (days(year, 12, 1), days(year + 1, 1, 1)),
            2 => (days(year, month, 1), days(year, month + 1, 1)),
            3 => (days(year, month, day), days(year, month, day) + DAY),
            _ => {
                let start = days(year, month, day) + i64::from(hour) * HOUR;
                (start, start + HOUR)
            }
        }
    }

    pub(super) fn overlap(self, range: EventRange) -> Overlap {
        if range == EventRange::ALL {
            return Overlap::Inside;
        }
        let (start, end) = self.span();
        if self.depth == 0 {
            return Overlap::Partial;
        }
        let first_hour = (start, start + HOUR);
        let last_hour = (end - HOUR, end);
        if !spans_meet(start, end, range) {
            Overlap::Outside
        } else if spans_meet(first_hour.0, first_hour.1, range)
            && spans_meet(last_hour.0, last_hour.1, range)
        {
            Overlap::Inside
        } else {
            Overlap::Partial
        }
    }
}

/// Whether the folder of the hour that starts at `hour` may hold event times in `range`.
pub(super) fn may_hold(hour: Instant, range: EventRange) -> bool {
    spans_meet(hour.micros, hour.micros + HOUR, range)
}

/// Whether event times written into a folder of this span may lie in `range`: they may lie up to
/// a day beside it, where the writer's session had another time zone.
fn spans_meet(start: i64, end: i64, range: EventRange) -> bool {
    range
        .from
        .is_none_or(|from| end.saturating_add(DAY) >= from.micros)
        && range
            .to
            .is_none_or(|to| start.saturating_sub(DAY) <= to.micros)
}

/// The first instant that is too late for the folder of the hour that starts at `hour`, whatever
/// the writer's time zone.
pub(super) fn held_before(hour: Instant) -> Instant {
    let latest = hour.micros.saturating_add(HOUR).saturating_add(DAY);
    Instant::from_micros(latest.saturating_add(1))
}

/// The range widened to whole days.
pub(super) fn whole_days(range: EventRange) -> EventRange {
    let floor = |at: Instant| Instant::from_micros(at.micros.div_euclid(DAY).saturating_mul(DAY));
    let ceil = |at: Instant| {
        let day = at.micros.div_euclid(DAY).saturating_add(1);
        Instant::from_micros(day.saturating_mul(DAY))
    };
    EventRange {
        from: range.from.map(floor),
        to: range.to.map(ceil),
    }
}
