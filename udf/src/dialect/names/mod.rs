//! Rewrites unquoted names to the catalog's spelling, scope by scope, so that they match ignoring
//! case while quoted names match exactly.
//!
//! `DataFusion` folds unquoted names to lowercase and takes quoted ones as they are. After the
//! rewrite every name that could be resolved is quoted in its exact spelling. What could not be
//! resolved stays as typed, for planning to report. Names that a query makes itself (aliases,
//! CTEs, columns of derived tables) are folded to lowercase when they are not quoted, and
//! references to them match like all others.
//!
//! Decided here:
//! * A table of the catalog is written with its schema, two parts whatever was typed, and so is
//!   every qualifier that means it: a name of one part is a CTE or an alias, or is not known.
//! * `USING` and `NATURAL` need one spelling on both sides: two spellings are an error that shows
//!   the ON form, since rewriting to ON would change the columns of `*`.
//! * A table and an alias of the same name in one FROM are an error: `DataFusion` would silently
//!   take the first that has the column.
//! * What a relation of unknown columns may hold is left as typed, even when an outer query has a
//!   match.

mod expr;
mod from;
mod pipe;
mod query;
mod scope;

use datafusion::sql::sqlparser::ast::{
    self, Ident, ObjectName, ShowStatementIn, ShowStatementInClause, Statement, TableAlias,
    VisitMut,
};
use featureflight_catalog::{Error, Kind, Result};

use self::scope::{Columns, Scope, fold, matches, one_spelling, quoted};
use super::limits::{MAX_RELATIONS, with_stack};
use super::walk::walk_mut;

/// The one catalog, which may be typed before any schema.
pub const CATALOG: &str = "featureflight";

/// What a relation's name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedTable {
    /// Schema and table in the catalog's spelling.
    pub schema: String,
    pub table: String,
    /// Column names in the catalog's spelling.
    pub columns: Vec<String>,
}

/// The catalog as names see it.
pub trait NameSource {
    /// The relation `name` (one to three parts, as typed, quoted or not) stands for; `None` when
    /// there is none, so that planning reports it with near names.
    ///
    /// # Errors
    /// `InvalidArgument` when several relations match ignoring case: the message lists the quoted
    /// forms.
    fn table(&self, name: &ast::ObjectName) -> Result<Option<ResolvedTable>>;

    /// The output columns of a table function call in FROM, by the function's lowercase name;
    /// `spine` gives the columns of its relation argument, if it has one. `None`: not known, its
    /// columns are left as typed.
    ///
    /// # Errors
    /// Whatever makes the call's columns impossible to tell.
    fn function(
        &self,
        name: &str,
        args: &[ast::FunctionArg],
        spine: Option<&[String]>,
    ) -> Result<Option<Vec<String>>>;
}

/// Rewrites every table and column name of `statement` in place: queries, `EXPLAIN`, `DESCRIBE`,
/// `SHOW COLUMNS` and the query of `CREATE VIEW`. Other statements stay as they are.
///
/// # Errors
/// `InvalidArgument` for an unquoted name that several spellings in scope match;
/// `ResourceExhausted` when CTEs that use each other multiply beyond [`MAX_RELATIONS`] relations.
pub fn rewrite(statement: &mut ast::Statement, source: &dyn NameSource) -> Result<()> {
    with_stack(|| rewrite_statement(statement, source))
}

