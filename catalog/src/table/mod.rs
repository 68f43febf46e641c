//! What a snapshot can serve: a feature group's offline data ([`FeatureTable`]) and a Glue table
//! as it stands ([`RawTable`]), with the Arrow schemas of the relations made from them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use hashbrown::HashMap;

use crate::hive_type::parse_hive_type;
use crate::model::{FeatureDefinition, FeatureGroup, FeatureType, SYSTEM_COLUMNS};
use crate::source::{GlueColumn, GlueTable};
use crate::storage::Location;

/// Every timestamp inside and at the boundary: microseconds, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The stored form of the event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventTimeForm {
    /// ISO-8601 text.
    Text,
    /// Unix seconds as a double.
    Seconds,
}

/// The files of one relation, the key under which a pin remembers their listing.
#[derive(Debug, Clone)]
pub struct FileSet {
    pub location: Location,
    /// True for a feature group's data: `year=/month=/day=/hour=` folders are by event time.
    pub hourly: bool,
    /// The feature group whose versions these are, accepted ones without a file among them.
    pub group: Option<String>,
}

/// What a group's definition says about its columns, wherever its data is.
#[derive(Debug, Clone)]
pub struct Shape {
    pub event_time_form: EventTimeForm,
    /// Positions in the group's `feature_definitions`.
    pub record_identifier: usize,
    pub event_time: usize,
    /// One row per record: the definition's features. Text is `Utf8View`, the event time a
    /// [`timestamp_type`]; record identifier and event time are not nullable.
    pub state_schema: SchemaRef,
}

impl Shape {
    /// # Errors
    /// Why a group so defined is not served, as a clause for the user.
    pub fn new(group: &FeatureGroup) -> Result<Self, String> {
        let definitions = &group.feature_definitions;
        check_names(definitions)?;
        let mut fields = definitions
            .iter()
            .map(feature_field)
            .collect::<Result<Vec<_>, _>>()?;
        let record_identifier = position(
            group,
            "record identifier",
            &group.record_identifier_feature_name,
        )?;
        let event_time = position(group, "event time", &group.event_time_feature_name)?;
        if record_identifier == event_time {
            let name = &group.event_time_feature_name;
            return Err(format!(
                "feature '{name}' is both record identifier and event time"
            ));
        }
        let event_time_form = match definitions[event_time].feature_type {
            FeatureType::String => EventTimeForm::Text,
            FeatureType::Fractional => EventTimeForm::Seconds,
            _ => {
                let name = &group.event_time_feature_name;
                return Err(format!(
                    "event time '{name}' is neither String nor Fractional"
                ));
            }
        };
        fields[record_identifier].set_nullable(false);
        fields[event_time] = Field::new(&group.event_time_feature_name, timestamp_type(), false);
        Ok(Self {
            event_time_form,
            record_identifier,
            event_time,
            state_schema: Arc::new(Schema::new(fields)),
        })
    }
}

/// A feature group whose offline data can be read.
#[derive(Debug)]
pub struct FeatureTable {
    pub group: Arc<FeatureGroup>,
    pub files: FileSet,
    pub event_time_form: EventTimeForm,
    /// Positions in `group.feature_definitions`.
    pub record_identifier: usize,
    pub event_time: usize,
    /// As [`Shape::state_schema`].
    pub state_schema: SchemaRef,
    /// `state_schema`'s fields, then `write_time`, `api_invocation_time`, `is_deleted`. Features
    /// other than identifier and event time are nullable, and so is `write_time`: versions that are
    /// [`PENDING`](crate::unlanded::PENDING) have none yet.
    pub history_schema: SchemaRef,
}

impl FeatureTable {
    /// From the definition of a group and the place of its data files.
    ///
    /// # Errors
    /// Why a group so defined cannot be read, as a clause for the user.
    pub fn new(group: Arc<FeatureGroup>, location: Location) -> Result<Self, String> {
        let Shape {
            event_time_form,
            record_identifier,
            event_time,
            state_schema,
        } = Shape::new(&group)?;
        let [write_time, api_invocation_time, is_deleted] = system_fields();
        let system = [
            write_time.with_nullable(true),
            api_invocation_time,
            is_deleted,
        ];
        let system = system.into_iter().map(Arc::new);
        let fields = state_schema.fields().iter().cloned().chain(system);
        let history_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let files = FileSet {
            location,
            hourly: true,
            group: Some(group.feature_group_name.clone()),
        };
        Ok(Self {
            group,
            files,
            event_time_form,
            record_identifier,
            event_time,
            state_schema,
            history_schema,
        })
    }

    pub fn name(&self) -> &str {
        &self.group.feature_group_name
    }
}

/// Columns of data files match ignoring case, so names that differ only in case would be one.
fn check_names(definitions: &[FeatureDefinition]) -> Result<(), String> {
    let mut seen: HashMap<String, &str> = HashMap::with_capacity(definitions.len());
    for definition in definitions {
        let name = definition.feature_name.as_str();
        let folded = name.to_lowercase();
        if SYSTEM_COLUMNS.contains(&folded.as_str()) {
            return Err(format!(
                "feature '{name}' has a name the offline store reserves"
            ));
        }
        if let Some(first) = seen.insert(folded, name) {
            return Err(if first == name {
                format!("feature '{name}' is defined twice")
            } else {
                format!("features '{first}' and '{name}' differ only in case")
            });
        }
    }
    Ok(())
}

