//! What the rows of a block are about, so that lookups leave out blocks they have read before. Kept
//! in memory alone, from the first time that a statement reads the block: some two bytes for a row.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::prune::{Key, Prune};
use parquet::bloom_filter::Sbbf;

use crate::record::Block;

/// Of a hundred blocks that lack an identifier about one is read for it.
const FALSE_POSITIVES: f64 = 0.01;

#[derive(Debug)]
pub(super) struct Summary {
    event_times: EventRange,
    identifiers: Identifiers,
}

#[derive(Debug)]
enum Identifiers {
    Texts(Sbbf),
    Integers(Sbbf),
    /// Of another type, or nothing to keep them in: any may be there.
    Unknown,
}

impl Summary {
    pub(super) fn of(block: &Block) -> Self {
        let instants = block.instants().iter();
        Self {
            event_times: EventRange {
                from: instants.clone().min().copied(),
                to: instants.max().copied(),
            },
            identifiers: Identifiers::of(block.rows.column(block.layout.record_identifier)),
        }
    }

    /// False when every row lacks something that `prune` asks for.
    pub(super) fn may_pass(&self, prune: &Prune) -> bool {
        if self.event_times.intersect(prune.event_time).is_empty() {
            return false;
        }
        let keys = prune.keys.as_ref().and_then(|keys| keys.each(None));
        keys.is_none_or(|mut keys| keys.any(|key| self.identifiers.may_hold(key)))
    }
}

impl Identifiers {
    fn of(column: &ArrayRef) -> Self {
        let Ok(mut filter) = Sbbf::new_with_ndv_fpp(column.len() as u64, FALSE_POSITIVES) else {
            return Self::Unknown;
        };
        match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>().iter().flatten();
                texts.for_each(|text| filter.insert(text));
                Self::Texts(filter)
            }
            DataType::Int64 => {
                let numbers = column.as_primitive::<Int64Type>().iter().flatten();
                numbers.for_each(|number| filter.insert(&number));
                Self::Integers(filter)
            }
            _ => Self::Unknown,
        }
    }

    fn may_hold(&self, key: Key<'_>) -> bool {
        match (self, key) {
            (Self::Texts(filter), Key::Text(text)) => filter.check(text),
            (Self::Integers(filter), Key::Integer(number)) => filter.check(&number),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{Field, Schema};
    use featureflight_catalog::Instant;
    use featureflight_catalog::scan::prune::{KeyBounds, KeyRange};

    use super::*;
    use crate::group::Layout;
    use crate::record::Operation;

    /// Looks for numbers, or for their texts.
    #[derive(Debug)]
    struct Wanted(Vec<i64>, Vec<String>);

    impl KeyBounds for Wanted {
        fn meets(&self, _: KeyRange<'_>) -> bool {
            true
        }

        fn each(&self, _: Option<KeyRange<'_>>) -> Option<Box<dyn Iterator<Item = Key<'_>> + '_>> {
            let numbers = self.0.iter().map(|number| Key::Integer(*number));
            Some(Box::new(
                numbers.chain(self.1.iter().map(|text| Key::Text(text))),
            ))
        }
    }

    fn numbers(wanted: &[i64]) -> Prune {
        prune(Wanted(wanted.to_vec(), Vec::new()))
    }

    fn texts(wanted: &[i64]) -> Prune {
        let wanted = wanted.iter().map(ToString::to_string);
        prune(Wanted(Vec::new(), wanted.collect()))
    }

    fn prune(keys: Wanted) -> Prune {
        Prune {
            keys: Some(Arc::new(keys)),
            ..Prune::default()
        }
    }

    /// Rows with these identifiers, a second apart from second 100 on.
    fn block(identifiers: ArrayRef) -> Block {
        let rows = identifiers.len();
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", identifiers.data_type().clone(), false),
            Field::new("ts", DataType::Float64, false),
        ]));
        let times = Float64Array::from_iter_values((100..).take(rows).map(f64::from));
        let layout = Layout {
            group: "g".to_owned(),
            record_identifier: 0,
            event_time: 1,
            schema: Arc::clone(&schema),
        };
        let rows = RecordBatch::try_new(schema, vec![identifiers, Arc::new(times)]);
        let rows = rows.expect("a batch");
        Block::new(Arc::new(layout), Operation::Put, None, rows).expect("a block")
    }

    #[test]
    fn whatever_is_there_is_found_and_most_of_the_rest_is_not_looked_for() {
        let there: Vec<i64> = (0..8_000).map(|n| n * 7 - 900).collect();
        let as_texts: Vec<String> = there.iter().map(ToString::to_string).collect();
        let of_numbers = Summary::of(&block(Arc::new(Int64Array::from(there.clone()))));
        let of_texts = Summary::of(&block(Arc::new(StringArray::from(as_texts))));
        for id in &there {
            assert!(of_numbers.may_pass(&numbers(&[*id])), "{id}");
            assert!(of_texts.may_pass(&texts(&[*id])), "{id}");
        }
        let absent = (0..1_000).map(|n| n * 7 + 4);
        let read = absent
            .map(|id| {
                usize::from(of_numbers.may_pass(&numbers(&[id])))
                    + usize::from(of_texts.may_pass(&texts(&[id])))
            })
            .sum::<usize>();
        assert!(read < 100, "{read} of 2000");
        // Keys of another type prove nothing.
        assert!(of_numbers.may_pass(&texts(&[3])));
        assert!(of_texts.may_pass(&numbers(&[3])));
        assert!(of_texts.may_pass(&Prune::default()));
        let doubles: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(Summary::of(&block(doubles)).may_pass(&numbers(&[3])));
    }

    #[test]
    fn bounds_of_event_times_are_inclusive() {
        let summary = Summary::of(&block(Arc::new(Int64Array::from(vec![1, 2, 3]))));
        let second = |second: i64| Instant::from_micros(second * 1_000_000);
        let may_pass = |from, to| {
            summary.may_pass(&Prune {
                event_time: EventRange { from, to },
                ..Prune::default()
            })
        };
        assert!(may_pass(None, Some(second(100))));
        assert!(may_pass(Some(second(102)), None));
        assert!(!may_pass(None, Some(Instant::from_micros(99_999_999))));
        assert!(!may_pass(Some(Instant::from_micros(102_000_001)), None));
    }
}
