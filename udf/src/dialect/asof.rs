//! `l ASOF JOIN r` as a table factor: `DataFusion` shows a relation planner table factors only, so
//! every as-of join becomes a nested join of its own, left-associative.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Join, JoinConstraint, JoinOperator, Select, Statement, TableAlias, TableFactor,
    TableWithJoins, VisitorMut,
};
use featureflight_catalog::Error;

use super::walk::walk_mut;

/// The parts of one as-of join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsofParts {
    /// A nested join when several relations stand on the left.
    pub left: TableFactor,
    pub right: TableFactor,
    pub match_condition: Expr,
    pub constraint: JoinConstraint,
    /// Of the whole join: `(l ASOF JOIN r ...) AS alias`.
    pub alias: Option<TableAlias>,
}

/// The as-of join that `factor` stands for, when it is one.
#[must_use]
pub fn as_asof(factor: &TableFactor) -> Option<AsofParts> {
    let TableFactor::NestedJoin {
        table_with_joins,
        alias,
    } = factor
    else {
        return None;
    };
    let [
        Join {
            relation,
            join_operator:
                JoinOperator::AsOf {
                    match_condition,
                    constraint,
                },
            ..
        },
    ] = table_with_joins.joins.as_slice()
    else {
        return None;
    };
    Some(AsofParts {
        left: table_with_joins.relation.clone(),
        right: relation.clone(),
        match_condition: match_condition.clone(),
        constraint: constraint.clone(),
        alias: alias.clone(),
    })
}

/// Folds every as-of join of `statement`, subqueries included. Afterwards each is a nested join
/// with nothing else in it, which [`as_asof`] takes apart.
pub(super) fn fold(statement: &mut Statement) {
    // Never breaks.
    let _ = walk_mut(statement, &mut Fold);
}

struct Fold;

impl VisitorMut for Fold {
    type Break = Error;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for table in &mut select.from {
            fold_joins(table);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        let TableFactor::NestedJoin {
            table_with_joins,
            alias,
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        if !matches!(table_with_joins.joins.as_slice(), [join] if is_asof(join)) {
            fold_joins(table_with_joins);
        }
        // `(a JOIN b ASOF JOIN c)` has become a nested join inside these parentheses.
        if table_with_joins.joins.is_empty()
            && let TableFactor::NestedJoin {
                alias: None,
                table_with_joins: inner,
            } = &table_with_joins.relation
            && matches!(inner.joins.as_slice(), [join] if is_asof(join))
        {
            *factor = TableFactor::NestedJoin {
                table_with_joins: inner.clone(),
                alias: alias.take(),
            };
        }
        ControlFlow::Continue(())
    }
}

fn is_asof(join: &Join) -> bool {
    matches!(join.join_operator, JoinOperator::AsOf { .. })
}

fn nested(table_with_joins: TableWithJoins) -> TableFactor {
    TableFactor::NestedJoin {
        table_with_joins: Box::new(table_with_joins),
        alias: None,
    }
}

fn fold_joins(table: &mut TableWithJoins) {
    if !table.joins.iter().any(is_asof) {
        return;
    }
    for join in std::mem::take(&mut table.joins) {
        if !is_asof(&join) {
            table.joins.push(join);
            continue;
        }
        // The relation is moved out and put back nested; what stands in meanwhile is not seen.
        let relation = std::mem::replace(&mut table.relation, placeholder());
        let before = std::mem::take(&mut table.joins);
        let left = if before.is_empty() {
            relation
        } else {
            nested(TableWithJoins {
                relation,
                joins: before,
            })
        };
        table.relation = nested(TableWithJoins {
            relation: left,
            joins: vec![join],
        });
    }
}

fn placeholder() -> TableFactor {
    TableFactor::UNNEST {
        alias: None,
        array_exprs: vec![],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}
