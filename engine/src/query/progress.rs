//! How far a query is: the files it has read or left out, of those it was to read.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};

/// Once all files are read: there may be much to compute yet.
const ALMOST: f64 = 0.99;

#[derive(Debug, Default, Clone, Copy)]
struct Files {
    due: usize,
    done: usize,
}

/// 0 to almost 1 over all scans of `plans`; `None` when none of them reads files. A scan that has not
/// begun is not known, so the share may shrink when it does.
pub(crate) fn of(plans: &[Arc<dyn ExecutionPlan>]) -> Option<f64> {
    let mut files = Files::default();
    plans.iter().for_each(|plan| files.add(plan));
    (files.due > 0).then(|| (files.done as f64 / files.due as f64).min(ALMOST))
}

impl Files {
    fn add(&mut self, plan: &Arc<dyn ExecutionPlan>) {
        for metric in plan.metrics().iter().flat_map(MetricsSet::iter) {
            let MetricValue::Count { name, count } = metric.value() else {
                continue;
            };
            match name.as_ref() {
                "files_listed" => self.due += count.value(),
                "files_pruned" => self.due = self.due.saturating_sub(count.value()),
                "files_read" | "files_pruned_by_statistics" | "files_pruned_by_bloom_filter" => {
                    self.done += count.value();
                }
                _ => {}
            }
        }
        for child in plan.children() {
            self.add(child);
        }
    }
}
