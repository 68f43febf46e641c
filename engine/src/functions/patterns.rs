//! How large a machine a regular expression makes. `(\w{99}){99}` is twelve characters and takes
//! seconds to compile, once per batch where it is constant and once per row where it is not.

use std::collections::HashSet;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlan, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::rewrite::constant_pattern;
use super::too_large;

/// States of one pattern: `\w{64}` has about 50,000.
const MAX_PATTERN_STATES: u64 = 100_000;

/// States of all patterns of a batch.
const MAX_CALL_STATES: u64 = 2_000_000;

/// States of all constant patterns of a statement: each is compiled for every batch.
const MAX_STATEMENT_STATES: u64 = 1_000_000;

/// The states of `pattern`, counted groups written out. What does not parse has none: it fails
/// where it is used.
///
/// # Errors
/// `ResourceExhausted` beyond [`MAX_PATTERN_STATES`].
fn states(pattern: &str) -> Result<u64> {
    let parsed = if pattern.len() as u64 > MAX_PATTERN_STATES {
        MAX_PATTERN_STATES + 1
    } else {
        regex_syntax::parse(pattern).map_or(0, |hir| count(&hir))
    };
    if parsed > MAX_PATTERN_STATES {
        return Err(too_large(format!(
            "a pattern is too large: {MAX_PATTERN_STATES} states are the limit, with counted groups \
             written out"
        )));
    }
    Ok(parsed)
}

fn count(hir: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(count).fold(1, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min + 1).max(1);
            count(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => count(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

/// Bounds the constant patterns of a plan; [`Patterns`] sees the others.
///
/// # Errors
/// `ResourceExhausted` beyond the limits of this module.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut total = 0_u64;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Some(pattern) = constant_pattern(expr) {
                    total = total.saturating_add(states(pattern)?);
                }
                if total > MAX_STATEMENT_STATES {
                    return Err(too_large(format!(
                        "the patterns of the statement are too large: {MAX_STATEMENT_STATES} \
                         states are the limit, with counted groups written out"
                    )));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

/// Hands patterns through, after a look at all of a batch.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Patterns {
    signature: Signature,
}

impl Patterns {
    pub(super) const NAME: &str = "checked_pattern";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Patterns {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let patterns = args.args.swap_remove(0);
        let array = match &patterns {
            ColumnarValue::Array(array) => std::sync::Arc::clone(array),
            ColumnarValue::Scalar(scalar) => scalar.to_array()?,
        };
        let array = cast(&array, &DataType::Utf8View)?;
        let mut seen = HashSet::new();
        let mut total = 0_u64;
        for pattern in array.as_string_view().iter().flatten() {
            if seen.insert(pattern) {
                total = total.saturating_add(states(pattern)?.max(pattern.len() as u64));
            }
            if total > MAX_CALL_STATES {
                return Err(too_large(format!(
                    "the patterns of a batch are too large: {MAX_CALL_STATES} states are the \
                     limit, with counted groups written out"
                )));
            }
        }
        Ok(patterns)
    }
}
