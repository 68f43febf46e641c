//! The physical planners of our logical nodes.

use std::sync::Arc;

use datafusion::physical_planner::ExtensionPlanner;

use crate::asof::planner::AsofPlanner;
use crate::in_turn::planner::InTurnPlanner;
use crate::point_in_time::planner::PointInTimePlanner;

/// One planner per node of this crate, for `DefaultPhysicalPlanner::with_extension_planners`.
#[must_use]
pub fn extension_planners() -> Vec<Arc<dyn ExtensionPlanner + Send + Sync>> {
    vec![
        Arc::new(PointInTimePlanner),
        Arc::new(AsofPlanner),
        Arc::new(InTurnPlanner),
    ]
}