fn rewrite_statement(statement: &mut Statement, source: &dyn NameSource) -> Result<()> {
    let mut names = Names {
        source,
        ctes: Vec::new(),
        relations: 0,
    };
    match statement {
        Statement::Query(query) => names.query(query, None).map(drop),
        Statement::Explain { statement, .. } => rewrite_statement(statement, source),
        Statement::CreateView(view) => names.query(&mut view.query, None).map(drop),
        Statement::ExplainTable { table_name, .. } => names.table(table_name).map(drop),
        Statement::ShowColumns { show_options, .. } => match &mut show_options.show_in {
            Some(ShowStatementIn {
                clause: ShowStatementInClause::FROM | ShowStatementInClause::IN,
                parent_name: Some(name),
                ..
            }) => names.table(name).map(drop),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A CTE in sight.
struct Cte {
    name: String,
    columns: Columns,
    /// Relations that its plan reads, since every reference repeats it.
    relations: usize,
}

/// One rewrite of one statement.
struct Names<'a> {
    source: &'a dyn NameSource,
    /// Innermost last.
    ctes: Vec<Cte>,
    /// Relations read so far, CTEs expanded.
    relations: usize,
}

/// What a table's name in FROM stands for.
struct Table {
    /// Every way to name it, most parts first.
    names: Vec<Vec<Ident>>,
    /// As written now; `None` when it is not known and stays as typed.
    written: Option<Vec<Ident>>,
    columns: Columns,
}

impl Names<'_> {
    /// Rewrites the names in `node`, which holds no table factors besides those of subqueries.
    fn walk(&mut self, node: &mut impl VisitMut, scope: &Scope<'_>) -> Result<()> {
        walk_mut(node, &mut expr::ExprRewriter::new(self, scope))
    }

    fn count_relations(&mut self, more: usize) -> Result<()> {
        self.relations = self.relations.saturating_add(more);
        if self.relations > MAX_RELATIONS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the statement reads more than {MAX_RELATIONS} tables, each use of a WITH \
                     query counted with all that it reads"
                ),
            ));
        }
        Ok(())
    }

    /// Resolves a table's name: CTEs first, then the catalog.
    fn table(&mut self, name: &mut ObjectName) -> Result<Table> {
        let typed: Option<Vec<Ident>> =
            name.0.iter().map(|part| part.as_ident().cloned()).collect();
        let Some(typed) = typed else {
            return Ok(Table {
                names: vec![],
                written: None,
                columns: Columns::unknown(),
            });
        };
        if let [one] = typed.as_slice()
            && let Some(table) = self.cte(one)?
        {
            *name = ObjectName::from(table.written.clone().unwrap_or_default());
            return Ok(table);
        }
        self.count_relations(1)?;
        let Some(resolved) = self.source.table(name)? else {
            return Ok(Table {
                names: vec![typed],
                written: None,
                columns: Columns::unknown(),
            });
        };
        let place = typed.last().cloned().unwrap_or_else(|| Ident::new(""));
        let written = vec![
            quoted(&resolved.schema, &place),
            quoted(&resolved.table, &place),
        ];
        let full = [&[quoted(CATALOG, &place)], written.as_slice()].concat();
        let mut as_typed = full.clone();
        as_typed.splice(as_typed.len() - 1.., typed.last().cloned());
        *name = ObjectName::from(written.clone());
        Ok(Table {
            names: vec![full, as_typed, typed],
            written: Some(written),
            columns: Columns::known(resolved.columns),
        })
    }

    fn cte(&mut self, name: &Ident) -> Result<Option<Table>> {
        let candidates = self.ctes.iter().map(|cte| cte.name.as_str());
        let candidates = candidates.filter(|cte| matches(name, cte));
        let Some(spelling) = one_spelling(name, candidates)? else {
            return Ok(None);
        };
        let spelling = spelling.to_owned();
        let Some(cte) = self.ctes.iter().rev().find(|cte| cte.name == spelling) else {
            return Ok(None);
        };
        let (columns, relations) = (cte.columns.clone(), cte.relations);
        self.count_relations(relations)?;
        let written = vec![quoted(&spelling, name)];
        Ok(Some(Table {
            names: vec![written.clone()],
            written: Some(written),
            columns,
        }))
    }
}

/// The columns of a relation under `alias`, which may rename them all.
fn under_alias(columns: Columns, alias: &TableAlias) -> Columns {
    if alias.columns.is_empty() {
        return columns;
    }
    Columns::known(
        alias
            .columns
            .iter()
            .map(|column| fold(&column.name))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
