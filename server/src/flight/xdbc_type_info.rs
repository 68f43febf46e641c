//! `CommandGetXdbcTypeInfo`: the SQL types that columns of results can have.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, IntervalUnit, TimeUnit};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode,
};
use featureflight_catalog::{Error, Result};

use super::Service;
use super::column_metadata::{case_sensitive, sql_type};

pub(super) fn batch(service: &Service, command: &CommandGetXdbcTypeInfo) -> Result<RecordBatch> {
    service
        .type_info
        .record_batch(command.data_type)
        .map_err(|error| failed(&error))
}

/// The table, made once.
///
/// # Errors
/// `Internal` when arrow-flight cannot build it.
pub(super) fn table() -> Result<XdbcTypeInfoData> {
    let mut table = XdbcTypeInfoDataBuilder::new();
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    for data_type in [
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(38, 38),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Interval(IntervalUnit::MonthDayNano),
        // XDBC has no codes for these.
        DataType::List(Arc::clone(&item)),
        DataType::Struct(Fields::empty()),
        DataType::Map(item, false),
    ] {
        table.append(row(&data_type));
    }
    table.build().map_err(|error| failed(&error))
}

fn row(data_type: &DataType) -> XdbcTypeInfo {
    let sql = sql_type(data_type);
    let decimal = matches!(data_type, DataType::Decimal128(..));
    let (prefix, suffix) = match data_type {
        DataType::Utf8 => (Some("'"), Some("'")),
        DataType::Binary => (Some("X'"), Some("'")),
        DataType::Date32 => (Some("DATE '"), Some("'")),
        DataType::Time64(_) => (Some("TIME '"), Some("'")),
        DataType::Timestamp(..) => (Some("TIMESTAMP '"), Some("'")),
        _ => (None, None),
    };
    let (concise, subcode) = match data_type {
        DataType::Date32 => (
            XdbcDataType::XdbcDatetime,
            Some(XdbcDatetimeSubcode::XdbcSubcodeYear),
        ),
        DataType::Time64(_) => (
            XdbcDataType::XdbcDatetime,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTime),
        ),
        DataType::Timestamp(..) => (
            XdbcDataType::XdbcDatetime,
            Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        ),
        _ => (sql.xdbc, None),
    };
    XdbcTypeInfo {
        type_name: sql.name.into(),
        data_type: sql.xdbc,
        column_size: sql.precision,
        literal_prefix: prefix.map(Into::into),
        literal_suffix: suffix.map(Into::into),
        create_params: decimal.then(|| vec!["precision".into(), "scale".into()]),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: case_sensitive(data_type),
        searchable: Searchable::Full,
        unsigned_attribute: data_type
            .is_numeric()
            .then(|| data_type.is_unsigned_integer()),
        fixed_prec_scale: false,
        auto_increment: data_type.is_numeric().then_some(false),
        local_type_name: Some(sql.name.into()),
        minimum_scale: sql.scale.map(|scale| if decimal { 0 } else { scale }),
        maximum_scale: sql.scale,
        sql_data_type: concise,
        datetime_subcode: subcode,
        num_prec_radix: data_type.is_numeric().then_some(10),
        interval_precision: None,
    }
}

fn failed(error: &arrow_flight::error::FlightError) -> Error {
    Error::internal(format!("XdbcTypeInfo: {error}"))
}
