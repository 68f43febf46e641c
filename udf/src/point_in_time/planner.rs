//! From the logical point-in-time join to its operator: files pinned, expressions made physical.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::stats::Precision;
use datafusion::error::Result;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::expressions::cast;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::{Error, Instant};

use crate::point_in_time::exec::PointInTimeExec;
use crate::point_in_time::features::distinct;
use crate::point_in_time::group::{self, Group};
use crate::point_in_time::node::{GroupJoin, KnownAt, PointInTimeJoin};
use crate::point_in_time::passes::Passes;
use crate::point_in_time::spine::is_time;

/// Plans [`PointInTimeJoin`].
#[derive(Debug)]
pub(crate) struct PointInTimePlanner;

#[async_trait]
impl ExtensionPlanner for PointInTimePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        planning_ctx: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(join) = node.as_any().downcast_ref::<PointInTimeJoin>() else {
            return Ok(None);
        };
        let [spine] = physical_inputs else {
            return Err(Error::internal("a point-in-time join has one input").into());
        };
        let physical = |expr: &Expr| {
            planner.create_physical_expr(expr, join.spine.schema(), session, planning_ctx)
        };
        let spine_rows = StatisticsContext::new()
            .compute(spine.as_ref(), &StatisticsArgs::new())?
            .num_rows;
        let mut groups = Vec::with_capacity(join.groups.len());
        for group in &join.groups {
            groups.push(
                plan_group(
                    group,
                    &join.scan,
                    join.spine.schema(),
                    spine_rows,
                    &physical,
                )
                .await?,
            );
        }
        let schema = Arc::clone(join.schema.inner());
        Ok(Some(Arc::new(PointInTimeExec::new(
            Arc::clone(spine),
            groups.into(),
            schema,
        ))))
    }
}

type ToPhysical<'a> = dyn Fn(&Expr) -> Result<Arc<dyn PhysicalExpr>> + Sync + 'a;

async fn plan_group(
    group: &GroupJoin,
    scan: &ScanContext,
    spine: &DFSchema,
    spine_rows: Precision<usize>,
    physical: &ToPhysical<'_>,
) -> Result<Group> {
    let table = &group.table;
    let time = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
        let expr = physical(expr)?;
        let data_type = expr.data_type(spine.as_arrow())?;
        if is_time(&data_type) {
            return Ok(expr);
        }
        let message = format!("{expr} is {data_type}, but a point-in-time join needs a timestamp");
        Err(Error::invalid(message).into())
    };
    let identifier = table.state_schema.field(table.record_identifier);
    let key = cast(
        physical(&group.key)?,
        spine.as_arrow(),
        identifier.data_type().clone(),
    )?;
    let event_time = time(&group.time)?;
    let known_at = match &group.known_at {
        KnownAt::Always => group::KnownAt::Always,
        KnownAt::Constant(at) => group::KnownAt::Constant(*at),
        KnownAt::Spine(expr) => group::KnownAt::Spine(time(expr)?),
    };
    // Listed here, before the statement's pin is frozen, and not when the spine's times are known:
    // the same ticket must find the same files. Hours the spine cannot reach are left out later.
    let range = EventRange {
        from: None,
        to: group.clocks.valid,
    };
    let files = scan
        .pin
        .files(&table.files, range, freshness(group, scan))
        .await?;
    let features: Vec<_> = group.columns.iter().map(|column| column.feature).collect();
    let decoded = distinct(&features).len();
    Ok(Group {
        passes: Passes::choose(&files, table, decoded, spine_rows),
        table: Arc::clone(table),
        reader: Arc::clone(&scan.reader),
        files,
        clocks: group.clocks,
        key,
        time: event_time,
        max_age: group.max_age,
        known_at,
        known_by: group.known_by,
        features,
    })
}

/// The cut that the listing must not be older than: versions known by it must be in it.
fn freshness(group: &GroupJoin, scan: &ScanContext) -> Option<Instant> {
    let known_at = match &group.known_at {
        KnownAt::Always => None,
        KnownAt::Constant(at) => Some(*at),
        // The rows' cuts are not known yet, and may be as late as now.
        KnownAt::Spine(_) => Some(scan.pin.started),
    };
    match (group.clocks.system, known_at) {
        (Some(system), Some(known_at)) => Some(system.min(known_at)),
        (system, known_at) => system.or(known_at),
    }
}
