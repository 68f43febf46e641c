//! `DELETE FROM features.g WHERE id = x / id IN (...) [AND event_time = t]`.
//!
//! The markers to write are rows of a query: the identifiers, the time of the delete, and the event
//! time of the record that is there, which it must be later than.

use arrow::datatypes::DataType;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::table::Shape;
use featureflight_catalog::{Instant, Result};
use featureflight_online::group::WriteGroup;
use featureflight_online::record::Operation;
use featureflight_udf::Clocks;

use crate::pinning::{Pinned, Scope, pin_query};

use super::{Write, target, unheeded};

const FORM: &str = "DELETE FROM group WHERE record_identifier = x, or IN (x, ...), and, to say when, \
                    AND event_time = t";

/// Position of the stored event time among the columns of the rows.
const STORED: usize = 2;

/// A `DELETE` in its parts.
#[derive(Debug)]
pub(crate) struct Deletion {
    table: ast::ObjectName,
    selection: ast::Expr,
}

impl Deletion {
    /// # Errors
    /// `InvalidArgument` for a clause that nothing would read, and without WHERE.
    pub(crate) fn new(delete: ast::Delete) -> Result<Self> {
        let shown = delete.to_string();
        let unheeded = || unheeded(FORM);
        let ast::FromTable::WithFromKeyword(from) = delete.from else {
            return Err(unheeded());
        };
        let [table] = from.as_slice() else {
            return Err(unheeded());
        };
        let ast::TableFactor::Table { name, .. } = &table.relation else {
            return Err(unheeded());
        };
        let selection = delete.selection.ok_or_else(unheeded)?;
        let read = ast::Delete {
            selection: Some(selection.clone()),
            ..plain(name)?
        };
        if shown != read.to_string() {
            return Err(unheeded());
        }
        Ok(Self {
            table: name.clone(),
            selection,
        })
    }

    /// Plans the markers and pins what they read.
    ///
    /// # Errors
    /// Those of planning, and why the group cannot be written.
    pub(crate) async fn plan(self, scope: &Scope) -> Result<(Pinned, Write)> {
        let (mut write, source) = self.resolve(scope)?;
        let rows = pin_query(scope, source).await?;
        let shape = &write.group.shape;
        let definition = |at: usize| shape.state_schema.field(at).name().clone();
        let names = vec![
            definition(shape.record_identifier),
            definition(shape.event_time),
            "stored".to_owned(),
        ];
        write.name_columns(names, rows.types());
        write.stored = Some(STORED);
        Ok((rows, write))
    }

    /// The types of its parameters, where they can be told.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(crate) async fn parameters(self, scope: &Scope) -> Result<Vec<Option<DataType>>> {
        let (_, source) = self.resolve(scope)?;
        Ok(scope
            .ground(Clocks::default())
            .plan(source)
            .await?
            .parameters)
    }

    fn resolve(self, scope: &Scope) -> Result<(Write, Statement)> {
        let ground = scope.ground(Clocks::default());
        let operation = if scope.session.settings.writes.hard_deletes {
            Operation::HardDelete
        } else {
            Operation::SoftDelete
        };
        let (state, context) = (&ground.state, &ground.context);
        let write = target(scope, state, context, &self.table, operation)?;
        let wanted = Wanted::of(&self.selection, &write.group.shape)?;
        let source = featureflight_udf::dialect::parse(&wanted.query(&write.group))?;
        Ok((write, source))
    }
}

/// `DELETE FROM name`.
fn plain(name: &ast::ObjectName) -> Result<ast::Delete> {
    let text = format!("DELETE FROM {name}");
    match featureflight_udf::dialect::parse(&text)? {
        Statement::Statement(statement) => match *statement {
            ast::Statement::Delete(delete) => Ok(delete),
            _ => Err(unheeded(FORM)),
        },
        _ => Err(unheeded(FORM)),
    }
}

