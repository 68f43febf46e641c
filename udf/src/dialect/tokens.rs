//! What the grammar does not know, rewritten on tokens, so that strings, comments and quoted names
//! stay as they are and errors keep their line and column:
//!
//! * parameters typed as `?` become `$1, $2, ...`;
//! * `at`, `before` and `changes` are ordinary words where no parenthesis follows;
//! * every version clause, in every spelling, becomes `AT(SYSTEM_TIME => x, VALID_TIME => y,
//!   VERSION => z)`, which the parser keeps as a table version. What stands for one relation is
//!   one such clause, repeated clocks included, for [`super::version`] to judge.

use std::ops::{ControlFlow, Range};

use datafusion::sql::sqlparser::ast::{Statement, Value, ValueWithSpan, Visitor};
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_COLUMN_ALIAS};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};
use featureflight_catalog::{Error, Result};

use super::grammar::TimeTravelDialect;
use super::limits::MAX_PARAMETERS;
use super::version::Clock;
use super::walk::walk;
use super::{misplaced_clause, syntax_error};

/// Rewritten tokens, without white space.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Where version clauses start, in the original text.
    pub(super) clauses: Vec<Location>,
}

pub(super) fn rewrite(
    mut tokens: Vec<TokenWithSpan>,
    dialect: &TimeTravelDialect,
) -> Result<Rewritten> {
    number_parameters(&mut tokens)?;
    free_words(&mut tokens);
    Clauses {
        dialect,
        tokens,
        position: 0,
        output: Vec::new(),
        starts: Vec::new(),
    }
    .rewrite()
}

/// `?` in order of appearance becomes `$1, $2, ...`.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut unnumbered: Option<Location> = None;
    let mut numbered: Option<Location> = None;
    let mut count = 0;
    for token in tokens {
        let Token::Placeholder(text) = &mut token.token else {
            continue;
        };
        let at = token.span.start;
        if text == "?" {
            count += 1;
            *text = format!("${count}");
            unnumbered = Some(at);
        } else {
            count = parameter_number(text).ok_or_else(|| not_a_parameter(text, at))?;
            numbered = Some(at);
        }
        if count > MAX_PARAMETERS {
            return Err(Error::invalid(format!(
                "more than {MAX_PARAMETERS} parameters{at}: upload long lists as a temporary table"
            )));
        }
        if let (Some(_), Some(_)) = (unnumbered, numbered) {
            return Err(Error::invalid(format!(
                "parameters are either all ? or all $1, $2, ...: both are used, the second kind{at}"
            )));
        }
    }
    Ok(())
}

