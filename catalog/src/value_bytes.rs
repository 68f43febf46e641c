//! How much the rows of a batch are, for whoever counts or divides them. The arrays of one message
//! share its memory and slices that of a larger array, which Arrow's own sizes count whole.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// Bytes of the values of `batch`, with their offsets and nulls. Of views, which Arrow gives no size,
/// the memory behind them.
pub fn value_bytes(batch: &RecordBatch) -> usize {
    let bytes = batch.columns().iter().map(|column| {
        let nulls = column.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
        let offsets = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().value_offsets(),
            DataType::Binary => column.as_binary::<i32>().value_offsets(),
            other => {
                if let Some(width) = other.primitive_width() {
                    return column.len() * width + nulls;
                }
                let size = column.to_data().get_slice_memory_size();
                return size.unwrap_or_else(|_| column.get_array_memory_size());
            }
        };
        let text = offsets.last().zip(offsets.first());
        let text = text.map_or(0, |(end, start)| end.abs_diff(*start));
        text as usize + size_of_val(offsets) + nulls
    });
    bytes.sum()
}
