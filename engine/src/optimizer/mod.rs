//! `DataFusion`'s rules as they run here: each asks first whether anybody waits for the plan
//! ([`interruptible`]), and those that answer wrongly are kept from what they get wrong:
//! [`bag_sets`], [`unique_names`], [`null_safe`], [`between`], [`in_subquery`], [`intervals`],
//! [`joined_order`], [`ordered_aggregates`], [`totals`]. Each of these names what it is for, and goes when a release of `DataFusion` passes its
//! test without it.

mod bag_sets;
mod between;
mod except;
mod in_subquery;
mod interruptible;
mod intervals;
mod joined_order;
mod null_safe;
mod ordered_aggregates;
mod totals;
mod unique_names;

use std::sync::Arc;

use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub(crate) use bag_sets::CountCopies;
pub(crate) use between::ConstantBetween;
use except::Except;
use in_subquery::RefuseConstantMembership;
pub(crate) use in_subquery::RefuseUnknownMembership;
use interruptible::Interruptible;
pub(crate) use intervals::{CompareIntervals, OrderIntervals};
use joined_order::DoubtJoinedOrder;
pub(crate) use ordered_aggregates::DropIdleOrder;
use unique_names::PushByUniqueNames;

const ENSURE_REQUIREMENTS: &str = "EnsureRequirements";

/// Takes an aggregate below one with a `FILTER` for its first half, and fails. It saves little: tables
/// of files know nothing of their rows before they are read.
const AGGREGATE_STATISTICS: &str = "aggregate_statistics";

type LogicalRule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// `DataFusion`'s rules for logical plans.
pub(crate) fn logical_rules() -> Vec<LogicalRule> {
    let rules = Optimizer::new().rules.into_iter();
    rules
        .map(|rule| {
            let wrong = match rule.name() {
                "eliminate_cross_join" => null_safe::joins,
                "push_down_filter" => totals::filtered,
                _ => return rule,
            };
            Arc::new(Except { rule, wrong }) as LogicalRule
        })
        .chain([Arc::new(RefuseConstantMembership) as LogicalRule])
        .map(|rule| Arc::new(Interruptible(rule)) as LogicalRule)
        .collect()
}

/// `DataFusion`'s rules for physical plans.
pub(crate) fn physical_rules() -> Vec<PhysicalRule> {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| rule.name() != AGGREGATE_STATISTICS);
    // Before the rule that leaves out what it takes to be sorted already, and after those that turn joins.
    let sorted = rules
        .iter()
        .position(|rule| rule.name() == ENSURE_REQUIREMENTS);
    rules.insert(sorted.unwrap_or(0), Arc::new(DoubtJoinedOrder));
    rules
        .into_iter()
        .map(|rule| {
            if rule.name().starts_with("FilterPushdown") {
                Arc::new(PushByUniqueNames(rule)) as PhysicalRule
            } else {
                rule
            }
        })
        .map(|rule| Arc::new(Interruptible(rule)) as PhysicalRule)
        .collect()
}
