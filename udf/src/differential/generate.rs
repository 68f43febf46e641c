//! Random inputs, small and full of ties.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::IntervalMonthDayNano;
use chrono::{DateTime, FixedOffset, Utc};
use featureflight_catalog::Instant;
use featureflight_catalog::model::FeatureType;
use featureflight_catalog::table::EventTimeForm;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom, SliceRandom};

use crate::asof::node::AsofOperator;
use crate::clock::Clocks;
use crate::point_in_time::node::KnownBy;
use crate::point_in_time::passes::Passes;
use crate::testing::{File, Key, Stored, Version};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
/// 2024-02-28T23:59:57Z, shortly before a leap day.
const BASE: i64 = 1_709_164_797 * SECOND;

#[derive(Debug)]
pub(super) struct History {
    pub(super) files: Vec<File>,
    pub(super) id: FeatureType,
    pub(super) form: EventTimeForm,
    keys: Vec<Key>,
    scale: Scale,
}

impl History {
    pub(super) fn key_type(&self) -> &Key {
        &self.keys[0]
    }

    fn versions(&self) -> impl Iterator<Item = &Version> {
        self.files.iter().flat_map(|file| &file.versions)
    }
}

/// How far apart times lie.
#[derive(Debug, Clone, Copy)]
enum Scale {
    Nanoseconds,
    Seconds,
    Hours,
    Days,
}

fn time(rng: &mut StdRng, scale: Scale) -> Instant {
    let (step, steps) = match scale {
        Scale::Nanoseconds => (0, 1),
        Scale::Seconds => (SECOND, 8),
        Scale::Hours => (HOUR / 2, 100),
        Scale::Days => (24 * HOUR, 70),
    };
    let mut micros = BASE + step * rng.random_range(0..steps);
    if matches!(scale, Scale::Days) && rng.random_bool(0.5) {
        // Midnights can be written as dates.
        micros -= micros.rem_euclid(24 * HOUR);
    }
    let nanos = match scale {
        Scale::Nanoseconds => rng.random_range(0..4),
        _ if rng.random_bool(0.1) => rng.random_range(0..1000),
        _ => 0,
    };
    Instant { micros, nanos }
}

/// `time` as some writer might have stored it.
fn text(rng: &mut StdRng, time: Instant) -> String {
    let seconds = time.micros.div_euclid(SECOND);
    let nanos = time.micros.rem_euclid(SECOND) * 1000 + i64::from(time.nanos);
    let date: DateTime<Utc> =
        DateTime::from_timestamp(seconds, u32::try_from(nanos).unwrap()).unwrap();
    if nanos == 0 && seconds % 86_400 == 0 && rng.random_bool(0.5) {
        return date.format("%Y-%m-%d").to_string();
    }
    let zones: [(i32, &str); 5] = [
        (0, "Z"),
        (0, ""),
        (7200, "+02:00"),
        (-19_800, "-05:30"),
        (0, "+00:00"),
    ];
    let (offset, zone) = *zones.choose(rng).unwrap();
    let local = date.with_timezone(&FixedOffset::east_opt(offset).unwrap());
    let separator = if rng.random_bool(0.7) { "T" } else { " " };
    let fraction = format!("{nanos:09}");
    let least = fraction.trim_end_matches('0').len();
    let digits = rng.random_range(least..=9);
    let fraction = if digits == 0 {
        String::new()
    } else {
        format!(".{}", &fraction[..digits])
    };
    local
        .format(&format!("%Y-%m-%d{separator}%H:%M:%S{fraction}{zone}"))
        .to_string()
}

fn keys(rng: &mut StdRng) -> (FeatureType, Vec<Key>) {
    let (kind, mut keys) = match rng.random_range(0..3) {
        0 => (
            FeatureType::Integral,
            [0, 1, -1, i64::MIN, i64::MAX]
                .into_iter()
                .map(Key::Integer)
                .collect::<Vec<_>>(),
        ),
        1 => (
            FeatureType::Fractional,
            [
                0.0,
                -0.0,
                f64::NAN,
                f64::from_bits(0xfff8_0000_0000_0001),
                1.5,
            ]
            .into_iter()
            .map(Key::Double)
            .collect(),
        ),
        _ => (
            FeatureType::String,
            ["", "a", "A", "é", "a text that does not fit into a view"]
                .into_iter()
                .map(|key| Key::Text(key.to_owned()))
                .collect(),
        ),
    };
    keys.shuffle(rng);
    keys.truncate(rng.random_range(1..=5));
    (kind, keys)
}

