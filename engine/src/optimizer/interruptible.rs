//! Rules of the optimizer that look, each time, whether anybody waits for the plan.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizerContext;
use datafusion::physical_plan::ExecutionPlan;

use super::{LogicalRule, PhysicalRule};
use crate::interruption::check;

/// A rule as it is, unless nobody waits for the plan.
#[derive(Debug)]
pub(super) struct Interruptible<R>(pub(super) R);

impl OptimizerRule for Interruptible<LogicalRule> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        check()?;
        self.0.rewrite(plan, config)
    }
}

impl PhysicalOptimizerRule for Interruptible<PhysicalRule> {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize(plan, config)
    }

    fn optimize_with_context(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        context: &dyn PhysicalOptimizerContext,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        check()?;
        self.0.optimize_with_context(plan, context)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::logical_expr::LogicalPlanBuilder;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::super::{logical_rules, physical_rules};
    use super::*;
    use crate::interruption::Over;

    #[test]
    fn every_rule_asks_first() {
        let state = SessionStateBuilder::new().with_default_features().build();
        let plan = LogicalPlanBuilder::empty(true).build().unwrap();
        let physical: Arc<dyn ExecutionPlan> =
            Arc::new(EmptyExec::new(plan.schema().inner().clone()));
        let over = Over::default();
        let _scope = over.enter();
        for ended in [false, true] {
            if ended {
                over.0.cancel();
            }
            for rule in logical_rules() {
                let done = rule.rewrite(plan.clone(), &state);
                assert_eq!(done.is_err(), ended, "{}", rule.name());
            }
            for rule in physical_rules() {
                let done = rule.optimize(Arc::clone(&physical), state.config_options());
                assert_eq!(done.is_err(), ended, "{}", rule.name());
            }
        }
    }
}
