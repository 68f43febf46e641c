//! `l ASOF JOIN r MATCH_CONDITION (..) ON ..`: a point-in-time join when the right side is a
//! feature group, the plain as-of join between other relations, an error where it would match
//! states instead of versions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, Operator,
};
use datafusion::logical_expr_common::type_coercion::binary::comparison_coercion;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, JoinConstraint, ObjectName, TableFactor,
};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};

use super::error::{classify, sql_type};
use super::factors::{Factors, reads_state};
use super::functions::{Call, Function};
use super::names::{FEATURES, HISTORY, Relation};
use super::spine;
use crate::asof::node::{AsofJoin, AsofOperator};
use crate::clock::Clocks;
use crate::dialect::{AsofParts, version_of};
use crate::point_in_time::node::{FeatureColumn, GroupJoin, KnownAt, KnownBy};

/// The two inputs, planned, and their columns together.
struct Inputs {
    left: LogicalPlan,
    right: LogicalPlan,
    joined: DFSchema,
}

/// The condition with the left side first.
struct Match {
    left: Expr,
    operator: AsofOperator,
    right: Expr,
}

impl Factors {
    pub(super) fn plan_asof(
        &self,
        join: AsofParts,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let group = self.group_of(&join.right, context)?;
        let left = self.bind_plan(context.plan(join.left).map_err(classify)?)?;
        let right = self.bind_plan(context.plan(join.right).map_err(classify)?)?;
        let joined = left.schema().join(right.schema()).map_err(classify)?;
        let inputs = Inputs {
            left,
            right,
            joined,
        };
        let condition = self.condition(join.match_condition, &inputs, context)?;
        let (on, hidden) = self.constraint(join.constraint, &inputs, context)?;
        let plan = match group {
            Some((table, clocks)) => self.versions_at(&table, clocks, &inputs, condition, on)?,
            None if reads_state(&inputs.right) => return Err(states_not_versions(None)),
            None => plain(&inputs, condition, on)?,
        };
        if hidden.is_empty() {
            return Ok(plan);
        }
        let shown = plan
            .schema()
            .columns()
            .into_iter()
            .filter(|column| !hidden.contains(column));
        let shown: Vec<Expr> = shown.map(Expr::Column).collect();
        LogicalPlanBuilder::from(plan)
            .project(shown)
            .and_then(LogicalPlanBuilder::build)
            .map_err(classify)
    }

