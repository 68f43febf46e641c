//! The `keys` argument: equalities between record identifiers and spine columns, read from a
//! string as SQL.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Ident};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use featureflight_catalog::{Error, Result};

/// Both sides of one equality, as paths of identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyPair {
    pub(super) left: Vec<Ident>,
    pub(super) right: Vec<Ident>,
}

/// Equalities separated by commas or `AND`.
///
/// # Errors
/// `InvalidArgument` for everything else.
pub(super) fn key_pairs(text: &str) -> Result<Vec<KeyPair>> {
    let wrong = || {
        Error::invalid(format!(
            "keys: '{text}' is not of the form 'group.record_identifier = spine_column', several of \
             them separated by commas or AND"
        ))
    };
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect)
        .try_with_sql(text)
        .map_err(|_| wrong())?;
    let equalities = parser
        .parse_comma_separated(Parser::parse_expr)
        .map_err(|_| wrong())?;
    if parser.peek_token().token != Token::EOF {
        return Err(wrong());
    }
    let mut pairs = Vec::new();
    let mut rest: Vec<Expr> = equalities.into_iter().rev().collect();
    while let Some(expr) = rest.pop() {
        match expr {
            Expr::Nested(inner) => rest.push(*inner),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And,
                right,
            } => {
                rest.push(*right);
                rest.push(*left);
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Eq,
                right,
            } => {
                let left = path(*left).ok_or_else(wrong)?;
                let right = path(*right).ok_or_else(wrong)?;
                pairs.push(KeyPair { left, right });
            }
            _ => return Err(wrong()),
        }
    }
    Ok(pairs)
}

fn path(expr: Expr) -> Option<Vec<Ident>> {
    match expr {
        Expr::Nested(inner) => path(*inner),
        Expr::Identifier(ident) => Some(vec![ident]),
        Expr::CompoundIdentifier(path) => Some(path),
        _ => None,
    }
}
