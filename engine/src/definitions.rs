//! Statements that define feature groups: `CREATE TABLE` and `ALTER TABLE ... ADD COLUMN`.
//!
//! ```text
//! CREATE TABLE g (id VARCHAR, event_time TIMESTAMP, ..., PRIMARY KEY (id))
//!   WITH (event_time = 'event_time', online = true, ttl = '30 days')
//! ```

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::model::{FeatureDefinition, FeatureGroup, FeatureType};
use featureflight_catalog::table::Shape;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_online::erase::Eraser;
use featureflight_online::group::MAX_FEATURES;
use featureflight_udf::Clocks;
use featureflight_udf::planner::names::FEATURES;
use serde_json::{Map, Value, json};

use crate::metadata::CATALOG;
use crate::pinning::Scope;
use crate::views::{folded, shadowed};
use crate::writes::unheeded;

const FORM: &str = "CREATE TABLE group (id VARCHAR, event_time TIMESTAMP, ..., PRIMARY KEY (id)) WITH \
                    (event_time = 'event_time', online = true, ttl = '30 days')";

const TYPES: &str = "text (VARCHAR, TEXT, STRING) is String; BIGINT and smaller integers are \
                     Integral; DOUBLE, FLOAT and REAL are Fractional; the event time may be \
                     TIMESTAMP, text or DOUBLE";

/// A definition, or a change of one.
#[derive(Debug)]
pub(crate) enum Definition {
    Create {
        if_not_exists: bool,
        group: Box<FeatureGroup>,
    },
    AddFeatures {
        name: ast::ObjectName,
        features: Vec<FeatureDefinition>,
    },
}

impl Definition {
    /// # Errors
    /// `InvalidArgument` for what no feature group can be, and clauses that nothing would read.
    pub(crate) fn create(table: ast::CreateTable) -> Result<Self> {
        let read = ast::CreateTable {
            if_not_exists: table.if_not_exists,
            columns: table.columns.clone(),
            constraints: table.constraints.clone(),
            table_options: table.table_options.clone(),
            ..plain(&table.name)?
        };
        if table != read {
            return Err(unheeded(FORM));
        }
        let options = Options::read(&table.table_options)?;
        let identifier = record_identifier(&table)?;
        let event_time = match options.event_time {
            Some(name) => name,
            None => only_timestamp(&table.columns)?,
        };
        let features = table.columns.iter().map(|column| {
            let name = folded(&column.name);
            check_options(column, name == identifier || name == event_time)?;
            feature(name.clone(), &column.data_type, name == event_time)
        });
        let feature_definitions = features.collect::<Result<_>>()?;
        let group = FeatureGroup {
            feature_group_name: name_of(&table.name)?,
            record_identifier_feature_name: identifier,
            event_time_feature_name: event_time,
            feature_definitions,
            feature_group_arn: None,
            offline_store_config: None,
            feature_group_status: None,
            description: None,
            other: options.online,
        };
        check(&group)?;
        Ok(Self::Create {
            if_not_exists: table.if_not_exists,
            group: Box::new(group),
        })
    }

    /// # Errors
    /// `InvalidArgument` for anything but added columns.
    pub(crate) fn alter(alter: ast::AlterTable) -> Result<Self> {
        let other = || {
            Error::invalid(
                "a feature group only gains features: write ALTER TABLE group ADD COLUMN feature \
                 type, ...",
            )
        };
        let added = alter.operations.iter().map(|operation| match operation {
            ast::AlterTableOperation::AddColumn {
                if_not_exists: false,
                column_def,
                column_position: None,
                ..
            } => {
                check_options(column_def, false)?;
                feature(folded(&column_def.name), &column_def.data_type, false)
            }
            _ => Err(other()),
        });
        let features = added.collect::<Result<Vec<_>>>()?;
        let plain = !alter.if_exists && !alter.only && alter.location.is_none();
        if !plain || alter.on_cluster.is_some() || alter.table_type.is_some() {
            return Err(other());
        }
        Ok(Self::AddFeatures {
            name: alter.name,
            features,
        })
    }

