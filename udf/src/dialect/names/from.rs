//! Relations of a FROM clause, and the columns they bring into sight.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins,
};
use featureflight_catalog::{Error, Result};

use super::scope::{Columns, Relation, Scope, column_of, fold, quoted};
use super::{Names, under_alias};

/// Which sides of a join its result has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    Both,
    Left,
    Right,
}

impl Names<'_> {
    /// The relations of `table`. Lateral ones see `siblings`; all see `outer`.
    pub(super) fn table_with_joins(
        &mut self,
        table: &mut TableWithJoins,
        siblings: &Scope<'_>,
        outer: Option<&Scope<'_>>,
    ) -> Result<Vec<Relation>> {
        let mut relations = self.factor(&mut table.relation, siblings, outer)?;
        for join in &mut table.joins {
            relations = self.join(relations, join, siblings, outer)?;
        }
        Ok(relations)
    }

    /// What `left` and `join` bring into sight.
    pub(super) fn join(
        &mut self,
        left: Vec<Relation>,
        join: &mut Join,
        siblings: &Scope<'_>,
        outer: Option<&Scope<'_>>,
    ) -> Result<Vec<Relation>> {
        let visible = Scope::new(&left, Some(siblings));
        let right = self.factor(&mut join.relation, &visible, outer)?;
        let boundary = left.len();
        let mut both = left;
        both.extend(right);
        check_names(&both)?;
        let scope = Scope::new(&both, outer);
        if let JoinOperator::AsOf {
            match_condition, ..
        } = &mut join.join_operator
        {
            self.walk(match_condition, &scope)?;
        }
        let (constraint, sides) = parts(&mut join.join_operator);
        match constraint {
            Some(JoinConstraint::On(condition)) => self.walk(condition, &scope)?,
            Some(JoinConstraint::Using(columns)) => {
                let (left, right) = both.split_at(boundary);
                for column in columns {
                    using(column, left, right)?;
                }
            }
            Some(JoinConstraint::Natural) => {
                let (left, right) = both.split_at(boundary);
                natural(left, right)?;
            }
            Some(JoinConstraint::None) | None => {}
        }
        match sides {
            Sides::Both => {}
            Sides::Left => both.truncate(boundary),
            Sides::Right => drop(both.drain(..boundary)),
        }
        Ok(both)
    }

    fn factor(
        &mut self,
        factor: &mut TableFactor,
        siblings: &Scope<'_>,
        outer: Option<&Scope<'_>>,
    ) -> Result<Vec<Relation>> {
        let relation = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let table = self.table(name)?;
                match alias {
                    Some(alias) => aliased(table.columns, alias),
                    None => Relation {
                        names: table.names,
                        written: table.written,
                        columns: table.columns,
                    },
                }
            }
            TableFactor::Table {
                name,
                alias,
                args: Some(args),
                ..
            } => {
                // Only `unnest(t.list)` and lateral functions see their siblings.
                self.call(name, &mut args.args, alias.as_ref(), siblings, outer)?
            }
            TableFactor::Function {
                name, alias, args, ..
            } => self.call(name, args, alias.as_ref(), siblings, outer)?,
            TableFactor::TableFunction { expr, alias } => {
                if let Expr::Function(Function {
                    name,
                    args: FunctionArguments::List(list),
                    ..
                }) = expr
                {
                    self.call(name, &mut list.args, alias.as_ref(), siblings, outer)?
                } else {
                    self.relation_argument(expr, outer)?;
                    unknown(alias.as_ref())
                }
            }
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                ..
            } => {
                let scope = if *lateral { Some(siblings) } else { outer };
                let columns = self.query(subquery, scope)?;
                match alias {
                    Some(alias) => aliased(columns, alias),
                    None => Relation {
                        names: vec![],
                        written: None,
                        columns,
                    },
                }
            }
            TableFactor::UNNEST {
                array_exprs, alias, ..
            } => {
                self.count_relations(1)?;
                self.walk(array_exprs, siblings)?;
                unknown(alias.as_ref())
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                let relations = self.table_with_joins(table_with_joins, siblings, outer)?;
                match alias {
                    Some(alias) => aliased(all_columns(&relations), alias),
                    None => return Ok(relations),
                }
            }
            // Planning refuses these; the tables inside are named for its message.
            TableFactor::Pivot { table, alias, .. }
            | TableFactor::Unpivot { table, alias, .. }
            | TableFactor::MatchRecognize { table, alias, .. } => {
                self.factor(table, siblings, outer)?;
                unknown(alias.as_ref())
            }
            TableFactor::JsonTable { alias, .. }
            | TableFactor::OpenJsonTable { alias, .. }
            | TableFactor::XmlTable { alias, .. }
            | TableFactor::SemanticView { alias, .. } => unknown(alias.as_ref()),
        };
        Ok(vec![relation])
    }

    /// A table function: its arguments rewritten, its columns asked for.
    fn call(
        &mut self,
        name: &ObjectName,
        args: &mut [FunctionArg],
        alias: Option<&TableAlias>,
        siblings: &Scope<'_>,
        outer: Option<&Scope<'_>>,
    ) -> Result<Relation> {
        self.count_relations(1)?;
        let function = match name.0.as_slice() {
            [part] => part.as_ident().map(|name| name.value.to_ascii_lowercase()),
            _ => None,
        };
        let mut spine: Option<Columns> = None;
        for arg in args.iter_mut() {
            let (FunctionArg::Named { arg, .. }
            | FunctionArg::ExprNamed { arg, .. }
            | FunctionArg::Unnamed(arg)) = arg;
            let FunctionArgExpr::Expr(arg) = arg else {
                continue;
            };
            match self.relation_argument(arg, outer)? {
                Some(columns) => spine = spine.or(Some(columns)),
                None => self.walk(arg, siblings)?,
            }
        }
        let columns = match &function {
            Some(function) => {
                let spine = spine.as_ref().map(|spine| spine.names.as_slice());
                self.source.function(function, args, spine)?
            }
            None => None,
        };
        let columns = match columns {
            Some(names) => Columns {
                names,
                open: spine.is_some_and(|spine| spine.open),
            },
            None => Columns::unknown(),
        };
        Ok(match alias {
            Some(alias) => aliased(columns, alias),
            None => Relation {
                names: function
                    .into_iter()
                    .map(|name| vec![Ident::new(name)])
                    .collect(),
                written: None,
                columns,
            },
        })
    }

    /// The columns of a relation given as an argument: `(SELECT ...)`, `TABLE(t)`,
    /// `TABLE(SELECT ...)`; `None` when `arg` is none of these.
    fn relation_argument(
        &mut self,
        arg: &mut Expr,
        outer: Option<&Scope<'_>>,
    ) -> Result<Option<Columns>> {
        match arg {
            Expr::Subquery(query) => self.query(query, outer).map(Some),
            Expr::Nested(inner) => self.relation_argument(inner, outer),
            Expr::Function(function) if is_table_keyword(&function.name) => {
                match &mut function.args {
                    FunctionArguments::Subquery(query) => self.query(query, outer).map(Some),
                    FunctionArguments::List(list) => match list.args.as_mut_slice() {
                        [FunctionArg::Unnamed(FunctionArgExpr::Expr(table))] => {
                            self.table_argument(table, outer)
                        }
                        _ => Ok(None),
                    },
                    FunctionArguments::None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn table_argument(
        &mut self,
        table: &mut Expr,
        outer: Option<&Scope<'_>>,
    ) -> Result<Option<Columns>> {
        let mut name = match table {
            Expr::Identifier(name) => ObjectName::from(vec![name.clone()]),
            Expr::CompoundIdentifier(parts) => ObjectName::from(parts.clone()),
            _ => return self.relation_argument(table, outer),
        };
        let found = self.table(&mut name)?;
        let mut parts: Vec<Ident> = name
            .0
            .iter()
            .filter_map(|part| part.as_ident().cloned())
            .collect();
        *table = match (parts.len(), parts.pop()) {
            (1, Some(name)) => Expr::Identifier(name),
            (_, Some(last)) => {
                parts.push(last);
                Expr::CompoundIdentifier(parts)
            }
            (_, None) => return Ok(None),
        };
        Ok(Some(found.columns))
    }
}

fn is_table_keyword(name: &ObjectName) -> bool {
    match name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|name| {
            name.quote_style.is_none() && name.value.eq_ignore_ascii_case("table")
        }),
        _ => false,
    }
}

fn aliased(columns: Columns, alias: &TableAlias) -> Relation {
    let written = vec![quoted(&fold(&alias.name), &alias.name)];
    Relation {
        names: vec![written.clone()],
        written: Some(written),
        columns: under_alias(columns, alias),
    }
}

fn unknown(alias: Option<&TableAlias>) -> Relation {
    match alias {
        Some(alias) => aliased(Columns::unknown(), alias),
        None => Relation {
            names: vec![],
            written: None,
            columns: Columns::unknown(),
        },
    }
}

pub(super) fn all_columns(relations: &[Relation]) -> Columns {
    let mut columns = Columns::default();
    for relation in relations {
        columns.extend(&relation.columns);
    }
    columns
}

/// The constraint of a join, and the sides it leaves in sight.
fn parts(operator: &mut JoinOperator) -> (Option<&mut JoinConstraint>, Sides) {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::StraightJoin(constraint)
        | JoinOperator::AsOf { constraint, .. } => (Some(constraint), Sides::Both),
        JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint) => (Some(constraint), Sides::Left),
        JoinOperator::RightSemi(constraint) | JoinOperator::RightAnti(constraint) => {
            (Some(constraint), Sides::Right)
        }
        JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => (None, Sides::Both),
    }
}

