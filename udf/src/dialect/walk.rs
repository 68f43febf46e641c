//! Walks over syntax trees for visitors behind a pointer.
//!
//! The parser's own walk is generic over the visitor, and every copy of it is as large as the
//! grammar: one for all visitors takes minutes off a release build.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement, TableFactor, ValueWithSpan, Visit, VisitMut,
    Visitor, VisitorMut,
};
use featureflight_catalog::{Error, Result};

/// Shows `node` and all below it to `visitor`.
///
/// # Errors
/// What the visitor breaks with.
pub(crate) fn walk<N: Visit>(node: &N, visitor: &mut dyn Visitor<Break = Error>) -> Result<()> {
    result(node.visit(&mut Behind(visitor)))
}

/// As [`walk`], for a statement.
///
/// # Errors
/// What the visitor breaks with.
pub fn walk_statement(node: &Statement, visitor: &mut dyn Visitor<Break = Error>) -> Result<()> {
    walk(node, visitor)
}

/// As [`walk`], for a query.
///
/// # Errors
/// What the visitor breaks with.
pub fn walk_query(node: &Query, visitor: &mut dyn Visitor<Break = Error>) -> Result<()> {
    walk(node, visitor)
}

/// As [`walk`], for a visitor that changes what it sees.
///
/// # Errors
/// What the visitor breaks with.
pub(crate) fn walk_mut<N: VisitMut>(
    node: &mut N,
    visitor: &mut dyn VisitorMut<Break = Error>,
) -> Result<()> {
    result(node.visit(&mut BehindMut(visitor)))
}

fn result(flow: ControlFlow<Error>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Behind<'a>(&'a mut dyn Visitor<Break = Error>);

struct BehindMut<'a>(&'a mut dyn VisitorMut<Break = Error>);

macro_rules! forward {
    ($($node:ty: $before:ident, $after:ident;)*) => {
        impl Visitor for Behind<'_> {
            type Break = Error;
            $(
                fn $before(&mut self, node: &$node) -> ControlFlow<Error> {
                    self.0.$before(node)
                }
                fn $after(&mut self, node: &$node) -> ControlFlow<Error> {
                    self.0.$after(node)
                }
            )*
        }

        impl VisitorMut for BehindMut<'_> {
            type Break = Error;
            $(
                fn $before(&mut self, node: &mut $node) -> ControlFlow<Error> {
                    self.0.$before(node)
                }
                fn $after(&mut self, node: &mut $node) -> ControlFlow<Error> {
                    self.0.$after(node)
                }
            )*
        }
    };
}

// Every method of the traits: one that is missing here would be a visitor that sees nothing.
forward! {
    Query: pre_visit_query, post_visit_query;
    Select: pre_visit_select, post_visit_select;
    ObjectName: pre_visit_relation, post_visit_relation;
    TableFactor: pre_visit_table_factor, post_visit_table_factor;
    Expr: pre_visit_expr, post_visit_expr;
    Statement: pre_visit_statement, post_visit_statement;
    ValueWithSpan: pre_visit_value, post_visit_value;
}
