//! Physical planning: `DataFusion`'s, with the operators of our own nodes.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

/// See the module.
pub(super) struct OperatorPlanner {
    planner: DefaultPhysicalPlanner,
}

impl OperatorPlanner {
    pub(super) fn new(operators: Vec<Arc<dyn ExtensionPlanner + Send + Sync>>) -> Self {
        Self {
            planner: DefaultPhysicalPlanner::with_extension_planners(operators),
        }
    }
}

impl std::fmt::Debug for OperatorPlanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorPlanner").finish_non_exhaustive()
    }
}

#[async_trait]
impl QueryPlanner for OperatorPlanner {
    async fn create_physical_plan(
        &self,
        logical_plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.planner
            .create_physical_plan(logical_plan, session)
            .await
    }
}
