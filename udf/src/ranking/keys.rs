//! Record identifiers as dense numbers: a hash index over integers, doubles or text.
//!
//! Doubles are equal as the contract says: `-0.0` is `0.0`, and every NaN is the same key.
//!
//! The index is larger than the caches, so that a lookup costs what waiting for memory costs. It
//! is therefore asked in batches: [`KeyIndex::warm`] reads where the keys of many rows belong,
//! which the processor does side by side, and then each row finds its entry near. An entry holds
//! bits of its key's hash; [`KeyIndex::candidate`] compares only those, and the key itself is
//! looked at once it matters, with [`KeyIndex::is`].

use std::hash::BuildHasher;
use std::hint::black_box;
use std::ops::Range;

use arrow::array::{Array, AsArray, Float64Array, Int64Array, StringViewArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use featureflight_catalog::scan::prune::SortedKeys;
use featureflight_catalog::{Error, Kind, Result};
use foldhash::fast::RandomState;

/// Rows looked up together: what they touch fits into the nearest caches.
pub(crate) const TOGETHER: usize = 1_024;

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
            other => Err(unfit(other)),
        }
    }

    fn column(&self) -> &dyn Array {
        match self {
            Self::Integer(column) => column,
            Self::Double(column) => column,
            Self::Text(column) => column,
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.column().is_null(row)
    }

    pub(crate) fn null_count(&self) -> usize {
        self.column().null_count()
    }

    /// The hashes of `rows`, in place of what `hashes` held. That of a null means nothing.
    pub(crate) fn hash(&self, state: &impl BuildHasher, rows: Range<usize>, hashes: &mut Vec<u64>) {
        hashes.clear();
        match self {
            Self::Integer(column) => {
                let values = &column.values()[rows];
                hashes.extend(values.iter().map(|value| state.hash_one(value)));
            }
            Self::Double(column) => {
                let values = &column.values()[rows];
                hashes.extend(values.iter().map(|value| state.hash_one(canonical(*value))));
            }
            Self::Text(column) => {
                hashes.extend(rows.map(|row| state.hash_one(column.value(row).as_bytes())));
            }
        }
    }
}

fn unfit(data_type: &DataType) -> Error {
    Error::internal(format!("a record identifier cannot be of type {data_type}"))
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

/// What a lookup finds: a key's number, and its place in the table until the next key is inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) number: u32,
    place: usize,
}

/// A place in the table, free while its number is [`NONE`].
#[derive(Debug)]
struct Entry<P> {
    tag: u32,
    number: u32,
    payload: P,
}

/// See the module. `P` is what a lookup finds beside the number.
#[derive(Debug)]
pub(crate) struct KeyIndex<P = ()> {
    state: RandomState,
    /// A power of two, never more than half of them taken; a key lies in the first free entry
    /// from the one its hash says.
    entries: Vec<Entry<P>>,
    len: u32,
    /// Two keys have the same tag in one chain, so that a tag does not tell them apart.
    ambiguous: bool,
    store: Store,
    /// Empty, kept for its memory.
    numbers: Vec<u32>,
}

const FEWEST: usize = 16;

/// Keys of which some is in nearly every row group, unless histories are sorted by key.
const MOST_SORTED: usize = 1 << 16;

/// Bits of a tag: 32, and so few in tests that keys meet others of the same tag.
const TAG_BITS: u32 = if cfg!(test) { 3 } else { 32 };

fn tag(hash: u64) -> u32 {
    (hash >> (64 - TAG_BITS)) as u32
}

impl<P: Default> KeyIndex<P> {
    /// An index for keys of `key_type`, whose rows are hashed with `state`.
    ///
    /// # Errors
    /// As [`Keys::try_new`].
    pub(crate) fn try_new(key_type: &DataType, state: RandomState) -> Result<Self> {
        let store = match key_type {
            DataType::Int64 => Store::Integer(Vec::new()),
            DataType::Float64 => Store::Double(Vec::new()),
            DataType::Utf8View => Store::Text(Vec::new(), Vec::new()),
            other => return Err(unfit(other)),
        };
        Ok(Self {
            state,
            entries: free(FEWEST),
            len: 0,
            ambiguous: false,
            store,
            numbers: Vec::new(),
        })
    }

