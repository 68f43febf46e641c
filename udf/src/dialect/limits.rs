//! Bounds on the size and shape of a statement, checked on its tokens before anything recursive
//! sees it: a few kilobytes of `1 + 1 + ...` otherwise become a tree deeper than a stack.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::functions_aggregate::all_default_aggregate_functions;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, Function, GroupByExpr, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, Visitor,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use featureflight_catalog::{Error, Kind, Result};

use super::walk::walk;

/// Bytes of a statement's text. Longer lists belong in parameters or an uploaded table.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Tokens of a statement, white space and comments not counted.
pub const MAX_TOKENS: usize = 100_000;
/// Operators that stack up in one expression (`a OR b OR ...`), over all its parentheses.
pub const MAX_CHAIN: usize = 500;
/// Parentheses, brackets and braces inside each other, and words that nest without them (`EXPLAIN
/// EXPLAIN ...`). The parser stops at about 50 levels of most things, but not of all.
pub const MAX_NESTING: usize = 100;
/// Arms of `UNION`, `EXCEPT` and `INTERSECT`.
pub const MAX_SET_ARMS: usize = 256;
/// Tables, subqueries and function calls in the FROM clauses of a statement.
pub const MAX_RELATIONS: usize = 256;
/// `*` and `t.*` of one `SELECT`, each of which stands for all columns.
pub const MAX_WILDCARDS: usize = 256;
/// Elements of a type of fixed size, `INT[3]`: a null of it takes their place all the same.
pub const MAX_FIXED_ELEMENTS: u64 = 8_192;
/// Groupings that `CUBE`, `ROLLUP` and `GROUPING SETS` of one `SELECT` come to.
pub const MAX_GROUPINGS: u64 = 256;
/// Calls of aggregate functions, over windows too: planning compares each with all others, for each
/// of them.
pub const MAX_AGGREGATES: usize = 1_000;
/// `$n` with n up to this.
pub const MAX_PARAMETERS: usize = 10_000;

/// Stack for work on a statement within these limits: the parser goes 50 levels deep in frames of
/// up to a hundred kilobytes when it is not optimised.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Runs `work` with enough stack for any statement that the limits let through.
pub(super) fn with_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK_BYTES, STACK_BYTES, work)
}

fn exhausted(message: String) -> Error {
    Error::new(Kind::ResourceExhausted, message)
}

pub(super) fn check_text(sql: &str) -> Result<()> {
    if sql.len() > MAX_TEXT_BYTES {
        return Err(exhausted(format!(
            "the statement has {} bytes, the limit is {MAX_TEXT_BYTES}: upload long lists as a \
             temporary table and join it",
            sql.len()
        )));
    }
    Ok(())
}

/// How tightly an operator binds: a looser one ends the runs of all tighter ones.
#[derive(Clone, Copy)]
enum Binding {
    SetOperation,
    Or,
    And,
    Comparison,
    Arithmetic,
    Postfix,
}

const BINDINGS: usize = 6;

/// What a token does to the expression around it.
enum Role {
    Operator(Binding),
    /// A new expression starts after it, at the same parentheses.
    Separator,
    Open,
    Close,
    Operand,
}

fn role(token: &Token, follows_operand: bool) -> Role {
    match token {
        Token::LParen => Role::Open,
        // A subscript is an operator and opens an expression; it counts as the latter's parent.
        Token::LBracket | Token::LBrace => Role::Open,
        Token::RParen | Token::RBracket | Token::RBrace => Role::Close,
        Token::Comma | Token::SemiColon => Role::Separator,
        Token::DoubleColon => Role::Operator(Binding::Postfix),
        Token::Eq
        | Token::DoubleEq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::Spaceship => Role::Operator(Binding::Comparison),
        Token::Word(word) if word.quote_style.is_none() => keyword_role(word.keyword),
        Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::Placeholder(_)
        | Token::Period
        | Token::Colon
        | Token::RArrow
        | Token::EOF => Role::Operand,
        // `count(*)`, `SELECT *`: an operator only between operands.
        Token::Mul if !follows_operand => Role::Operand,
        _ => Role::Operator(Binding::Arithmetic),
    }
}

