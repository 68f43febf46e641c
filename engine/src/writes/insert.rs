//! `INSERT INTO features.g (features) VALUES ... / SELECT ...`.

use arrow::datatypes::DataType;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::{Error, Result};
use featureflight_online::group::WriteGroup;
use featureflight_online::record::Operation;
use featureflight_udf::Clocks;

use crate::boundary::announced_type;
use crate::pinning::{Pinned, Scope, pin_query};

use super::{Write, target, unheeded};

const FORM: &str = "INSERT INTO group (features) VALUES (...), or with a query instead of VALUES";

/// An `INSERT` in its parts.
#[derive(Debug)]
pub(crate) struct Insertion {
    table: ast::ObjectName,
    columns: Vec<ast::Ident>,
    source: Box<ast::Query>,
}

impl Insertion {
    /// # Errors
    /// `InvalidArgument` for a clause that nothing would read.
    pub(crate) fn new(insert: ast::Insert) -> Result<Self> {
        let shown = ast::Statement::Insert(insert.clone()).to_string();
        let ast::Insert {
            table: ast::TableObject::TableName(table),
            columns,
            source: Some(source),
            ..
        } = insert
        else {
            return Err(unheeded(FORM));
        };
        let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let list = if names.is_empty() {
            String::new()
        } else {
            format!(" ({})", names.join(", "))
        };
        if shown != format!("INSERT INTO {table}{list} {source}") {
            return Err(unheeded(FORM));
        }
        let columns = columns.iter().map(|name| match name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => Ok(name.clone()),
            _ => Err(Error::invalid(format!("{name} is no feature's name"))),
        });
        Ok(Self {
            table,
            columns: columns.collect::<Result<_>>()?,
            source,
        })
    }

    /// Plans the rows and pins what they read.
    ///
    /// # Errors
    /// Those of planning, and why the group cannot be written.
    pub(crate) async fn plan(self, scope: &Scope) -> Result<(Pinned, Write)> {
        let (names, mut write, source) = self.resolve(scope)?;
        let rows = pin_query(scope, source).await?;
        check_count(names.len(), rows.schema.fields().len())?;
        write.name_columns(names, rows.types());
        Ok((rows, write))
    }

    /// The types of its parameters: what the query tells, else those of the features they become.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(crate) async fn parameters(self, scope: &Scope) -> Result<Vec<Option<DataType>>> {
        let wanted = self.placeholders(scope)?;
        let (names, _, source) = self.resolve(scope)?;
        let planned = scope.ground(Clocks::default()).plan(source).await?;
        check_count(names.len(), planned.plan.schema().fields().len())?;
        let known = planned.parameters.into_iter().enumerate();
        let typed = known.map(|(at, found)| {
            found.or_else(|| {
                wanted
                    .iter()
                    .find(|(n, _)| *n == at)
                    .map(|(_, t)| t.clone())
            })
        });
        Ok(typed.collect())
    }

    /// The write whose columns are parameters of this statement, and which ones: for an `INSERT` of
    /// one row that is parameters and nothing else.
    ///
    /// # Errors
    /// `InvalidArgument` for any other, and why the group cannot be written.
    pub(super) fn of_parameters(self, scope: &Scope) -> Result<(Vec<String>, Write, Vec<usize>)> {
        let parameters = match self.values() {
            [row] => row.iter().map(parameter).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let parameters = parameters.ok_or_else(|| {
            Error::invalid(
                "several rows of parameters are bound, which only INSERT ... VALUES (?, ?, ...) of \
                 one row that is nothing but parameters takes: bind one row at a time",
            )
        })?;
        let (names, write, _) = self.resolve(scope)?;
        check_count(names.len(), parameters.len())?;
        Ok((names, write, parameters))
    }

    fn resolve(mut self, scope: &Scope) -> Result<(Vec<String>, Write, Statement)> {
        let ground = scope.ground(Clocks::default());
        let write = target(
            scope,
            &ground.state,
            &ground.context,
            &self.table,
            Operation::Put,
        )?;
        let names = self.names(&write.group)?;
        name_items(&mut self.source, &names);
        let source = ast::Statement::Query(self.source);
        Ok((names, write, Statement::Statement(Box::new(source))))
    }

    /// The features its columns are, by the definition's names: all of them when it names none.
    fn names(&self, group: &WriteGroup) -> Result<Vec<String>> {
        let fields = group.shape.state_schema.fields();
        if self.columns.is_empty() {
            return Ok(fields.iter().map(|field| field.name().clone()).collect());
        }
        let name = |ident: &ast::Ident| {
            let found = fields.iter().find(|field| match ident.quote_style {
                Some(_) => *field.name() == ident.value,
                None => field.name().eq_ignore_ascii_case(&ident.value),
            });
            match (found, ident.quote_style) {
                (Some(field), _) => Ok(field.name().clone()),
                // What it is said of it depends on the name.
                (None, None) => Ok(ident.value.clone()),
                (None, Some(_)) => Err(Error::invalid(format!(
                    "feature group '{}' has no feature {ident}",
                    group.name()
                ))),
            }
        };
        self.columns.iter().map(name).collect()
    }

    /// The rows of `VALUES`.
    fn values(&self) -> &[ast::Parens<Vec<ast::Expr>>] {
        match self.source.body.as_ref() {
            ast::SetExpr::Values(values) => &values.rows,
            _ => &[],
        }
    }

    /// The parameters that stand for a feature's value, and its type.
    fn placeholders(&self, scope: &Scope) -> Result<Vec<(usize, DataType)>> {
        let ground = scope.ground(Clocks::default());
        let context = &ground.context;
        let group = featureflight_udf::planner::write_target(&ground.state, &self.table, context)?;
        let group = WriteGroup::new(group)?;
        let names = self.names(&group)?;
        let type_of = |name: &String| {
            let field = group.shape.state_schema.field_with_name(name).ok();
            field.map(|field| announced_type(field.data_type()))
        };
        let rows = self.values().iter();
        let cells = rows.flat_map(|row| row.iter().zip(&names));
        Ok(cells
            .filter_map(|(cell, name)| Some((parameter(cell)?, type_of(name)?)))
            .collect())
    }
}

/// The position of the parameter that `cell` is.
fn parameter(cell: &ast::Expr) -> Option<usize> {
    match cell {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => {
                let number: usize = name.strip_prefix('$')?.parse().ok()?;
                number.checked_sub(1)
            }
            _ => None,
        },
        _ => None,
    }
}

/// # Errors
/// `InvalidArgument` for rows that are not as wide as the columns.
fn check_count(columns: usize, values: usize) -> Result<()> {
    if columns == values {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the INSERT has {columns} columns and {values} values for them"
    )))
}

/// Gives the items of a plain `SELECT` the names of the features they become: two constants that
/// are alike would have one name otherwise, which a query cannot have.
fn name_items(source: &mut ast::Query, names: &[String]) {
    let ast::SetExpr::Select(select) = source.body.as_mut() else {
        return;
    };
    if select.projection.len() != names.len() {
        return;
    }
    for (item, name) in select.projection.iter_mut().zip(names) {
        if let ast::SelectItem::UnnamedExpr(expr) = item {
            *item = ast::SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: ast::Ident::with_quote('"', name),
            };
        }
    }
}
