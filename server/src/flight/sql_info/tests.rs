//! The standard table is whole.

use arrow::array::{Array, UInt32Array};
use arrow::util::display::array_value_to_string;

use super::*;

fn codes(batch: &RecordBatch) -> Vec<u32> {
    let column = batch
        .column(0)
        .as_any()
        .downcast_ref::<UInt32Array>()
        .expect("codes");
    column.values().to_vec()
}

/// Drivers index this table; a missing entry is a null pointer in some of them.
#[test]
fn every_standard_code_is_answered() {
    let table = table(&EngineOptions::default(), false).expect("a table");
    let all = codes(&table.record_batch(None).expect("a batch"));
    let standard: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).collect();
    assert_eq!(all, standard);
    for code in standard {
        assert!(
            SqlInfo::try_from(i32::try_from(code).expect("small")).is_ok(),
            "{code}"
        );
    }
}

#[test]
fn only_what_was_asked_for_comes_back() {
    let table = table(&EngineOptions::default(), false).expect("a table");
    let asked = table.record_batch([504, 8, 9_999]).expect("a batch");
    assert_eq!(codes(&asked), [8, 504]);
}

/// Names fold, quoted ones do not: 1 is "case insensitive", 0 "unknown".
#[test]
fn the_case_of_names_is_told() {
    let table = table(&EngineOptions::default(), false).expect("a table");
    let asked = table.record_batch([503, 505]).expect("a batch");
    let value = |row| array_value_to_string(asked.column(1), row).expect("shown");
    assert!(value(0).ends_with("=1}"), "{}", value(0));
    assert!(value(1).ends_with("=0}"), "{}", value(1));
}

#[test]
fn functions_are_those_of_the_engine() {
    let numeric = names(&[functions::math::functions()]);
    assert!(numeric.contains(&"abs".to_owned()) && numeric.is_sorted());
}