fn keyword_role(keyword: Keyword) -> Role {
    match keyword {
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
            Role::Operator(Binding::SetOperation)
        }
        Keyword::OR | Keyword::XOR => Role::Operator(Binding::Or),
        Keyword::AND => Role::Operator(Binding::And),
        Keyword::IS
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::RLIKE
        | Keyword::REGEXP
        | Keyword::SIMILAR
        | Keyword::IN
        | Keyword::BETWEEN
        | Keyword::NOT => Role::Operator(Binding::Comparison),
        Keyword::DIV | Keyword::OVERLAPS => Role::Operator(Binding::Arithmetic),
        Keyword::AT | Keyword::COLLATE => Role::Operator(Binding::Postfix),
        Keyword::SELECT
        | Keyword::FROM
        | Keyword::WHERE
        | Keyword::GROUP
        | Keyword::HAVING
        | Keyword::QUALIFY
        | Keyword::ORDER
        | Keyword::LIMIT
        | Keyword::ON
        | Keyword::JOIN
        | Keyword::WHEN
        | Keyword::THEN
        | Keyword::ELSE => Role::Separator,
        _ => Role::Operand,
    }
}

/// Runs of operators at one level of parentheses, per binding.
#[derive(Default, Clone, Copy)]
struct Level {
    runs: [usize; BINDINGS],
}

impl Level {
    fn depth(&self) -> usize {
        self.runs.iter().skip(Binding::Or as usize).sum()
    }
}

/// Bounds the depth of the tree that `tokens` (without white space) parse to: operators of one
/// run nest in each other, and inside the operators around their parentheses.
pub(super) fn check_tokens(tokens: &[TokenWithSpan]) -> Result<()> {
    if tokens.len() > MAX_TOKENS {
        return Err(exhausted(format!(
            "the statement has {} words and signs, the limit is {MAX_TOKENS}: upload long lists \
             as a temporary table and join it",
            tokens.len()
        )));
    }
    check_nesting_words(tokens)?;
    let mut signs = 0;
    let mut levels = vec![Level::default()];
    let mut outer_depth = 0;
    let mut follows_operand = false;
    for token in tokens {
        let role = role(&token.token, follows_operand);
        follows_operand = matches!(role, Role::Operand | Role::Close);
        signs = if matches!(role, Role::Operator(_)) || is_prefix(&token.token) {
            signs + 1
        } else {
            0
        };
        if signs > MAX_NESTING {
            return Err(exhausted(format!(
                "more than {MAX_NESTING} signs follow each other{}",
                token.span.start
            )));
        }
        let Some(level) = levels.last_mut() else {
            break;
        };
        match role {
            Role::Operand => {}
            Role::Separator => level.runs[Binding::Or as usize..].fill(0),
            Role::Operator(binding) => {
                let binding = binding as usize;
                level.runs[binding] += 1;
                level.runs[binding + 1..].fill(0);
                check_level(level, outer_depth, token)?;
            }
            Role::Open => {
                if matches!(token.token, Token::LBracket) {
                    level.runs[Binding::Postfix as usize] += 1;
                    check_level(level, outer_depth, token)?;
                }
                outer_depth += level.depth();
                levels.push(Level::default());
                if levels.len() > MAX_NESTING {
                    return Err(exhausted(format!(
                        "more than {MAX_NESTING} parentheses are nested{}",
                        token.span.start
                    )));
                }
            }
            // An unmatched `)` is the parser's to report.
            Role::Close if levels.len() > 1 => {
                levels.pop();
                outer_depth -= levels.last().map_or(0, Level::depth);
            }
            Role::Close => {}
        }
    }
    Ok(())
}

/// Words that an operand follows, besides operators.
fn is_prefix(token: &Token) -> bool {
    matches!(token, Token::Word(word) if matches!(
        word.keyword,
        Keyword::INTERVAL | Keyword::PRIOR | Keyword::CONNECT_BY_ROOT | Keyword::BINARY
    ))
}

fn check_nesting_words(tokens: &[TokenWithSpan]) -> Result<()> {
    let nests = |token: &&TokenWithSpan| {
        matches!(&token.token, Token::Word(word)
            if matches!(word.keyword, Keyword::EXPLAIN | Keyword::PIVOT | Keyword::UNPIVOT))
    };
    match tokens.iter().filter(nests).nth(MAX_NESTING) {
        Some(token) => Err(exhausted(format!(
            "more than {MAX_NESTING} EXPLAIN, PIVOT or UNPIVOT in one statement{}",
            token.span.start
        ))),
        None => Ok(()),
    }
}

