//! Columns inside expressions.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query,
    SetExpr, Value, Values, VisitMut, VisitorMut,
};
use featureflight_catalog::{Error, Result};

use super::Names;
use super::scope::{Scope, quoted};
use crate::dialect::walk::walk_mut;

/// Walks an expression. A subquery opens its own scopes, so it is taken out of the tree while the
/// visitor passes and put back rewritten.
pub(super) struct ExprRewriter<'r, 'n> {
    names: &'r mut Names<'n>,
    scope: &'r Scope<'r>,
    queries: Vec<Query>,
    /// Rewritten by hand, with the depth where each belongs.
    taken: Vec<(usize, Expr)>,
    depth: usize,
}

impl<'r, 'n> ExprRewriter<'r, 'n> {
    pub(super) fn new(names: &'r mut Names<'n>, scope: &'r Scope<'r>) -> Self {
        Self {
            names,
            scope,
            queries: vec![],
            taken: vec![],
            depth: 0,
        }
    }

    fn expr(&mut self, expr: &mut Expr) -> Result<()> {
        match expr {
            Expr::Identifier(name) if !is_variable(name) => {
                if let Some(spelling) = self.scope.column(name)? {
                    *name = quoted(&spelling, name);
                }
            }
            Expr::CompoundIdentifier(parts) if !parts.first().is_some_and(is_variable) => {
                self.scope.compound(parts)?;
            }
            Expr::CompoundFieldAccess { .. } => {
                let mut access = std::mem::replace(expr, Expr::value(Value::Null));
                self.field_access(&mut access)?;
                self.taken.push((self.depth, access));
            }
            Expr::QualifiedWildcard(qualifier, _) => write_qualifier(qualifier, self.scope)?,
            Expr::Function(function) => {
                if let FunctionArguments::List(list) = &mut function.args {
                    for argument in &mut list.args {
                        if let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(qualifier))
                        | FunctionArg::Named {
                            arg: FunctionArgExpr::QualifiedWildcard(qualifier),
                            ..
                        } = argument
                        {
                            write_qualifier(qualifier, self.scope)?;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `a.b[1].c`: the leading names are a column, names after a subscript are fields.
    fn field_access(&mut self, access: &mut Expr) -> Result<()> {
        let Expr::CompoundFieldAccess { root, access_chain } = access else {
            return Ok(());
        };
        let leading = match root.as_ref() {
            Expr::Identifier(name) => Some(vec![name.clone()]),
            Expr::CompoundIdentifier(parts) => Some(parts.clone()),
            _ => None,
        };
        if let Some(mut parts) = leading.filter(|parts| !parts.first().is_some_and(is_variable)) {
            let dots = access_chain
                .iter()
                .take_while(|access| matches!(access, AccessExpr::Dot(Expr::Identifier(_))))
                .count();
            for access in access_chain.drain(..dots) {
                if let AccessExpr::Dot(Expr::Identifier(name)) = access {
                    parts.push(name);
                }
            }
            if let [name] = parts.as_mut_slice() {
                if let Some(spelling) = self.scope.column(name)? {
                    *name = quoted(&spelling, name);
                }
            } else {
                self.scope.compound(&mut parts)?;
            }
            // One shape whatever the number of parts, as the parser makes it.
            let mut parts = parts.into_iter();
            if let Some(first) = parts.next() {
                **root = Expr::Identifier(first);
            }
            access_chain.splice(
                ..0,
                parts.map(|part| AccessExpr::Dot(Expr::Identifier(part))),
            );
        } else {
            self.walk(root.as_mut())?;
        }
        for access in access_chain {
            if let AccessExpr::Subscript(subscript) = access {
                self.walk(subscript)?;
            }
        }
        Ok(())
    }

    fn walk(&mut self, node: &mut impl VisitMut) -> Result<()> {
        walk_mut(node, self)
    }
}

/// `@name` is a variable of the session.
fn is_variable(name: &Ident) -> bool {
    name.quote_style.is_none() && name.value.starts_with('@')
}

/// Writes `qualifier` of `qualifier.*` as its table is written in FROM.
pub(super) fn write_qualifier(qualifier: &mut ObjectName, scope: &Scope<'_>) -> Result<()> {
    let parts: Option<Vec<Ident>> = qualifier
        .0
        .iter()
        .map(|part| part.as_ident().cloned())
        .collect();
    if let Some(parts) = parts
        && let Some(relation) = scope.relation(&parts)?
        && let Some(written) = &relation.written
    {
        *qualifier = ObjectName::from(written.clone());
    }
    Ok(())
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for ExprRewriter<'_, '_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.depth += 1;
        flow(self.expr(expr))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self
            .taken
            .last()
            .is_some_and(|(depth, _)| *depth == self.depth)
            && let Some((_, taken)) = self.taken.pop()
        {
            *expr = taken;
        }
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut inner = std::mem::replace(query, empty_query());
        if let Err(error) = self.names.query(&mut inner, Some(self.scope)) {
            return ControlFlow::Break(error);
        }
        self.queries.push(inner);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let Some(inner) = self.queries.pop() {
            *query = inner;
        }
        ControlFlow::Continue(())
    }
}

fn empty_query() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(Values {
            explicit_row: false,
            value_keyword: false,
            rows: vec![],
        })),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    }
}