pub(super) fn history(rng: &mut StdRng) -> History {
    let (id, keys) = keys(rng);
    let form = if rng.random_bool(0.6) {
        EventTimeForm::Text
    } else {
        EventTimeForm::Seconds
    };
    let scales = [
        Scale::Nanoseconds,
        Scale::Seconds,
        Scale::Hours,
        Scale::Days,
    ];
    let scale = *scales.choose(rng).unwrap();
    let fine = rng.random_bool(0.3);
    let mut versions: Vec<Version> = Vec::new();
    for number in 0..rng.random_range(0..40) {
        let mut version = match versions.choose(rng) {
            Some(earlier) if rng.random_bool(0.2) => earlier.clone(),
            _ => version(rng, &keys, form, scale, fine),
        };
        version.number = Some(number);
        version.text = rng.random_bool(0.7).then(|| format!("text {}", number % 7));
        versions.push(version);
    }
    let mut files: Vec<File> = (0..rng.random_range(1..=5))
        .map(|_| File {
            key: String::new(),
            versions: Vec::new(),
        })
        .collect();
    for version in versions {
        files.choose_mut(rng).unwrap().versions.push(version);
    }
    files.retain(|file| !file.versions.is_empty());
    for (number, file) in files.iter_mut().enumerate() {
        file.key = object_key(rng, &file.versions, number);
    }
    History {
        files,
        id,
        form,
        keys,
        scale,
    }
}

fn version(
    rng: &mut StdRng,
    keys: &[Key],
    form: EventTimeForm,
    scale: Scale,
    fine: bool,
) -> Version {
    let mut event = time(rng, scale);
    let stored = match form {
        EventTimeForm::Text => Stored::Text(text(rng, event)),
        EventTimeForm::Seconds => {
            event.nanos = 0;
            #[expect(
                clippy::cast_precision_loss,
                reason = "microseconds of these years fit"
            )]
            Stored::Seconds(event.micros as f64 / 1e6)
        }
    };
    let mut system = |steps: i64| Instant {
        micros: BASE + SECOND * rng.random_range(0..steps),
        nanos: if fine { rng.random_range(0..3) } else { 0 },
    };
    let (api, write) = (system(4), system(6));
    let key = keys.choose(rng).unwrap().clone();
    let deleted = rng.random_bool(0.15);
    Version {
        key,
        event,
        stored,
        api,
        write,
        deleted,
        number: None,
        text: None,
    }
}

/// A key whose hour folder is at most a day off, if all versions have such an hour.
fn object_key(rng: &mut StdRng, versions: &[Version], number: usize) -> String {
    let name = format!("{:04x}-{number}.parquet", rng.random_range(0..0xffff));
    let first = versions.iter().map(|v| v.event.micros).min().unwrap();
    let last = versions.iter().map(|v| v.event.micros).max().unwrap();
    let hours = (last.div_euclid(HOUR) - 24)..=(first.div_euclid(HOUR) + 24);
    if hours.is_empty() || rng.random_bool(0.2) {
        return name;
    }
    let hour = DateTime::from_timestamp_micros(rng.random_range(hours) * HOUR).unwrap();
    format!("{}/{name}", hour.format("year=%Y/month=%m/day=%d/hour=%H"))
}

/// One row of a spine; its number is its position.
#[derive(Debug, Clone)]
pub(super) struct SpineRow {
    pub(super) key: Option<Key>,
    pub(super) time: Option<Instant>,
    pub(super) cut: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Cut {
    Always,
    Constant(Instant),
    Column,
}

/// How a time column is typed.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Nanoseconds,
    Microseconds,
    Seconds,
    Days,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) clocks: Clocks,
    pub(super) max_age: Option<IntervalMonthDayNano>,
    pub(super) known_at: Cut,
    pub(super) known_by: KnownBy,
    pub(super) passes: Passes,
    unit: Unit,
}

/// At, just before or just after `time`, or far off.
fn near(rng: &mut StdRng, time: Instant) -> Instant {
    let shift: i64 = match rng.random_range(0..10) {
        0..=3 => 0,
        4 => 1,
        5 => -1,
        6 => SECOND * 1000,
        7 => -SECOND * 1000,
        8 => rng.random_range(-48 * HOUR..48 * HOUR) * 1000,
        _ => rng.random_range(-80 * 24 * HOUR..80 * 24 * HOUR) * 1000,
    };
    let nanos = i64::from(time.nanos) + shift;
    Instant {
        micros: time.micros + nanos.div_euclid(1000),
        nanos: u16::try_from(nanos.rem_euclid(1000)).unwrap(),
    }
}

