//! `|>` operators, each of which sees the columns of the one before.

use datafusion::sql::sqlparser::ast::{ExprWithAliasAndOrderBy, Ident, PipeOperator};
use featureflight_catalog::Result;

use super::Names;
use super::query::Body;
use super::scope::{Columns, Relation, Scope, fold, quoted};

impl Names<'_> {
    /// Rewrites one operator; `body` becomes its result.
    pub(super) fn pipe_operator(
        &mut self,
        operator: &mut PipeOperator,
        body: &mut Body,
        outer: Option<&Scope<'_>>,
    ) -> Result<()> {
        let Body { columns, relations } = body;
        // Qualifiers of FROM stay in sight for the columns that have passed unchanged.
        let from = Scope::new(relations, outer);
        let input = [Relation {
            names: vec![],
            written: None,
            columns: columns.clone(),
        }];
        let scope = Scope::new(&input, Some(&from));
        match operator {
            PipeOperator::Where { expr } => self.walk(expr, &scope)?,
            PipeOperator::OrderBy { exprs } => self.walk(exprs, &scope)?,
            PipeOperator::Select { exprs } => *columns = self.projection(exprs, &scope)?,
            PipeOperator::Extend { exprs } => {
                let more = self.projection(exprs, &scope)?;
                columns.extend(&more);
            }
            PipeOperator::Aggregate {
                full_table_exprs,
                group_by_expr,
            } => {
                let mut result = Columns::default();
                for item in full_table_exprs.iter_mut().chain(group_by_expr) {
                    self.walk(item, &scope)?;
                    result.names.extend(aggregate_name(item));
                }
                *columns = result;
            }
            PipeOperator::As { alias } => {
                let name: Vec<Ident> = vec![quoted(&fold(alias), alias)];
                *relations = vec![Relation {
                    names: vec![name.clone()],
                    written: Some(name),
                    columns: columns.clone(),
                }];
            }
            PipeOperator::Join(join) => {
                let left = if relations.is_empty() {
                    input.to_vec()
                } else {
                    relations.clone()
                };
                let joined = self.join(left, join, &Scope::default(), outer)?;
                *columns = super::from::all_columns(&joined);
                *relations = joined;
            }
            PipeOperator::Union { queries, .. }
            | PipeOperator::Intersect { queries, .. }
            | PipeOperator::Except { queries, .. } => {
                for query in queries {
                    self.query(query, outer)?;
                }
            }
            PipeOperator::Limit { .. } => {}
            // Planning refuses the others.
            _ => columns.open = true,
        }
        Ok(())
    }
}

fn aggregate_name(item: &ExprWithAliasAndOrderBy) -> Option<String> {
    use datafusion::sql::sqlparser::ast::Expr;
    match (&item.expr.alias, &item.expr.expr) {
        (Some(alias), _) => Some(fold(alias)),
        (None, Expr::Identifier(name)) => Some(fold(name)),
        _ => None,
    }
}
