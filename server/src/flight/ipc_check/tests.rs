//! Messages as clients send them, and as nobody should.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal32Array, Decimal64Array,
    Decimal128Array, Decimal256Array, DictionaryArray, FixedSizeBinaryArray, FixedSizeListArray,
    Float64Array, Int32Array, Int64Array, LargeListArray, ListArray, MapArray, NullArray,
    StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field as ArrowField, Int32Type, i256};
use arrow::ipc::{
    BodyCompression, BodyCompressionArgs, BodyCompressionMethod, Buffer as Place, CompressionType,
    FieldBuilder, FieldNode, FixedSizeBinary, FixedSizeBinaryArgs, FixedSizeList,
    FixedSizeListArgs, Int, IntArgs, MessageArgs, MetadataVersion, RecordBatchArgs, SchemaArgs,
};
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};
use futures::TryStreamExt;

use super::*;

async fn encode(batch: RecordBatch) -> Vec<FlightData> {
    FlightDataEncoderBuilder::new()
        .with_dictionary_handling(DictionaryHandling::Resend)
        .build(futures::stream::iter([Ok::<_, FlightError>(batch)]))
        .try_collect()
        .await
        .expect("encoded")
}

fn decode_all(messages: &[FlightData]) -> Result<Vec<RecordBatch>> {
    let mut decoder = Decoder::new("the data");
    let mut batches = Vec::new();
    for message in messages {
        if let Decoded::Batch(batch) = decoder.decode(message)? {
            batches.push(batch);
        }
    }
    Ok(batches)
}

