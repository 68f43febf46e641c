//! Queries: WITH, set operations, SELECT and the order in which its clauses see names.

use datafusion::sql::sqlparser::ast::{
    Distinct, ExceptSelectItem, ExcludeSelectItem, Expr, GroupByExpr, Ident, IdentWithAlias,
    ObjectName, OrderBy, Query, RenameSelectItem, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, WildcardAdditionalOptions, With,
};
use featureflight_catalog::Result;

use super::expr::write_qualifier;
use super::from::{all_columns, check_names};
use super::scope::{Columns, Relation, Scope, column_of, fold, quoted};
use super::{Cte, Names, under_alias};

/// The result of a query's body, and what its FROM had in sight for ORDER BY.
#[derive(Default)]
pub(super) struct Body {
    pub(super) columns: Columns,
    pub(super) relations: Vec<Relation>,
}

impl Names<'_> {
    /// Rewrites `query`; its columns.
    pub(super) fn query(
        &mut self,
        query: &mut Query,
        outer: Option<&Scope<'_>>,
    ) -> Result<Columns> {
        let ctes = self.ctes.len();
        if let Some(with) = &mut query.with {
            self.with(with, outer)?;
        }
        let mut body = self.body(&mut query.body, outer)?;
        if let Some(order_by) = &mut query.order_by {
            self.order_by(order_by, &body, outer)?;
        }
        self.walk(&mut query.limit_clause, &Scope::default())?;
        for operator in &mut query.pipe_operators {
            self.pipe_operator(operator, &mut body, outer)?;
        }
        self.ctes.truncate(ctes);
        Ok(body.columns)
    }

    fn with(&mut self, with: &mut With, outer: Option<&Scope<'_>>) -> Result<()> {
        for cte in &mut with.cte_tables {
            let before = self.relations;
            let name = fold(&cte.alias.name);
            let columns = match cte.query.body.as_mut() {
                SetExpr::SetOperation { left, right, .. } if with.recursive => {
                    // The recursive term sees the columns of the first one, as the alias names them.
                    let first = self.body(left, outer)?.columns;
                    let columns = under_alias(first, &cte.alias);
                    self.ctes.push(Cte {
                        name: name.clone(),
                        columns: columns.clone(),
                        relations: 1,
                    });
                    let rest = self.body(right, outer);
                    self.ctes.pop();
                    rest?;
                    columns
                }
                _ => under_alias(self.query(&mut cte.query, outer)?, &cte.alias),
            };
            let relations = self.relations - before;
            // Counted where it is used.
            self.relations = before;
            self.ctes.push(Cte {
                name,
                columns,
                relations,
            });
        }
        Ok(())
    }

    fn body(&mut self, body: &mut SetExpr, outer: Option<&Scope<'_>>) -> Result<Body> {
        match body {
            SetExpr::Select(select) => self.select(select, outer),
            SetExpr::Query(query) => Ok(Body {
                columns: self.query(query, outer)?,
                relations: vec![],
            }),
            SetExpr::SetOperation { left, right, .. } => {
                let columns = self.body(left, outer)?.columns;
                self.body(right, outer)?;
                Ok(Body {
                    columns,
                    relations: vec![],
                })
            }
            SetExpr::Values(values) => {
                let scope = Scope::new(&[], outer);
                let width = values.rows.first().map_or(0, |row| row.len());
                for row in &mut values.rows {
                    self.walk(&mut row.content, &scope)?;
                }
                let names = (1..=width)
                    .map(|number| format!("column{number}"))
                    .collect();
                Ok(Body {
                    columns: Columns::known(names),
                    relations: vec![],
                })
            }
            SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_)
            | SetExpr::Table(_) => Ok(Body {
                columns: Columns::unknown(),
                relations: vec![],
            }),
        }
    }

    fn select(&mut self, select: &mut Select, outer: Option<&Scope<'_>>) -> Result<Body> {
        let mut relations: Vec<Relation> = Vec::new();
        for table in &mut select.from {
            let siblings = Scope::new(&relations, outer);
            let more = self.table_with_joins(table, &siblings, outer)?;
            relations.extend(more);
        }
        check_names(&relations)?;
        let scope = Scope::new(&relations, outer);
        self.walk(&mut select.prewhere, &scope)?;
        self.walk(&mut select.selection, &scope)?;
        self.walk(&mut select.connect_by, &scope)?;
        self.walk(&mut select.named_window, &scope)?;
        let columns = match select.flavor {
            SelectFlavor::FromFirstNoSelect => all_columns(&relations),
            _ => self.projection(&mut select.projection, &scope)?,
        };

        let grouped = Scope {
            outputs: &columns.names,
            ..scope
        };
        if let GroupByExpr::Expressions(..) = &select.group_by {
            self.walk(&mut select.group_by, &grouped)?;
        }
        self.walk(&mut select.having, &grouped)?;
        self.walk(&mut select.qualify, &grouped)?;
        let ordered = Scope {
            outputs_first: true,
            ..grouped
        };
        if let Some(Distinct::On(on)) = &mut select.distinct {
            self.walk(on, &ordered)?;
        }
        self.walk(&mut select.sort_by, &ordered)?;
        Ok(Body { columns, relations })
    }

    fn order_by(
        &mut self,
        order_by: &mut OrderBy,
        body: &Body,
        outer: Option<&Scope<'_>>,
    ) -> Result<()> {
        let scope = Scope {
            relations: &body.relations,
            outputs: &body.columns.names,
            outputs_first: true,
            outer,
        };
        self.walk(order_by, &scope)
    }

    /// Rewrites a select list; its columns.
    pub(super) fn projection(
        &mut self,
        items: &mut [SelectItem],
        scope: &Scope<'_>,
    ) -> Result<Columns> {
        let mut columns = Columns::default();
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    self.walk(expr, scope)?;
                    columns.names.extend(output_name(expr, scope)?);
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    self.walk(expr, scope)?;
                    columns.names.push(fold(alias));
                }
                SelectItem::ExprWithAliases { expr, aliases } => {
                    self.walk(expr, scope)?;
                    columns.names.extend(aliases.iter().map(fold));
                }
                SelectItem::Wildcard(options) => {
                    let all = all_columns(scope.relations);
                    columns.extend(&self.wildcard(options, scope.relations, all, scope)?);
                }
                SelectItem::QualifiedWildcard(kind, options) => {
                    self.qualified_wildcard(kind, options, scope, &mut columns)?;
                }
            }
        }
        Ok(columns)
    }

    fn qualified_wildcard(
        &mut self,
        kind: &mut SelectItemQualifiedWildcardKind,
        options: &mut WildcardAdditionalOptions,
        scope: &Scope<'_>,
        columns: &mut Columns,
    ) -> Result<()> {
        let qualifier = match kind {
            SelectItemQualifiedWildcardKind::ObjectName(qualifier) => qualifier,
            SelectItemQualifiedWildcardKind::Expr(expr) => {
                columns.open = true;
                return self.walk(expr, scope);
            }
        };
        let parts: Vec<Ident> = qualifier
            .0
            .iter()
            .filter_map(|part| part.as_ident().cloned())
            .collect();
        let relation = scope.relation(&parts)?;
        write_qualifier(qualifier, scope)?;
        let (relations, all) = match relation {
            Some(relation) => (std::slice::from_ref(relation), relation.columns.clone()),
            None => (&[][..], Columns::unknown()),
        };
        columns.extend(&self.wildcard(options, relations, all, scope)?);
        Ok(())
    }

    /// Rewrites what follows `*`; the columns that are left.
    fn wildcard(
        &mut self,
        options: &mut WildcardAdditionalOptions,
        relations: &[Relation],
        mut all: Columns,
        scope: &Scope<'_>,
    ) -> Result<Columns> {
        let spell = |name: &mut Ident| -> Result<()> {
            if name.quote_style.is_none()
                && let Some(spelling) = column_of(relations.iter(), name)?
            {
                *name = quoted(&spelling, name);
            }
            Ok(())
        };
        let mut gone: Vec<String> = Vec::new();
        for name in excluded(options) {
            spell(name)?;
            gone.push(fold(name));
        }
        let mut renamed = Vec::new();
        for IdentWithAlias { ident, alias } in renames(options) {
            spell(ident)?;
            gone.push(fold(ident));
            renamed.push(fold(alias));
        }
        for item in options
            .opt_replace
            .iter_mut()
            .flat_map(|replace| &mut replace.items)
        {
            spell(&mut item.column_name)?;
            self.walk(&mut item.expr, scope)?;
        }
        all.names.retain(|name| !gone.contains(name));
        all.names.extend(renamed);
        Ok(all)
    }
}

