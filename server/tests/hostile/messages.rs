//! Arrow data that is not what it says, or more than it looks, bound as parameters and uploaded
//! over the wire.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int64Array, NullArray, RecordBatch,
};
use arrow::ipc::{
    BodyCompression, BodyCompressionArgs, BodyCompressionMethod, Buffer, CompressionType,
    FieldBuilder, FieldNode, Message, MessageArgs, MessageHeader, MetadataVersion,
    RecordBatch as Rows, RecordBatchArgs, Schema, SchemaArgs, Type,
};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    CommandPreparedStatementQuery, CommandStatementIngest, ProstMessageExt, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{Action, FlightData, FlightDescriptor};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};
use futures::TryStreamExt;
use prost::Message as _;
use tonic::{Code, Request};

use super::child::{Child, Client};

fn message(
    builder: &mut FlatBufferBuilder<'_>,
    header_type: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    body: Vec<u8>,
) -> FlightData {
    let arguments = MessageArgs {
        version: MetadataVersion::V5,
        header_type,
        header: Some(header),
        bodyLength: body.len() as i64,
        custom_metadata: None,
    };
    let message = Message::create(builder, &arguments);
    builder.finish(message, None);
    FlightData::new()
        .with_data_header(builder.finished_data().to_vec())
        .with_data_body(body)
}

/// One column in buffers at `places`, compressed or said to be.
fn rows(
    length: i64,
    places: &[(i64, i64)],
    codec: Option<CompressionType>,
    body: Vec<u8>,
) -> FlightData {
    let mut builder = FlatBufferBuilder::new();
    // What has no buffers holds nothing.
    let nulls = if places.is_empty() { length } else { 0 };
    let nodes = builder.create_vector(&[FieldNode::new(length, nulls)]);
    let places: Vec<_> = places
        .iter()
        .map(|(at, size)| Buffer::new(*at, *size))
        .collect();
    let buffers = builder.create_vector(&places);
    let method = BodyCompressionMethod::BUFFER;
    let compression = codec
        .map(|codec| BodyCompression::create(&mut builder, &BodyCompressionArgs { codec, method }));
    let arguments = RecordBatchArgs {
        length,
        nodes: Some(nodes),
        buffers: Some(buffers),
        compression,
        variadicBufferCounts: None,
    };
    let rows = Rows::create(&mut builder, &arguments).as_union_value();
    message(&mut builder, MessageHeader::RecordBatch, rows, body)
}

fn schema(kind: Type, count: usize) -> FlightData {
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_string("c");
    let mut field = FieldBuilder::new(&mut builder);
    field.add_name(name);
    field.add_type_type(kind);
    let field = field.finish();
    let fields = builder.create_vector(&vec![field; count]);
    let arguments = SchemaArgs {
        fields: Some(fields),
        ..SchemaArgs::default()
    };
    let schema = Schema::create(&mut builder, &arguments).as_union_value();
    message(&mut builder, MessageHeader::Schema, schema, Vec::new())
}

async fn number() -> Vec<FlightData> {
    let batch =
        RecordBatch::try_from_iter([("1", Arc::new(Int64Array::from(vec![7])) as ArrayRef)])
            .unwrap();
    encoded(batch).await
}

async fn encoded(batch: RecordBatch) -> Vec<FlightData> {
    FlightDataEncoderBuilder::new()
        .build(futures::stream::iter([Ok::<_, FlightError>(batch)]))
        .try_collect()
        .await
        .unwrap()
}

fn prefixed(claim: i64) -> Vec<u8> {
    let mut body = claim.to_le_bytes().to_vec();
    body.resize(64, 0);
    body
}

async fn handle(client: &mut Client) -> prost::bytes::Bytes {
    let request = ActionCreatePreparedStatementRequest {
        query: "SELECT $1 + 1".into(),
        transaction_id: None,
    };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let mut results = client
        .0
        .inner_mut()
        .do_action(action)
        .await
        .unwrap()
        .into_inner();
    let result = results.message().await.unwrap().unwrap();
    let any = Any::decode(result.body).unwrap();
    let made: ActionCreatePreparedStatementResult = any.unpack().unwrap().unwrap();
    made.prepared_statement_handle
}

async fn bind(client: &mut Client, messages: Vec<FlightData>) -> Result<(), tonic::Status> {
    let command = CommandPreparedStatementQuery {
        prepared_statement_handle: handle(client).await,
    };
    put(client, &command, messages).await
}

