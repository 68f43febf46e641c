//! The spine's side of a point-in-time join: its columns by name, its time, its keys.

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, TableReference};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::Ident;
use featureflight_catalog::table::{FeatureTable, timestamp_type};
use featureflight_catalog::{Error, Result};

use super::error::{classify, missing, sql_type};
use super::names::{matches, quote, spelled};

/// The column `path` (one part, or with qualifiers) names.
///
/// # Errors
/// `InvalidArgument` with the spine's columns when there is none, when several match.
pub(super) fn column(path: &[Ident], schema: &DFSchema) -> Result<Column> {
    let Some((name, qualifier)) = path.split_last() else {
        return Err(Error::invalid("an empty column name"));
    };
    let found: Vec<Column> = schema
        .iter()
        .filter(|(table, field)| matches(name, field.name()) && qualified(*table, qualifier))
        .map(Column::from)
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::invalid(missing(
            "column",
            &format!("{} in the spine", spelled(path)),
            schema.fields().iter().map(|field| field.name().as_str()),
        ))),
        several => {
            let forms: Vec<String> = several.iter().map(|column| quote(&column.name)).collect();
            Err(Error::invalid(format!(
                "column {} of the spine is ambiguous: {}",
                spelled(path),
                forms.join(", ")
            )))
        }
    }
}

fn qualified(table: Option<&TableReference>, qualifier: &[Ident]) -> bool {
    let Some(last) = qualifier.last() else {
        return true;
    };
    table.is_some_and(|table| matches(last, table.table()))
}

/// The spine's only timestamp column.
///
/// # Errors
/// `InvalidArgument` that lists the candidates when there is not exactly one.
pub(super) fn only_timestamp(schema: &DFSchema) -> Result<Expr> {
    let of = |wanted: fn(&DataType) -> bool| {
        schema
            .iter()
            .filter(|(_, field)| wanted(field.data_type()))
            .map(Column::from)
            .collect()
    };
    let timestamps: Vec<Column> = of(|kind| matches!(kind, DataType::Timestamp(..)));
    match timestamps.as_slice() {
        [one] => return Ok(Expr::Column(one.clone())),
        [] => {}
        several => {
            let names: Vec<&str> = several.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::invalid(format!(
                "the spine has several timestamp columns; choose one with event_time => '...': {}",
                names.join(", ")
            )));
        }
    }
    let dates: Vec<Column> = of(|kind| matches!(kind, DataType::Date32 | DataType::Date64));
    let hint = if dates.is_empty() {
        "make one with CAST(... AS TIMESTAMP)".to_owned()
    } else {
        let names: Vec<&str> = dates.iter().map(|column| column.name.as_str()).collect();
        format!(
            "a date column means midnight UTC when named with event_time => '...': {}",
            names.join(", ")
        )
    };
    Err(Error::invalid(format!(
        "the spine has no timestamp column; {hint}"
    )))
}

/// `expr` as a time of the spine's rows: a timestamp or a date as it is.
///
/// # Errors
/// `InvalidArgument` for other types.
pub(super) fn time(argument: &str, expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match expr.get_type(schema).map_err(classify)? {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Ok(expr),
        DataType::Null => expr.cast_to(&timestamp_type(), schema).map_err(classify),
        other => Err(Error::invalid(format!(
            "{argument}: {expr} is {}, not a timestamp or a date; write CAST({expr} AS TIMESTAMP)",
            sql_type(&other)
        ))),
    }
}

/// The spine column of the record identifier's name: exactly, else ignoring case.
///
/// # Errors
/// `InvalidArgument` that shows how to name another column.
pub(super) fn default_key(table: &FeatureTable, schema: &DFSchema) -> Result<Column> {
    let identifier = &table.group.record_identifier_feature_name;
    let exact = Ident::with_quote('"', identifier);
    if schema
        .fields()
        .iter()
        .any(|field| field.name() == identifier)
    {
        return column(&[exact], schema);
    }
    if schema
        .fields()
        .iter()
        .any(|field| field.name().eq_ignore_ascii_case(identifier))
    {
        return column(&[Ident::new(identifier)], schema);
    }
    let columns: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    Err(Error::invalid(format!(
        "the spine has no column {identifier}, the record identifier of feature group {name}; name \
         another with keys => '{name}.{identifier} = spine_column'; the spine has: {}",
        columns.join(", "),
        name = table.name(),
    )))
}

/// `expr` cast to the record identifier's type, where every value has exactly one counterpart.
///
/// # Errors
/// `InvalidArgument` that shows the cast to write.
pub(super) fn key(table: &FeatureTable, expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let identifier = table.state_schema.field(table.record_identifier);
    let (from, to) = (
        expr.get_type(schema).map_err(classify)?,
        identifier.data_type(),
    );
    if exactly(&from, to) {
        return expr.cast_to(to, schema).map_err(classify);
    }
    let (from, to) = (sql_type(&from), sql_type(to));
    Err(Error::invalid(format!(
        "{expr} is {from}, the record identifier {}.{} is {to}: write CAST({expr} AS {to})",
        table.name(),
        identifier.name()
    )))
}

fn exactly(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Dictionary, Float16, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, Null, UInt8,
        UInt16, UInt32, Utf8, Utf8View,
    };
    match (from, to) {
        (Dictionary(_, value), to) => exactly(value, to),
        (Null, _)
        | (Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32, Int64)
        | (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Float16 | Float32 | Float64, Float64)
        | (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        _ => from == to,
    }
}