    pub(crate) fn state(&self) -> &RandomState {
        &self.state
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.entries.len() - 1)
    }

    /// Brings the entries that keys with these hashes may have near.
    pub(crate) fn warm(&self, hashes: &[u64]) {
        let read = |sum, hash: &u64| sum ^ self.entries[self.home(*hash)].tag;
        black_box(hashes.iter().fold(0, read));
    }

    /// The only key that a row may have, which [`Self::is`] must confirm; `None` when the index
    /// certainly lacks the row's key. `hash` is the row's.
    pub(crate) fn candidate(&self, hash: u64, keys: &Keys<'_>, row: usize) -> Option<Found> {
        let mut place = self.home(hash);
        loop {
            let entry = &self.entries[place];
            let number = entry.number;
            if number == NONE {
                return None;
            }
            if entry.tag == tag(hash) && (!self.ambiguous || self.store.holds(number, keys, row)) {
                return Some(Found { number, place });
            }
            place = self.after(place);
        }
    }

    /// What lies beside a key.
    pub(crate) fn payload(&self, found: Found) -> &P {
        &self.entries[found.place].payload
    }

    /// Whether a row's key is the one of this number.
    pub(crate) fn is(&self, number: u32, keys: &Keys<'_>, row: usize) -> bool {
        self.store.holds(number, keys, row)
    }

    /// Brings near what inserting the rows from `start` on looks at, of which these are the hashes.
    pub(crate) fn warm_inserts(&mut self, keys: &Keys<'_>, start: usize, hashes: &[u64]) {
        self.warm(hashes);
        let mut numbers = std::mem::take(&mut self.numbers);
        let candidate = |(row, hash): (usize, &u64)| self.candidate(*hash, keys, row);
        let found = (start..).zip(hashes).filter_map(candidate);
        numbers.extend(found.map(|found| found.number));
        self.warm_keys(numbers.iter().copied());
        numbers.clear();
        self.numbers = numbers;
    }

    /// Brings the keys of these numbers near, for [`Self::is`].
    pub(crate) fn warm_keys(&self, numbers: impl Iterator<Item = u32> + Clone) {
        let numbers = numbers.map(|number| number as usize);
        match &self.store {
            Store::Integer(values) => {
                black_box(numbers.fold(0, |sum, number| sum ^ values[number]));
            }
            Store::Double(values) => {
                black_box(numbers.fold(0, |sum, number| sum ^ values[number]));
            }
            Store::Text(arena, ends) => {
                black_box(numbers.clone().fold(0, |sum, number| sum ^ ends[number]));
                let first = |number| Store::text(arena, ends, number).first();
                let read = |sum, number| sum ^ first(number).copied().unwrap_or_default();
                black_box(numbers.fold(0, read));
            }
        }
    }

    /// The number of a row's key, which must not be null: the old one, or the next.
    ///
    /// # Errors
    /// `ResourceExhausted` when the numbers run out.
    pub(crate) fn insert(&mut self, hash: u64, keys: &Keys<'_>, row: usize) -> Result<u32> {
        let mut place = self.home(hash);
        let mut ambiguous = false;
        loop {
            let entry = &self.entries[place];
            if entry.number == NONE {
                break;
            }
            if entry.tag == tag(hash) {
                if self.store.holds(entry.number, keys, row) {
                    return Ok(entry.number);
                }
                ambiguous = true;
            }
            place = self.after(place);
        }
        let number = self.len;
        if number == NONE {
            let message = "more than four billion different keys";
            return Err(Error::new(Kind::ResourceExhausted, message));
        }
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
        self.ambiguous |= ambiguous;
        self.entries[place] = Entry {
            tag: tag(hash),
            number,
            payload: P::default(),
        };
        self.len += 1;
        if self.len() * 2 > self.entries.len() {
            self.grow();
        }
        Ok(number)
    }

    fn grow(&mut self) {
        let larger = free(self.entries.len() * 2);
        for entry in std::mem::replace(&mut self.entries, larger) {
            if entry.number == NONE {
                continue;
            }
            let mut place = self.home(self.store.hash(&self.state, entry.number));
            while self.entries[place].number != NONE {
                // Two keys of one tag may meet in a chain now that did not before.
                self.ambiguous |= self.entries[place].tag == entry.tag;
                place = self.after(place);
            }
            self.entries[place] = entry;
        }
    }

    /// Every key, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = Found> {
        let taken = |(place, entry): (usize, &Entry<P>)| {
            let number = entry.number;
            (number != NONE).then_some(Found { number, place })
        };
        self.entries.iter().enumerate().filter_map(taken)
    }

    /// The keys, to look for in statistics; `None` when they are too many for that to pay.
    pub(crate) fn sorted(&self) -> Option<SortedKeys> {
        if self.len() > MOST_SORTED {
            return None;
        }
        Some(match &self.store {
            Store::Integer(values) => SortedKeys::integers(values.clone()),
            Store::Double(values) => {
                SortedKeys::doubles(values.iter().map(|bits| f64::from_bits(*bits)).collect())
            }
            Store::Text(arena, ends) => {
                let text = |number| str::from_utf8(Store::text(arena, ends, number)).ok();
                let texts = (0..ends.len()).map(|number| text(number).map(Box::from));
                SortedKeys::texts(texts.collect::<Option<_>>()?)
            }
        })
    }

    /// Bytes held.
    pub(crate) fn memory(&self) -> usize {
        let store = match &self.store {
            Store::Integer(values) => values.capacity() * size_of::<i64>(),
            Store::Double(values) => values.capacity() * size_of::<u64>(),
            Store::Text(arena, ends) => arena.capacity() + ends.capacity() * size_of::<usize>(),
        };
        store + self.entries.capacity() * size_of::<Entry<P>>()
    }
}

