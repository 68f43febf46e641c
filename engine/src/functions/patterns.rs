//! How large a machine a regular expression makes. `(\w{99}){99}` is twelve characters and takes
//! seconds to compile, once per batch where it is constant and once per row where it is not.

use std::collections::{HashMap, HashSet};

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::growth::size_of;
use super::rewrite::constant_pattern;
use super::too_large;

/// Characters of a pattern that matching may take no notice of.
pub(super) const MAX_FREE_POSITIONS: u64 = 64;

/// Most bytes of the texts of a batch times characters of their patterns. Few patterns make a
/// machine that compares all of them.
const MAX_MATCH_STEPS: u64 = 1 << 33;

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

/// Bounds the constant patterns of a statement, whose states so far are `total`; [`check_batch`] sees
/// the others.
///
/// # Errors
/// `ResourceExhausted` beyond the limits of this module.
pub(super) fn check(expr: &Expr, total: &mut u64) -> Result<()> {
    if let Some(pattern) = constant_pattern(expr) {
        *total = total.saturating_add(states(pattern)?);
    }
    if *total > MAX_STATEMENT_STATES {
        return Err(too_large(format!(
            "the patterns of the statement are too large: {MAX_STATEMENT_STATES} states are the limit, \
             with counted groups written out"
        )));
    }
    Ok(())
}

/// What looking for a pattern takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Search {
    /// Characters and classes of the pattern, counted groups written out: at worst each is compared
    /// with each byte.
    positions: u64,
    /// How far a search may look beyond the match that it finds; `None` for up to the end of the
    /// text.
    reach: Option<u64>,
}

impl Search {
    /// That of a `LIKE`, which becomes a pattern where its wildcards are not at its ends only.
    pub(super) fn like(pattern: &str) -> Self {
        let within = pattern.trim_matches('%').contains(['%', '_']);
        Self {
            positions: if within { pattern.len() as u64 } else { 1 },
            reach: None,
        }
    }

    pub(super) fn new(pattern: &str) -> Self {
        // What does not parse fails where it is used.
        regex_syntax::parse(pattern).map_or(
            Self {
                positions: 1,
                reach: Some(1),
            },
            |hir| Self {
                positions: positions(&hir),
                reach: reach(&hir),
            },
        )
    }

    /// Most steps of one search of a text of so many bytes.
    pub(super) fn once(self, bytes: u64) -> u64 {
        bytes.saturating_mul(self.positions)
    }

    /// Most steps of finding every match.
    pub(super) fn throughout(self, bytes: u64) -> u64 {
        let each = self.reach.unwrap_or(bytes).clamp(1, bytes.max(1));
        self.once(bytes).saturating_mul(each)
    }
}

/// The searches of a column of patterns.
pub(super) fn searches(patterns: &ArrayRef) -> Result<Vec<Search>> {
    let patterns = cast(patterns, &DataType::Utf8View)?;
    let mut known = HashMap::new();
    let searches = patterns.as_string_view().iter().map(|pattern| {
        let pattern = pattern.unwrap_or_default();
        *known.entry(pattern).or_insert_with(|| Search::new(pattern))
    });
    Ok(searches.collect())
}

/// How long matching texts with patterns, the second argument, may take: each character of a pattern
/// counts for each byte.
///
/// # Errors
/// `ResourceExhausted` beyond [`MAX_MATCH_STEPS`].
pub(super) fn check_matching(args: &ScalarFunctionArgs) -> Result<()> {
    let rows = args.number_rows;
    let constant = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(_));
    let rows = if args.args.iter().all(constant) {
        1
    } else {
        rows
    };
    let arrays = args.args.iter().map(|value| match value {
        ColumnarValue::Array(array) => Ok((ArrayRef::clone(array), false)),
        ColumnarValue::Scalar(scalar) => Ok((scalar.to_array()?, true)),
    });
    let arrays: Vec<(ArrayRef, bool)> = arrays.collect::<Result<_>>()?;
    if let [(texts, one_text), (patterns, one_pattern)] = arrays.as_slice() {
        let searches = searches(patterns)?;
        let at = |constant: bool, row: usize| if constant { 0 } else { row };
        let steps = (0..rows).map(|row| {
            let search = searches.get(at(*one_pattern, row));
            let bytes = size_of(texts, at(*one_text, row));
            search.map_or(0, |search| search.once(bytes))
        });
        if steps.fold(0, u64::saturating_add) > MAX_MATCH_STEPS {
            return Err(too_large(format!(
                "matching the texts of a batch would take too long: {MAX_MATCH_STEPS} is the \
                 limit of their bytes times the characters of the pattern, with counted groups \
                 written out: use a shorter pattern, or shorten the texts"
            )));
        }
    }
    Ok(())
}

fn positions(hir: &Hir) -> u64 {
    let sum = |parts: &[Hir]| parts.iter().map(positions).fold(0, u64::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min + 1).max(1);
            positions(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Capture(capture) => positions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => sum(parts),
    }
}

/// A search looks on while a longer match is possible. That is bounded where nothing follows what
/// repeats without end: each turn of it is a match already.
fn reach(hir: &Hir) -> Option<u64> {
    let longest = |hir: &Hir| hir.properties().maximum_len().map(|length| length as u64);
    if let Some(length) = longest(hir) {
        return Some(length);
    }
    match hir.kind() {
        HirKind::Repetition(repetition) => longest(&repetition.sub),
        HirKind::Capture(capture) => reach(&capture.sub),
        HirKind::Concat(parts) => {
            let (last, before) = parts.split_last()?;
            let before = before.iter().map(longest).sum::<Option<u64>>()?;
            Some(before.saturating_add(reach(last)?))
        }
        HirKind::Alternation(parts) => {
            let reaches: Option<Vec<u64>> = parts.iter().map(reach).collect();
            reaches?.into_iter().max()
        }
        HirKind::Empty | HirKind::Look(_) | HirKind::Literal(_) | HirKind::Class(_) => Some(1),
    }
}

/// The patterns of a batch, the first argument.
///
/// # Errors
/// `ResourceExhausted` beyond [`MAX_CALL_STATES`].
pub(super) fn check_batch(args: &ScalarFunctionArgs) -> Result<()> {
    let array = match args.args.first() {
        Some(ColumnarValue::Array(array)) => ArrayRef::clone(array),
        Some(ColumnarValue::Scalar(scalar)) => scalar.to_array()?,
        None => return Ok(()),
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quadratic is what may look to the end of the text for each match.
    #[test]
    fn only_what_follows_endless_repetition_looks_far() {
        for pattern in [r"\s+", "a", "(ab|c+)", "x[a-z]{1,9}y*", "(?:ab)+", r"^\w*"] {
            let steps = Search::new(pattern).throughout(1 << 20);
            assert!(steps < 1 << 29, "{pattern}: {steps}");
        }
        for pattern in [".*[^A-Z]X|[a-z]", "a+b|a", "<[^>]*>", "(a*b)*"] {
            let steps = Search::new(pattern).throughout(1 << 20);
            assert!(steps >= 1 << 40, "{pattern}: {steps}");
        }
    }
}