fn near_event(rng: &mut StdRng, history: &History) -> Instant {
    let versions: Vec<_> = history.versions().map(|version| version.event).collect();
    let time = versions
        .choose(rng)
        .copied()
        .unwrap_or_else(|| time(rng, history.scale));
    near(rng, time)
}

fn near_system(rng: &mut StdRng, history: &History) -> Instant {
    let times: Vec<_> = history.versions().flat_map(|v| [v.write, v.api]).collect();
    let time = times
        .choose(rng)
        .copied()
        .unwrap_or(Instant::from_micros(BASE));
    near(rng, time)
}

pub(super) fn clocks(rng: &mut StdRng, history: &History) -> Clocks {
    Clocks {
        system: rng.random_bool(0.3).then(|| near_system(rng, history)),
        valid: rng.random_bool(0.3).then(|| near_event(rng, history)),
    }
}

fn age(rng: &mut StdRng) -> IntervalMonthDayNano {
    let nanoseconds = [0, 1, 1000, 1_000_000_000, 3_000_000_000, 3_600_000_000_000];
    let ages = [
        (0, 0, *nanoseconds.choose(rng).unwrap()),
        (0, 1, 0),
        (1, 0, 0),
        (1, 1, 1),
        (2, 0, 0),
        (0, 30, 0),
    ];
    let (months, days, nanoseconds) = *ages.choose(rng).unwrap();
    IntervalMonthDayNano {
        months,
        days,
        nanoseconds,
    }
}

/// `time` as a column of `unit` holds it.
fn floor(time: Instant, unit: Unit) -> Instant {
    let floor = |unit: i64| Instant::from_micros(time.micros.div_euclid(unit) * unit);
    match unit {
        Unit::Nanoseconds => time,
        Unit::Microseconds => floor(1),
        Unit::Seconds => floor(SECOND),
        Unit::Days => floor(24 * HOUR),
    }
}

pub(super) fn spine(rng: &mut StdRng, history: &History) -> (Vec<SpineRow>, Options) {
    let units = [
        Unit::Nanoseconds,
        Unit::Nanoseconds,
        Unit::Microseconds,
        Unit::Seconds,
        Unit::Days,
    ];
    let unit = *units.choose(rng).unwrap();
    let cuts = rng.random_range(0..6);
    let options = Options {
        clocks: if rng.random_bool(0.6) {
            Clocks::default()
        } else {
            clocks(rng, history)
        },
        max_age: rng.random_bool(0.4).then(|| age(rng)),
        known_at: match cuts {
            0..=1 => Cut::Always,
            2 => Cut::Constant(near_system(rng, history)),
            _ => Cut::Column,
        },
        known_by: if rng.random_bool(0.5) {
            KnownBy::WriteTime
        } else {
            KnownBy::ApiInvocationTime
        },
        passes: *[Passes::One, Passes::Two].choose(rng).unwrap(),
        unit,
    };
    let mut rows: Vec<SpineRow> = Vec::new();
    for _ in 0..rng.random_range(0..30) {
        let row = match rows.choose(rng) {
            Some(earlier) if rng.random_bool(0.15) => earlier.clone(),
            _ => SpineRow {
                key: rng.random_bool(0.9).then(|| spine_key(rng, history)),
                time: rng
                    .random_bool(0.9)
                    .then(|| floor(near_event(rng, history), unit)),
                cut: rng.random_bool(0.9).then(|| near_system(rng, history)),
            },
        };
        rows.push(row);
    }
    match cuts {
        // Cuts that grow with time.
        3 => {
            let mut times: Vec<_> = rows.iter().filter_map(|row| row.cut).collect();
            times.sort();
            rows.sort_by_key(|row| row.time);
            for (row, cut) in rows.iter_mut().filter(|row| row.cut.is_some()).zip(times) {
                row.cut = Some(cut);
            }
        }
        // The same column.
        4 => rows.iter_mut().for_each(|row| row.cut = row.time),
        _ => {}
    }
    rows.shuffle(rng);
    (rows, options)
}

fn spine_key(rng: &mut StdRng, history: &History) -> Key {
    let absent = match history.key_type() {
        Key::Integer(_) => Key::Integer(77),
        Key::Double(_) => Key::Double(-0.0),
        Key::Text(_) => Key::Text("absent".to_owned()),
    };
    if rng.random_bool(0.1) {
        absent
    } else {
        history.keys.choose(rng).unwrap().clone()
    }
}

fn nanos(time: Instant) -> i64 {
    time.micros * 1000 + i64::from(time.nanos)
}