fn feature_field(definition: &FeatureDefinition) -> Result<Field, String> {
    let name = &definition.feature_name;
    if let Some(collection) = definition
        .other
        .get("CollectionType")
        .filter(|v| !v.is_null())
    {
        let collection = collection.as_str().unwrap_or("unknown");
        return Err(format!(
            "feature '{name}' is a collection ({collection}), which the offline store does not hold"
        ));
    }
    match (
        &definition.feature_type,
        feature_type(&definition.feature_type),
    ) {
        (_, Some(data_type)) => Ok(Field::new(name, data_type, true)),
        (FeatureType::Other(kind), None) => Err(format!(
            "feature '{name}' has type '{kind}', which this version does not know"
        )),
        (_, None) => Err(format!(
            "feature '{name}' has a type this version does not know"
        )),
    }
}

fn position(group: &FeatureGroup, role: &str, name: &str) -> Result<usize, String> {
    group
        .feature_definitions
        .iter()
        .position(|definition| definition.feature_name == name)
        .ok_or_else(|| format!("{role} '{name}' is not among its feature definitions"))
}

/// The Arrow type a feature has in `features` and `history`; `None` for a type this build does
/// not know.
pub fn feature_type(kind: &FeatureType) -> Option<DataType> {
    match kind {
        FeatureType::Integral => Some(DataType::Int64),
        FeatureType::Fractional => Some(DataType::Float64),
        FeatureType::String => Some(DataType::Utf8View),
        FeatureType::Other(_) => None,
    }
}

/// A Glue table as it stands.
#[derive(Debug)]
pub struct RawTable {
    /// Lowercase, as Glue stores them.
    pub database: String,
    pub name: String,
    pub files: FileSet,
    /// Data columns as stored (text as `Utf8View`, timestamps as [`timestamp_type`]), then the
    /// partition keys.
    pub schema: SchemaRef,
    /// How many trailing fields of `schema` are partition keys, read from `key=value` folders.
    pub partition_keys: usize,
    /// The feature group that claims this table, by name.
    pub feature_group: Option<String>,
}

impl RawTable {
    /// From a Glue table, the place its location resolves to, and the feature group that claims
    /// it. Column names are lowercased, as Athena shows them.
    ///
    /// # Errors
    /// Why a table so defined cannot be read, as a clause for the user.
    pub fn new(
        table: &GlueTable,
        location: Location,
        feature_group: Option<String>,
    ) -> Result<Self, String> {
        check_format(table)?;
        let mut fields: Vec<Field> = Vec::new();
        for column in table.columns.iter().chain(&table.partition_keys) {
            let field = raw_field(column)?;
            if fields.iter().any(|known| known.name() == field.name()) {
                return Err(format!("column '{}' is declared twice", field.name()));
            }
            fields.push(field);
        }
        if table.columns.is_empty() {
            return Err("the table declares no columns".to_owned());
        }
        Ok(Self {
            database: table.database.to_lowercase(),
            name: table.name.to_lowercase(),
            files: FileSet {
                location,
                hourly: false,
                group: None,
            },
            schema: Arc::new(Schema::new(fields)),
            partition_keys: table.partition_keys.len(),
            feature_group,
        })
    }
}

fn raw_field(column: &GlueColumn) -> Result<Field, String> {
    let name = column.name.to_lowercase();
    let data_type = parse_hive_type(&column.hive_type)
        .map_err(|why| format!("column '{name}' cannot be read: {why}"))?;
    Ok(Field::new(name, data_type, true))
}

/// Only plain Parquet folders can be read as they stand: other table formats keep the list of
/// their valid files elsewhere, and reading the folder would return rows that no longer count.
fn check_format(table: &GlueTable) -> Result<(), String> {
    let parameter = |key: &str| {
        table
            .parameters
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
    };
    let format = parameter("table_type");
    if format.eq_ignore_ascii_case("iceberg") {
        return Err("Iceberg tables are not served yet".to_owned());
    }
    let provider = parameter("spark.sql.sources.provider");
    for other in ["delta", "hudi"] {
        if format.eq_ignore_ascii_case(other) || provider.eq_ignore_ascii_case(other) {
            return Err(format!("tables in {other} format are not served"));
        }
    }
    let known = |class: &str, name: &str| class.rsplit('.').next() == Some(name);
    match &table.serde {
        Some(class) if known(class, "ParquetHiveSerDe") => {}
        Some(class) => return Err(format!("its SerDe '{class}' does not read Parquet")),
        None if parameter("classification").eq_ignore_ascii_case("parquet") => {}
        None => {
            return Err("it names no SerDe, so its files are not known to be Parquet".to_owned());
        }
    }
    match &table.input_format {
        Some(class)
            if !known(class, "MapredParquetInputFormat")
                && !known(class, "DeprecatedParquetInputFormat") =>
        {
            Err(format!("its input format '{class}' is not plain Parquet"))
        }
        _ => Ok(()),
    }
}

/// The three columns the offline store adds, none nullable.
pub fn system_fields() -> [Field; 3] {
    [
        Field::new("write_time", timestamp_type(), false),
        Field::new("api_invocation_time", timestamp_type(), false),
        Field::new("is_deleted", DataType::Boolean, false),
    ]
}

#[cfg(test)]
mod tests;