fn free<P: Default>(entries: usize) -> Vec<Entry<P>> {
    let free = || Entry {
        tag: 0,
        number: NONE,
        payload: P::default(),
    };
    std::iter::repeat_with(free).take(entries).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use arrow::array::{ArrayRef, BooleanArray};

    use super::*;

    fn numbers(columns: &[ArrayRef]) -> Vec<u32> {
        let key_type = columns[0].data_type();
        let mut index: KeyIndex = KeyIndex::try_new(key_type, RandomState::default()).unwrap();
        let mut numbers = Vec::new();
        let mut hashes = Vec::new();
        for column in columns {
            let keys = Keys::try_new(column).unwrap();
            keys.hash(index.state(), 0..column.len(), &mut hashes);
            index.warm(&hashes);
            for (row, hash) in hashes.iter().enumerate() {
                let number = index.insert(*hash, &keys, row).unwrap();
                let found = index.candidate(*hash, &keys, row).unwrap();
                assert_eq!(found.number, number);
                assert!(index.is(number, &keys, row));
                numbers.push(number);
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
    fn payloads_are_found() {
        let column = Int64Array::from((0..1_000).collect::<Vec<i64>>());
        let keys = Keys::try_new(&column).unwrap();
        let mut index: KeyIndex<AtomicU32> =
            KeyIndex::try_new(&DataType::Int64, RandomState::default()).unwrap();
        let mut hashes = Vec::new();
        keys.hash(index.state(), 0..1_000, &mut hashes);
        for (row, hash) in hashes.iter().enumerate().take(500) {
            index.insert(*hash, &keys, row).unwrap();
        }
        assert_eq!(index.all().count(), 500);
        for found in index.all() {
            index.payload(found).store(found.number * 3, Relaxed);
        }
        for (number, row) in (0..500_u32).zip(0..) {
            let found = index.candidate(hashes[row], &keys, row).unwrap();
            assert_eq!(found.number, number);
            assert_eq!(index.payload(found).load(Relaxed), number * 3);
        }
        let confirmed = |row: &usize| {
            let found = index.candidate(hashes[*row], &keys, *row);
            found.is_some_and(|found| index.is(found.number, &keys, *row))
        };
        assert_eq!((500..1_000).filter(confirmed).count(), 0);
    }

    /// As if all keys had the same tag, which real hashes cannot be made to have.
    #[test]
    fn keys_of_one_tag_are_told_apart() {
        let column = Int64Array::from((0..100).collect::<Vec<i64>>());
        let keys = Keys::try_new(&column).unwrap();
        let mut index: KeyIndex =
            KeyIndex::try_new(&DataType::Int64, RandomState::default()).unwrap();
        for row in 0..7 {
            assert_eq!(index.insert(0, &keys, row).unwrap(), row as u32);
        }
        assert!(index.ambiguous);
        for row in 0..7 {
            let found = index.candidate(0, &keys, row).unwrap();
            assert_eq!(found.number, row as u32);
        }
        assert_eq!(index.candidate(0, &keys, 7), None);
        for row in 7..100 {
            let mut hashes = Vec::new();
            keys.hash(index.state(), row..row + 1, &mut hashes);
            index.insert(hashes[0], &keys, row).unwrap();
        }
        assert!(index.ambiguous, "growing forgets nothing");
    }

    #[test]
    fn other_types_are_refused() {
        assert!(Keys::try_new(&BooleanArray::from(vec![true])).is_err());
        assert!(KeyIndex::<()>::try_new(&DataType::Utf8, RandomState::default()).is_err());
    }
}
