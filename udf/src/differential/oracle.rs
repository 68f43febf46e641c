//! The semantics once more, as plainly as they can be said: nested loops over plain values.

use std::cmp::Ordering;

use arrow::datatypes::IntervalMonthDayNano;
use featureflight_catalog::Instant;

use crate::asof::node::AsofOperator;
use crate::clock::Clocks;
use crate::differential::generate::{Cut, History, Left, Options, Right, SpineRow};
use crate::point_in_time::node::KnownBy;
use crate::testing::{Key, Version};

/// A version with what its place adds to its rank.
type Placed<'a> = (&'a Version, &'a str, usize);

fn placed(history: &History) -> impl Iterator<Item = Placed<'_>> {
    history.files.iter().flat_map(|file| {
        let rows = file.versions.iter().enumerate();
        rows.map(|(row, version)| (version, file.key.as_str(), row))
    })
}

fn rank(a: &Placed<'_>, b: &Placed<'_>) -> Ordering {
    a.0.event
        .cmp(&b.0.event)
        .then(a.0.api.cmp(&b.0.api))
        .then(a.0.write.cmp(&b.0.write))
        .then(a.1.cmp(b.1))
        .then(a.2.cmp(&b.2))
}

fn same_key(a: &Key, b: &Key) -> bool {
    match (a, b) {
        (Key::Double(a), Key::Double(b)) => a == b || (a.is_nan() && b.is_nan()),
        _ => a == b,
    }
}

fn admitted(version: &Version, clocks: Clocks) -> bool {
    clocks.system.is_none_or(|at| version.write <= at)
        && clocks.valid.is_none_or(|at| version.event <= at)
}

/// The match of one spine row.
pub(super) fn match_of<'a>(
    history: &'a History,
    row: &SpineRow,
    options: &Options,
) -> Option<&'a Version> {
    let (key, time) = (row.key.as_ref()?, row.time?);
    let cut = match options.known_at {
        Cut::Always => None,
        Cut::Constant(at) => Some(at),
        Cut::Column => Some(row.cut?),
    };
    placed(history)
        .filter(|(version, ..)| same_key(&version.key, key))
        .filter(|(version, ..)| version.event <= time)
        .filter(|(version, ..)| {
            options
                .max_age
                .is_none_or(|age| not_older(version.event, time, age))
        })
        .filter(|(version, ..)| {
            let known = match options.known_by {
                KnownBy::WriteTime => version.write,
                KnownBy::ApiInvocationTime => version.api,
            };
            cut.is_none_or(|cut| known <= cut)
        })
        .filter(|(version, ..)| admitted(version, options.clocks))
        .max_by(rank)
        .map(|(version, ..)| version)
        .filter(|version| !version.deleted)
}

/// The state of every record.
pub(super) fn state(history: &History, clocks: Clocks) -> Vec<&Version> {
    let mut best: Vec<Placed<'_>> = Vec::new();
    for version in placed(history).filter(|(version, ..)| admitted(version, clocks)) {
        match best
            .iter_mut()
            .find(|other| same_key(&other.0.key, &version.0.key))
        {
            Some(other) if rank(other, &version) == Ordering::Less => *other = version,
            Some(_) => {}
            None => best.push(version),
        }
    }
    best.into_iter()
        .map(|(version, ..)| version)
        .filter(|version| !version.deleted)
        .collect()
}

fn nanos(time: Instant) -> i128 {
    i128::from(time.micros) * 1000 + i128::from(time.nanos)
}

const DAY: i128 = 86_400_000_000_000;

fn is_leap(year: i128) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i128, month: usize) -> i128 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Whether `event` is at or after `time` less `age`; years from 1970 on, counted day by day.
fn not_older(event: Instant, time: Instant, age: IntervalMonthDayNano) -> bool {
    let (mut days, rest) = (nanos(time).div_euclid(DAY), nanos(time).rem_euclid(DAY));
    if age.months != 0 {
        let (mut year, mut month) = (1970_i128, 0_usize);
        while days >= days_in(year, month) {
            days -= days_in(year, month);
            (year, month) = if month == 11 {
                (year + 1, 0)
            } else {
                (year, month + 1)
            };
        }
        for _ in 0..age.months {
            (year, month) = if month == 0 {
                (year - 1, 11)
            } else {
                (year, month - 1)
            };
        }
        days = days.min(days_in(year, month) - 1);
        while (year, month) != (1970, 0) {
            (year, month) = if month == 0 {
                (year - 1, 11)
            } else {
                (year, month - 1)
            };
            days += days_in(year, month);
        }
    }
    let oldest = (days - i128::from(age.days)) * DAY + rest - i128::from(age.nanoseconds);
    nanos(event) >= oldest
}

/// The columns of the right row that a left row of a plain as-of join matches, or nulls.
pub(super) fn asof(
    left: &Left,
    right: &[Right],
    keys: usize,
    operator: AsofOperator,
) -> Vec<Option<i64>> {
    let candidates = right.iter().filter(|right| {
        let keys_match =
            (0..keys).all(|key| left.keys[key].is_some() && left.keys[key] == right.keys[key]);
        let (Some(left), Some(right)) = (left.time, right.time) else {
            return false;
        };
        keys_match
            && match operator {
                AsofOperator::GreaterOrEqual => left >= right,
                AsofOperator::Greater => left > right,
                AsofOperator::LessOrEqual => left <= right,
                AsofOperator::Less => left < right,
            }
    });
    let nearest = candidates.max_by(|a, b| {
        let time = a.time.cmp(&b.time);
        let time = if operator.looks_back() {
            time
        } else {
            time.reverse()
        };
        // Without keys the key columns are ordinary ones. `None` is least, as nulls first say.
        let rest = |row: &Right| {
            let mut rest = vec![row.a];
            if keys == 0 {
                rest.extend(row.keys);
            }
            rest.push(row.b);
            rest
        };
        time.then(rest(a).cmp(&rest(b)))
    });
    nearest.map_or(vec![None; 5], |row| {
        vec![row.a, row.keys[0], row.time, row.keys[1], row.b]
    })
}
