//! What drivers browse with: schemas exact to the letter of FlightSql.proto, filters honoured.

use arrow::array::{Array, BinaryArray, Int32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow::util::display::array_value_to_string;
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes,
    CommandGetTables, CommandGetXdbcTypeInfo, ProstMessageExt, SqlInfo,
};

use super::client::{Client, Server};
use super::writes::writer;

/// Nullable where the name ends with `?`, as `name: type`.
fn shape(schema: &Schema) -> Vec<String> {
    let one = |field: &Field| {
        let kind = match field.data_type() {
            DataType::Utf8 => "utf8".to_owned(),
            DataType::Int32 => "int32".to_owned(),
            DataType::UInt32 => "uint32".to_owned(),
            DataType::UInt8 => "uint8".to_owned(),
            DataType::Boolean => "bool".to_owned(),
            DataType::Binary => "bytes".to_owned(),
            DataType::Union(..) => "union".to_owned(),
            DataType::List(item) => format!("list<{}>", item.data_type()),
            other => other.to_string(),
        };
        format!(
            "{}{}: {kind}",
            field.name(),
            if field.is_nullable() { "?" } else { "" }
        )
    };
    schema.fields().iter().map(|field| one(field)).collect()
}

/// The three places a schema is told in agree; its shape.
async fn told(client: &mut Client, command: &impl ProstMessageExt) -> Vec<String> {
    let answer = client.ask(command).await.unwrap();
    assert_eq!(client.schema(command).await.unwrap(), *answer.schema);
    shape(&answer.schema)
}

#[tokio::test]
async fn schemas_are_those_of_the_protocol() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    assert_eq!(
        told(client, &CommandGetCatalogs {}).await,
        ["catalog_name: utf8"]
    );
    assert_eq!(
        told(client, &CommandGetDbSchemas::default()).await,
        ["catalog_name?: utf8", "db_schema_name: utf8"]
    );
    let tables = [
        "catalog_name?: utf8",
        "db_schema_name?: utf8",
        "table_name: utf8",
        "table_type: utf8",
    ];
    assert_eq!(told(client, &CommandGetTables::default()).await, tables);
    let with_schema = CommandGetTables {
        include_schema: true,
        ..Default::default()
    };
    let shape = told(client, &with_schema).await;
    assert_eq!(shape[..4], tables);
    assert_eq!(shape[4..], ["table_schema: bytes"]);
    assert_eq!(
        told(client, &CommandGetTableTypes {}).await,
        ["table_type: utf8"]
    );
    assert_eq!(
        told(
            client,
            &CommandGetPrimaryKeys {
                table: "examples".into(),
                ..Default::default()
            }
        )
        .await,
        [
            "catalog_name?: utf8",
            "db_schema_name?: utf8",
            "table_name: utf8",
            "column_name: utf8",
            "key_name?: utf8",
            "key_sequence: int32"
        ]
    );
    assert_eq!(
        told(client, &CommandGetSqlInfo::default()).await,
        ["info_name: uint32", "value: union"]
    );
    assert_eq!(
        told(client, &CommandGetXdbcTypeInfo::default()).await,
        [
            "type_name: utf8",
            "data_type: int32",
            "column_size?: int32",
            "literal_prefix?: utf8",
            "literal_suffix?: utf8",
            "create_params?: list<Utf8>",
            "nullable: int32",
            "case_sensitive: bool",
            "searchable: int32",
            "unsigned_attribute?: bool",
            "fixed_prec_scale: bool",
            "auto_increment?: bool",
            "local_type_name?: utf8",
            "minimum_scale?: int32",
            "maximum_scale?: int32",
            "sql_data_type: int32",
            "datetime_subcode?: int32",
            "num_prec_radix?: int32",
            "interval_precision?: int32"
        ]
    );
}

#[tokio::test]
async fn foreign_keys_are_empty_and_valid() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let expected = [
        "pk_catalog_name?: utf8",
        "pk_db_schema_name?: utf8",
        "pk_table_name: utf8",
        "pk_column_name: utf8",
        "fk_catalog_name?: utf8",
        "fk_db_schema_name?: utf8",
        "fk_table_name: utf8",
        "fk_column_name: utf8",
        "key_sequence: int32",
        "fk_key_name?: utf8",
        "pk_key_name?: utf8",
        "update_rule: uint8",
        "delete_rule: uint8",
    ];
    let table = || "examples".to_owned();
    let exported = CommandGetExportedKeys {
        table: table(),
        ..Default::default()
    };
    let imported = CommandGetImportedKeys {
        table: table(),
        ..Default::default()
    };
    let cross = CommandGetCrossReference {
        pk_table: table(),
        fk_table: table(),
        ..Default::default()
    };
    assert_eq!(told(client, &exported).await, expected);
    assert_eq!(told(client, &imported).await, expected);
    assert_eq!(told(client, &cross).await, expected);
    assert_eq!(client.ask(&exported).await.unwrap().rows(), 0);
    assert_eq!(client.ask(&cross).await.unwrap().rows(), 0);
}

