//! How large a record may be, measured as it is sent: names and values as text.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use super::refusal::Wrong;
use crate::group::Layout;
use crate::record::cell_text;

/// AWS quota, 350 KB: the names and texts of a record's values together.
pub const MAX_RECORD_BYTES: usize = 350 * 1024;
/// AWS quota, 2 KB.
pub const MAX_IDENTIFIER_BYTES: usize = 2 * 1024;

/// More than any integer or double takes as text.
const NUMBER: usize = 25;

/// Refuses rows that are too large, and identifiers that are too long or empty.
pub(super) fn check(layout: &Layout, rows: &RecordBatch, wrong: &mut Wrong) {
    check_identifiers(layout, rows, wrong);
    wrong.set_rows();
    for (row, bound) in bounds(rows).into_iter().enumerate() {
        if bound > MAX_RECORD_BYTES && wrong.is_good(row) {
            let bytes = exact(rows, row);
            if bytes > MAX_RECORD_BYTES {
                wrong.refuse(
                    row,
                    format!("record of {bytes} bytes"),
                    format!("a record has at most {MAX_RECORD_BYTES}"),
                );
            }
        }
    }
}

fn check_identifiers(layout: &Layout, rows: &RecordBatch, wrong: &mut Wrong) {
    let identifiers = rows.column(layout.record_identifier);
    let Some(texts) = identifiers.as_string_opt::<i32>() else {
        return; // Numbers are short.
    };
    wrong.set_column(layout.schema.field(layout.record_identifier).name());
    for (row, text) in texts.iter().enumerate() {
        match text.map(str::len) {
            Some(0) => wrong.refuse(row, "empty text", "a record identifier is never empty"),
            Some(bytes) if bytes > MAX_IDENTIFIER_BYTES => wrong.refuse(
                row,
                format!("text of {bytes} bytes"),
                format!("a record identifier has at most {MAX_IDENTIFIER_BYTES}"),
            ),
            _ => {}
        }
    }
}

/// What the rows take at most.
fn bounds(rows: &RecordBatch) -> Vec<usize> {
    let schema = rows.schema_ref();
    let mut bounds = vec![0; rows.num_rows()];
    let mut fixed = 0;
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        fixed += field.name().len();
        match column.data_type() {
            DataType::Utf8 => {
                let lengths = column.as_string::<i32>().offsets().lengths();
                for (bound, length) in bounds.iter_mut().zip(lengths) {
                    *bound += length;
                }
            }
            _ => fixed += NUMBER,
        }
    }
    for bound in &mut bounds {
        *bound += fixed;
    }
    bounds
}

fn exact(rows: &RecordBatch, row: usize) -> usize {
    let fields = rows.schema_ref().fields().iter().zip(rows.columns());
    fields
        .filter_map(|(field, column)| Some(field.name().len() + cell_text(column, row)?.len()))
        .sum()
}
