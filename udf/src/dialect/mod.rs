//! From text to statements: `DataFusion`'s generic SQL plus version clauses in every spelling and
//! `ASOF JOIN`, with names rewritten to the catalog's spelling.
//!
//! [`parse`] yields a tree that `DataFusion` can plan when [`version_of`] and [`as_asof`] are
//! asked about every table factor first: it drops version clauses and refuses as-of joins itself.

mod asof;
mod cancel;
mod grammar;
pub mod limits;
pub mod names;
mod tokens;
mod version;
pub mod walk;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use featureflight_catalog::{Error, Kind, Result};

use self::grammar::TimeTravelDialect;

pub use asof::{AsofParts, as_asof};
pub use cancel::CANCEL_QUERY;
pub use version::{VersionClause, version_of};

/// Parses one statement of our SQL. A semicolon may end it. Parameters are `$1, $2, ...` in the
/// result, also those typed as `?`.
///
/// # Errors
/// `InvalidArgument` with line and column for text that does not parse, for no statement and for
/// more than one; `ResourceExhausted` for a statement beyond [`limits`].
pub fn parse(sql: &str) -> Result<Statement> {
    limits::check_text(sql)?;
    limits::with_stack(|| parse_within_limits(sql))
}

fn parse_within_limits(sql: &str) -> Result<Statement> {
    let mut tokens = Tokenizer::new(&TimeTravelDialect::default(), sql)
        .tokenize_with_location()
        .map_err(|error| Error::invalid(format!("syntax error: {error}")))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    limits::check_tokens(&tokens)?;
    let dialect = TimeTravelDialect::new(tokens.len());
    let rewritten = tokens::rewrite(cancel::as_call(tokens)?, &dialect)?;
    let mut statement = parse_tokens(rewritten, &dialect)?;
    if let Some(statement) = sql_statement_mut(&mut statement) {
        tokens::check_parameters(statement)?;
        limits::check_shape(statement)?;
        asof::fold(statement);
    }
    Ok(statement)
}

fn parse_tokens(rewritten: tokens::Rewritten, dialect: &TimeTravelDialect) -> Result<Statement> {
    let parsed = DFParserBuilder::new(rewritten.tokens)
        .with_dialect(dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|error| {
        let error = parser_error(&error, dialect);
        // The clause's first word reads `AT` by now, which the user did not type.
        let misplaced = rewritten
            .clauses
            .iter()
            .find(|start| error.message.ends_with(&start.to_string()));
        match misplaced {
            Some(start) => misplaced_clause(*start),
            None => error,
        }
    })?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(Error::invalid("the text holds no statement")),
        (Some(_), more) => Err(Error::invalid(format!(
            "the text holds {} statements: send one at a time",
            more + 1
        ))),
    }
}

/// The SQL inside `statement`, under `EXPLAIN` too; `None` for `RESET` and for statements of
/// `DataFusion`'s own that we do not serve.
#[must_use]
pub fn sql_statement_mut(statement: &mut Statement) -> Option<&mut ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => sql_statement_mut(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

fn misplaced_clause(start: Location) -> Error {
    Error::invalid(format!(
        "a version clause (... AS OF ...) follows a table's name, before its alias; here it does \
         not{start}"
    ))
}

fn parser_error(error: &DataFusionError, dialect: &TimeTravelDialect) -> Error {
    match error.find_root() {
        DataFusionError::SQL(error, _) => syntax_error(error, dialect),
        other => Error::invalid(other.message().into_owned()),
    }
}

fn syntax_error(error: &ParserError, dialect: &TimeTravelDialect) -> Error {
    match error {
        _ if dialect.exhausted() => Error::new(
            Kind::ResourceExhausted,
            "the statement is too complex to parse; most likely there is a syntax error deep inside \
             nested CASE or CAST expressions",
        ),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            Error::invalid(format!("syntax error: {message}"))
        }
        ParserError::RecursionLimitExceeded => Error::new(
            Kind::ResourceExhausted,
            "the statement nests parentheses, subqueries or signs too deeply (the limit is about 50 \
             levels)",
        ),
    }
}

#[cfg(test)]
mod tests;
