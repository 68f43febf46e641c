//! Uploaded rows in batches worth having. A batch costs memory and time by itself, each time it is
//! read and sent, and clients cut them as small as they like, down to a row each; Arrow's own make
//! them twenty times smaller than they mean to, since they count an allocation that columns share for
//! every column. Neighbours that are small become one.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

/// What a batch has that is large enough, unless its rows are short or few: as many rows as
/// operators work on at once, or as many bytes as a message carries.
const ENOUGH_ROWS: usize = 8_192;
const ENOUGH_BYTES: usize = 1 << 20;

/// Batches of one schema.
#[derive(Debug, Default)]
pub(super) struct Packed {
    batches: Vec<RecordBatch>,
    /// Those that come after, to become one.
    small: Vec<RecordBatch>,
    small_rows: usize,
    small_bytes: usize,
}

impl Packed {
    /// `bytes` is what the batch holds in memory.
    pub(super) fn push(&mut self, batch: RecordBatch, bytes: usize) {
        let rows = batch.num_rows();
        if self.small_rows + rows > ENOUGH_ROWS || self.small_bytes + bytes > ENOUGH_BYTES {
            self.pack();
        }
        self.small.push(batch);
        self.small_rows += rows;
        self.small_bytes += bytes;
    }

    /// All rows, in the order they came.
    pub(super) fn finish(mut self) -> Vec<RecordBatch> {
        self.pack();
        self.batches
    }

    fn pack(&mut self) {
        let small = std::mem::take(&mut self.small);
        (self.small_rows, self.small_bytes) = (0, 0);
        match small.first() {
            Some(first) if small.len() > 1 => match concat_batches(first.schema_ref(), &small) {
                Ok(one) => self.batches.push(one),
                // Their dictionaries together have more values than keys can tell apart.
                Err(_) => self.batches.extend(small),
            },
            _ => self.batches.extend(small),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int64Array};
    use arrow::compute::concat_batches;
    use arrow::datatypes::Int8Type;

    use super::*;

    fn numbers(from: i64, to: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    fn packed(batches: &[RecordBatch], bytes: usize) -> Vec<RecordBatch> {
        let mut packed = Packed::default();
        for batch in batches {
            packed.push(batch.clone(), bytes);
        }
        packed.finish()
    }

    fn lengths(batches: &[RecordBatch]) -> Vec<usize> {
        batches.iter().map(RecordBatch::num_rows).collect()
    }

    #[test]
    fn small_ones_become_one_and_rows_keep_their_order() {
        let single: Vec<_> = (0..20_000).map(|n| numbers(n, n + 1)).collect();
        let got = packed(&single, 8);
        assert_eq!(lengths(&got), [8_192, 8_192, 3_616]);
        let all = concat_batches(got[0].schema_ref(), &got).unwrap();
        assert_eq!(all, numbers(0, 20_000));
        assert!(packed(&[], 0).is_empty());
    }

    #[test]
    fn large_ones_stay_as_they_are() {
        let sent = [numbers(0, 3), numbers(3, 9_003), numbers(9_003, 9_005)];
        let got = packed(&sent, 8);
        assert_eq!(lengths(&got), [3, 9_000, 2]);
        let as_sent = |at: usize| {
            got[at]
                .column(0)
                .to_data()
                .ptr_eq(&sent[at].column(0).to_data())
        };
        assert!((0..3).all(as_sent), "without a copy");
        let by_bytes = packed(
            &[numbers(0, 1), numbers(1, 2), numbers(2, 3)],
            ENOUGH_BYTES / 2,
        );
        assert_eq!(lengths(&by_bytes), [2, 1]);
    }

    #[test]
    fn those_that_cannot_be_one_stay_two() {
        let words = |from: usize| {
            let words: Vec<String> = (from..from + 100).map(|n| n.to_string()).collect();
            let words: DictionaryArray<Int8Type> = words.iter().map(String::as_str).collect();
            RecordBatch::try_from_iter([("w", Arc::new(words) as ArrayRef)]).unwrap()
        };
        let sent = [words(0), words(100)];
        assert_eq!(packed(&sent, 8), sent);
    }
}
