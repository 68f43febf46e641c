//! Functions and operators a server cannot leave as they are: those that make much of little, or
//! work long on little, outside the sight of the memory pool and of the query's deadline.
//!
//! `repeat('x', 2147483647)` builds gigabytes in one value, before any limit is looked at. So what
//! can grow is asked first how large its result may become and how long it may take ([`growth`]),
//! patterns how large a machine they make ([`patterns`]), types how wide they are ([`width`]),
//! constants, values of subqueries and lists that are cast how many bytes they have ([`constants`],
//! [`subqueries`], [`items`]), windows how many rows they hold ([`frames`]),
//! approximate percentiles how many centroids they keep ([`digests`]).
//! The guards sit on names in the function registry, and [`rewrite`] puts them where the planner
//! makes calls of its own.

mod checked;
mod concatenation;
mod constants;
mod digests;
mod frames;
mod growth;
mod items;
mod literals;
mod patterns;
mod rewrite;
mod subqueries;
pub mod width;

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use featureflight_catalog::{Error, Kind, Result};

pub(crate) use constants::BoundedConstants;
pub(crate) use frames::{GROWING, rows_of};
use growth::{Guarded, Rule};
pub(crate) use items::{MeasureListCasts, element_width};
pub(crate) use literals::StructLiterals;

/// Most bytes of one value that a function makes.
pub(crate) const MAX_VALUE_BYTES: u64 = 64 << 20;

/// Most bytes of a value made of constants alone: it becomes a part of the plan, which is copied,
/// compared and written out many times, and is written once for each row of a batch.
pub(crate) const MAX_CONSTANT_BYTES: u64 = 64 << 10;

/// Most bytes that one call makes, of all rows of a batch together.
pub(crate) const MAX_CALL_BYTES: u64 = 512 << 20;

/// The functions whose results are larger than their arguments by more than a small factor, and
/// those that take more steps than their arguments have bytes.
const GUARDED: [(&str, Rule); 42] = [
    ("repeat", Rule::Times),
    ("lpad", Rule::Padded),
    ("rpad", Rule::Padded),
    ("concat", Rule::Sum),
    ("concat_ws", Rule::Joined),
    ("replace", Rule::Replaced),
    ("regexp_replace", Rule::Matched),
    ("overlay", Rule::Sum),
    ("to_char", Rule::Formatted),
    ("encode", Rule::Doubled),
    ("upper", Rule::Recased),
    ("lower", Rule::Recased),
    ("initcap", Rule::Recased),
    ("translate", Rule::Recased),
    ("string_to_array", Rule::Split),
    ("array_positions", Rule::Numbers),
    ("btrim", Rule::Scanned),
    ("ltrim", Rule::Scanned),
    ("rtrim", Rule::Scanned),
    ("strpos", Rule::Scanned),
    ("regexp_match", Rule::Found),
    ("regexp_count", Rule::Counted),
    ("regexp_instr", Rule::Counted),
    ("levenshtein", Rule::Steps),
    ("array_repeat", Rule::Elements),
    ("array_resize", Rule::Resized),
    ("array_to_string", Rule::JoinedElements),
    ("array_concat", Rule::Sum),
    ("array_append", Rule::Sum),
    ("array_prepend", Rule::Sum),
    ("array_union", Rule::Sum),
    ("array_replace", Rule::ReplacedElements),
    ("array_replace_n", Rule::ReplacedElements),
    ("array_replace_all", Rule::ReplacedElements),
    ("array_has_all", Rule::Steps),
    ("array_has_any", Rule::Steps),
    ("make_array", Rule::Sum),
    ("range", Rule::Span),
    ("generate_series", Rule::Span),
    ("struct", Rule::Width),
    ("named_struct", Rule::Width),
    ("arrays_zip", Rule::Sum),
];

/// Puts the guards into `state`, under every name their functions have.
pub(crate) fn guard(state: &mut SessionState) -> Result<()> {
    for (name, rule) in GUARDED {
        let function = state.udf(name).map_err(crate::error::classify)?;
        let guarded = Arc::new(ScalarUDF::new_from_impl(Guarded::new(function, rule)));
        state
            .register_udf(guarded)
            .map_err(crate::error::classify)?;
    }
    for name in items::CASTS {
        let function = state.udf(name).map_err(crate::error::classify)?;
        let guarded = Arc::new(ScalarUDF::new_from_impl(width::Cast::new(function)));
        state
            .register_udf(guarded)
            .map_err(crate::error::classify)?;
    }
    let rewrite = rewrite::Bounds::new(state);
    state
        .register_function_rewrite(Arc::new(rewrite))
        .map_err(crate::error::classify)
}

/// Refuses a plan whose patterns, windows or percentiles take too much.
///
/// # Errors
/// `ResourceExhausted`, with what is too much.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut states = 0;
    let checked = plan.apply_with_subqueries(|step| {
        step.apply_expressions(|expr| {
            expr.apply(|expr| {
                patterns::check(expr, &mut states)?;
                frames::check(expr)?;
                digests::check(expr)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    checked.map(|_| ()).map_err(crate::error::classify)
}

fn invalid(message: String) -> datafusion::error::DataFusionError {
    Error::invalid(message).into()
}

fn too_large(message: String) -> datafusion::error::DataFusionError {
    Error::new(Kind::ResourceExhausted, message).into()
}

#[cfg(test)]
mod tests;