fn text(batches: &[RecordBatch], column: usize) -> Vec<String> {
    let of = |batch: &RecordBatch| {
        let column = batch
            .column(column)
            .as_any()
            .downcast_ref::<StringArray>()
            .unwrap()
            .clone();
        column
            .iter()
            .map(|value| value.unwrap_or("NULL").to_owned())
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

#[tokio::test]
async fn schema_filters_are_patterns_and_catalog_filters_are_names() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let mut names = async |catalog: Option<&str>, pattern: Option<&str>| {
        let command = CommandGetDbSchemas {
            catalog: catalog.map(Into::into),
            db_schema_filter_pattern: pattern.map(Into::into),
        };
        text(&client.ask(&command).await.unwrap().batches, 1)
    };
    let all = names(None, None).await;
    for schema in [
        "features",
        "history",
        "information_schema",
        "sagemaker_featurestore",
        "system",
    ] {
        assert!(all.contains(&schema.to_owned()), "{schema} in {all:?}");
    }
    assert!(all.is_sorted());
    assert_eq!(names(Some("featureflight"), None).await, all);
    assert!(names(Some("other"), None).await.is_empty());
    assert!(
        names(Some(""), None).await.is_empty(),
        "nothing is without a catalog"
    );
    assert_eq!(names(None, Some("fea%")).await, ["features"]);
    assert_eq!(
        names(None, Some("sagemaker_featurestore")).await,
        ["sagemaker_featurestore"]
    );
    assert_eq!(
        names(None, Some("sagemaker\\_featurestore")).await,
        ["sagemaker_featurestore"]
    );
    assert!(names(None, Some("sagemaker\\%")).await.is_empty());
}

#[tokio::test]
async fn tables_are_filtered_and_carry_their_columns() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let all = client.ask(&CommandGetTables::default()).await.unwrap();
    let pairs: Vec<_> = text(&all.batches, 1)
        .into_iter()
        .zip(text(&all.batches, 2))
        .collect();
    assert!(pairs.is_sorted());
    for pair in [
        ("features", "MixedCase"),
        ("history", "examples-fractional"),
    ] {
        let pair = (pair.0.to_owned(), pair.1.to_owned());
        assert!(pairs.contains(&pair), "{pair:?} in {pairs:?}");
    }
    let narrow = CommandGetTables {
        catalog: Some("featureflight".into()),
        db_schema_filter_pattern: Some("features".into()),
        table_name_filter_pattern: Some("examples%".into()),
        table_types: vec!["TABLE".into()],
        include_schema: true,
    };
    let answer = client.ask(&narrow).await.unwrap();
    assert_eq!(
        text(&answer.batches, 2),
        ["examples", "examples-fractional"]
    );
    let schemas = answer.batches[0]
        .column(4)
        .as_any()
        .downcast_ref::<BinaryArray>()
        .unwrap();
    let columns = try_schema_from_ipc_buffer(schemas.value(0)).unwrap();
    let names: Vec<_> = columns
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["id", "event_time", "v"]);
    let id = columns.field(0).metadata();
    for (key, value) in [
        ("ARROW:FLIGHT:SQL:CATALOG_NAME", "featureflight"),
        ("ARROW:FLIGHT:SQL:SCHEMA_NAME", "features"),
        ("ARROW:FLIGHT:SQL:TABLE_NAME", "examples"),
        ("ARROW:FLIGHT:SQL:TYPE_NAME", "VARCHAR"),
    ] {
        assert_eq!(id.get(key).map(String::as_str), Some(value));
    }
    let queried = client
        .query("SELECT * FROM features.examples")
        .await
        .unwrap();
    for (browsed, queried) in columns.fields().iter().zip(queried.schema.fields()) {
        assert_eq!(browsed.data_type(), queried.data_type());
        assert_eq!(browsed.is_nullable(), queried.is_nullable());
    }
    let views = CommandGetTables {
        table_types: vec!["VIEW".into()],
        ..Default::default()
    };
    assert_eq!(client.ask(&views).await.unwrap().rows(), 0);
    client.rows("CREATE TEMP VIEW mine AS SELECT 1 AS n").await;
    assert_eq!(
        text(&client.ask(&views).await.unwrap().batches, 2),
        ["mine"]
    );
}

#[tokio::test]
async fn the_record_identifier_is_the_key_in_features_only() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let keys = CommandGetPrimaryKeys {
        table: "MixedCase".into(),
        ..Default::default()
    };
    let answer = client.ask(&keys).await.unwrap();
    assert_eq!(text(&answer.batches, 1), ["features"]);
    assert_eq!(text(&answer.batches, 3), ["Id"]);
    let sequence = answer.batches[0]
        .column(5)
        .as_any()
        .downcast_ref::<Int32Array>()
        .unwrap();
    assert_eq!(sequence.values(), &[1]);
    for (schema, table) in [
        ("history", "MixedCase"),
        ("features", "Mixed%"),
        ("features", "none"),
    ] {
        let keys = CommandGetPrimaryKeys {
            db_schema: Some(schema.into()),
            table: table.into(),
            ..Default::default()
        };
        assert_eq!(
            client.ask(&keys).await.unwrap().rows(),
            0,
            "{schema}.{table}"
        );
    }
}