fn check_level(level: &Level, outer_depth: usize, token: &TokenWithSpan) -> Result<()> {
    if level.runs[Binding::SetOperation as usize] >= MAX_SET_ARMS {
        return Err(exhausted(format!(
            "more than {MAX_SET_ARMS} queries are combined with UNION, EXCEPT or INTERSECT{}",
            token.span.start
        )));
    }
    if outer_depth + level.depth() > MAX_CHAIN {
        return Err(exhausted(format!(
            "more than {MAX_CHAIN} operators are chained in one expression{}: use IN (...), or \
             upload the values as a temporary table and join it",
            token.span.start
        )));
    }
    Ok(())
}

/// Bounds what a parsed statement multiplies: relations, since each may become a scan, columns by
/// wildcards, groupings, elements by types. A query that writes on its way is refused, too.
pub(super) fn check_shape(statement: &Statement) -> Result<()> {
    walk(statement, &mut Shape::default())
}

#[derive(Default)]
struct Shape {
    relations: usize,
    aggregates: usize,
}

impl Visitor for Shape {
    type Break = Error;

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        if !matches!(factor, TableFactor::NestedJoin { .. }) {
            self.relations += 1;
        }
        if self.relations > MAX_RELATIONS {
            ControlFlow::Break(exhausted(format!(
                "the statement reads more than {MAX_RELATIONS} tables and subqueries"
            )))
        } else {
            ControlFlow::Continue(())
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        match query.body.as_ref() {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break(Error::invalid(
                    "INSERT, UPDATE, DELETE and MERGE are no part of a query here",
                ))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let all = |item: &&SelectItem| {
            matches!(
                item,
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
            )
        };
        if select.projection.iter().filter(all).count() > MAX_WILDCARDS {
            return ControlFlow::Break(exhausted(format!(
                "one SELECT has more than {MAX_WILDCARDS} wildcards"
            )));
        }
        let groupings = match &select.group_by {
            GroupByExpr::All(_) => 1,
            GroupByExpr::Expressions(keys, _) => {
                keys.iter().map(groupings).fold(1, u64::saturating_mul)
            }
        };
        if groupings > MAX_GROUPINGS {
            return ControlFlow::Break(exhausted(format!(
                "CUBE, ROLLUP and GROUPING SETS come to more than {MAX_GROUPINGS} groupings"
            )));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Cast { data_type, .. } if fixed_elements(data_type) > MAX_FIXED_ELEMENTS => {
                ControlFlow::Break(exhausted(format!(
                    "{data_type} has more than {MAX_FIXED_ELEMENTS} elements: use a type without \
                     a fixed size"
                )))
            }
            Expr::Function(call) if is_aggregate(call) => {
                self.aggregates += 1;
                if self.aggregates > MAX_AGGREGATES {
                    return ControlFlow::Break(exhausted(format!(
                        "the statement calls aggregate functions more than {MAX_AGGREGATES} \
                         times: send several statements"
                    )));
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn is_aggregate(call: &Function) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let functions = all_default_aggregate_functions();
        let names = functions.iter().flat_map(|function| {
            let aliases = function.aliases().iter().cloned();
            aliases.chain([function.name().to_owned()])
        });
        names.collect()
    });
    let name = call.name.0.last().and_then(|part| part.as_ident());
    call.over.is_some() || name.is_some_and(|name| NAMES.contains(&name.value.to_lowercase()))
}

fn groupings(key: &Expr) -> u64 {
    match key {
        Expr::Cube(keys) => 1_u64
            .checked_shl(u32::try_from(keys.len()).unwrap_or(u32::MAX))
            .unwrap_or(u64::MAX),
        Expr::Rollup(keys) => keys.len() as u64 + 1,
        Expr::GroupingSets(sets) => sets.len() as u64,
        _ => 1,
    }
}

fn fixed_elements(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => {
            let size = match data_type {
                DataType::Array(ArrayElemTypeDef::SquareBracket(_, size)) => size.unwrap_or(1),
                _ => 1,
            };
            fixed_elements(item).saturating_mul(size)
        }
        DataType::Struct(fields, _) => {
            let sizes = fields.iter().map(|field| fixed_elements(&field.field_type));
            sizes.fold(0, u64::saturating_add)
        }
        _ => 1,
    }
}
