//! Record identifiers as dense numbers: a hash index over integers, doubles or text.
//!
//! Doubles are equal as the contract says: `-0.0` is `0.0`, and every NaN is the same key.

use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use featureflight_catalog::{Error, Kind, Result};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// No key, slot or winner. Numbers stay below it.
pub(crate) const NONE: u32 = u32::MAX;

/// A column of keys, typed once per batch.
#[derive(Debug)]
pub(crate) enum Keys<'a> {
    Integer(&'a Int64Array),
    Double(&'a Float64Array),
    Text(&'a StringViewArray),
}

impl<'a> Keys<'a> {
    /// # Errors
    /// `Internal` for any type but those a record identifier has.
    pub(crate) fn try_new(column: &'a dyn Array) -> Result<Self> {
        match column.data_type() {
            DataType::Int64 => Ok(Self::Integer(column.as_primitive::<Int64Type>())),
            DataType::Float64 => Ok(Self::Double(column.as_primitive::<Float64Type>())),
            DataType::Utf8View => Ok(Self::Text(column.as_string_view())),
            other => Err(Error::internal(format!(
                "a record identifier cannot be of type {other}"
            ))),
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Integer(column) => column.is_null(row),
            Self::Double(column) => column.is_null(row),
            Self::Text(column) => column.is_null(row),
        }
    }

    /// The hash of a row that is not null.
    pub(crate) fn hash(&self, state: &RandomState, row: usize) -> u64 {
        match self {
            Self::Integer(column) => state.hash_one(column.value(row)),
            Self::Double(column) => state.hash_one(canonical(column.value(row))),
            Self::Text(column) => state.hash_one(column.value(row).as_bytes()),
        }
    }
}

/// Bits that are equal exactly when the keys are.
fn canonical(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0.0_f64.to_bits()
    } else {
        value.to_bits()
    }
}

/// Keys in the order of their first insertion.
#[derive(Debug)]
enum Store {
    Integer(Vec<i64>),
    Double(Vec<u64>),
    /// The text of all keys, and where each one ends.
    Text(Vec<u8>, Vec<usize>),
}

impl Store {
    fn text<'a>(arena: &'a [u8], ends: &[usize], number: usize) -> &'a [u8] {
        let start = if number == 0 { 0 } else { ends[number - 1] };
        &arena[start..ends[number]]
    }

    fn holds(&self, number: u32, keys: &Keys<'_>, row: usize) -> bool {
        let number = number as usize;
        match (self, keys) {
            (Self::Integer(values), Keys::Integer(column)) => values[number] == column.value(row),
            (Self::Double(values), Keys::Double(column)) => {
                values[number] == canonical(column.value(row))
            }
            (Self::Text(arena, ends), Keys::Text(column)) => {
                Self::text(arena, ends, number) == column.value(row).as_bytes()
            }
            _ => false,
        }
    }

    fn hash(&self, state: &RandomState, number: u32) -> u64 {
        let number = number as usize;
        match self {
            Self::Integer(values) => state.hash_one(values[number]),
            Self::Double(values) => state.hash_one(values[number]),
            Self::Text(arena, ends) => state.hash_one(Self::text(arena, ends, number)),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    state: RandomState,
    table: HashTable<u32>,
    store: Store,
}

impl KeyIndex {
    /// An index for keys of `key_type`, whose rows are hashed with `state`.
    ///
    /// # Errors
    /// As [`Keys::try_new`].
    pub(crate) fn try_new(key_type: &DataType, state: RandomState) -> Result<Self> {
        let store = match key_type {
            DataType::Int64 => Store::Integer(Vec::new()),
            DataType::Float64 => Store::Double(Vec::new()),
            DataType::Utf8View => Store::Text(Vec::new(), Vec::new()),
            other => {
                let message = format!("a record identifier cannot be of type {other}");
                return Err(Error::internal(message));
            }
        };
        Ok(Self {
            state,
            table: HashTable::new(),
            store,
        })
    }

    pub(crate) fn state(&self) -> &RandomState {
        &self.state
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The number of a row's key; `hash` is the row's.
    pub(crate) fn find(&self, hash: u64, keys: &Keys<'_>, row: usize) -> Option<u32> {
        self.table
            .find(hash, |number| self.store.holds(*number, keys, row))
            .copied()
    }

    /// The number of a row's key, which must not be null: the old one, or the next.
    ///
    /// # Errors
    /// `ResourceExhausted` when the numbers run out.
    pub(crate) fn insert(&mut self, hash: u64, keys: &Keys<'_>, row: usize) -> Result<u32> {
        if let Some(number) = self.find(hash, keys, row) {
            return Ok(number);
        }
        let number = u32::try_from(self.len())
            .ok()
            .filter(|number| *number != NONE);
        let number = number.ok_or_else(|| {
            Error::new(
                Kind::ResourceExhausted,
                "more than four billion different keys",
            )
        })?;
        match (&mut self.store, keys) {
            (Store::Integer(values), Keys::Integer(column)) => values.push(column.value(row)),
            (Store::Double(values), Keys::Double(column)) => {
                values.push(canonical(column.value(row)));
            }
            (Store::Text(arena, ends), Keys::Text(column)) => {
                arena.extend_from_slice(column.value(row).as_bytes());
                ends.push(arena.len());
            }
            _ => return Err(Error::internal("keys of two types in one index")),
        }
        let Self {
            state,
            table,
            store,
        } = self;
        table.insert_unique(hash, number, |number| store.hash(state, *number));
        Ok(number)
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        let store = match &self.store {
            Store::Integer(values) => values.capacity() * size_of::<i64>(),
            Store::Double(values) => values.capacity() * size_of::<u64>(),
            Store::Text(arena, ends) => arena.capacity() + ends.capacity() * size_of::<usize>(),
        };
        store + self.table.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BooleanArray};
    use std::sync::Arc;

    use super::*;

    fn numbers(columns: &[ArrayRef]) -> Vec<u32> {
        let mut index = KeyIndex::try_new(columns[0].data_type(), RandomState::default()).unwrap();
        let mut numbers = Vec::new();
        for column in columns {
            let keys = Keys::try_new(column).unwrap();
            for row in 0..column.len() {
                let hash = keys.hash(index.state(), row);
                numbers.push(index.insert(hash, &keys, row).unwrap());
                assert_eq!(index.find(hash, &keys, row), numbers.last().copied());
            }
        }
        numbers
    }

    #[test]
    fn zeros_are_equal_and_so_are_nans() {
        let other_nan = f64::from_bits(0xfff8_0000_0000_0001);
        let column = Float64Array::from(vec![0.0, -0.0, f64::NAN, other_nan, 1.5, -1.5]);
        assert_eq!(numbers(&[Arc::new(column)]), [0, 0, 1, 1, 2, 3]);
    }

    #[test]
    fn text_is_compared_whole() {
        let first = StringViewArray::from(vec!["", "a", "ab", "a string longer than a view holds"]);
        let second = StringViewArray::from(vec!["b", "", "a string longer than a view holds!"]);
        assert_eq!(
            numbers(&[Arc::new(first), Arc::new(second)]),
            [0, 1, 2, 3, 4, 0, 5]
        );
    }

    #[test]
    fn numbers_survive_growth() {
        let values: Vec<i64> = (0..10_000).map(|i| i * 7 % 5_000).collect();
        let expected: Vec<u32> = (0..5_000).chain(0..5_000).collect();
        assert_eq!(numbers(&[Arc::new(Int64Array::from(values))]), expected);
    }

    #[test]
    fn other_types_are_refused() {
        assert!(Keys::try_new(&BooleanArray::from(vec![true])).is_err());
        assert!(KeyIndex::try_new(&DataType::Utf8, RandomState::default()).is_err());
    }
}
