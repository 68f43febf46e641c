//! A set of record identifiers to look for.

use std::ops::Range;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};

use super::{Key, KeyBounds, KeyRange};

/// Keys that are tried one by one; of more, some is nearly always found.
const MOST_TRIED: usize = 4_096;

/// Record identifiers, sorted.
#[derive(Debug, Clone)]
pub struct SortedKeys {
    keys: Keys,
}

#[derive(Debug, Clone)]
enum Keys {
    Integer(Vec<i64>),
    /// Zeros have no sign; the number of NaNs is one at most, and it is the last.
    Double(Vec<f64>),
    Text(Vec<Box<str>>),
}

impl SortedKeys {
    /// The values of a column of the type a record identifier has, without nulls; `None` for a
    /// column of another type.
    pub fn from_array(column: &dyn Array) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Int64 => Self::integers(
                column
                    .as_primitive::<Int64Type>()
                    .iter()
                    .flatten()
                    .collect(),
            ),
            DataType::Float64 => Self::doubles(
                column
                    .as_primitive::<Float64Type>()
                    .iter()
                    .flatten()
                    .collect(),
            ),
            DataType::Utf8View => {
                let keys = column.as_string_view().iter().flatten();
                Self::texts(keys.map(Box::from).collect())
            }
            _ => return None,
        })
    }

    pub fn integers(mut keys: Vec<i64>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self {
            keys: Keys::Integer(keys),
        }
    }

    pub fn doubles(mut keys: Vec<f64>) -> Self {
        for key in &mut keys {
            if key.is_nan() {
                *key = f64::NAN;
            } else if *key == 0.0 {
                *key = 0.0;
            }
        }
        keys.sort_unstable_by(f64::total_cmp);
        keys.dedup_by_key(|key| key.to_bits());
        Self {
            keys: Keys::Double(keys),
        }
    }

    pub fn texts(mut keys: Vec<Box<str>>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        Self {
            keys: Keys::Text(keys),
        }
    }

    pub fn len(&self) -> usize {
        match &self.keys {
            Keys::Integer(keys) => keys.len(),
            Keys::Double(keys) => keys.len(),
            Keys::Text(keys) => keys.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn key(&self, at: usize) -> Key<'_> {
        match &self.keys {
            Keys::Integer(keys) => Key::Integer(keys[at]),
            Keys::Double(keys) => Key::Double(keys[at]),
            Keys::Text(keys) => Key::Text(&keys[at]),
        }
    }

    /// The keys within `range`, NaN not among them: it may be anywhere.
    fn within(&self, range: KeyRange<'_>) -> Range<usize> {
        let (from, to) = match (&self.keys, range) {
            (Keys::Integer(keys), KeyRange::Integer { from, to }) => (
                keys.partition_point(|&key| key < from),
                keys.partition_point(|&key| key <= to),
            ),
            (Keys::Double(keys), KeyRange::Double { from, to }) => (
                keys.partition_point(|&key| key < from),
                keys.partition_point(|&key| key <= to),
            ),
            (Keys::Text(keys), KeyRange::Text { from, before }) => (
                keys.partition_point(|key| key.as_bytes() < from),
                keys.partition_point(|key| before.is_none_or(|before| key.as_bytes() < before)),
            ),
            _ => (0, self.len()),
        };
        from..to.max(from)
    }

    fn has_nan(&self) -> bool {
        matches!(&self.keys, Keys::Double(keys) if keys.last().is_some_and(|key| key.is_nan()))
    }
}

impl KeyBounds for SortedKeys {
    fn meets(&self, range: KeyRange<'_>) -> bool {
        !self.within(range).is_empty() || self.has_nan()
    }

    fn each(&self, range: Option<KeyRange<'_>>) -> Option<Box<dyn Iterator<Item = Key<'_>> + '_>> {
        let within = range.map_or(0..self.len(), |range| self.within(range));
        if within.len() > MOST_TRIED {
            return None;
        }
        let nan = self.has_nan() && range.is_some();
        let keys = within.map(|at| self.key(at));
        Some(Box::new(keys.chain(nan.then_some(Key::Double(f64::NAN)))))
    }
}
