//! From the logical as-of join to its operator.

use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::functions::math::expr_fn::nanvl;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNode, lit};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use featureflight_catalog::Error;

use crate::asof::exec::AsofExec;
use crate::asof::node::AsofJoin;
use crate::asof::right::Side;

/// Plans [`AsofJoin`].
#[derive(Debug)]
pub(crate) struct AsofPlanner;

#[async_trait]
impl ExtensionPlanner for AsofPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(join) = node.as_any().downcast_ref::<AsofJoin>() else {
            return Ok(None);
        };
        let [left, right] = physical_inputs else {
            return Err(Error::internal("an as-of join has two inputs").into());
        };
        let physical = |expr: &Expr, schema: &DFSchema| {
            let expr = canonical(expr, schema)?;
            planner.create_physical_expr(&expr, schema, session, planning_ctx)
        };
        let (left_schema, right_schema) = (join.left.schema(), join.right.schema());
        let left_side = Side {
            keys: join
                .on
                .iter()
                .map(|(left, _)| physical(left, left_schema))
                .collect::<Result<_>>()?,
            time: physical(&join.left_time, left_schema)?,
        };
        let right_side = Side {
            keys: join
                .on
                .iter()
                .map(|(_, right)| physical(right, right_schema))
                .collect::<Result<_>>()?,
            time: physical(&join.right_time, right_schema)?,
        };
        same_types(&left_side, left_schema, &right_side, right_schema)?;
        let (left, right) = (Arc::clone(left), Arc::clone(right));
        let schema = Arc::clone(join.schema.inner());
        let plan = AsofExec::new(left, right, left_side, right_side, join.operator, schema);
        Ok(Some(Arc::new(plan)))
    }
}

/// `expr` so that equal doubles are the same bits: partitioning and sorting tell `-0.0` from `0.0`
/// and one NaN from another.
fn canonical(expr: &Expr, schema: &DFSchema) -> Result<Expr> {
    Ok(match expr.get_type(schema)? {
        DataType::Float64 => nanvl(expr.clone() + lit(0.0_f64), lit(f64::NAN)),
        DataType::Float32 => nanvl(expr.clone() + lit(0.0_f32), lit(f32::NAN)),
        _ => expr.clone(),
    })
}

fn same_types(
    left: &Side,
    left_schema: &DFSchema,
    right: &Side,
    right_schema: &DFSchema,
) -> Result<()> {
    let pairs = left
        .keys
        .iter()
        .zip(&right.keys)
        .chain([(&left.time, &right.time)]);
    for (left, right) in pairs {
        let left_type = left.data_type(left_schema.as_arrow())?;
        let right_type = PhysicalExpr::data_type(right.as_ref(), right_schema.as_arrow())?;
        if left_type != right_type {
            let message = format!("an as-of join cannot compare {left_type} with {right_type}");
            return Err(Error::invalid(message).into());
        }
    }
    Ok(())
}
