//! `CommandStatementIngest`: rows of the session's own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    CommandStatementIngest, DoPutUpdateResult, ProstMessageExt, TableDefinitionOptions,
    TableExistsOption, TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Code, Status};

use super::client::{Client, Server, alone, code};

pub(crate) fn into(table: &str) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: TableNotExistOption::Create as i32,
            if_exists: TableExistsOption::Fail as i32,
        }),
        table: table.into(),
        schema: None,
        catalog: None,
        temporary: true,
        transaction_id: None,
        options: HashMap::new(),
    }
}

/// Identifiers and seconds.
pub(crate) fn spine(rows: &[(&str, i64)]) -> RecordBatch {
    let ids = rows.iter().map(|row| row.0);
    let times = rows.iter().map(|row| row.1 * 1_000_000);
    RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(StringArray::from_iter_values(ids)) as ArrayRef,
        ),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
        ),
    ])
    .unwrap()
}

/// A command, and rows for it.
pub(super) async fn messages(
    command: &impl ProstMessageExt,
    batches: Vec<RecordBatch>,
) -> Vec<FlightData> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(futures::stream::iter(batches.into_iter().map(Ok)))
        .try_collect()
        .await
        .unwrap()
}

impl Client {
    pub(crate) async fn ingest(
        &mut self,
        command: &CommandStatementIngest,
        batches: Vec<RecordBatch>,
    ) -> Result<i64, Status> {
        let result = self.put(messages(command, batches).await).await?;
        let result = DoPutUpdateResult::decode(result.as_slice()).unwrap();
        Ok(result.record_count)
    }
}

#[tokio::test]
async fn several_batches_become_one_table_that_joins_point_in_time() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let batches = vec![spine(&[("A", 1_000), ("B", 1_200)]), spine(&[("A", 0)])];
    assert_eq!(client.ingest(&into("spine"), batches).await.unwrap(), 3);
    let joined = client
        .rows(
            "SELECT s.id, e.id FROM point_in_time_join(TABLE(spine), 'examples:v', \
             'examples:id', event_time => 'ts', full_feature_names => true) AS e \
             JOIN spine s ON s.id = e.id AND s.ts = e.ts",
        )
        .await;
    assert_eq!(joined.len(), 3, "{joined:?}");
    let listed = client
        .rows("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'temp'")
        .await;
    assert_eq!(listed, ["spine|LOCAL TEMPORARY"]);
    let mut other = server.connect().await;
    assert_eq!(
        code(other.query("SELECT * FROM spine").await),
        Code::NotFound
    );
    client.action("CloseSession", Vec::new()).await.unwrap();
    assert_eq!(
        code(client.query("SELECT * FROM spine").await),
        Code::NotFound
    );
}

#[tokio::test]
async fn what_is_no_temporary_upload_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let rows = || vec![spine(&[("A", 1)])];
    let lasting = CommandStatementIngest {
        temporary: false,
        ..into("examples")
    };
    let refused = client.ingest(&lasting, rows()).await.expect_err("a write");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let insert = client.update("INSERT INTO examples VALUES (1)").await;
    let insert = insert.expect_err("a write");
    let reason = |status: &Status| {
        status
            .message()
            .split_once("cannot be written")
            .unwrap()
            .1
            .to_owned()
    };
    assert_eq!(reason(&insert), reason(&refused), "one code path");

    let within = CommandStatementIngest {
        transaction_id: Some("t".into()),
        ..into("t")
    };
    assert_eq!(
        code(client.ingest(&within, rows()).await),
        Code::InvalidArgument
    );
    let optioned = CommandStatementIngest {
        options: HashMap::from([("a".into(), "b".into())]),
        ..into("t")
    };
    assert_eq!(
        code(client.ingest(&optioned, rows()).await),
        Code::InvalidArgument
    );
    let odd = TableDefinitionOptions {
        if_not_exist: 9,
        if_exists: 9,
    };
    let odd = CommandStatementIngest {
        table_definition_options: Some(odd),
        ..into("t")
    };
    assert_eq!(
        code(client.ingest(&odd, rows()).await),
        Code::InvalidArgument
    );
    assert_eq!(
        code(client.put(vec![alone(&into("t"))]).await),
        Code::InvalidArgument,
        "no schema"
    );
    assert_eq!(
        code(client.ingest(&into("examples"), rows()).await),
        Code::AlreadyExists
    );
    assert_eq!(code(client.query("SELECT * FROM t").await), Code::NotFound);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_no_table() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let mut sent = messages(&into("t"), vec![spine(&[("A", 1)])]).await;
    let mut broken = sent[1].clone();
    broken.data_body = broken.data_body.slice(..8);
    sent.push(broken);
    assert_eq!(code(client.put(sent).await), Code::InvalidArgument);
    assert_eq!(code(client.query("SELECT * FROM t").await), Code::NotFound);
}

#[tokio::test]
async fn rows_and_message_sizes_are_limited() {
    let server = Server::configured(|config| {
        config.engine.max_upload_rows = 2;
        config.server.max_message.0 = 64 << 10;
    })
    .await;
    let mut client = server.connect().await;
    let three = vec![spine(&[("A", 1), ("B", 2)]), spine(&[("C", 3)])];
    let refused = client
        .ingest(&into("t"), three)
        .await
        .expect_err("too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let wide = Int64Array::from(vec![0; 100_000]);
    let wide = RecordBatch::try_from_iter([("n", Arc::new(wide) as ArrayRef)]).unwrap();
    assert_eq!(
        code(client.ingest(&into("t"), vec![wide]).await),
        Code::ResourceExhausted
    );
}
