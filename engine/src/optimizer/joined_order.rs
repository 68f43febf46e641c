//! What joins say of the order of their rows. `DataFusion` 55.2 says too much, twice, and then leaves out
//! sorts that `ORDER BY` and window functions need. A column that is constant in one input of an outer
//! join is said to be constant behind it, where it is null as well. And rows in the order of one input
//! are said to be in the order of the other behind it, which ends where two rows of the first are equal.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::equivalence::EquivalenceProperties;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr, PlanProperties};

use crate::pass_through::{Pass, above, knowing};

/// Puts [`Doubts`] above joins that say too much.
#[derive(Debug)]
pub(super) struct DoubtJoinedOrder;

impl PhysicalOptimizerRule for DoubtJoinedOrder {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let doubted = plan.transform_up(|node| {
            Ok(match believed(&node) {
                Some(believed) => Transformed::yes(above(node, Doubts { believed })),
                None => Transformed::no(node),
            })
        })?;
        Ok(doubted.data)
    }

    fn name(&self) -> &'static str {
        "doubt_joined_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Says of its input what is [`believed`], whatever comes between the two.
#[derive(Debug, Clone)]
struct Doubts {
    believed: EquivalenceProperties,
}

impl Pass for Doubts {
    const NAME: &'static str = "JoinedOrderExec";

    // Or sorts would be taken below it, where they are left out.
    const KEEPS_ORDER: bool = false;

    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        knowing(input, &self.believed)
    }
}

/// What is true of the rows of a join; `None` where that is all it says, and for other operators.
fn believed(node: &Arc<dyn ExecutionPlan>) -> Option<EquivalenceProperties> {
    let (join_type, columns) = join(node)?;
    let pads_left = matches!(join_type, JoinType::Right | JoinType::Full);
    let pads_right = matches!(join_type, JoinType::Left | JoinType::Full);
    let left = node.children().first()?.schema().fields().len();
    let is_left = |column: usize| columns.as_ref().map_or(column, |of| of[column]) < left;
    let padded = |expr: &Arc<dyn PhysicalExpr>| {
        let mut columns = collect_columns(expr).into_iter();
        columns.any(|column| {
            if is_left(column.index()) {
                pads_left
            } else {
                pads_right
            }
        })
    };

    let said = node.properties().equivalence_properties();
    let known = said
        .eq_group()
        .iter()
        .all(|equal| !equal.iter().any(padded));
    let leads_left = node.maintains_input_order().first() == Some(&true);
    let led = |expr: &Arc<dyn PhysicalExpr>| {
        let columns = collect_columns(expr);
        let mut columns = columns.iter();
        columns.all(|column| is_left(column.index()) == leads_left)
    };
    let mut orderings = said.oeq_class().iter();
    if known && orderings.all(|ordering| ordering.iter().all(|sort| led(&sort.expr))) {
        return None;
    }
    let mut believed = EquivalenceProperties::new(node.schema());
    if known {
        believed
            .add_equivalence_group(said.eq_group().clone())
            .ok()?;
    }
    Some(believed)
}

/// The type of a join that makes rows of both inputs, and which of their columns it keeps.
fn join(node: &Arc<dyn ExecutionPlan>) -> Option<(JoinType, Option<Vec<usize>>)> {
    let (join_type, columns) = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        (
            *join.join_type(),
            join.projection.as_ref().map(|of| of.to_vec()),
        )
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        (
            *join.join_type(),
            join.projection().as_ref().map(|of| of.to_vec()),
        )
    } else {
        (node.downcast_ref::<SortMergeJoinExec>()?.join_type(), None)
    };
    let of_both = matches!(
        join_type,
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full
    );
    of_both.then_some((join_type, columns))
}
