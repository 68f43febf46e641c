//! `CANCEL QUERY 'id'`, which the grammar does not know, as a call it does:
//! `CALL system.cancel_query('id')`.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use featureflight_catalog::{Error, Result};

/// Schema and name of the call that stands for the statement.
pub const CANCEL_QUERY: (&str, &str) = ("system", "cancel_query");

/// # Errors
/// `InvalidArgument` for `CANCEL` of anything but one quoted id.
pub(super) fn as_call(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let is_word = |at: usize, wanted: &str| match tokens.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => {
            word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted)
        }
        _ => false,
    };
    if !is_word(0, "CANCEL") {
        return Ok(tokens);
    }
    let rest = tokens.get(2).map_or(&[][..], |_| &tokens[3..]);
    let ends = rest
        .iter()
        .all(|token| matches!(token.token, Token::SemiColon | Token::EOF));
    let id = match tokens.get(2).map(|token| &token.token) {
        Some(id @ Token::SingleQuotedString(_)) if is_word(1, "QUERY") && ends => id.clone(),
        _ => {
            return Err(Error::invalid(
                "to cancel a query, write CANCEL QUERY 'id' with the id that system.queries shows",
            ));
        }
    };
    let span = tokens[0].span;
    let (schema, name) = CANCEL_QUERY;
    let call = [
        word("CALL", Keyword::CALL),
        word(schema, Keyword::NoKeyword),
        Token::Period,
        word(name, Keyword::NoKeyword),
        Token::LParen,
        id,
        Token::RParen,
    ];
    let call = call.map(|token| TokenWithSpan { token, span });
    Ok(call.into_iter().chain(rest.iter().cloned()).collect())
}

fn word(value: &str, keyword: Keyword) -> Token {
    Token::Word(Word {
        value: value.to_owned(),
        quote_style: None,
        keyword,
    })
}
