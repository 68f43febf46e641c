//! The metadata keys that drivers read.

use arrow::datatypes::TimeUnit;
use featureflight_engine::metadata::REMARKS;

use super::*;

#[test]
fn every_field_says_its_sql_type() {
    let schema = Schema::new(vec![
        Field::new("a", DataType::Int64, false),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Decimal128(12, 3), true),
        Field::new(
            "d",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
    ]);
    let described = describe(&schema);
    let value = |column: usize, key: &str| described.field(column).metadata().get(key).cloned();
    assert_eq!(value(0, TYPE_NAME).as_deref(), Some("BIGINT"));
    assert_eq!(value(0, PRECISION).as_deref(), Some("19"));
    assert_eq!(value(1, TYPE_NAME).as_deref(), Some("VARCHAR"));
    assert_eq!(value(1, PRECISION), None);
    assert_eq!(value(1, IS_CASE_SENSITIVE).as_deref(), Some("1"));
    assert_eq!(value(2, PRECISION).as_deref(), Some("12"));
    assert_eq!(value(2, SCALE).as_deref(), Some("3"));
    assert_eq!(value(3, TYPE_NAME).as_deref(), Some("TIMESTAMP"));
    for field in described.fields() {
        for key in [
            IS_AUTO_INCREMENT,
            IS_READ_ONLY,
            IS_SEARCHABLE,
            IS_CASE_SENSITIVE,
        ] {
            assert!(field.metadata().contains_key(key), "{key}");
        }
    }
    for (before, after) in schema.fields().iter().zip(described.fields()) {
        assert_eq!(before.data_type(), after.data_type());
        assert_eq!(before.is_nullable(), after.is_nullable());
    }
    assert_eq!(
        described,
        describe(&described),
        "describing twice changes nothing"
    );
}

#[test]
fn a_tables_columns_name_their_origin_and_carry_remarks() {
    let description = HashMap::from([(REMARKS.to_owned(), "in years".to_owned())]);
    let field = Field::new("age", DataType::Int64, true).with_metadata(description);
    let schema = Schema::new(vec![field]);
    let described = describe_table(&schema, "c", "s", "t", true);
    let metadata = described.field(0).metadata();
    let expected = [
        (CATALOG_NAME, "c"),
        (SCHEMA_NAME, "s"),
        (TABLE_NAME, "t"),
        (REMARKS, "in years"),
        (IS_READ_ONLY, "0"),
    ];
    for (key, value) in expected {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value));
    }
    let read_only = describe_table(&schema, "c", "s", "t", false);
    for schema in [read_only, describe(&schema)] {
        let said = schema.field(0).metadata().get(IS_READ_ONLY);
        assert_eq!(said.map(String::as_str), Some("1"));
    }
}
