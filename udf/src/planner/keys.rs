//! The `keys` argument: equalities between record identifiers and spine columns, read from a
//! string as SQL.

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
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
    // Not as an expression: the parser tries each `.is` twice, and each of those the next.
    let path = |parser: &mut Parser<'_>| {
        let name = parser.parse_object_name(false).map_err(|_| wrong())?;
        let parts = name.0.into_iter().map(|part| part.as_ident().cloned());
        parts.collect::<Option<Vec<Ident>>>().ok_or_else(wrong)
    };
    let mut pairs = Vec::new();
    let mut open = 0_usize;
    loop {
        while parser.consume_token(&Token::LParen) {
            open += 1;
        }
        let left = path(&mut parser)?;
        if !parser.consume_token(&Token::Eq) {
            return Err(wrong());
        }
        let right = path(&mut parser)?;
        pairs.push(KeyPair { left, right });
        while open > 0 && parser.consume_token(&Token::RParen) {
            open -= 1;
        }
        let comma = open == 0 && parser.consume_token(&Token::Comma);
        if !comma && !parser.parse_keyword(Keyword::AND) {
            break;
        }
    }
    if open > 0 || parser.peek_token().token != Token::EOF {
        return Err(wrong());
    }
    Ok(pairs)
}
