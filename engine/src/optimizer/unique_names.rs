//! Filters above relations that have two columns of one name, as a join of two groups has. The
//! pushdown of physical filters in `DataFusion` 55.2 finds the columns of a relation below by name,
//! and would filter by another column: so such relations are hidden from it.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizerContext;
use datafusion::physical_plan::ExecutionPlan;

use super::PhysicalRule;
use crate::pass_through::{Pass, PassThroughExec, above_inputs};

/// The rule, for relations whose columns have names of their own.
#[derive(Debug)]
pub(super) struct PushByUniqueNames(pub(super) PhysicalRule);

impl PhysicalOptimizerRule for PushByUniqueNames {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        shown(self.0.optimize(hidden(plan)?, config)?)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        shown(self.0.optimize_with_context(hidden(plan)?, context)?)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

fn hidden(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let hidden = plan.transform_up(|node| {
        above_inputs(node, |_, _, input| repeats_a_name(input).then_some(Hides))
    })?;
    Ok(hidden.data)
}

fn shown(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let shown = plan.transform_up(|node| {
        Ok(match node.downcast_ref::<PassThroughExec<Hides>>() {
            Some(hidden) => Transformed::yes(Arc::clone(hidden.input())),
            None => Transformed::no(node),
        })
    })?;
    Ok(shown.data)
}

fn repeats_a_name(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let mut names: Vec<_> = schema.fields().iter().map(|field| field.name()).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

/// A relation into which nothing is pushed. Never part of a plan that runs.
#[derive(Debug, Clone)]
struct Hides;

impl Pass for Hides {
    const NAME: &'static str = "HiddenExec";
}
