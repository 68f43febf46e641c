//! Which statements are queries, and how `SHOW` and `DESCRIBE` become some.

use std::ops::ControlFlow;

use datafusion::sql::parser::{ExplainStatement, Statement};
use datafusion::sql::sqlparser::ast::{
    self, DescribeAlias, ObjectName, ShowStatementFilter, ShowStatementFilterPosition,
    ShowStatementOptions, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use featureflight_catalog::{Error, Result};

use super::normalise::normalise;
use crate::dialect::walk::walk_mut;

/// The statement as a query, or `EXPLAIN` of one, in the forms planning knows.
///
/// # Errors
/// `InvalidArgument` for every other statement and for clauses that nothing would read.
pub(super) fn admit(statement: Statement) -> Result<Statement> {
    match statement {
        Statement::Explain(ExplainStatement { options, statement }) => {
            Ok(Statement::Explain(ExplainStatement {
                options,
                statement: Box::new(admit(*statement)?),
            }))
        }
        Statement::Statement(statement) => {
            let mut statement = query_of(*statement)?;
            normalise(&mut statement)?;
            Ok(Statement::Statement(Box::new(statement)))
        }
        other => Err(refused(&other.to_string())),
    }
}

/// The error for a statement that is none of ours; `text` begins with its keyword.
pub(super) fn refused(text: &str) -> Error {
    let keyword: Vec<&str> = text.split_whitespace().take(2).collect();
    Error::invalid(format!(
        "{} is not supported: this server answers queries, EXPLAIN of a query, SHOW TABLES, SHOW \
         COLUMNS, SHOW SCHEMAS, DESCRIBE, USE, SET, SHOW and RESET of its own settings, CREATE and \
         DROP of temporary views, DROP of temporary tables, and CANCEL QUERY",
        keyword.join(" ")
    ))
}

fn query_of(statement: ast::Statement) -> Result<ast::Statement> {
    match statement {
        ast::Statement::Query(_) => Ok(statement),
        ast::Statement::Explain {
            statement: inner,
            describe_alias,
            analyze,
            verbose,
            query_plan,
            estimate,
            format,
            options,
        } => {
            let inner = query_of(*inner)?;
            Ok(ast::Statement::Explain {
                statement: Box::new(inner),
                describe_alias,
                analyze,
                verbose,
                query_plan,
                estimate,
                format,
                options,
            })
        }
        ast::Statement::ExplainTable {
            describe_alias: DescribeAlias::Describe | DescribeAlias::Desc,
            table_name,
            ..
        } => describe(&table_name),
        ast::Statement::ShowColumns { show_options, .. } => show_columns(show_options),
        ast::Statement::ShowTables { show_options, .. } => show_tables(show_options),
        ast::Statement::ShowSchemas { show_options, .. }
        | ast::Statement::ShowDatabases { show_options, .. } => show_schemas(show_options),
        other => Err(refused(&other.to_string())),
    }
}

fn describe(table: &ObjectName) -> Result<ast::Statement> {
    let mut statement = parse("DESCRIBE SELECT * FROM t")?;
    replace_table(&mut statement, table);
    Ok(statement)
}

fn show_columns(options: ShowStatementOptions) -> Result<ast::Statement> {
    if options.filter_position.is_some() || options.limit.is_some() || options.starts_with.is_some()
    {
        return Err(Error::invalid(
            "SHOW COLUMNS takes no filter: query information_schema.columns instead",
        ));
    }
    match options.show_in.and_then(|place| place.parent_name) {
        Some(table) => describe(&table),
        None => Err(Error::invalid(
            "SHOW COLUMNS needs a table: SHOW COLUMNS FROM features.t",
        )),
    }
}

fn show_tables(options: ShowStatementOptions) -> Result<ast::Statement> {
    let mut filters = vec!["table_schema <> 'information_schema'".to_owned()];
    if let Some(schema) = options
        .show_in
        .as_ref()
        .and_then(|place| place.parent_name.as_ref())
    {
        let Some(ident) = schema.0.last().and_then(|part| part.as_ident()) else {
            return Err(Error::invalid(format!(
                "{schema} is not the name of a schema"
            )));
        };
        filters = vec![format!(
            "lower(table_schema) = {}",
            literal(&ident.value.to_lowercase())
        )];
    }
    filters.extend(filter("table_name", &options)?);
    parse(&format!(
        "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE {} \
         ORDER BY table_schema, table_name",
        filters.join(" AND ")
    ))
}

fn show_schemas(options: ShowStatementOptions) -> Result<ast::Statement> {
    let filter =
        filter("schema_name", &options)?.map_or(String::new(), |text| format!("WHERE {text}"));
    parse(&format!(
        "SELECT schema_name FROM information_schema.schemata {filter} ORDER BY schema_name"
    ))
}

fn filter(column: &str, options: &ShowStatementOptions) -> Result<Option<String>> {
    if options.limit.is_some() || options.starts_with.is_some() || options.limit_from.is_some() {
        return Err(Error::invalid("SHOW takes LIKE as its only filter"));
    }
    match &options.filter_position {
        None => Ok(None),
        Some(
            ShowStatementFilterPosition::Infix(filter)
            | ShowStatementFilterPosition::Suffix(filter),
        ) => match filter {
            ShowStatementFilter::Like(pattern) | ShowStatementFilter::NoKeyword(pattern) => {
                Ok(Some(format!("{column} LIKE {}", literal(pattern))))
            }
            ShowStatementFilter::ILike(pattern) => {
                Ok(Some(format!("{column} ILIKE {}", literal(pattern))))
            }
            ShowStatementFilter::Where(_) => {
                Err(Error::invalid("SHOW takes LIKE as its only filter"))
            }
        },
    }
}

/// `text` as a string literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// One statement of our own making.
pub(super) fn parse(sql: &str) -> Result<ast::Statement> {
    Parser::parse_sql(&GenericDialect {}, sql)
        .ok()
        .and_then(|mut statements| statements.pop())
        .ok_or_else(|| Error::internal(format!("{sql} does not parse")))
}

/// `table` for every table of `statement`.
pub(super) fn replace_table(statement: &mut ast::Statement, table: &ObjectName) {
    // Never breaks.
    let _ = walk_mut(statement, &mut Replace(table));
}

struct Replace<'a>(&'a ObjectName);

impl VisitorMut for Replace<'_> {
    type Break = Error;

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<Error> {
        name.clone_from(self.0);
        ControlFlow::Continue(())
    }
}
