//! Operators that stand between others and make the same rows in the same order: all but what they do
//! with the batches on their way, or with the context in which they are made.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};

/// What an operator does with the batches that it hands on.
pub(crate) trait Pass: fmt::Debug + Clone + Send + Sync + 'static {
    const NAME: &'static str;

    /// Whether it says of the order of its rows what its input says.
    const KEEPS_ORDER: bool = true;

    /// The context that its input is executed in, by default its own.
    fn context(&self, context: Arc<TaskContext>) -> Arc<TaskContext> {
        context
    }

    /// `batches` of one partition, with the same schema; by default as they are.
    fn pass(
        &self,
        batches: SendableRecordBatchStream,
        _context: &TaskContext,
    ) -> SendableRecordBatchStream {
        batches
    }

    /// Writes its line of a plan that is shown.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAME)
    }

    /// What is said of the rows, by default all that `input` says.
    fn properties(&self, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::clone(input.properties())
    }
}

/// What `input` says, but for what is known of its rows.
pub(crate) fn knowing(
    input: &Arc<dyn ExecutionPlan>,
    known: &EquivalenceProperties,
) -> Arc<PlanProperties> {
    let said = PlanProperties::clone(input.properties());
    Arc::new(said.with_eq_properties(known.clone()))
}

/// `input` with `pass` above it.
pub(crate) fn above<P: Pass>(input: Arc<dyn ExecutionPlan>, pass: P) -> Arc<dyn ExecutionPlan> {
    Arc::new(PassThroughExec::new(input, pass))
}

/// `node` with what `pass` has for an input, by its place, above that input.
///
/// # Errors
/// Those of `node` with other inputs.
pub(crate) fn above_inputs<P: Pass>(
    node: Arc<dyn ExecutionPlan>,
    pass: impl Fn(&Arc<dyn ExecutionPlan>, usize, &Arc<dyn ExecutionPlan>) -> Option<P>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let inputs = node.children().into_iter().enumerate();
    let passes: Vec<_> = inputs
        .map(|(place, input)| pass(&node, place, input))
        .collect();
    if passes.iter().all(Option::is_none) {
        return Ok(Transformed::no(node));
    }
    let inputs = node.children().into_iter().map(Arc::clone).zip(passes);
    let inputs = inputs.map(|(input, pass)| match pass {
        Some(pass) => above(input, pass),
        None => input,
    });
    let inputs = inputs.collect();
    let changed = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    node.replace_children(inputs, changed).map(Transformed::yes)
}

/// See the module. Nothing is pushed through it.
#[derive(Debug)]
pub(crate) struct PassThroughExec<P> {
    input: Arc<dyn ExecutionPlan>,
    pass: P,
    properties: Arc<PlanProperties>,
}

impl<P: Pass> PassThroughExec<P> {
    fn new(input: Arc<dyn ExecutionPlan>, pass: P) -> Self {
        Self {
            properties: pass.properties(&input),
            input,
            pass,
        }
    }

    pub(crate) const fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }
}

impl<P: Pass> DisplayAs for PassThroughExec<P> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pass.show(f)
    }
}

impl<P: Pass> ExecutionPlan for PassThroughExec<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![P::KEEPS_ORDER]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.swap_remove(0);
        Ok(Arc::new(Self::new(input, self.pass.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let below = self.pass.context(Arc::clone(&context));
        let batches = self.input.execute(partition, below)?;
        Ok(self.pass.pass(batches, &context))
    }
}
