//! Operators that turn one batch into very many let other tasks have their turn, and end with their
//! run.
//!
//! `DataFusion` yields where batches enter a plan. A join may compute for minutes on one of them,
//! and a cancelled task ends only where it yields: so such operators yield for their output too.
//! Where the condition of a join is never true there is no output to yield for: so the condition
//! looks whether the run is over, and fails then.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::sort_properties::ExprProperties;
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder,
    PiecewiseMergeJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties, RecordBatchStream,
};
use futures::Stream;

use super::{Over, check};
use crate::pass_through::{Pass, above, knowing};

/// Puts [`Interrupts`] above the operators whose output is not bounded by their input.
#[derive(Debug)]
pub(crate) struct InterruptAmplifiers;

impl PhysicalOptimizerRule for InterruptAmplifiers {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|node| {
            Ok(match interruptible(&node)? {
                Some(input) => {
                    let known = node.equivalence_properties().clone();
                    Transformed::yes(above(input, Interrupts { known }))
                }
                None => Transformed::no(node),
            })
        })?;
        Ok(wrapped.data)
    }

    fn name(&self) -> &'static str {
        "interrupt_amplifiers"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What is put below [`Interrupts`] in the place of an operator that needs one.
fn interruptible(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let filter = join.filter().map(Condition::within);
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(filter);
        return Ok(Some(Arc::new(join.build()?)));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let filter = join.filter().map(Condition::within);
        return join.builder().with_filter(filter).build_exec().map(Some);
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let asks = |expr: &ProjectionExpr| !(expr.expr.is::<Column>() || expr.expr.is::<Literal>());
        if !projection.expr().iter().any(asks) {
            return Ok(None);
        }
        let exprs = projection.expr().iter().map(|expr| {
            if asks(expr) {
                let condition = Arc::new(Condition(Arc::clone(&expr.expr)));
                ProjectionExpr::new(condition, expr.alias.clone())
            } else {
                expr.clone()
            }
        });
        let projection = ProjectionExec::try_new(exprs, Arc::clone(projection.input()))?;
        return Ok(Some(Arc::new(projection)));
    }
    let amplifies = node.is::<CrossJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
        || node.is::<UnnestExec>();
    Ok(amplifies.then(|| Arc::clone(node)))
}

/// Yields for each batch, and knows whether its run is over.
#[derive(Debug, Clone)]
struct Interrupts {
    /// What the operator said of its rows, which operators above rely on: a condition that asks whether
    /// the run is over is not seen to be what it was.
    known: EquivalenceProperties,
}

impl Pass for Interrupts {
    const NAME: &'static str = "InterruptibleExec";

    fn pass(
        &self,
        batches: SendableRecordBatchStream,
        context: &TaskContext,
    ) -> SendableRecordBatchStream {
        let over = Over::of(context);
        make_cooperative(Box::pin(Interruptible { batches, over }))
    }

    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        knowing(input, &self.known)
    }
}

/// Batches, polled where their conditions see whether the run is over.
struct Interruptible {
    batches: SendableRecordBatchStream,
    over: Over,
}

impl Stream for Interruptible {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let _scope = self.over.enter();
        self.batches.as_mut().poll_next(cx)
    }
}

impl RecordBatchStream for Interruptible {
    fn schema(&self) -> SchemaRef {
        self.batches.schema()
    }
}

/// The condition of a join, or a column that is computed, until the run is over.
#[derive(Debug)]
struct Condition(Arc<dyn PhysicalExpr>);

impl Condition {
    fn within(filter: &JoinFilter) -> JoinFilter {
        JoinFilter::new(
            Arc::new(Self(Arc::clone(filter.expression()))),
            filter.column_indices().to_vec(),
            Arc::clone(filter.schema()),
        )
    }
}

// Written out for https://github.com/rust-lang/rust/issues/78808, as DataFusion does.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq(&other.0)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Condition {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.0.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.0.nullable(input)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.0.return_field(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check()?;
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Self(children.swap_remove(0))))
    }

    fn get_properties(&self, children: &[ExprProperties]) -> Result<ExprProperties> {
        match children {
            [inner] => Ok(inner.clone()),
            _ => Ok(ExprProperties::new_unknown()),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}