/// One column of `USING`, which must be spelled alike on both sides.
fn using(column: &mut ObjectName, left: &[Relation], right: &[Relation]) -> Result<()> {
    let [part] = column.0.as_slice() else {
        return Ok(());
    };
    let Some(typed) = part.as_ident().filter(|name| name.quote_style.is_none()) else {
        return Ok(());
    };
    let left_spelling = column_of(left.iter(), typed)?;
    let right_spelling = column_of(right.iter(), typed)?;
    let spelling = match (left_spelling, right_spelling) {
        (Some(left), Some(right)) if left != right => {
            return Err(Error::invalid(format!(
                "USING ({typed}) does not fit{}: the left side calls it {} and the right side {}; \
                 join ON the two columns instead",
                typed.span.start,
                quoted(&left, typed),
                quoted(&right, typed)
            )));
        }
        (Some(spelling), _) | (None, Some(spelling)) => spelling,
        (None, None) => return Ok(()),
    };
    *column = ObjectName::from(vec![quoted(&spelling, typed)]);
    Ok(())
}

/// `NATURAL JOIN` matches exact spellings: what it would leave out is an error.
fn natural(left: &[Relation], right: &[Relation]) -> Result<()> {
    let (left, right) = (all_columns(left), all_columns(right));
    for one in &left.names {
        for other in &right.names {
            if one != other && one.eq_ignore_ascii_case(other) {
                let place = Ident::new("");
                return Err(Error::invalid(format!(
                    "NATURAL JOIN does not match {} with {}: join ON the columns that you mean",
                    quoted(one, &place),
                    quoted(other, &place)
                )));
            }
        }
    }
    Ok(())
}

/// Refuses an alias that is also a table's name, since a qualifier with the table's schema would
/// be taken for the alias.
pub(super) fn check_names(relations: &[Relation]) -> Result<()> {
    for (position, one) in relations.iter().enumerate() {
        for other in &relations[position + 1..] {
            let (Some(one), Some(other)) = (&one.written, &other.written) else {
                continue;
            };
            let same = one.last().map(|name| &name.value) == other.last().map(|name| &name.value);
            if same && one.len() != other.len() {
                let name = one.last().map(ToString::to_string).unwrap_or_default();
                return Err(Error::invalid(format!(
                    "{name} is a table and an alias in one FROM: choose another alias"
                )));
            }
        }
    }
    Ok(())
}
