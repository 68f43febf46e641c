//! From the logical node to its operator.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

use super::exec::InTurnExec;
use super::node::InTurn;

/// Plans [`InTurn`].
#[derive(Debug)]
pub(crate) struct InTurnPlanner;

#[async_trait]
impl ExtensionPlanner for InTurnPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<InTurn>() else {
            return Ok(None);
        };
        let schema = Arc::clone(UserDefinedLogicalNode::schema(node).inner());
        Ok(Some(Arc::new(InTurnExec::new(
            physical_inputs.to_vec(),
            schema,
        ))))
    }
}