    /// Whether there is something to do.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound`, and why feature groups cannot be defined here.
    pub(crate) fn check(&self, scope: &Scope) -> Result<bool> {
        match self {
            Self::Create {
                if_not_exists,
                group,
            } => {
                let name = &group.feature_group_name;
                let gateway = scope.core.writes.gateway(name)?;
                let eraser = Eraser::new(gateway, &scope.core.catalog);
                if eraser.unfinished(name).is_some() {
                    return Err(Error::precondition(format!(
                        "feature group `{name}` is not dropped as a whole yet: wait for its DROP \
                         TABLE, or run it again if it failed"
                    )));
                }
                let snapshot = scope.core.catalog.snapshot();
                let hidden = shadowed(&snapshot, name);
                if hidden.is_some() && *if_not_exists && snapshot.groups.contains_key(name) {
                    return Ok(false);
                }
                let temporary = scope.session.tables.contains_key(name)
                    || scope.session.views.contains_key(name);
                let taken = hidden.or_else(|| temporary.then(|| format!("temporary `{name}`")));
                match taken {
                    None => Ok(true),
                    Some(taken) => Err(Error::new(
                        Kind::AlreadyExists,
                        format!("feature group `{name}` would hide {taken}: choose another name"),
                    )),
                }
            }
            Self::AddFeatures { name, features } => {
                let ground = scope.ground(Clocks::default());
                let (state, context) = (&ground.state, &ground.context);
                let group = featureflight_udf::planner::write_target(state, name, context)?;
                scope.core.writes.gateway(&group.feature_group_name)?;
                let mut group = FeatureGroup::clone(&group);
                group.feature_definitions.extend(features.iter().cloned());
                check(&group)?;
                Ok(true)
            }
        }
    }

    /// Has the effect; what was defined can be written when this returns.
    ///
    /// # Errors
    /// As [`Self::check`], and those of the catalog's source.
    pub(crate) async fn apply(self, scope: &Scope) -> Result<()> {
        if !self.check(scope)? {
            return Ok(());
        }
        let catalog = &scope.core.catalog;
        match self {
            Self::Create { group, .. } => catalog.create_group(*group).await,
            Self::AddFeatures { name, features } => {
                let ground = scope.ground(Clocks::default());
                let (state, context) = (&ground.state, &ground.context);
                let group = featureflight_udf::planner::write_target(state, &name, context)?;
                let name = &group.feature_group_name;
                catalog.add_features(name, features).await
            }
        }
    }
}

/// # Errors
/// `InvalidArgument` for a definition that no group can have.
fn check(group: &FeatureGroup) -> Result<()> {
    let name = &group.feature_group_name;
    Shape::new(group).map_err(|why| {
        Error::invalid(format!(
            "feature group `{name}` cannot be so defined: {why}"
        ))
    })?;
    let count = group.feature_definitions.len();
    if count > MAX_FEATURES {
        return Err(Error::invalid(format!(
            "feature group `{name}` would have {count} features, more than {MAX_FEATURES}"
        )));
    }
    Ok(())
}

/// `CREATE TABLE name (x INT)`.
fn plain(name: &ast::ObjectName) -> Result<ast::CreateTable> {
    let text = format!("CREATE TABLE {name} (x INT)");
    match featureflight_udf::dialect::parse(&text)? {
        Statement::Statement(statement) => match *statement {
            ast::Statement::CreateTable(table) => Ok(table),
            _ => Err(unheeded(FORM)),
        },
        _ => Err(unheeded(FORM)),
    }
}

/// The name of the group: bare, or in `features`.
fn name_of(name: &ast::ObjectName) -> Result<String> {
    let path: Option<Vec<&ast::Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    let is = |ident: &ast::Ident, wanted: &str| ident.value.eq_ignore_ascii_case(wanted);
    match path.unwrap_or_default().as_slice() {
        [table] => Ok(folded(table)),
        [schema, table] if is(schema, FEATURES) => Ok(folded(table)),
        [catalog, schema, table] if is(catalog, CATALOG) && is(schema, FEATURES) => {
            Ok(folded(table))
        }
        _ => Err(Error::invalid(format!(
            "{name} cannot name a feature group: write name or {FEATURES}.name"
        ))),
    }
}

/// What stands in `WITH (...)`.
struct Options {
    event_time: Option<String>,
    /// `OnlineStoreConfig`, as a description has it.
    online: Map<String, Value>,
}

