//! Joins with `online('g')` are turned so that the other side comes first, and whole: its keys are
//! what is looked up. `DataFusion` chooses by size, of which an online store tells nothing.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

use super::exec::OnlineExec;

/// Runs once the sides of joins are chosen, before anything is put between them.
#[derive(Debug)]
pub(crate) struct ProbeOnline;

impl PhysicalOptimizerRule for ProbeOnline {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let turned = plan.transform_up(|node| {
            let turned = match node.downcast_ref::<HashJoinExec>() {
                Some(join) => turned(join)?,
                None => None,
            };
            Ok(match turned {
                Some(join) => Transformed::yes(join),
                None => Transformed::no(node),
            })
        })?;
        Ok(turned.data)
    }

    fn name(&self) -> &'static str {
        "probe_online"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn turned(join: &HashJoinExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let kind = join.join_type();
    if is_online(join.right()) && narrows_probe(*kind) {
        let whole = join
            .builder()
            .with_partition_mode(PartitionMode::CollectLeft);
        return Ok(Some(Arc::new(whole.build()?)));
    }
    if is_online(join.left())
        && !join.null_aware
        && kind.supports_swap()
        && narrows_probe(kind.swap())
    {
        return join.swap_inputs(PartitionMode::CollectLeft).map(Some);
    }
    Ok(None)
}

/// Whether rows of the side that is probed are left out where the other side has no partner.
fn narrows_probe(kind: JoinType) -> bool {
    kind.on_lr_is_preserved().1
}

/// Whether rows come from an online store, by nothing but filters and the like.
fn is_online(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.downcast_ref::<OnlineExec>().is_some()
        || matches!(plan.children().as_slice(), [child] if is_online(child))
}
