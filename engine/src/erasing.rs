//! Statements that erase for good: `DROP TABLE` of a feature group, and `CALL forget('group', 'record')`,
//! which takes every version of a record away.

use std::sync::{Arc, LazyLock};

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};
use featureflight_online::erase::{Eraser, Forgotten};
use featureflight_online::record::fractional;
use featureflight_udf::Clocks;
use featureflight_udf::planner::{defined_group, group_argument};

use crate::pinning::Scope;
use crate::settings::Setting;
use crate::views::{DropTemporaries, folded};
use crate::writes::{refuse_clocks, unheeded};

/// The feature group that `DROP TABLE` names; `None` when it names something else.
///
/// # Errors
/// `InvalidArgument` when it names others beside it.
pub(crate) fn dropped_group(
    scope: &Scope,
    drop: &DropTemporaries,
) -> Result<Option<Arc<FeatureGroup>>> {
    if drop.views {
        return Ok(None);
    }
    for name in &drop.names {
        let Some(group) = named(scope, name)? else {
            continue;
        };
        if drop.names.len() > 1 {
            return Err(Error::invalid(
                "DROP TABLE drops one feature group at a time: name it alone",
            ));
        }
        return Ok(Some(group));
    }
    Ok(None)
}

fn named(scope: &Scope, name: &ast::ObjectName) -> Result<Option<Arc<FeatureGroup>>> {
    let ground = scope.ground(Clocks::default());
    if let Some(group) = defined_group(&ground.state, name, &ground.context)? {
        return Ok(Some(group));
    }
    // A drop that failed on the way is repeated by its name alone.
    let ident = name.0.last().and_then(|part| part.as_ident());
    let (Some(ident), Some(gateway)) = (ident, scope.core.writes.through()) else {
        return Ok(None);
    };
    let eraser = Eraser::new(gateway, &scope.core.catalog);
    Ok(eraser.unfinished(&folded(ident)))
}

/// What drops `group`, if that is allowed.
///
/// # Errors
/// `FailedPrecondition` that names the setting which allows it, and why this server or session writes
/// nothing.
pub(crate) fn may_drop(scope: &Scope, group: &FeatureGroup) -> Result<Eraser> {
    let name = &group.feature_group_name;
    let gateway = scope.core.writes.gateway(name)?;
    refuse_clocks(scope.session.settings.clocks)?;
    if !scope.session.settings.allow_drop {
        return Err(Error::precondition(format!(
            "DROP TABLE would delete feature group '{name}' with all its records: SET {} = true first",
            Setting::AllowDrop
        )));
    }
    Ok(Eraser::new(gateway, &scope.core.catalog))
}

/// Drops `group`; what to say of it.
///
/// # Errors
/// Those of [`may_drop`] and [`Eraser::drop_group`].
pub(crate) async fn drop_group(scope: &Scope, group: Arc<FeatureGroup>) -> Result<String> {
    let eraser = may_drop(scope, &group)?;
    let kept = if eraser.owns_files() {
        String::new()
    } else {
        kept(&group)
    };
    eraser.drop_group(group).await?;
    Ok(format!("OK{kept}"))
}

/// What SageMaker leaves of a group, as a clause.
fn kept(group: &FeatureGroup) -> String {
    let files = group.data_url().map(|url| format!("the files in {url}"));
    let table = group.glue_names();
    let table = table.map(|(database, name)| format!("the Glue table {database}.{name}"));
    let kept: Vec<String> = files.into_iter().chain(table).collect();
    if kept.is_empty() {
        return String::new();
    }
    format!(": SageMaker keeps {}", kept.join(" and "))
}

const FORM: &str = "CALL forget('group', 'record identifier')";

static FORGOTTEN: LazyLock<SchemaRef> = LazyLock::new(|| {
    let counts = ["outbox_rows", "files", "file_rows"];
    let counts = counts.map(|name| Field::new(name, DataType::Int64, false));
    let online = Field::new("online", DataType::Boolean, false);
    let fields: Vec<Field> = counts.into_iter().chain([online]).collect();
    Arc::new(Schema::new(fields))
});

/// Rows in the outbox, files that were written again and versions in them, and whether the online store
/// had the record.
pub(crate) fn forgotten_schema() -> SchemaRef {
    Arc::clone(&FORGOTTEN)
}

/// A record that is to be forgotten.
#[derive(Debug)]
pub(crate) struct Forgetting {
    eraser: Eraser,
    table: Arc<FeatureTable>,
    record: String,
}

impl Forgetting {
    /// # Errors
    /// `InvalidArgument` for other arguments than a group and a record identifier, and those of the group's
    /// name; why this server or session writes nothing.
    pub(crate) fn plan(scope: &Scope, call: &ast::Function) -> Result<Self> {
        let (group, record) = arguments(call)?;
        let ground = scope.ground(Clocks::default());
        let table = group_argument(&ground.state, "forget", group, &ground.context)?;
        let gateway = scope.core.writes.gateway(table.name())?;
        refuse_clocks(scope.session.settings.clocks)?;
        Ok(Self {
            eraser: Eraser::new(gateway, &scope.core.catalog),
            record: identifier(&table, record)?,
            table,
        })
    }

    /// # Errors
    /// Those of [`Eraser::forget`].
    pub(crate) async fn carry_out(self) -> Result<RecordBatch> {
        let Forgotten {
            outbox_rows,
            files,
            file_rows,
            online,
        } = self.eraser.forget(self.table, self.record).await?;
        let count = |count: u64| Arc::new(Int64Array::from(vec![count.cast_signed()])) as _;
        let online = Arc::new(BooleanArray::from(vec![online])) as _;
        let columns = vec![count(outbox_rows), count(files), count(file_rows), online];
        RecordBatch::try_new(forgotten_schema(), columns).map_err(crate::error::internal)
    }
}

fn arguments(call: &ast::Function) -> Result<(&ast::Expr, &ast::Expr)> {
    let ast::FunctionArguments::List(list) = &call.args else {
        return Err(unheeded(FORM));
    };
    let plain = list.clauses.is_empty() && list.duplicate_treatment.is_none();
    match list.args.as_slice() {
        [
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(group)),
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(record)),
        ] if plain => Ok((group, record)),
        _ => Err(unheeded(FORM)),
    }
}

/// A record identifier in the text that stores have it in.
fn identifier(table: &FeatureTable, written: &ast::Expr) -> Result<String> {
    let wrong = |wanted: &str| {
        Error::invalid(format!(
            "forget: {written} is no record identifier of '{}', which is {wanted}",
            table.name()
        ))
    };
    let kind = table
        .state_schema
        .field(table.record_identifier)
        .data_type();
    let text = match kind {
        DataType::Int64 | DataType::Float64 => number(written),
        _ => None,
    };
    match (text.or_else(|| quoted(written)), kind) {
        (Some(text), DataType::Int64) => {
            let number: i64 = text.parse().map_err(|_| wrong("a whole number"))?;
            Ok(number.to_string())
        }
        (Some(text), DataType::Float64) => {
            let number: f64 = text.parse().map_err(|_| wrong("a number"))?;
            Ok(fractional(number))
        }
        (Some(text), _) => Ok(text),
        (None, DataType::Int64 | DataType::Float64) => Err(wrong("a number")),
        (None, _) => Err(wrong("text in single quotes")),
    }
}

fn quoted(written: &ast::Expr) -> Option<String> {
    match written {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn number(written: &ast::Expr) -> Option<String> {
    match written {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        ast::Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr,
        } => Some(format!("-{}", number(expr)?)),
        _ => None,
    }
}