impl Options {
    fn read(options: &ast::CreateTableOptions) -> Result<Self> {
        let options = match options {
            ast::CreateTableOptions::None => &[][..],
            ast::CreateTableOptions::With(options) => options,
            _ => return Err(unheeded(FORM)),
        };
        let mut event_time = None;
        let mut config = json!({"EnableOnlineStore": true});
        for option in options {
            let ast::SqlOption::KeyValue { key, value } = option else {
                return Err(unheeded(FORM));
            };
            let text = match value {
                ast::Expr::Value(value) => match &value.value {
                    ast::Value::SingleQuotedString(text) => text.clone(),
                    other => other.to_string(),
                },
                other => other.to_string(),
            };
            match key.value.to_lowercase().as_str() {
                "event_time" => event_time = Some(text),
                "online" => {
                    let online: bool = text.to_lowercase().parse().map_err(|_| {
                        Error::invalid(format!("online is true or false, not `{text}`"))
                    })?;
                    config["EnableOnlineStore"] = online.into();
                }
                "ttl" => config["TtlDuration"] = ttl(&text)?,
                other => {
                    return Err(Error::invalid(format!(
                        "there is no option `{other}`: the options are event_time, online, ttl"
                    )));
                }
            }
        }
        if config["EnableOnlineStore"] == false && config.get("TtlDuration").is_some() {
            return Err(Error::invalid(
                "ttl is the online store's: leave it out, or say online",
            ));
        }
        let online = [("OnlineStoreConfig".to_owned(), config)];
        Ok(Self {
            event_time,
            online: online.into_iter().collect(),
        })
    }
}

fn ttl(text: &str) -> Result<Value> {
    let wrong = || {
        Error::invalid(format!(
            "`{text}` is no time to live: write a whole number above zero and seconds, minutes, \
             hours, days or weeks"
        ))
    };
    let (number, unit) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let unit = match unit.trim().trim_end_matches('s').to_lowercase().as_str() {
        "second" => "Seconds",
        "minute" => "Minutes",
        "hour" => "Hours",
        "day" => "Days",
        "week" => "Weeks",
        _ => return Err(wrong()),
    };
    if number == 0 {
        return Err(wrong());
    }
    Ok(json!({"Unit": unit, "Value": number}))
}

/// The column of `PRIMARY KEY`.
fn record_identifier(table: &ast::CreateTable) -> Result<String> {
    let missing = || {
        Error::invalid(format!(
            "the record identifier is missing, or several columns are it: write {FORM}"
        ))
    };
    let mut keys = Vec::new();
    for column in &table.columns {
        let is_key = |option: &&ast::ColumnOptionDef| {
            matches!(option.option, ast::ColumnOption::PrimaryKey(_))
        };
        keys.extend(
            column
                .options
                .iter()
                .filter(is_key)
                .map(|_| folded(&column.name)),
        );
    }
    for constraint in &table.constraints {
        let ast::TableConstraint::PrimaryKey(key) = constraint else {
            return Err(unheeded(FORM));
        };
        for column in &key.columns {
            match &column.column.expr {
                ast::Expr::Identifier(name) => keys.push(folded(name)),
                _ => return Err(missing()),
            }
        }
    }
    match keys.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(missing()),
    }
}

fn only_timestamp(columns: &[ast::ColumnDef]) -> Result<String> {
    let is_time =
        |column: &&ast::ColumnDef| matches!(column.data_type, ast::DataType::Timestamp(..));
    let mut times = columns.iter().filter(is_time);
    match (times.next(), times.next()) {
        (Some(one), None) => Ok(folded(&one.name)),
        _ => Err(Error::invalid(format!(
            "say which column is the event time: WITH (event_time = '...'); write {FORM}"
        ))),
    }
}

/// `NOT NULL` where it holds anyway, and `PRIMARY KEY`, which is read elsewhere.
fn check_options(column: &ast::ColumnDef, never_null: bool) -> Result<()> {
    let heeded = |option: &ast::ColumnOptionDef| match option.option {
        ast::ColumnOption::PrimaryKey(_) | ast::ColumnOption::Null => true,
        ast::ColumnOption::NotNull => never_null,
        _ => false,
    };
    if column.options.iter().all(heeded) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "column {} has a constraint that a feature store does not keep: leave it out",
        column.name
    )))
}

fn feature(name: String, kind: &ast::DataType, event_time: bool) -> Result<FeatureDefinition> {
    use ast::DataType as T;
    let feature_type = match kind {
        T::Varchar(_) | T::Text | T::String(_) | T::Char(_) | T::CharVarying(_) => {
            FeatureType::String
        }
        T::BigInt(_) | T::Int(_) | T::Integer(_) | T::SmallInt(_) | T::TinyInt(_) => {
            FeatureType::Integral
        }
        T::Double(_) | T::DoublePrecision | T::Float(_) | T::Real => FeatureType::Fractional,
        T::Timestamp(..) if event_time => FeatureType::String,
        other => {
            return Err(Error::invalid(format!(
                "column `{name}` is {other}, which no feature can be: {TYPES}"
            )));
        }
    };
    Ok(FeatureDefinition {
        feature_name: name,
        feature_type,
        other: Map::new(),
    })
}