fn every_type() -> RecordBatch {
    let lists = [Some(vec![Some(1), None]), None];
    let fields = vec![
        (
            Arc::new(ArrowField::new("a", DataType::Int64, true)),
            Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef,
        ),
        (
            Arc::new(ArrowField::new("b", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef,
        ),
    ];
    let fixed = FixedSizeBinaryArray::try_from_iter([[1_u8; 3], [2; 3]].into_iter());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(2))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("int", Arc::new(Int32Array::from(vec![1, 2]))),
        ("double", Arc::new(Float64Array::from(vec![f64::NAN, 1.0]))),
        ("text", Arc::new(StringArray::from(vec![Some("é"), None]))),
        (
            "view",
            Arc::new(StringViewArray::from(vec![
                "short",
                "longer than twelve bytes",
            ])),
        ),
        (
            "binary",
            Arc::new(BinaryArray::from(vec![Some(&[0_u8][..]), None])),
        ),
        ("fixed", Arc::new(fixed.expect("fixed"))),
        ("date", Arc::new(Date32Array::from(vec![0, -1]))),
        (
            "time",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("UTC")),
        ),
        ("decimal", Arc::new(Decimal128Array::from(vec![1, 2]))),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        ),
        ("struct", Arc::new(StructArray::from(fields))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

#[tokio::test]
async fn what_clients_send_arrives_as_it_was() {
    let messages = encode(every_type()).await;
    let batches = decode_all(&messages).expect("decoded");
    assert_eq!(batches, [every_type()]);
}

#[tokio::test]
async fn dictionaries_are_refused_with_a_hint() {
    let keys = Int32Array::from(vec![0]);
    let values = Arc::new(StringArray::from(vec!["a"]));
    let column = DictionaryArray::<Int32Type>::try_new(keys, values).expect("a dictionary");
    let batch = RecordBatch::try_from_iter([("c", Arc::new(column) as ArrayRef)]).expect("batch");
    let error = decode_all(&encode(batch).await).expect_err("refused");
    assert!(error.message.contains("plain columns"), "{error}");
}

#[tokio::test]
async fn the_order_of_messages_is_checked() {
    let messages = encode(every_type()).await;
    let (schema, rows) = (messages[0].clone(), messages[1].clone());
    assert!(decode_all(std::slice::from_ref(&rows)).is_err());
    assert!(decode_all(&[schema.clone(), schema.clone()]).is_err());
    assert!(decode_all(&[FlightData::new(), schema, FlightData::new(), rows]).is_ok());
}

/// A message of `header`, built by hand as no library would.
fn message(
    builder: &mut FlatBufferBuilder<'_>,
    header_type: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    body: Vec<u8>,
) -> FlightData {
    let message = Message::create(
        builder,
        &MessageArgs {
            version: MetadataVersion::V5,
            header_type,
            header: Some(header),
            bodyLength: body.len() as i64,
            custom_metadata: None,
        },
    );
    builder.finish(message, None);
    FlightData::new()
        .with_data_header(builder.finished_data().to_vec())
        .with_data_body(body)
}

/// What is said of rows of one column of 64-bit numbers.
#[derive(Clone)]
struct Claim {
    rows: i64,
    node: (i64, i64),
    buffers: Vec<(i64, i64)>,
    body: Vec<u8>,
    compressed: bool,
    variadic: Vec<i64>,
}

impl Default for Claim {
    fn default() -> Self {
        Self {
            rows: 1,
            node: (1, 0),
            buffers: vec![(0, 0), (0, 8)],
            body: vec![0; 64],
            compressed: false,
            variadic: Vec::new(),
        }
    }
}

impl Claim {
    fn message(&self) -> FlightData {
        let mut builder = FlatBufferBuilder::new();
        let nodes = builder.create_vector(&[FieldNode::new(self.node.0, self.node.1)]);
        let places = self
            .buffers
            .iter()
            .map(|(at, length)| Place::new(*at, *length));
        let places: Vec<_> = places.collect();
        let buffers = builder.create_vector(&places);
        let compression = self.compressed.then(|| {
            BodyCompression::create(
                &mut builder,
                &BodyCompressionArgs {
                    codec: CompressionType::ZSTD,
                    method: BodyCompressionMethod::BUFFER,
                },
            )
        });
        let variadic = builder.create_vector(&self.variadic);
        let rows = Rows::create(
            &mut builder,
            &RecordBatchArgs {
                length: self.rows,
                nodes: Some(nodes),
                buffers: Some(buffers),
                compression,
                variadicBufferCounts: (!self.variadic.is_empty()).then_some(variadic),
            },
        );
        let header = rows.as_union_value();
        message(
            &mut builder,
            MessageHeader::RecordBatch,
            header,
            self.body.clone(),
        )
    }
}

#[tokio::test]
async fn claims_about_rows_are_checked_before_anything_is_made() {
    let plain =
        RecordBatch::try_from_iter([("c", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]);
    let schema = encode(plain.expect("a batch")).await.remove(0);
    let good = Claim::default();
    assert!(
        decode_all(&[schema.clone(), good.message()]).is_ok(),
        "the yardstick"
    );
    let terabyte = (1_i64 << 40).to_le_bytes();
    let cases = [
        (
            "compressed",
            Claim {
                compressed: true,
                body: terabyte.repeat(8),
                ..good.clone()
            },
        ),
        (
            "rows without bytes",
            Claim {
                rows: 1 << 40,
                ..good.clone()
            },
        ),
        (
            "negative rows",
            Claim {
                rows: -1,
                ..good.clone()
            },
        ),
        (
            "elements without bytes",
            Claim {
                node: (i64::MAX, 0),
                ..good.clone()
            },
        ),
        (
            "negative elements",
            Claim {
                node: (-1, 0),
                ..good.clone()
            },
        ),
        (
            "more nulls than rows",
            Claim {
                node: (1, i64::MAX),
                ..good.clone()
            },
        ),
        (
            "negative place",
            Claim {
                buffers: vec![(0, 0), (-8, 8)],
                ..good.clone()
            },
        ),
        (
            "negative length",
            Claim {
                buffers: vec![(0, 0), (0, -8)],
                ..good.clone()
            },
        ),
        (
            "outside",
            Claim {
                buffers: vec![(0, 0), (60, 8)],
                ..good.clone()
            },
        ),
        (
            "far outside",
            Claim {
                buffers: vec![(0, 0), (i64::MAX, i64::MAX)],
                ..good.clone()
            },
        ),
        (
            "overlap",
            Claim {
                buffers: vec![(0, 64), (0, 64)],
                ..good.clone()
            },
        ),
        (
            "too few buffers",
            Claim {
                buffers: vec![(0, 0)],
                ..good.clone()
            },
        ),
        (
            "no buffers",
            Claim {
                buffers: Vec::new(),
                ..good.clone()
            },
        ),
        (
            "too short",
            Claim {
                buffers: vec![(0, 0), (0, 4)],
                ..good.clone()
            },
        ),
        (
            "variadic",
            Claim {
                variadic: vec![i64::MAX],
                ..good.clone()
            },
        ),
        (
            "negative variadic",
            Claim {
                variadic: vec![-1],
                ..good.clone()
            },
        ),
    ];
    for (name, claim) in cases {
        let outcome = decode_all(&[schema.clone(), claim.message()]);
        let error = outcome.expect_err(name);
        assert!(
            matches!(error.kind, Kind::InvalidArgument | Kind::ResourceExhausted),
            "{name}: {error}"
        );
    }
}

/// A schema of `count` fields of one kind.
fn schema_of(kind: Type, count: usize, depth: usize) -> FlightData {
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string("c");
    let type_of = |builder: &mut FlatBufferBuilder<'_>| match kind {
        Type::FixedSizeBinary => Some(
            FixedSizeBinary::create(
                builder,
                &FixedSizeBinaryArgs {
                    byteWidth: i32::MAX,
                },
            )
            .as_union_value(),
        ),
        Type::FixedSizeList => Some(
            FixedSizeList::create(builder, &FixedSizeListArgs { listSize: -1 }).as_union_value(),
        ),
        Type::Int => Some(
            Int::create(
                builder,
                &IntArgs {
                    bitWidth: 77,
                    is_signed: true,
                },
            )
            .as_union_value(),
        ),
        _ => None,
    };
    let mut child = None;
    for _ in 0..=depth {
        let children = child.map(|child| builder.create_vector(&[child]));
        let value = type_of(&mut builder);
        let mut field = FieldBuilder::new(&mut builder);
        field.add_name(name);
        field.add_type_type(kind);
        if let Some(value) = value {
            field.add_type_(value);
        }
        if let Some(children) = children {
            field.add_children(children);
        }
        child = Some(field.finish());
    }
    let fields = vec![child.expect("one"); count];
    let fields = builder.create_vector(&fields);
    let schema = Schema::create(
        &mut builder,
        &SchemaArgs {
            fields: Some(fields),
            ..SchemaArgs::default()
        },
    );
    let header = schema.as_union_value();
    message(&mut builder, MessageHeader::Schema, header, Vec::new())
}

#[test]
fn schemas_that_decoders_choke_on_are_refused() {
    for (name, kind, count, depth) in [
        ("no type", Type::NONE, 1, 0),
        ("an unknown type", Type(120), 1, 0),
        ("a union", Type::Union, 1, 0),
        ("run ends", Type::RunEndEncoded, 1, 0),
        ("a binary of two gigabytes", Type::FixedSizeBinary, 1, 0),
        ("a list of a negative size", Type::FixedSizeList, 1, 1),
        ("a list of nothing", Type::List, 1, 0),
        ("an odd number", Type::Int, 1, 0),
        ("a number with children", Type::Int, 1, 1),
        ("too many columns", Type::Null, MAX_COLUMNS + 1, 0),
        ("a hundred thousand columns", Type::Null, 100_000, 0),
        ("too deep", Type::List, 1, MAX_DEPTH + 1),
        ("far too deep", Type::List, 1, 1_000),
    ] {
        assert!(
            decode_all(&[schema_of(kind, count, depth)]).is_err(),
            "{name}"
        );
    }
    let long = FlightData::new().with_data_header(vec![0; MAX_HEADER_BYTES + 1]);
    let error = decode_all(&[long]).expect_err("refused");
    assert_eq!(error.kind, Kind::ResourceExhausted);
}

#[test]
fn types_of_fixed_size_that_multiply_are_too_much() {
    let wide = |item: DataType, size: i32| {
        DataType::FixedSizeList(Arc::new(ArrowField::new("item", item, true)), size)
    };
    let read = |columns: Vec<DataType>| {
        let columns = columns.into_iter().enumerate();
        let fields = columns.map(|(at, of)| ArrowField::new(format!("c{at}"), of, true));
        let schema = arrow::datatypes::Schema::new(fields.collect::<Vec<_>>());
        let message = arrow_flight::SchemaAsIpc::new(
            &schema,
            &arrow::ipc::writer::IpcWriteOptions::default(),
        )
        .into();
        Decoder::new("the rows").decode(&message)
    };
    let embedding = wide(DataType::Float32, 1_536);
    assert!(read(vec![embedding, DataType::FixedSizeBinary(16)]).is_ok());
    for columns in [
        vec![wide(wide(DataType::Int64, 65_536), 65_536)],
        vec![wide(wide(DataType::Null, 65_536), 65_536)],
        vec![DataType::FixedSizeBinary(65_536); 2_000],
    ] {
        let error = read(columns).expect_err("too wide");
        assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
    }
}

/// A column of `item` in each kind of nesting that is taken, and as it is.
fn nestings(item: &ArrayRef) -> Vec<ArrayRef> {
    let field = |of: &ArrayRef| Arc::new(ArrowField::new("item", of.data_type().clone(), true));
    let lengths = || OffsetBuffer::from_lengths([item.len()]);
    let large = OffsetBuffer::from_lengths([item.len()]);
    let size = i32::try_from(item.len()).expect("few");
    let keys: ArrayRef = Arc::new(Int32Array::from_iter_values(0..size));
    let entries = StructArray::from(vec![
        (
            Arc::new(ArrowField::new("key", DataType::Int32, false)),
            keys,
        ),
        (field(item), Arc::clone(item)),
    ]);
    let of_entries = Arc::new(ArrowField::new(
        "entries",
        entries.data_type().clone(),
        false,
    ));
    vec![
        Arc::clone(item),
        Arc::new(StructArray::from(vec![(field(item), Arc::clone(item))])),
        Arc::new(ListArray::new(
            field(item),
            lengths(),
            Arc::clone(item),
            None,
        )),
        Arc::new(LargeListArray::new(
            field(item),
            large,
            Arc::clone(item),
            None,
        )),
        Arc::new(FixedSizeListArray::new(
            field(item),
            size,
            Arc::clone(item),
            None,
        )),
        Arc::new(MapArray::new(of_entries, lengths(), entries, None, false)),
    ]
}

async fn sent(column: ArrayRef) -> Result<Vec<RecordBatch>> {
    let batch = RecordBatch::try_from_iter([("c", column)]).expect("a batch");
    decode_all(&encode(batch).await)
}

#[tokio::test]
async fn decimals_have_the_digits_of_their_type_at_any_depth() {
    let decimals = |last: i32| -> Vec<ArrayRef> {
        let (long, wide) = (i64::from(last), i128::from(last));
        vec![
            Arc::new(
                Decimal32Array::from(vec![1, last])
                    .with_precision_and_scale(3, 1)
                    .expect("a type"),
            ),
            Arc::new(
                Decimal64Array::from(vec![1, long])
                    .with_precision_and_scale(3, 1)
                    .expect("a type"),
            ),
            Arc::new(
                Decimal128Array::from(vec![1, wide])
                    .with_precision_and_scale(3, 1)
                    .expect("a type"),
            ),
            Arc::new(
                Decimal256Array::from(vec![i256::ONE, i256::from_i128(wide)])
                    .with_precision_and_scale(3, 1)
                    .expect("a type"),
            ),
        ]
    };
    for (last, good) in [(999, true), (-999, true), (1_000, false), (-1_000, false)] {
        for column in decimals(last).iter().flat_map(nestings) {
            for column in nestings(&column) {
                let outcome = sent(Arc::clone(&column)).await;
                let kind = column.data_type();
                assert_eq!(outcome.is_ok(), good, "{last} in {kind}: {outcome:?}");
            }
        }
    }
}

#[tokio::test]
async fn types_that_sql_does_not_make_are_refused_at_any_depth() {
    let negative = DataType::Decimal128(5, -2);
    let item = Arc::new(ArrowField::new("item", DataType::Int64, true));
    let empty = DataType::FixedSizeList(item, 0);
    for odd in [negative, empty] {
        for column in nestings(&new_null_array(&odd, 1)) {
            for column in nestings(&column) {
                let error = sent(column).await.expect_err("refused");
                assert_eq!(error.kind, Kind::InvalidArgument, "{error}");
            }
        }
    }
}