/// Columns `row` (the number), `key`, `ts` and `cut`.
pub(super) fn spine_batch(key_type: &Key, rows: &[SpineRow], options: &Options) -> RecordBatch {
    let numbers = Int64Array::from_iter_values((0..).take(rows.len()));
    let keys: ArrayRef = match key_type {
        Key::Integer(_) => Arc::new(Int64Array::from_iter(rows.iter().map(
            |row| match row.key {
                Some(Key::Integer(key)) => Some(key),
                _ => None,
            },
        ))),
        Key::Double(_) => Arc::new(Float64Array::from_iter(rows.iter().map(
            |row| match row.key {
                Some(Key::Double(key)) => Some(key),
                _ => None,
            },
        ))),
        Key::Text(_) => Arc::new(StringViewArray::from_iter(rows.iter().map(
            |row| match &row.key {
                Some(Key::Text(key)) => Some(key.as_str()),
                _ => None,
            },
        ))),
    };
    let times = rows.iter().map(|row| row.time);
    let times: ArrayRef = match options.unit {
        Unit::Nanoseconds => Arc::new(TimestampNanosecondArray::from_iter(
            times.map(|t| t.map(nanos)),
        )),
        Unit::Microseconds => Arc::new(TimestampMicrosecondArray::from_iter(
            times.map(|t| t.map(|t| t.micros)),
        )),
        Unit::Seconds => Arc::new(TimestampSecondArray::from_iter(
            times.map(|t| t.map(|t| t.micros / SECOND)),
        )),
        Unit::Days => {
            Arc::new(Date32Array::from_iter(times.map(|t| {
                t.map(|t| i32::try_from(t.micros / (24 * HOUR)).unwrap())
            })))
        }
    };
    let cuts = TimestampNanosecondArray::from_iter(rows.iter().map(|row| row.cut.map(nanos)));
    RecordBatch::try_from_iter_with_nullable([
        ("row", Arc::new(numbers) as ArrayRef, false),
        ("key", keys, true),
        ("ts", times, true),
        ("cut", Arc::new(cuts), true),
    ])
    .unwrap()
}

#[derive(Debug)]
pub(super) struct Left {
    pub(super) keys: [Option<i64>; 2],
    pub(super) time: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Right {
    pub(super) keys: [Option<i64>; 2],
    pub(super) time: Option<i64>,
    pub(super) a: Option<i64>,
    pub(super) b: Option<i64>,
}

pub(super) fn operator(rng: &mut StdRng) -> AsofOperator {
    let operators = [
        AsofOperator::GreaterOrEqual,
        AsofOperator::Greater,
        AsofOperator::LessOrEqual,
        AsofOperator::Less,
    ];
    *operators.choose(rng).unwrap()
}

pub(super) fn asof(rng: &mut StdRng) -> (Vec<Left>, Vec<Right>) {
    let mut value = |values: i64| rng.random_bool(0.9).then(|| rng.random_range(0..values));
    let mut left = Vec::new();
    let mut right = Vec::new();
    let (lefts, rights) = (value(25).unwrap_or(0), value(40).unwrap_or(0));
    for _ in 0..lefts {
        left.push(Left {
            keys: [value(2), value(2)],
            time: value(12),
        });
    }
    for _ in 0..rights {
        right.push(Right {
            keys: [value(2), value(2)],
            time: value(12),
            a: value(3),
            b: value(3),
        });
    }
    (left, right)
}

fn column<T>(rows: &[T], value: impl Fn(&T) -> Option<i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter(rows.iter().map(value)))
}

/// Columns `row` (the number), `k1`, `k2` and `t`.
pub(super) fn left_batch(rows: &[Left]) -> RecordBatch {
    let numbers = Int64Array::from_iter_values((0..).take(rows.len()));
    RecordBatch::try_from_iter_with_nullable([
        ("row", Arc::new(numbers) as ArrayRef, false),
        ("k1", column(rows, |row| row.keys[0]), true),
        ("k2", column(rows, |row| row.keys[1]), true),
        ("t", column(rows, |row| row.time), true),
    ])
    .unwrap()
}

/// Columns `a`, `k1`, `t`, `k2` and `b`.
pub(super) fn right_batch(rows: &[Right]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([
        ("a", column(rows, |row| row.a), true),
        ("k1", column(rows, |row| row.keys[0]), true),
        ("t", column(rows, |row| row.time), true),
        ("k2", column(rows, |row| row.keys[1]), true),
        ("b", column(rows, |row| row.b), true),
    ])
    .unwrap()
}