    /// The feature group whose state `factor` is, with its clocks.
    fn group_of(
        &self,
        factor: &TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<(Arc<FeatureTable>, Clocks)>> {
        let (name, args) = match factor {
            TableFactor::Table {
                name, args: None, ..
            } => {
                if name.0.len() == 1 {
                    return Ok(None);
                }
                let Some(found) = self.names().resolve(name)? else {
                    return Ok(None);
                };
                let Relation::Features(table) = &found.relation else {
                    return Ok(None);
                };
                let explicit = match version_of(factor)? {
                    Some(version) => self.clocks_of(&found, version, context)?.clocks,
                    None => Clocks::default(),
                };
                return Ok(Some((
                    Arc::clone(table),
                    explicit.or(self.scope.context.clocks),
                )));
            }
            TableFactor::Table {
                name,
                args: Some(args),
                ..
            } => (name, &args.args),
            TableFactor::Function { name, args, .. } => (name, args),
            _ => return Ok(None),
        };
        match Function::named(name) {
            Some(function @ (Function::AsOf | Function::Latest)) => {
                let mut call = Call::parse(function, args)?;
                let table = call.group(&self.names())?;
                let bound = self.travel_clocks(&mut call, context)?;
                Ok(Some((table, bound.clocks)))
            }
            _ => Ok(None),
        }
    }

    fn condition(
        &self,
        condition: ast::Expr,
        inputs: &Inputs,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Match> {
        let mut written = condition;
        while let ast::Expr::Nested(inner) = written {
            written = *inner;
        }
        let ast::Expr::BinaryOp { left, op, right } = written else {
            return Err(not_a_condition(&written.to_string()));
        };
        let text = format!("{left} {op} {right}");
        let operator = match op {
            BinaryOperator::GtEq => AsofOperator::GreaterOrEqual,
            BinaryOperator::Gt => AsofOperator::Greater,
            BinaryOperator::LtEq => AsofOperator::LessOrEqual,
            BinaryOperator::Lt => AsofOperator::Less,
            _ => return Err(not_a_condition(&text)),
        };
        let left = self.side(*left, inputs, context)?;
        let right = self.side(*right, inputs, context)?;
        match (inputs.side_of(&left), inputs.side_of(&right)) {
            (Some(Side::Left), Some(Side::Right)) => Ok(Match {
                left,
                operator,
                right,
            }),
            (Some(Side::Right), Some(Side::Left)) => Ok(Match {
                left: right,
                operator: flipped(operator),
                right: left,
            }),
            _ => Err(not_a_condition(&text)),
        }
    }

    fn side(
        &self,
        expr: ast::Expr,
        inputs: &Inputs,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Expr> {
        self.bind_expr(
            context
                .sql_to_expr(expr, &inputs.joined)
                .map_err(classify)?,
        )
    }

    /// Pairs of equal expressions, left first, and the columns `USING` hides.
    #[expect(clippy::type_complexity)]
    fn constraint(
        &self,
        constraint: JoinConstraint,
        inputs: &Inputs,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<(Vec<(Expr, Expr)>, Vec<Column>)> {
        match constraint {
            JoinConstraint::None => Ok((Vec::new(), Vec::new())),
            JoinConstraint::Natural => Err(Error::invalid(
                "NATURAL ASOF JOIN is not supported: name the columns in USING",
            )),
            JoinConstraint::On(expr) => {
                let text = expr.to_string();
                let expr = self.side(expr, inputs, context)?;
                let equalities = split_conjunction_owned(expr)
                    .into_iter()
                    .map(|expr| inputs.equality(expr, &text))
                    .collect::<Result<Vec<_>>>()?;
                Ok((equalities, Vec::new()))
            }
            JoinConstraint::Using(names) => {
                let (mut on, mut hidden) = (Vec::new(), Vec::new());
                for name in names {
                    let column = using_column(&name, context)?;
                    let left = inputs
                        .left
                        .schema()
                        .qualified_field_with_unqualified_name(&column);
                    let right = inputs
                        .right
                        .schema()
                        .qualified_field_with_unqualified_name(&column);
                    let left = Column::from(left.map_err(classify)?);
                    let right = Column::from(right.map_err(classify)?);
                    on.push((Expr::Column(left), Expr::Column(right.clone())));
                    hidden.push(right);
                }
                Ok((on, hidden))
            }
        }
    }

    /// The point-in-time join an as-of join on a feature group stands for.
    fn versions_at(
        &self,
        table: &Arc<FeatureTable>,
        clocks: Clocks,
        inputs: &Inputs,
        condition: Match,
        mut on: Vec<(Expr, Expr)>,
    ) -> Result<LogicalPlan> {
        let right = inputs.right.schema();
        let is = |expr: &Expr, feature: usize| matches!(expr, Expr::Column(column) if *column == Column::from(right.qualified_field(feature)));
        let exact = condition.operator == AsofOperator::GreaterOrEqual
            && is(&condition.right, table.event_time)
            && matches!(on.as_slice(), [(_, key)] if is(key, table.record_identifier));
        let (true, Some((key, _))) = (exact, on.pop()) else {
            return Err(states_not_versions(Some(table)));
        };
        let left = inputs.left.schema();
        let columns = right
            .iter()
            .enumerate()
            .map(|(feature, (qualifier, field))| FeatureColumn {
                feature,
                qualifier: qualifier.cloned(),
                name: field.name().clone(),
            })
            .collect();
        let group = GroupJoin {
            table: Arc::clone(table),
            clocks,
            key: spine::key(table, key, left)?,
            time: spine::time("MATCH_CONDITION", condition.left, left)?,
            max_age: None,
            known_at: KnownAt::Always,
            known_by: KnownBy::WriteTime,
            columns,
        };
        self.point_in_time_node(inputs.left.clone(), vec![group])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

impl Inputs {
    /// The side whose columns `expr` reads; `None` when it reads none, or both.
    fn side_of(&self, expr: &Expr) -> Option<Side> {
        let mut sides = expr.column_refs().into_iter().map(|column| {
            if self.left.schema().has_column(column) {
                Some(Side::Left)
            } else if self.right.schema().has_column(column) {
                Some(Side::Right)
            } else {
                None
            }
        });
        let first = sides.next()??;
        sides.all(|side| side == Some(first)).then_some(first)
    }

    fn equality(&self, expr: Expr, written: &str) -> Result<(Expr, Expr)> {
        if let Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq,
            right,
        }) = expr
        {
            match (self.side_of(&left), self.side_of(&right)) {
                (Some(Side::Left), Some(Side::Right)) => return Ok((*left, *right)),
                (Some(Side::Right), Some(Side::Left)) => return Ok((*right, *left)),
                _ => {}
            }
        }
        Err(Error::invalid(format!(
            "ON of an ASOF JOIN takes equalities between a left and a right column, joined by AND, \
             not {written}: put other conditions into WHERE or into a subquery"
        )))
    }
}

fn flipped(operator: AsofOperator) -> AsofOperator {
    match operator {
        AsofOperator::GreaterOrEqual => AsofOperator::LessOrEqual,
        AsofOperator::Greater => AsofOperator::Less,
        AsofOperator::LessOrEqual => AsofOperator::GreaterOrEqual,
        AsofOperator::Less => AsofOperator::Greater,
    }
}

fn using_column(name: &ObjectName, context: &dyn RelationPlannerContext) -> Result<String> {
    match name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) => Ok(context.normalize_ident(ident.clone())),
            None => Err(Error::invalid(format!(
                "USING takes column names, not {name}"
            ))),
        },
        _ => Err(Error::invalid(format!(
            "USING takes column names without a table, not {name}"
        ))),
    }
}

fn plain(inputs: &Inputs, condition: Match, on: Vec<(Expr, Expr)>) -> Result<LogicalPlan> {
    let (left, right) = (inputs.left.schema(), inputs.right.schema());
    let alike = |what: &str, (l, r): (Expr, Expr)| -> Result<(Expr, Expr)> {
        let (lt, rt) = (
            l.get_type(left).map_err(classify)?,
            r.get_type(right).map_err(classify)?,
        );
        let Some(common) = comparison_coercion(&lt, &rt) else {
            return Err(Error::invalid(format!(
                "{what}: {l} is {} and {r} is {}, which cannot be compared; cast one of them",
                sql_type(&lt),
                sql_type(&rt)
            )));
        };
        let l = l.cast_to(&common, left).map_err(classify)?;
        Ok((l, r.cast_to(&common, right).map_err(classify)?))
    };
    let (left_time, right_time) = alike("MATCH_CONDITION", (condition.left, condition.right))?;
    let kind = left_time.get_type(left).map_err(classify)?;
    if !(kind.is_numeric() || kind.is_temporal() || kind.is_string() || kind == DataType::Null) {
        return Err(Error::invalid(format!(
            "MATCH_CONDITION cannot order values of type {}",
            sql_type(&kind)
        )));
    }
    let on = on
        .into_iter()
        .map(|pair| alike("ON", pair))
        .collect::<Result<Vec<_>>>()?;
    let node = AsofJoin::try_new(
        inputs.left.clone(),
        inputs.right.clone(),
        on,
        left_time,
        condition.operator,
        right_time,
    )
    .map_err(classify)?;
    Ok(LogicalPlan::Extension(Extension {
        node: Arc::new(node),
    }))
}

fn not_a_condition(written: &str) -> Error {
    Error::invalid(format!(
        "MATCH_CONDITION takes one comparison (>=, >, <=, <) of a left column with a right column, \
         not {written}"
    ))
}

fn states_not_versions(table: Option<&Arc<FeatureTable>>) -> Error {
    let history = match table {
        Some(table) => format!("{HISTORY}.{}", table.name()),
        None => HISTORY.to_owned(),
    };
    let form = match table {
        Some(table) => format!(
            "MATCH_CONDITION (left_time >= {event_time}) ON left_key = {identifier}",
            event_time = table.group.event_time_feature_name,
            identifier = table.group.record_identifier_feature_name
        ),
        None => "its event time and its record identifier".to_owned(),
    };
    Error::invalid(format!(
        "an ASOF JOIN with {FEATURES} on the right means point in time and needs the table itself \
         there, with {form}; anything else would match states instead of versions: join {history}, \
         which has every version"
    ))
}
