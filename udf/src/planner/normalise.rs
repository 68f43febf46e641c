//! The tree of a statement made ready for planning: relation arguments as subqueries, timestamp
//! literals in microseconds, and an error for every clause that the parser knows and no planner
//! reads, so that none is ever ignored.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, ObjectName,
    ObjectNamePart, Query, Select, SetExpr, TableFactor, TableVersion, Value, Visitor, VisitorMut,
};
use featureflight_catalog::{Error, Result};

use super::statement::{parse, replace_table};
use crate::dialect::walk::{walk, walk_mut};

/// # Errors
/// `InvalidArgument` that names the clause.
pub(super) fn normalise(statement: &mut ast::Statement) -> Result<()> {
    walk_mut(statement, &mut Normalise)
}

struct Normalise;

impl VisitorMut for Normalise {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(Error::invalid(
                "FOR UPDATE and FOR SHARE are not supported",
            ));
        }
        if query.for_clause.is_some() || query.settings.is_some() || query.format_clause.is_some() {
            return ControlFlow::Break(Error::invalid(
                "FOR XML, FOR JSON, SETTINGS and FORMAT are not supported",
            ));
        }
        if let SetExpr::Table(table) = query.body.as_ref()
            && let Some(name) = &table.table_name
        {
            let mut path = Vec::new();
            path.extend(
                table
                    .schema_name
                    .iter()
                    .map(|name| ast::Ident::with_quote('"', name)),
            );
            path.push(ast::Ident::new(name));
            if let Ok(select) = select_all(&ObjectName::from(path)) {
                query.body = select.body;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match unread_clause(select) {
            Some(clause) => {
                ControlFlow::Break(Error::invalid(format!("{clause} is not supported")))
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        to_microseconds(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match refine(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// A timestamp literal that says no precision is read in microseconds, as every timestamp here is,
/// unless it is written finer: nanoseconds end in the year 2262.
fn to_microseconds(expr: &mut Expr) {
    let (data_type, value) = match expr {
        Expr::TypedString(typed) => (&mut typed.data_type, &typed.value.value),
        Expr::Cast {
            expr,
            data_type,
            format: None,
            ..
        } => {
            let literal: &Expr = expr;
            let Expr::Value(value) = literal else { return };
            (data_type, &value.value)
        }
        _ => return,
    };
    let ast::DataType::Timestamp(precision @ None, _) = data_type else {
        return;
    };
    let Value::SingleQuotedString(text) = value else {
        return;
    };
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    if fraction.chars().take_while(char::is_ascii_digit).count() <= 6 {
        *precision = Some(6);
    }
}

/// A clause of `select` that the parser knows and no planner reads.
fn unread_clause(select: &Select) -> Option<&'static str> {
    let modifiers = match &select.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    if select.prewhere.is_some() {
        Some("PREWHERE")
    } else if !select.connect_by.is_empty() {
        Some("CONNECT BY")
    } else if select.value_table_mode.is_some() {
        Some("SELECT AS VALUE and AS STRUCT")
    } else if select.exclude.is_some() {
        Some("EXCLUDE at the end of a SELECT list")
    } else if select.select_modifiers.is_some() {
        Some("a SELECT modifier")
    } else if !modifiers.is_empty() {
        Some("GROUP BY ... WITH ROLLUP, CUBE or TOTALS (use GROUP BY ROLLUP (...))")
    } else {
        None
    }
}

fn refine(factor: &mut TableFactor) -> Result<()> {
    // `TABLE(f(..))` is `f(..)`.
    if let TableFactor::TableFunction {
        expr: Expr::Function(function),
        alias,
    } = factor
        && let FunctionArguments::List(list) = &function.args
    {
        *factor = TableFactor::Function {
            lateral: false,
            name: function.name.clone(),
            args: list.args.clone(),
            with_ordinality: false,
            alias: alias.clone(),
        };
    }
    if let Some(clause) = unread_part(factor) {
        return Err(Error::invalid(format!(
            "{clause} is not supported: {factor}"
        )));
    }
    if let TableFactor::Table {
        name,
        args: Some(_),
        ..
    }
    | TableFactor::Function { name, .. } = factor
    {
        fold(name);
    }
    match factor {
        TableFactor::Table {
            name,
            args,
            version,
            ..
        } => {
            let queries = |version: &TableVersion| walk(version, &mut NoQuery).is_err();
            if version.as_ref().is_some_and(queries) {
                return Err(Error::invalid(format!(
                    "the version clause of {name} takes a time that does not depend on rows (a \
                     literal, a parameter, now() and intervals are fine), not a query"
                )));
            }
            args.as_mut()
                .map_or(Ok(()), |args| relation_arguments(&mut args.args))
        }
        TableFactor::Function { args, .. } => relation_arguments(args),
        TableFactor::Derived { .. }
        | TableFactor::NestedJoin { .. }
        | TableFactor::UNNEST { .. } => Ok(()),
        other => Err(Error::invalid(format!("not supported in FROM: {other}"))),
    }
}

/// A table function's name as it is looked up, since tools that print SQL anew write `RANGE`.
fn fold(name: &mut ObjectName) {
    for part in &mut name.0 {
        if let ObjectNamePart::Identifier(name) = part
            && name.quote_style.is_none()
        {
            name.value.make_ascii_lowercase();
        }
    }
}

/// A part of `factor` that the parser knows and no planner reads.
fn unread_part(factor: &TableFactor) -> Option<&'static str> {
    match factor {
        TableFactor::Table {
            sample: Some(_), ..
        }
        | TableFactor::Derived {
            sample: Some(_), ..
        } => Some("TABLESAMPLE"),
        TableFactor::Table {
            with_ordinality: true,
            ..
        }
        | TableFactor::Function {
            with_ordinality: true,
            ..
        } => Some("WITH ORDINALITY"),
        TableFactor::Table {
            with_hints,
            index_hints,
            partitions,
            json_path,
            args,
            ..
        } => {
            if !with_hints.is_empty() || !index_hints.is_empty() {
                Some("a table hint")
            } else if !partitions.is_empty() {
                Some("PARTITION")
            } else if json_path.is_some() {
                Some("a JSON path")
            } else if args.as_ref().is_some_and(|args| args.settings.is_some()) {
                Some("SETTINGS")
            } else {
                None
            }
        }
        _ => None,
    }
}

/// Stops at a query.
struct NoQuery;

impl Visitor for NoQuery {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Error> {
        ControlFlow::Break(Error::invalid("a query"))
    }
}

fn relation_arguments(args: &mut [FunctionArg]) -> Result<()> {
    for arg in args {
        let (FunctionArg::Unnamed(arg)
        | FunctionArg::Named { arg, .. }
        | FunctionArg::ExprNamed { arg, .. }) = arg;
        let FunctionArgExpr::Expr(expr) = arg else {
            continue;
        };
        if let Some(query) = table_argument(expr)? {
            *expr = Expr::Subquery(query);
        }
    }
    Ok(())
}

/// `TABLE(x)` and `TABLE(SELECT ...)` as a query.
fn table_argument(expr: &Expr) -> Result<Option<Box<Query>>> {
    let Expr::Function(function) = expr else {
        return Ok(None);
    };
    if !function.name.to_string().eq_ignore_ascii_case("table") {
        return Ok(None);
    }
    let list = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        FunctionArguments::Subquery(query) => return Ok(Some(query.clone())),
        FunctionArguments::None => &[],
    };
    let table = |path| Ok(Some(Box::new(select_all(&ObjectName::from(path))?)));
    match list {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident)))] => {
            table(vec![ident.clone()])
        }
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(path)))] => {
            table(path.clone())
        }
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(query)))] => {
            Ok(Some(query.clone()))
        }
        _ => Err(Error::invalid(
            "TABLE(...) takes the name of a table; write a query in parentheses: (SELECT ...)",
        )),
    }
}

fn select_all(table: &ObjectName) -> Result<Query> {
    let mut statement = parse("SELECT * FROM t")?;
    replace_table(&mut statement, table);
    match statement {
        ast::Statement::Query(query) => Ok(*query),
        _ => Err(Error::internal("a SELECT that is no query")),
    }
}

/// The tables of `statement` named without a schema, by their folded name; calls of table
/// functions are not among them.
pub(super) fn bare_tables(statement: &mut ast::Statement) -> BTreeMap<String, ObjectName> {
    let mut bare = Bare(BTreeMap::new());
    // Never breaks.
    let _ = walk_mut(statement, &mut bare);
    bare.0
}

struct Bare(BTreeMap<String, ObjectName>);

impl VisitorMut for Bare {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table {
            name, args: None, ..
        } = factor
            && let [part] = name.0.as_slice()
            && let Some(ident) = part.as_ident()
        {
            let folded = match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            };
            self.0.insert(folded, name.clone());
        }
        ControlFlow::Continue(())
    }
}
