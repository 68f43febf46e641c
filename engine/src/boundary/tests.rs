use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, DictionaryArray, Int32Array, Int64Array,
    LargeListArray, LargeStringArray, ListViewArray, NullArray, RecordBatch, RunArray, StringArray,
    StringViewArray, StructArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    DataType, Field, Int16Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType, UInt64Type,
};
use featureflight_catalog::Kind;
use featureflight_catalog::table::timestamp_type;

use super::{MAX_BATCH_ROWS, Outlet, announced, sent};
use crate::settings::Settings;

fn send_one(array: ArrayRef) -> ArrayRef {
    let field = Field::new("x", array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let announced = announced(&schema);
    let mut sent = Outlet::new(Arc::clone(&announced)).send(&batch).unwrap();
    assert_eq!(sent.len(), 1);
    let sent = sent.remove(0);
    assert_eq!(sent.schema(), announced);
    Arc::clone(sent.column(0))
}

#[test]
fn text_of_every_kind_leaves_as_utf8() {
    let values = vec![Some("a"), None, Some("a text longer than twelve bytes")];
    let expected: ArrayRef = Arc::new(StringArray::from(values.clone()));
    assert_eq!(
        &send_one(Arc::new(StringViewArray::from(values.clone()))),
        &expected
    );
    assert_eq!(
        &send_one(Arc::new(LargeStringArray::from(values.clone()))),
        &expected
    );
    let dictionary: DictionaryArray<Int32Type> = values.iter().copied().collect();
    assert_eq!(&send_one(Arc::new(dictionary)), &expected);
    let runs: RunArray<Int32Type> = values.iter().copied().collect();
    assert_eq!(&send_one(Arc::new(runs)), &expected);
}

#[test]
fn instants_leave_as_text_where_it_is_wanted_inside_of_others_too() {
    let seconds: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(-1), None]));
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), Some(1_500_000_000)]);
    let field = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let inner: ArrayRef = Arc::new(nanos.with_timezone("UTC"));
    let of_struct = vec![(Arc::new(field("at", &inner)), inner)];
    let outer: ArrayRef = Arc::new(StructArray::from(of_struct));
    let schema = Schema::new(vec![field("s", &seconds), field("o", &outer)]);
    let batch = RecordBatch::try_new(Arc::new(schema.clone()), vec![seconds, outer]).unwrap();
    assert_eq!(
        sent(announced(&schema), &Settings::default()),
        announced(&schema)
    );
    let as_text = Settings {
        text_timestamps: true,
        ..Settings::default()
    };
    let shown = sent(announced(&schema), &as_text);
    let sent = Outlet::new(Arc::clone(&shown)).send(&batch).unwrap();
    assert_eq!(sent[0].schema(), shown);
    let seconds = sent[0].column(0).as_string::<i32>();
    assert_eq!(
        seconds,
        &StringArray::from(vec![Some("1969-12-31T23:59:59Z"), None])
    );
    let inner = sent[0].column(1).as_struct().column(0).as_string::<i32>();
    assert_eq!(
        inner,
        &StringArray::from(vec![
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:01.500Z"
        ])
    );
}

#[test]
fn a_dictionary_of_views_leaves_as_its_values() {
    let values: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y"]));
    let keys = Int32Array::from(vec![Some(1), None, Some(0)]);
    let dictionary = DictionaryArray::<Int32Type>::try_new(keys, values).unwrap();
    let sent = send_one(Arc::new(dictionary));
    assert_eq!(
        sent.as_string::<i32>(),
        &StringArray::from(vec![Some("y"), None, Some("x")])
    );
}

#[test]
fn only_nulls_leave_as_text() {
    let sent = send_one(Arc::new(NullArray::new(2)));
    assert_eq!(sent.data_type(), &DataType::Utf8);
    assert_eq!(sent.null_count(), 2);
}

#[test]
fn unsigned_integers_leave_in_a_wider_signed_type() {
    let sent = send_one(Arc::new(UInt8Array::from(vec![Some(u8::MAX), None])));
    assert_eq!(sent.as_primitive::<Int16Type>().value(0), 255);
    assert_eq!(sent.null_count(), 1);
    let sent = send_one(Arc::new(UInt16Array::from(vec![u16::MAX])));
    assert_eq!(sent.as_primitive::<Int32Type>().value(0), 65_535);
    let sent = send_one(Arc::new(UInt32Array::from(vec![u32::MAX])));
    assert_eq!(sent.as_primitive::<Int64Type>().value(0), 4_294_967_295);
    let sent = send_one(Arc::new(UInt64Array::from(vec![u64::MAX])));
    assert_eq!(sent.as_primitive::<UInt64Type>().value(0), u64::MAX);
}