#[tokio::test]
async fn sql_info_answers_what_is_asked() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let some = client
        .ask(&CommandGetSqlInfo { info: vec![8, 504] })
        .await
        .unwrap();
    let codes = some.batches[0]
        .column(0)
        .as_any()
        .downcast_ref::<UInt32Array>()
        .unwrap();
    assert_eq!(codes.values(), &[8, 504]);
    let value = |row| array_value_to_string(some.batches[0].column(1), row).unwrap();
    assert!(value(0).ends_with("=0}"), "transactions: {}", value(0));
    assert!(value(1).ends_with("=\"}"), "the quote: {}", value(1));
    let all = client.ask(&CommandGetSqlInfo::default()).await.unwrap();
    assert_eq!(all.rows(), 12 + 2 + 77);
}

/// What a tool may offer follows from this: forms that write, `CREATE TABLE`, batches of rows.
#[tokio::test]
async fn what_is_said_of_writes_is_true() {
    for writes in [false, true] {
        let server = if writes {
            writer().await
        } else {
            Server::start().await
        };
        let client = &mut server.connect().await;
        let codes = [
            (SqlInfo::FlightSqlServerReadOnly, !writes),
            (SqlInfo::SqlDdlTable, writes),
            (SqlInfo::SqlBatchUpdatesSupported, writes),
        ];
        for (code, expected) in codes {
            let info = vec![code as u32];
            let answer = client.ask(&CommandGetSqlInfo { info }).await.unwrap();
            let said = array_value_to_string(answer.batches[0].column(1), 0).unwrap();
            assert!(
                said.ends_with(&format!("={expected}}}")),
                "{code:?}: {said}"
            );
        }
        let create = "CREATE TABLE visitors (id BIGINT, at TIMESTAMP, PRIMARY KEY (id)) \
                      WITH (event_time = 'at')";
        let created = client.update(create).await;
        assert_eq!(created.is_ok(), writes, "{created:?}");
        let everything = CommandGetTables {
            include_schema: true,
            ..Default::default()
        };
        let answer = client.ask(&everything).await.unwrap();
        let (schemas, kinds) = (text(&answer.batches, 1), text(&answer.batches, 3));
        let columns = answer.batches[0].column(4);
        let columns = columns.as_any().downcast_ref::<BinaryArray>().unwrap();
        for (row, columns) in columns.iter().enumerate() {
            let columns = try_schema_from_ipc_buffer(columns.unwrap()).unwrap();
            let writable = writes && schemas[row] == "features" && kinds[row] == "TABLE";
            for field in columns.fields() {
                let said = &field.metadata()["ARROW:FLIGHT:SQL:IS_READ_ONLY"];
                let wanted = if writable { "0" } else { "1" };
                assert_eq!(said, wanted, "{}.{field}", schemas[row]);
            }
        }
        assert!(schemas.contains(&"features".to_owned()));
    }
}

#[tokio::test]
async fn type_info_is_complete_for_the_types_that_leave() {
    let server = Server::start().await;
    let client = &mut server.connect().await;
    let answer = client
        .ask(&CommandGetXdbcTypeInfo::default())
        .await
        .unwrap();
    let names = text(&answer.batches, 0);
    let values = [
        "true",
        "arrow_cast(1, 'Int8')",
        "arrow_cast(1, 'Int16')",
        "arrow_cast(1, 'Int32')",
        "1",
        "arrow_cast(1, 'UInt64')",
        "arrow_cast(1, 'Float32')",
        "1.5",
        "CAST(1 AS DECIMAL(9, 2))",
        "arrow_cast(1, 'Decimal256(70, 2)')",
        "'text'",
        "X'ff'",
        "DATE '2026-01-01'",
        "TIME '12:00:00'",
        "now()",
        "INTERVAL '1 day'",
        "[1]",
        "{'a': 1}",
        "MAP {'a': 1}",
        "NULL",
    ];
    let columns = values.iter().enumerate();
    let columns: Vec<_> = columns
        .map(|(at, value)| format!("{value} AS c{at}"))
        .collect();
    let every = format!("SELECT {}", columns.join(", "));
    for field in client.query(&every).await.unwrap().schema.fields() {
        let name = &field.metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"];
        assert!(names.contains(name), "{name} of {field}");
    }
    let types = answer.batches[0]
        .column(1)
        .as_any()
        .downcast_ref::<Int32Array>()
        .unwrap();
    assert!(types.values().is_sorted());
    let one = client
        .ask(&CommandGetXdbcTypeInfo {
            data_type: Some(12),
        })
        .await
        .unwrap();
    assert_eq!(text(&one.batches, 0), ["VARCHAR"]);
}
