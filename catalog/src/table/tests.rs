use serde_json::{Value, json};

use super::*;
use crate::storage::Location;

fn location() -> Location {
    Location {
        store: Arc::new(object_store::memory::InMemory::new()),
        prefix: "x/data".into(),
        url: "s3://b/x/data".to_owned(),
        rewritten: false,
    }
}

fn group(definitions: &Value) -> Arc<FeatureGroup> {
    let json = json!({
        "FeatureGroupName": "g",
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "ts",
        "FeatureDefinitions": definitions,
    });
    Arc::new(serde_json::from_value(json).expect("group"))
}

fn feature(name: &str, kind: &str) -> Value {
    json!({"FeatureName": name, "FeatureType": kind})
}

#[test]
fn schemas_follow_the_definition() {
    let definitions = json!([
        feature("Total", "Fractional"),
        feature("ts", "String"),
        feature("id", "Integral"),
        feature("note", "String"),
    ]);
    let table = FeatureTable::new(group(&definitions), location()).expect("table");
    assert_eq!((table.record_identifier, table.event_time), (2, 1));
    assert_eq!(table.event_time_form, EventTimeForm::Text);
    assert!(table.files.hourly);
    let state = [
        Field::new("Total", DataType::Float64, true),
        Field::new("ts", timestamp_type(), false),
        Field::new("id", DataType::Int64, false),
        Field::new("note", DataType::Utf8View, true),
    ];
    assert_eq!(*table.state_schema, Schema::new(state.to_vec()));
    let [write_time, api_invocation_time, is_deleted] = system_fields();
    let written = write_time.with_nullable(true);
    let system = [written, api_invocation_time, is_deleted];
    let history: Vec<_> = state.into_iter().chain(system).collect();
    assert_eq!(*table.history_schema, Schema::new(history));

    let definitions = json!([feature("id", "String"), feature("ts", "Fractional")]);
    let table = FeatureTable::new(group(&definitions), location()).expect("table");
    assert_eq!(table.event_time_form, EventTimeForm::Seconds);
    assert_eq!(table.state_schema.field(1).data_type(), &timestamp_type());
}

#[test]
fn definitions_that_cannot_be_read_say_why() {
    let (id, ts) = (feature("id", "String"), feature("ts", "String"));
    let mut vector = feature("v", "Fractional");
    vector["CollectionType"] = json!("Vector");
    for (definitions, why) in [
        (json!([ts]), "record identifier 'id' is not among"),
        (json!([id]), "event time 'ts' is not among"),
        (
            json!([id, feature("TS", "String")]),
            "event time 'ts' is not among",
        ),
        (
            json!([id, feature("ts", "Integral")]),
            "neither String nor Fractional",
        ),
        (json!([id, ts, feature("x", "Boolean")]), "type 'Boolean'"),
        (json!([id, ts, vector]), "'v' is a collection (Vector)"),
        (
            json!([id, ts, feature("Write_Time", "String")]),
            "'Write_Time' has a name",
        ),
        (json!([id, ts, feature("is_deleted", "String")]), "reserves"),
        (
            json!([id, ts, feature("ID", "String")]),
            "'id' and 'ID' differ only in case",
        ),
        (json!([id, ts, id]), "'id' is defined twice"),
        (json!([]), "not among"),
    ] {
        let reason = FeatureTable::new(group(&definitions), location()).expect_err(why);
        assert!(reason.contains(why), "{reason}");
    }
}

fn column(name: &str, hive_type: &str) -> GlueColumn {
    GlueColumn {
        name: name.to_owned(),
        hive_type: hive_type.to_owned(),
        comment: None,
    }
}

fn glue_table() -> GlueTable {
    GlueTable {
        database: "Db".to_owned(),
        name: "T".to_owned(),
        columns: vec![column("Id", "string"), column("at", "timestamp")],
        partition_keys: vec![column("year", "int")],
        location: Some("s3://b/x/data".to_owned()),
        serde: Some("org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe".to_owned()),
        input_format: Some("parquet.hive.DeprecatedParquetInputFormat".to_owned()),
        parameters: [("EXTERNAL".to_owned(), "TRUE".to_owned())].into(),
    }
}

#[test]
fn raw_tables_stand_as_glue_declares_them() {
    let table = RawTable::new(&glue_table(), location(), Some("g".to_owned())).expect("table");
    assert_eq!((table.database.as_str(), table.name.as_str()), ("db", "t"));
    assert_eq!(table.partition_keys, 1);
    assert!(!table.files.hourly);
    assert_eq!(
        *table.schema,
        Schema::new(vec![
            Field::new("id", DataType::Utf8View, true),
            Field::new("at", timestamp_type(), true),
            Field::new("year", DataType::Int32, true),
        ])
    );
}

#[test]
fn raw_tables_that_cannot_be_read_say_why() {
    fn reason(change: impl FnOnce(&mut GlueTable)) -> String {
        let mut table = glue_table();
        change(&mut table);
        RawTable::new(&table, location(), None).expect_err("unreadable table")
    }
    fn with_parameter(key: &str, value: &str) -> String {
        reason(|t| drop(t.parameters.insert(key.to_owned(), value.to_owned())))
    }
    for (reason, why) in [
        (with_parameter("table_type", "iceberg"), "Iceberg"),
        (with_parameter("table_type", "DELTA"), "delta"),
        (with_parameter("spark.sql.sources.provider", "hudi"), "hudi"),
        (
            reason(|t| t.serde = Some("org.openx.data.jsonserde.JsonSerDe".to_owned())),
            "JsonSerDe",
        ),
        (reason(|t| t.serde = None), "no SerDe"),
        (
            reason(|t| t.input_format = Some("x.HoodieParquetInputFormat".to_owned())),
            "HoodieParquetInputFormat",
        ),
        (
            reason(|t| t.columns[0].hive_type = "array<".to_owned()),
            "column 'id' cannot be read",
        ),
        (
            reason(|t| t.partition_keys[0].name = "ID".to_owned()),
            "'id' is declared twice",
        ),
        (reason(|t| t.columns.clear()), "no columns"),
    ] {
        assert!(reason.contains(why), "{reason}");
    }
    let mut crawled = glue_table();
    crawled.serde = None;
    crawled
        .parameters
        .insert("classification".to_owned(), "parquet".to_owned());
    RawTable::new(&crawled, location(), None).expect("a crawler's table");
}