#[test]
fn timestamps_are_floored_to_microseconds_in_utc() {
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), Some(1_999), None]);
    let sent = send_one(Arc::new(nanos));
    assert_eq!(sent.data_type(), &timestamp_type());
    let micros = sent.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(
        micros.value(0),
        -1,
        "a nanosecond before 1970 is in the microsecond before 1970"
    );
    assert_eq!(micros.value(1), 1);
    assert!(micros.is_null(2));
    let elsewhere = TimestampMillisecondArray::from(vec![7]).with_timezone("+02:00");
    let sent = send_one(Arc::new(elsewhere));
    assert_eq!(
        sent.as_primitive::<TimestampMicrosecondType>().value(0),
        7_000
    );
}

#[test]
fn a_timestamp_out_of_range_is_an_error_and_no_null() {
    let array: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
    let schema = Arc::new(Schema::new(vec![Field::new(
        "x",
        array.data_type().clone(),
        true,
    )]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![array]).unwrap();
    let error = Outlet::new(announced(&schema)).send(&batch).unwrap_err();
    assert_eq!(error.kind, Kind::InvalidArgument);
}

#[test]
fn nested_types_are_converted_inside() {
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["p", "q", "r"]));
    let item = Arc::new(Field::new_list_field(DataType::Utf8View, true));
    let large = LargeListArray::new(
        Arc::clone(&item),
        OffsetBuffer::from_lengths([1, 2]),
        Arc::clone(&views),
        None,
    );
    let view_list = ListViewArray::new(
        item,
        vec![1, 0].into(),
        vec![2, 1].into(),
        Arc::clone(&views),
        None,
    );
    let parent = StructArray::from(vec![
        (
            Arc::new(Field::new("a", large.data_type().clone(), true)),
            Arc::new(large) as ArrayRef,
        ),
        (
            Arc::new(Field::new("b", view_list.data_type().clone(), true)),
            Arc::new(view_list) as _,
        ),
    ]);
    // A slice must not drag its neighbours along.
    let sent = send_one(Arc::new(parent.slice(1, 1)));
    let parent = sent.as_struct();
    let text = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    assert_eq!(parent.column(0).data_type(), &text);
    assert_eq!(parent.column(1).data_type(), &text);
    let a = parent.column(0).as_list::<i32>();
    assert_eq!(
        a.values().as_string::<i32>(),
        &StringArray::from(vec!["q", "r"])
    );
    let b = parent.column(1).as_list::<i32>().value(0);
    assert_eq!(b.as_string::<i32>(), &StringArray::from(vec!["p"]));
}

#[test]
fn a_slice_of_views_leaves_without_the_buffers_of_other_rows() {
    let long = "x".repeat(1_000);
    let views = StringViewArray::from_iter_values(std::iter::repeat_n(&long, 1_000));
    let sent = send_one(Arc::new(views.slice(10, 2)));
    assert!(
        sent.get_buffer_memory_size() < 10_000,
        "{}",
        sent.get_buffer_memory_size()
    );
    let bytes = BinaryViewArray::from_iter_values(std::iter::repeat_n(long.as_bytes(), 1_000));
    let sent = send_one(Arc::new(bytes.slice(10, 2)));
    assert!(sent.get_buffer_memory_size() < 10_000);
}

#[test]
fn large_batches_are_split_in_order() {
    let rows = MAX_BATCH_ROWS * 2 + 1;
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
    let values = Int64Array::from_iter_values(0..i64::try_from(rows).unwrap());
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap();
    let sent = Outlet::new(announced(&schema)).send(&batch).unwrap();
    assert_eq!(
        sent.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(),
        [MAX_BATCH_ROWS, MAX_BATCH_ROWS, 1]
    );
    let last = sent[2]
        .column(0)
        .as_primitive::<arrow::datatypes::Int64Type>()
        .value(0);
    assert_eq!(last, i64::try_from(rows - 1).unwrap());
}

#[test]
fn a_null_where_none_was_announced_is_our_bug_and_not_sent() {
    let wide = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let batch = RecordBatch::try_new(wide, vec![Arc::new(Int64Array::from(vec![None]))]).unwrap();
    let strict = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
    let error = Outlet::new(strict).send(&batch).unwrap_err();
    assert_eq!(error.kind, Kind::Internal);
}

#[test]
fn a_batch_without_columns_keeps_its_rows() {
    let schema = Arc::new(Schema::empty());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(3));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![], &options).unwrap();
    let sent = Outlet::new(schema).send(&batch).unwrap();
    assert_eq!(sent[0].num_rows(), 3);
}
