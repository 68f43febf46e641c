//! [`InTurn`], the logical node.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use featureflight_catalog::Error;

/// The rows of each input in its own order, those of the first input first. Columns have the names
/// of the first input, and may be null where they may be in any.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct InTurn {
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

impl InTurn {
    /// A plan of `inputs` in turn; the input itself if there is but one.
    ///
    /// # Errors
    /// `InvalidArgument` when their columns have different types, `Internal` without an input.
    pub fn plan(inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
        match <[LogicalPlan; 1]>::try_from(inputs) {
            Ok([input]) => Ok(input),
            Err(inputs) => Ok(LogicalPlan::Extension(Extension {
                node: Arc::new(Self::try_new(inputs)?),
            })),
        }
    }

    fn try_new(inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Some((first, others)) = inputs.split_first() else {
            return Err(Error::internal("no query is to run in turn").into());
        };
        let first = first.schema();
        for other in others {
            let types = |schema: &DFSchema| -> Vec<_> {
                let fields = schema.fields().iter();
                fields.map(|field| field.data_type().clone()).collect()
            };
            if types(other.schema()) != types(first) {
                return Err(Error::invalid(
                    "the rows of bound parameters give results of different types: cast in the \
                     SELECT list, or run the query once for each row",
                )
                .into());
            }
        }
        let fields = first.iter().enumerate().map(|(at, (qualifier, field))| {
            let nullable = inputs.iter().any(|input| {
                let field = input.schema().fields().get(at);
                field.is_none_or(|field| field.is_nullable())
            });
            let field = Field::clone(field).with_nullable(nullable);
            (qualifier.cloned(), Arc::new(field))
        });
        let schema = DFSchema::new_with_metadata(fields.collect(), first.metadata().clone())?;
        Ok(Self {
            inputs,
            schema: Arc::new(schema),
        })
    }
}

impl PartialOrd for InTurn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.inputs.partial_cmp(&other.inputs)
    }
}

impl UserDefinedLogicalNodeCore for InTurn {
    fn name(&self) -> &'static str {
        "InTurn"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InTurn")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(inputs)
    }
}
