//! Timestamps of a client, in UTC. An instant is the same in every zone, but SQL compares and cuts a
//! timestamp by the clock of its zone, and results leave in UTC: a value that came with another zone
//! would not be equal to itself.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use featureflight_catalog::{Error, Result};

const UTC: &str = "UTC";

/// `schema` with all timestamps that have a zone in UTC.
pub(super) fn schema(schema: &SchemaRef) -> SchemaRef {
    let fields = fields(schema.fields());
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// `batch` with the types of `schema`, which is [`schema`] of its own.
///
/// # Errors
/// `InvalidArgument` when Arrow cannot convert it.
pub(super) fn rows(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let strict = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let unreadable = |error| {
        Error::invalid("the rows have timestamps that cannot be brought to UTC").with_source(error)
    };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| {
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else {
            cast_with_options(column, field.data_type(), &strict).map_err(unreadable)
        }
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    // A statement without parameters may come with rows of no columns.
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(SchemaRef::clone(schema), columns, &rows).map_err(unreadable)
}

fn fields(fields: &Fields) -> Fields {
    fields.iter().map(field).collect()
}

fn field(field: &FieldRef) -> FieldRef {
    let in_utc = match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(UTC.into())),
        DataType::List(item) => DataType::List(self::field(item)),
        DataType::LargeList(item) => DataType::LargeList(self::field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(self::field(item), *size),
        DataType::Struct(children) => DataType::Struct(fields(children)),
        DataType::Map(entries, sorted) => DataType::Map(self::field(entries), *sorted),
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(in_utc))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, LargeListArray, ListArray, MapArray,
        StructArray, TimestampSecondArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{TimeUnit, TimestampSecondType};

    use super::*;

    fn in_zone(zone: &str) -> ArrayRef {
        let values = TimestampSecondArray::from(vec![Some(7), None]);
        Arc::new(values.with_timezone(zone))
    }

    #[test]
    fn instants_stay_what_they_are_at_any_depth() {
        let item = |of: &ArrayRef| Arc::new(Field::new("item", of.data_type().clone(), true));
        let list = |of: ArrayRef| -> ArrayRef {
            let lengths = OffsetBuffer::from_lengths([1, 1]);
            Arc::new(ListArray::new(item(&of), lengths, of, None))
        };
        let structs = |of: ArrayRef| -> ArrayRef {
            let fields = Fields::from(vec![Field::new("at", of.data_type().clone(), true)]);
            Arc::new(StructArray::new(fields, vec![of], None))
        };
        let large = |of: ArrayRef| -> ArrayRef {
            let lengths = OffsetBuffer::from_lengths([1, 1]);
            Arc::new(LargeListArray::new(item(&of), lengths, of, None))
        };
        let fixed = |of: ArrayRef| -> ArrayRef {
            Arc::new(FixedSizeListArray::new(item(&of), 1, of, None))
        };
        let map = |of: ArrayRef| -> ArrayRef {
            let keys: ArrayRef = Arc::new(TimestampSecondArray::from(vec![1, 2]));
            let keys_field = Arc::new(Field::new("key", keys.data_type().clone(), false));
            let entries = StructArray::from(vec![(keys_field, keys), (item(&of), of)]);
            let field = Field::new("entries", entries.data_type().clone(), false);
            let lengths = OffsetBuffer::from_lengths([1, 1]);
            Arc::new(MapArray::new(
                Arc::new(field),
                lengths,
                entries,
                None,
                false,
            ))
        };
        let naive: ArrayRef = Arc::new(TimestampSecondArray::from(vec![7, 8]));
        let sent = |zone: &str| {
            RecordBatch::try_from_iter([
                ("plain", in_zone(zone)),
                ("nested", list(structs(in_zone(zone)))),
                ("naive", Arc::clone(&naive)),
                ("large", large(in_zone(zone))),
                ("fixed", fixed(in_zone(zone))),
                ("map", map(in_zone(zone))),
                ("all", large(fixed(map(in_zone(zone))))),
            ])
            .expect("a batch")
        };
        for zone in ["America/New_York", "+05:30", "Etc/UTC", "Mars/Olympus", UTC] {
            let sent_here = sent(zone);
            let got = rows(&sent_here, &schema(&sent_here.schema())).expect("in UTC");
            assert_eq!(got, sent(UTC), "{zone}");
        }
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
            .expect("no columns");
        assert_eq!(
            rows(&none, &schema(&none.schema())).expect("as it is"),
            none
        );
        let got = rows(&sent("+01:00"), &schema(&sent("+01:00").schema())).expect("in UTC");
        let plain = got.column(0).as_primitive::<TimestampSecondType>();
        assert_eq!(plain.value(0), 7);
        assert!(plain.is_null(1));
        let unzoned = DataType::Timestamp(TimeUnit::Second, None);
        assert_eq!(*got.column(2).data_type(), unzoned);
    }
}
