//! What drivers want to know of each column beside its Arrow type, under the metadata keys of
//! FlightSql.proto: on the fields of results, of prepared statements and of `GetTables` alike.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::XdbcDataType;

const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";
const PRECISION: &str = "ARROW:FLIGHT:SQL:PRECISION";
const SCALE: &str = "ARROW:FLIGHT:SQL:SCALE";
const CATALOG_NAME: &str = "ARROW:FLIGHT:SQL:CATALOG_NAME";
const SCHEMA_NAME: &str = "ARROW:FLIGHT:SQL:SCHEMA_NAME";
const TABLE_NAME: &str = "ARROW:FLIGHT:SQL:TABLE_NAME";
const IS_AUTO_INCREMENT: &str = "ARROW:FLIGHT:SQL:IS_AUTO_INCREMENT";
const IS_CASE_SENSITIVE: &str = "ARROW:FLIGHT:SQL:IS_CASE_SENSITIVE";
const IS_READ_ONLY: &str = "ARROW:FLIGHT:SQL:IS_READ_ONLY";
const IS_SEARCHABLE: &str = "ARROW:FLIGHT:SQL:IS_SEARCHABLE";

/// An Arrow type as SQL tools see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqlType {
    pub(super) name: &'static str,
    pub(super) xdbc: XdbcDataType,
    /// Digits, or characters of a printed value; none where there is no bound.
    pub(super) precision: Option<i32>,
    pub(super) scale: Option<i32>,
}

/// Text is the only type with a case.
pub(super) fn case_sensitive(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

pub(super) fn sql_type(data_type: &DataType) -> SqlType {
    use XdbcDataType as X;
    let of = |name, xdbc, precision, scale| SqlType {
        name,
        xdbc,
        precision,
        scale,
    };
    match data_type {
        DataType::Boolean => of("BOOLEAN", X::XdbcBit, Some(1), None),
        DataType::Int8 => of("TINYINT", X::XdbcTinyint, Some(3), Some(0)),
        DataType::Int16 => of("SMALLINT", X::XdbcSmallint, Some(5), Some(0)),
        DataType::Int32 => of("INTEGER", X::XdbcInteger, Some(10), Some(0)),
        DataType::Int64 => of("BIGINT", X::XdbcBigint, Some(19), Some(0)),
        DataType::UInt8 => of("TINYINT UNSIGNED", X::XdbcTinyint, Some(3), Some(0)),
        DataType::UInt16 => of("SMALLINT UNSIGNED", X::XdbcSmallint, Some(5), Some(0)),
        DataType::UInt32 => of("INTEGER UNSIGNED", X::XdbcInteger, Some(10), Some(0)),
        DataType::UInt64 => of("BIGINT UNSIGNED", X::XdbcBigint, Some(20), Some(0)),
        DataType::Float16 | DataType::Float32 => of("REAL", X::XdbcReal, Some(7), None),
        DataType::Float64 => of("DOUBLE", X::XdbcDouble, Some(15), None),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => of(
            "DECIMAL",
            X::XdbcDecimal,
            Some(i32::from(*p)),
            Some(i32::from(*s)),
        ),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            of("VARCHAR", X::XdbcVarchar, None, None)
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => of("VARBINARY", X::XdbcVarbinary, None, None),
        DataType::Date32 | DataType::Date64 => of("DATE", X::XdbcDate, Some(10), None),
        DataType::Time32(_) | DataType::Time64(_) => of("TIME", X::XdbcTime, Some(15), Some(6)),
        DataType::Timestamp(..) => of("TIMESTAMP", X::XdbcTimestamp, Some(26), Some(6)),
        DataType::Interval(_) | DataType::Duration(_) => {
            of("INTERVAL", X::XdbcInterval, None, None)
        }
        DataType::Null => of("NULL", X::XdbcUnknownType, None, None),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..) => of("ARRAY", X::XdbcUnknownType, None, None),
        DataType::Struct(_) => of("STRUCT", X::XdbcUnknownType, None, None),
        DataType::Map(..) => of("MAP", X::XdbcUnknownType, None, None),
        DataType::Union(..) => of("UNION", X::XdbcUnknownType, None, None),
        DataType::Dictionary(_, values) => sql_type(values),
        DataType::RunEndEncoded(_, values) => sql_type(values.data_type()),
    }
}

/// `schema` with the keys on every field. What a field says already stays;
/// a description becomes the remarks.
///
/// Columns of a result can only be read, whatever they come from.
pub(super) fn describe(schema: &Schema) -> SchemaRef {
    described(schema, &[])
}

/// The same for the columns of a relation, which `writable` ones name in an `INSERT`.
pub(super) fn describe_table(
    schema: &Schema,
    catalog: &str,
    db_schema: &str,
    table: &str,
    writable: bool,
) -> SchemaRef {
    described(
        schema,
        &[
            (CATALOG_NAME, catalog),
            (SCHEMA_NAME, db_schema),
            (TABLE_NAME, table),
            (IS_READ_ONLY, flag(!writable)),
        ],
    )
}

fn described(schema: &Schema, origin: &[(&str, &str)]) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let mut metadata = keys(field.data_type());
            for (key, value) in origin {
                metadata.insert((*key).to_owned(), (*value).to_owned());
            }
            for (key, value) in field.metadata() {
                metadata.insert(key.clone(), value.clone());
            }
            field.as_ref().clone().with_metadata(metadata)
        })
        .collect();
    Arc::new(Schema::new(fields).with_metadata(schema.metadata().clone()))
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}

fn keys(data_type: &DataType) -> HashMap<String, String> {
    let SqlType {
        name,
        xdbc: _,
        precision,
        scale,
    } = sql_type(data_type);
    let mut keys = HashMap::from([
        (TYPE_NAME.to_owned(), name.to_owned()),
        (IS_AUTO_INCREMENT.to_owned(), flag(false).to_owned()),
        (
            IS_CASE_SENSITIVE.to_owned(),
            flag(case_sensitive(data_type)).to_owned(),
        ),
        (IS_READ_ONLY.to_owned(), flag(true).to_owned()),
        (IS_SEARCHABLE.to_owned(), flag(true).to_owned()),
    ]);
    for (key, value) in [(PRECISION, precision), (SCALE, scale)] {
        if let Some(value) = value {
            keys.insert(key.to_owned(), value.to_string());
        }
    }
    keys
}