/// The columns that EXCLUDE and EXCEPT name.
fn excluded(options: &mut WildcardAdditionalOptions) -> Vec<&mut Ident> {
    let names: Vec<&mut ObjectName> = match &mut options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names.iter_mut().collect(),
        None => vec![],
    };
    let mut columns: Vec<&mut Ident> = names.into_iter().filter_map(last_ident).collect();
    if let Some(ExceptSelectItem {
        first_element,
        additional_elements,
    }) = &mut options.opt_except
    {
        columns.push(first_element);
        columns.extend(additional_elements);
    }
    columns
}

fn last_ident(name: &mut ObjectName) -> Option<&mut Ident> {
    use datafusion::sql::sqlparser::ast::ObjectNamePart;
    match name.0.last_mut() {
        Some(ObjectNamePart::Identifier(ident)) => Some(ident),
        _ => None,
    }
}

fn renames(options: &mut WildcardAdditionalOptions) -> Vec<&mut IdentWithAlias> {
    match &mut options.opt_rename {
        Some(RenameSelectItem::Single(one)) => vec![one],
        Some(RenameSelectItem::Multiple(several)) => several.iter_mut().collect(),
        None => vec![],
    }
}

/// The name of an unaliased select item, when it is a column; already rewritten.
fn output_name(expr: &Expr, scope: &Scope<'_>) -> Result<Option<String>> {
    match expr {
        Expr::Identifier(name) => Ok(Some(fold(name))),
        Expr::Nested(inner) => output_name(inner, scope),
        Expr::CompoundIdentifier(parts) => {
            let mut parts = parts.clone();
            let column = scope.compound(&mut parts)?;
            // A field inside a column has a name that only `DataFusion` knows.
            let is_column = column.is_none_or(|column| column + 1 == parts.len());
            Ok(parts.last().filter(|_| is_column).map(fold))
        }
        _ => Ok(None),
    }
}