/// Adds the rows to the temporary table `t`.
async fn upload(client: &mut Client, messages: Vec<FlightData>) -> Result<(), tonic::Status> {
    let command = CommandStatementIngest {
        table: "t".to_owned(),
        temporary: true,
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create.into(),
            if_exists: TableExistsOption::Append.into(),
        }),
        ..CommandStatementIngest::default()
    };
    put(client, &command, messages).await
}

/// One value of so many bytes.
pub(crate) async fn upload_bytes(client: &mut Client, bytes: &[u8]) -> Result<(), tonic::Status> {
    let value: ArrayRef = Arc::new(BinaryArray::from(vec![bytes]));
    let batch = RecordBatch::try_from_iter([("c", value)]).unwrap();
    upload(client, encoded(batch).await).await
}

async fn put(
    client: &mut Client,
    command: &impl ProstMessageExt,
    mut messages: Vec<FlightData>,
) -> Result<(), tonic::Status> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    messages[0].flight_descriptor = Some(descriptor);
    let stream = client
        .0
        .inner_mut()
        .do_put(Request::new(futures::stream::iter(messages)))
        .await?;
    let mut results = stream.into_inner();
    while results.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn no_message_of_arrow_data_ends_the_process() {
    let mut child = Child::start(&[]);
    let mut client = child.connect().await;
    let good = number().await;
    bind(&mut client, good.clone())
        .await
        .expect("the yardstick");
    let places: &[(i64, i64)] = &[(0, 0), (0, 64)];
    let mut bombs: Vec<(String, Vec<FlightData>)> = Vec::new();
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        for claim in [8 << 30, 1 << 40, i64::MAX, -2, i64::MIN, 512 << 10] {
            let rows = rows(1, places, Some(codec), prefixed(claim));
            bombs.push((
                format!("{codec:?} of {claim} bytes"),
                vec![good[0].clone(), rows],
            ));
        }
    }
    for length in [1 << 33, i64::MAX, -1, i64::MIN] {
        let rows = rows(length, &[(0, 0), (0, 8)], None, vec![0; 64]);
        bombs.push((format!("{length} rows"), vec![good[0].clone(), rows]));
    }
    for places in [
        [(0, 0), (0, i64::MAX)],
        [(0, 0), (i64::MAX, 8)],
        [(0, 0), (-8, 8)],
        [(0, 0), (0, -8)],
        [(0, 0), (60, 8)],
        [(0, 64), (0, 64)],
    ] {
        let rows = rows(1, &places, None, vec![0; 64]);
        bombs.push((
            format!("buffers at {places:?}"),
            vec![good[0].clone(), rows],
        ));
    }
    for (kind, count) in [
        (Type::NONE, 1),
        (Type(99), 1),
        (Type::Int, 1),
        (Type::List, 1),
        (Type::Union, 1),
        (Type::FixedSizeList, 1),
        (Type::Null, 3_000),
        (Type::Null, 200_000),
    ] {
        bombs.push((
            format!("{count} fields of type {kind:?}"),
            vec![schema(kind, count)],
        ));
    }
    for length in [0, 1, 7, 64] {
        let junk = FlightData::new().with_data_header(vec![0xa5; length + 1]);
        bombs.push((format!("{length} bytes of junk"), vec![junk]));
    }
    let before = child.resident_bytes();
    child.forget_peak();
    for (name, messages) in bombs {
        let status = bind(&mut client, messages).await.expect_err(&name);
        assert!(
            matches!(
                status.code(),
                Code::InvalidArgument | Code::ResourceExhausted | Code::OutOfRange
            ),
            "{name}: {status}"
        );
        println!("{name} | {:?}: {}", status.code(), status.message());
        bind(&mut client, good.clone())
            .await
            .unwrap_or_else(|status| panic!("after {name}: {status}"));
    }
    child.assert_well("damaged messages").await;
    let grown = child.peak_bytes().saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB");
}

#[tokio::test]
async fn nulls_that_took_no_bytes_do_not_become_a_terabyte() {
    let mut child = Child::start(&[]);
    let mut client = child.connect().await;
    let column =
        |column: ArrayRef| RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
    let wide = FixedSizeBinaryArray::try_from_iter([vec![7_u8; 1 << 16]].into_iter()).unwrap();
    upload(&mut client, encoded(column(Arc::new(wide))).await)
        .await
        .expect("the yardstick");
    for length in [1 << 15, 1 << 20, 1 << 24] {
        let nulls = column(Arc::new(NullArray::new(1)));
        let schema = encoded(nulls).await.swap_remove(0);
        let rows = rows(length, &[], None, Vec::new());
        let status = upload(&mut client, vec![schema, rows]).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{length}: {status}");
        child.assert_well("nulls without a type").await;
    }
    assert_eq!(client.rows("SELECT * FROM t").await.unwrap(), 1);
}
