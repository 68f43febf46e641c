//! Which statements are the session's own: those with an effect on it, those that show it,
//! definitions and writes. The rest is for the planner, which refuses what is not a query.

use datafusion::sql::parser::{ResetStatement, Statement};
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::{Error, Result};

use crate::definitions::Definition;
use crate::query::figures::Purpose;
use crate::settings::Setting;
use crate::views::{CreateView, DropTemporaries};
use crate::writes::optimized_table;

/// One parsed statement.
#[derive(Debug)]
pub(crate) enum Command {
    /// A query, `EXPLAIN` of one, `SHOW TABLES` and its like, or what planning will refuse.
    Query(Statement),
    /// `None`: back to its default.
    Set(Setting, Option<ast::Expr>),
    Reset(Vec<Setting>),
    Show(Vec<Setting>),
    Use(ast::ObjectName),
    CreateView(Box<CreateView>),
    Drop(DropTemporaries),
    /// The query of this id.
    Cancel(String),
    /// A record in quarantine, and what becomes of it.
    Quarantined(Fate, u64),
    Define(Box<Definition>),
    /// `CALL forget(...)`.
    Forget(Box<ast::Function>),
    Insert(Box<ast::Insert>),
    Delete(Box<ast::Delete>),
    /// Joins small files of this table.
    Optimize(ast::ObjectName),
}

impl Command {
    pub(crate) fn purpose(&self) -> Purpose {
        match self {
            Self::Insert(_) | Self::Delete(_) => Purpose::Write,
            Self::Optimize(_) => Purpose::Command,
            effect if effect.is_effect() => Purpose::Command,
            _ => Purpose::Query,
        }
    }

    /// Whether it changes something instead of answering rows. A statement that does both answers
    /// rows: drivers show none of what they run as an update.
    pub(crate) fn is_effect(&self) -> bool {
        match self {
            Self::Query(_) | Self::Show(_) | Self::Optimize(_) => false,
            Self::Set(..)
            | Self::Reset(_)
            | Self::Use(_)
            | Self::CreateView(_)
            | Self::Drop(_)
            | Self::Cancel(_)
            | Self::Quarantined(..)
            | Self::Define(_)
            | Self::Forget(_)
            | Self::Insert(_)
            | Self::Delete(_) => true,
        }
    }
}

/// # Errors
/// `InvalidArgument` for a malformed statement of the session's.
pub(crate) fn classify(statement: Statement) -> Result<Command> {
    match statement {
        Statement::Statement(inner) => classify_sql(*inner),
        Statement::Reset(ResetStatement::Variable(name)) => {
            Ok(Command::Reset(Setting::several(&parts(&name))?))
        }
        other => Ok(Command::Query(other)),
    }
}

fn classify_sql(statement: ast::Statement) -> Result<Command> {
    use ast::Statement as S;
    match statement {
        S::Set(set) => classify_set(set),
        S::ShowVariable { variable } => {
            let parts: Vec<_> = variable.iter().map(|part| part.value.clone()).collect();
            Ok(Command::Show(Setting::several(&parts)?))
        }
        S::Use(ast::Use::Object(name) | ast::Use::Schema(name) | ast::Use::Database(name)) => {
            Ok(Command::Use(name))
        }
        S::CreateView(view) => Ok(Command::CreateView(Box::new(CreateView::new(view)?))),
        S::Drop {
            object_type: kind @ (ast::ObjectType::View | ast::ObjectType::Table),
            if_exists,
            names,
            cascade,
            ..
        } => {
            if cascade {
                return Err(Error::invalid(
                    "DROP has no CASCADE here: name each view and table",
                ));
            }
            Ok(Command::Drop(DropTemporaries {
                views: kind == ast::ObjectType::View,
                names,
                if_exists,
            }))
        }
        S::Call(call) if is_forget(&call) => Ok(Command::Forget(Box::new(call))),
        S::Call(call) => match (cancelled_query(&call), quarantined(&call)?) {
            (Some(id), _) => Ok(Command::Cancel(id)),
            (_, Some((fate, id))) => Ok(Command::Quarantined(fate, id)),
            (None, None) => Ok(Command::Query(Statement::Statement(Box::new(S::Call(
                call,
            ))))),
        },
        S::CreateTable(table) if !table.temporary && table.query.is_none() => {
            Ok(Command::Define(Box::new(Definition::create(table)?)))
        }
        S::AlterTable(alter) => Ok(Command::Define(Box::new(Definition::alter(alter)?))),
        S::Insert(insert) => Ok(Command::Insert(Box::new(insert))),
        S::Delete(delete) => Ok(Command::Delete(Box::new(delete))),
        statement @ S::OptimizeTable { .. } => Ok(Command::Optimize(optimized_table(statement)?)),
        S::Update(_) | S::Merge(_) => Err(Error::invalid(
            "UPDATE and MERGE are not supported: a put replaces its whole record, so INSERT the \
             record as it is to be, with a later event time",
        )),
        other => Ok(Command::Query(Statement::Statement(Box::new(other)))),
    }
}