/// Refuses the spellings of parameters that only the parser recognizes (`:name`).
pub(super) fn check_parameters(statement: &Statement) -> Result<()> {
    struct Check;
    impl Visitor for Check {
        type Break = Error;
        fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Error> {
            match &value.value {
                Value::Placeholder(text) if parameter_number(text).is_none() => {
                    ControlFlow::Break(not_a_parameter(text, value.span.start))
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    walk(statement, &mut Check)
}

fn not_a_parameter(text: &str, at: Location) -> Error {
    Error::invalid(format!(
        "parameter {text}{at} is not one of $1 to ${MAX_PARAMETERS}, or ?"
    ))
}

fn parameter_number(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('$')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits
        .parse()
        .ok()
        .filter(|number| plain && (1..=MAX_PARAMETERS).contains(number))
}

/// The parser takes these words for the start of a version wherever a table's alias may stand.
fn free_words(tokens: &mut [TokenWithSpan]) {
    for position in 0..tokens.len() {
        let (before, after) = tokens.split_at_mut(position + 1);
        let Token::Word(word) = &mut before[position].token else {
            continue;
        };
        let next = after.first().map(|token| &token.token);
        let opens = matches!(next, Some(Token::LParen));
        let time_zone = matches!(next, Some(Token::Word(next)) if next.keyword == Keyword::TIME);
        match word.keyword {
            Keyword::AT if !opens && !time_zone => word.keyword = Keyword::NoKeyword,
            Keyword::BEFORE | Keyword::CHANGES if !opens => word.keyword = Keyword::NoKeyword,
            _ => {}
        }
    }
}

/// The parser may look this far behind an expression to see that it ends (`AT TIME ZONE`).
const LOOK_AHEAD: usize = 8;

/// One clause of a relation's version.
enum Part {
    Time {
        clock: Clock,
        expression: Range<usize>,
    },
    /// What stands between the parentheses of a typed `AT(...)`.
    Arguments(Range<usize>),
}

struct Clauses<'a> {
    dialect: &'a TimeTravelDialect,
    tokens: Vec<TokenWithSpan>,
    position: usize,
    output: Vec<TokenWithSpan>,
    starts: Vec<Location>,
}

impl Clauses<'_> {
    fn rewrite(mut self) -> Result<Rewritten> {
        while self.position < self.tokens.len() {
            let start = self.position;
            let parts = self.parts()?;
            match parts.as_slice() {
                [] => {
                    self.output.push(self.tokens[start].clone());
                    self.position = start + 1;
                }
                // Nothing to join: a typed `AT(...)` may as well be a function call.
                [Part::Arguments(_)] => {
                    self.output
                        .extend_from_slice(&self.tokens[start..self.position]);
                }
                parts => self.emit(start, parts),
            }
        }
        Ok(Rewritten {
            tokens: self.output,
            clauses: self.starts,
        })
    }

    /// The version clauses that start here, with the position moved behind them.
    fn parts(&mut self) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        loop {
            if let Some((clock, length)) = self.header(!parts.is_empty())? {
                let expression = self.expression(self.position + length)?;
                self.position = expression.end;
                parts.push(Part::Time { clock, expression });
            } else if let Some(arguments) = self.typed_at() {
                self.position = arguments.end + 1;
                parts.push(Part::Arguments(arguments));
            } else {
                return Ok(parts);
            }
        }
    }

    fn word(&self, position: usize) -> Option<&Word> {
        match &self.tokens.get(position)?.token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    fn keyword(&self, position: usize) -> Keyword {
        self.word(position)
            .map_or(Keyword::NoKeyword, |word| word.keyword)
    }

    /// `[FOR] <clock> AS OF`: the clock, and how many tokens that is.
    fn header(&self, after_clause: bool) -> Result<Option<(Clock, usize)>> {
        let at = self.position;
        let has_for = self.keyword(at) == Keyword::FOR;
        let clock_at = at + usize::from(has_for);
        let Some(clock) = self.word(clock_at).and_then(clock_of) else {
            return Ok(None);
        };
        let next = self.keyword(clock_at + 1);
        let as_of = next == Keyword::AS && self.keyword(clock_at + 2) == Keyword::OF;
        if as_of && has_for && !after_clause && self.follows_parenthesis() {
            return Err(misplaced_clause(self.tokens[at].span.start));
        }
        if as_of && (has_for || after_clause || self.follows_table_name()) {
            return Ok(Some((clock, clock_at + 3 - at)));
        }
        if has_for && matches!(next, Keyword::FROM | Keyword::BETWEEN | Keyword::ALL) {
            return Err(Error::invalid(format!(
                "a table can be read AS OF one point in time{}: a range of versions is a filter \
                 on history",
                self.tokens[clock_at + 1].span.start
            )));
        }
        Ok(None)
    }

    /// Of a subquery or a function, whose alias the parser would take the clause for.
    fn follows_parenthesis(&self) -> bool {
        let before = self
            .position
            .checked_sub(1)
            .and_then(|before| self.tokens.get(before));
        before.is_some_and(|token| token.token == Token::RParen)
    }

    /// Without FOR, `timestamp AS of` may also be a column or a table with an alias; then what
    /// stands before it cannot be a table's name.
    fn follows_table_name(&self) -> bool {
        let Some(before) = self
            .position
            .checked_sub(1)
            .and_then(|before| self.word(before))
        else {
            return false;
        };
        before.quote_style.is_some()
            || !(RESERVED_FOR_COLUMN_ALIAS.contains(&before.keyword)
                || BEFORE_NAMES.contains(&before.keyword))
    }

    /// Parses the expression at `start` to learn where it ends. The tokens after it are given to
    /// the parser in growing windows, so that many clauses do not cost a copy of the rest each.
    fn expression(&self, start: usize) -> Result<Range<usize>> {
        let rest = &self.tokens[start.min(self.tokens.len())..];
        let mut window = 32;
        loop {
            let shown = &rest[..window.min(rest.len())];
            let mut parser = Parser::new(self.dialect).with_tokens_with_locations(shown.to_vec());
            let parsed = parser.parse_expr();
            let end = parser.index().min(shown.len());
            if shown.len() == rest.len() || (parsed.is_ok() && end + LOOK_AHEAD <= shown.len()) {
                parsed.map_err(|error| syntax_error(&error, self.dialect))?;
                return Ok(start..start + end);
            }
            window *= 2;
        }
    }

    /// `AT (...)`: what stands between the parentheses.
    fn typed_at(&self) -> Option<Range<usize>> {
        let start = self.position + 2;
        if self.keyword(self.position) != Keyword::AT
            || !matches!(self.tokens.get(start - 1)?.token, Token::LParen)
        {
            return None;
        }
        let mut depth = 1;
        for (position, token) in self.tokens.iter().enumerate().skip(start) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(start..position);
            }
        }
        None
    }

    fn emit(&mut self, start: usize, parts: &[Part]) {
        let span = self.tokens[start].span;
        self.starts.push(span.start);
        self.sign(Token::make_keyword("AT"), span);
        self.sign(Token::LParen, span);
        let mut end = span;
        for (number, part) in parts.iter().enumerate() {
            if number > 0 {
                self.sign(Token::Comma, end);
            }
            let range = match part {
                Part::Time { clock, expression } => {
                    self.sign(Token::make_word(clock.keyword(), None), span);
                    self.sign(Token::RArrow, span);
                    expression
                }
                Part::Arguments(arguments) => arguments,
            };
            end = self
                .tokens
                .get(range.end.saturating_sub(1))
                .map_or(end, |token| token.span);
            self.output.extend_from_slice(&self.tokens[range.clone()]);
        }
        self.sign(Token::RParen, end);
    }

    fn sign(&mut self, token: Token, span: Span) {
        self.output.push(TokenWithSpan { token, span });
    }
}

/// Words that stand before a column or a table and are no table's name, besides those that end a
/// column's alias.
const BEFORE_NAMES: &[Keyword] = &[
    Keyword::ALL,
    Keyword::AND,
    Keyword::BETWEEN,
    Keyword::BY,
    Keyword::CASE,
    Keyword::DISTINCT,
    Keyword::ELSE,
    Keyword::FROM,
    Keyword::ILIKE,
    Keyword::IN,
    Keyword::IS,
    Keyword::JOIN,
    Keyword::LATERAL,
    Keyword::LIKE,
    Keyword::NOT,
    Keyword::ON,
    Keyword::OR,
    Keyword::SELECT,
    Keyword::SIMILAR,
    Keyword::THEN,
    Keyword::TO,
    Keyword::WHEN,
    Keyword::WINDOW,
    Keyword::XOR,
];

fn clock_of(word: &Word) -> Option<Clock> {
    if word.quote_style.is_some() {
        return None;
    }
    Clock::from_word(&word.value)
}
