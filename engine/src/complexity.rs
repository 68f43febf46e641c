//! How much planning a plan takes beyond its number of steps. Each of these grows faster than the
//! text of a statement, on a thread that nothing can interrupt, outside of the memory pool: so each
//! has a limit that is looked at before the plan is optimized.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, ScalarValue, TableReference};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, WindowFrameBound};
use featureflight_catalog::{Error, Kind, Result};

/// Columns of all steps together.
const MAX_COLUMNS: usize = 1_000_000;

/// Expressions that rows are sorted, partitioned or joined by, of one step.
const MAX_KEYS: usize = 256;

/// Operators of one condition when the columns it names are written out. The optimizer moves
/// conditions below the projections that compute their columns.
const MAX_WRITTEN_OUT: u64 = 100_000;

/// Rows or peers that a frame reaches from the current one.
const MAX_REACH: u64 = 1 << 32;

/// # Errors
/// `ResourceExhausted` for a plan beyond the limits of this module, `InvalidArgument` for a frame
/// beyond them.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    check_steps(plan).map_err(crate::error::classify)?;
    let mut conditions = Conditions::default();
    conditions.of(plan).map_err(crate::error::classify)?;
    if conditions.largest > MAX_WRITTEN_OUT {
        return Err(too_much(format!(
            "a condition has more than {MAX_WRITTEN_OUT} operators when the columns it names are \
             written out, which are computed from one another: keep a step of them in a temporary \
             table"
        )));
    }
    Ok(())
}

fn check_steps(plan: &LogicalPlan) -> PlanResult<()> {
    let mut columns = 0_usize;
    plan.apply_with_subqueries(|step| {
        columns = columns.saturating_add(step.schema().fields().len());
        if columns > MAX_COLUMNS {
            return Err(too_much(format!(
                "the steps of the query have more than {MAX_COLUMNS} columns together: select fewer"
            ))
            .into());
        }
        match step {
            LogicalPlan::Sort(sort) => check_keys("sorts", sort.expr.len())?,
            LogicalPlan::Join(join) => check_keys("joins", join.on.len())?,
            LogicalPlan::Window(window) => window.window_expr.iter().try_for_each(check_window)?,
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_keys(does: &str, keys: usize) -> Result<()> {
    if keys > MAX_KEYS {
        return Err(too_much(format!(
            "the query {does} rows by {keys} expressions, the limit is {MAX_KEYS}: use fewer"
        )));
    }
    Ok(())
}

fn check_window(expr: &Expr) -> PlanResult<()> {
    expr.apply(|inner| {
        if let Expr::WindowFunction(window) = inner {
            check_window_function(window)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_window_function(window: &WindowFunction) -> Result<()> {
    let parameters = &window.params;
    check_keys(
        "partitions or sorts",
        parameters.partition_by.len() + parameters.order_by.len(),
    )?;
    let frame = &parameters.window_frame;
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (WindowFrameBound::Preceding(rows) | WindowFrameBound::Following(rows)) = bound else {
            continue;
        };
        // One that is null is unbounded; other types are distances of a RANGE.
        if let ScalarValue::UInt64(Some(rows)) = rows
            && *rows > MAX_REACH
        {
            return Err(Error::invalid(format!(
                "a window's frame reaches {rows} rows, the limit is {MAX_REACH}: write UNBOUNDED"
            )));
        }
    }
    Ok(())
}

/// How many operators expressions have when the columns they name are written out, down to where
/// columns are read or made by something that cannot be.
#[derive(Default)]
struct Conditions {
    largest: u64,
}

impl Conditions {
    /// The sizes of `plan`'s columns.
    fn of(&mut self, plan: &LogicalPlan) -> PlanResult<Vec<u64>> {
        plan.apply_subqueries(|subquery| {
            self.of(subquery)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let inputs = plan.inputs();
        let mut sizes = inputs
            .iter()
            .map(|input| self.of(input))
            .collect::<PlanResult<Vec<_>>>()?;
        let width = plan.schema().fields().len();
        let mut written = match plan {
            LogicalPlan::Projection(projection) => {
                let below = Sizes::new(projection.input.schema(), sizes.remove(0));
                below.of_all(&projection.expr)?
            }
            LogicalPlan::Aggregate(aggregate) => {
                let below = Sizes::new(aggregate.input.schema(), sizes.remove(0));
                let mut groups = match aggregate.group_expr.as_slice() {
                    [Expr::GroupingSet(sets)] => {
                        let exprs = sets.distinct_expr();
                        exprs.into_iter().map(|expr| below.of(expr)).collect()
                    }
                    exprs => below.of_all(exprs),
                }?;
                groups.resize(width, 1);
                groups
            }
            LogicalPlan::Filter(filter) => {
                let below = Sizes::new(filter.input.schema(), sizes.remove(0));
                self.largest = self.largest.max(below.of(&filter.predicate)?);
                below.sizes
            }
            LogicalPlan::Join(join) => {
                let sides = join.left.schema().join(join.right.schema())?;
                let both = Sizes::new(&sides, sizes.concat());
                let keys = join.on.iter().flat_map(|(left, right)| [left, right]);
                for condition in keys.chain(&join.filter) {
                    self.largest = self.largest.max(both.of(condition)?);
                }
                match join.join_type {
                    JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                        sizes.swap_remove(1)
                    }
                    _ => both.sizes,
                }
            }
            LogicalPlan::Union(_) => {
                let mut largest = vec![1; width];
                for (column, size) in sizes.iter().flat_map(|sizes| sizes.iter().enumerate()) {
                    if let Some(known) = largest.get_mut(column) {
                        *known = (*known).max(*size);
                    }
                }
                largest
            }
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Window(_)
                if sizes.len() == 1 =>
            {
                sizes.remove(0)
            }
            _ => Vec::new(),
        };
        written.resize(width, 1);
        Ok(written)
    }
}

/// The sizes of a schema's columns, by name.
struct Sizes<'a> {
    places: HashMap<(Option<&'a TableReference>, &'a str), usize>,
    by_name: HashMap<&'a str, usize>,
    sizes: Vec<u64>,
}

impl<'a> Sizes<'a> {
    fn new(schema: &'a DFSchema, sizes: Vec<u64>) -> Self {
        let (mut places, mut by_name) = (HashMap::new(), HashMap::new());
        // Where all are small, and that is nearly everywhere, no name is looked up.
        if sizes.iter().any(|size| *size > 1) {
            for (place, (qualifier, field)) in schema.iter().enumerate() {
                places.insert((qualifier, field.name().as_str()), place);
                by_name.insert(field.name().as_str(), place);
            }
        }
        Self {
            places,
            by_name,
            sizes,
        }
    }

    fn of_all(&self, exprs: &[Expr]) -> PlanResult<Vec<u64>> {
        exprs.iter().map(|expr| self.of(expr)).collect()
    }

    fn of(&self, expr: &Expr) -> PlanResult<u64> {
        let mut size = 0_u64;
        expr.apply(|inner| {
            let of_this = match inner {
                Expr::Column(column) => self.of_column(column),
                Expr::Alias(_) => 0,
                _ => 1,
            };
            size = size.saturating_add(of_this);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(size.max(1))
    }

    fn of_column(&self, column: &Column) -> u64 {
        let place = self
            .places
            .get(&(column.relation.as_ref(), column.name.as_str()))
            .or_else(|| self.by_name.get(column.name.as_str()));
        let size = place.and_then(|place| self.sizes.get(*place));
        size.copied().unwrap_or(1)
    }
}

fn too_much(message: String) -> Error {
    Error::new(Kind::ResourceExhausted, message)
}