/// What the condition of a `DELETE` says.
struct Wanted<'a> {
    identifiers: Vec<&'a ast::Expr>,
    event_time: Option<&'a ast::Expr>,
}

impl<'a> Wanted<'a> {
    fn of(selection: &'a ast::Expr, shape: &Shape) -> Result<Self> {
        let mut identifiers = None;
        let mut event_time = None;
        let mut conjuncts = vec![selection];
        while let Some(conjunct) = conjuncts.pop() {
            let (column, values) = match conjunct {
                ast::Expr::Nested(inner) => {
                    conjuncts.push(inner);
                    continue;
                }
                ast::Expr::BinaryOp {
                    left,
                    op: ast::BinaryOperator::And,
                    right,
                } => {
                    conjuncts.extend([left.as_ref(), right]);
                    continue;
                }
                ast::Expr::BinaryOp {
                    left,
                    op: ast::BinaryOperator::Eq,
                    right,
                } => match (column(left), column(right)) {
                    (Some(column), None) => (column, vec![right.as_ref()]),
                    (None, Some(column)) => (column, vec![left.as_ref()]),
                    _ => return Err(unheeded(FORM)),
                },
                ast::Expr::InList {
                    expr,
                    list,
                    negated: false,
                } => {
                    let column = column(expr).ok_or_else(|| unheeded(FORM))?;
                    (column, list.iter().collect())
                }
                _ => return Err(unheeded(FORM)),
            };
            let is = |at: usize| names(column, shape.state_schema.field(at).name());
            let first = if is(shape.record_identifier) {
                identifiers.replace(values).is_none()
            } else if let ([one], true) = (values.as_slice(), is(shape.event_time)) {
                event_time.replace(*one).is_none()
            } else {
                false
            };
            if !first {
                return Err(unheeded(FORM));
            }
        }
        Ok(Self {
            identifiers: identifiers.ok_or_else(|| unheeded(FORM))?,
            event_time,
        })
    }

    /// Columns: identifier, time of the delete, time of the record that is there.
    fn query(&self, group: &WriteGroup) -> String {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let shape = &group.shape;
        let field = |at: usize| quoted(shape.state_schema.field(at).name());
        let (identifier, event_time) = (field(shape.record_identifier), field(shape.event_time));
        let group_name = quoted(group.name());
        let there = if group.group.offline_store_config.is_some() {
            format!("features.{group_name}")
        } else {
            format!("online('{}')", group_name.replace('\'', "''"))
        };
        let at = self.event_time.map_or_else(now, ToString::to_string);
        let list: Vec<String> = self.identifiers.iter().map(ToString::to_string).collect();
        let rows: Vec<String> = list.iter().map(|one| format!("({one}, {at})")).collect();
        format!(
            "SELECT DISTINCT v.i AS i, v.t AS t, s.t AS stored \
             FROM (VALUES {rows}) AS v (i, t) \
             LEFT JOIN (SELECT {identifier} AS i, {event_time} AS t \
             FROM {there} WHERE {identifier} IN ({list})) AS s ON v.i = s.i \
             WHERE v.i IS NOT NULL",
            rows = rows.join(", "),
            list = list.join(", "),
        )
    }
}

/// Now in milliseconds, as a literal.
fn now() -> String {
    let now = Instant::now();
    let millis = Instant::from_micros(now.micros.div_euclid(1_000) * 1_000);
    format!("'{millis}'")
}

/// The column an expression is, unqualified.
fn column(expr: &ast::Expr) -> Option<&ast::Ident> {
    match expr {
        ast::Expr::Identifier(name) => Some(name),
        ast::Expr::CompoundIdentifier(path) => path.last(),
        ast::Expr::Nested(inner) => column(inner),
        _ => None,
    }
}

fn names(ident: &ast::Ident, name: &str) -> bool {
    match ident.quote_style {
        Some(_) => ident.value == name,
        None => ident.value.eq_ignore_ascii_case(name),
    }
}