fn classify_set(set: ast::Set) -> Result<Command> {
    match set {
        ast::Set::SingleAssignment {
            scope: None,
            hivevar: false,
            variable,
            mut values,
        } => {
            let setting = Setting::named(&parts(&variable))?;
            match (values.pop(), values.is_empty()) {
                (Some(value), true) => Ok(Command::Set(
                    setting,
                    (!is_default(&value)).then_some(value),
                )),
                _ => Err(Error::invalid(format!("SET {setting} takes one value"))),
            }
        }
        ast::Set::SingleAssignment { .. } => Err(Error::invalid(
            "SET takes no scope here: settings are the session's",
        )),
        other => Err(Error::invalid(format!(
            "{other}: settings are set one by one, SET featureflight.NAME = VALUE"
        ))),
    }
}

/// `NULL` and `DEFAULT` both mean the default.
fn is_default(value: &ast::Expr) -> bool {
    match value {
        ast::Expr::Value(value) => matches!(value.value, ast::Value::Null),
        ast::Expr::Identifier(name) => {
            name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default")
        }
        _ => false,
    }
}

/// The parts of a name as typed.
pub(crate) fn parts(name: &ast::ObjectName) -> Vec<String> {
    name.0
        .iter()
        .map(|part| match part.as_ident() {
            Some(ident) => ident.value.clone(),
            None => part.to_string(),
        })
        .collect()
}

/// What is to become of a record in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is sent again.
    Redrive,
    /// It is forgotten.
    Discard,
}

fn is_forget(call: &ast::Function) -> bool {
    let path = parts(&call.name).join(".").to_lowercase();
    matches!(path.as_str(), "forget" | "system.forget")
}

/// `CALL redrive(id)` and `CALL discard(id)`, with or without the schema `system`.
fn quarantined(call: &ast::Function) -> Result<Option<(Fate, u64)>> {
    let path: Vec<String> = parts(&call.name)
        .iter()
        .map(|part| part.to_lowercase())
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let fate = match path.as_slice() {
        ["redrive"] | ["system", "redrive"] => Fate::Redrive,
        ["discard"] | ["system", "discard"] => Fate::Discard,
        _ => return Ok(None),
    };
    let id = match &call.args {
        ast::FunctionArguments::List(list) => match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(value)))] => {
                match &value.value {
                    ast::Value::Number(number, _) => number.parse().ok(),
                    _ => None,
                }
            }
            _ => None,
        },
        _ => None,
    };
    let id = id.ok_or_else(|| {
        Error::invalid(
            "write CALL redrive(id) or CALL discard(id), with an id of system.quarantine",
        )
    })?;
    Ok(Some((fate, id)))
}

/// The id in `CANCEL QUERY 'id'`, in the form the dialect gives it.
fn cancelled_query(call: &ast::Function) -> Option<String> {
    let (schema, name) = featureflight_udf::dialect::CANCEL_QUERY;
    let is_ours = matches!(parts(&call.name).as_slice(), [s, n] if s == schema && n == name);
    match &call.args {
        ast::FunctionArguments::List(list) if is_ours => match list.args.as_slice() {
            [ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::Value(value)))] => {
                value.value.clone().into_string()
            }
            _ => None,
        },
        _ => None,
    }
}
