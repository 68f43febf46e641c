//! How many rows a window holds where its value has a part for each of them, or is made of all of them
//! anew for each row. `array_agg(x) OVER
//! (ORDER BY y)` holds the first row once for each row: a hundred thousand rows are five billion.

use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    Expr, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::{invalid, too_large};

/// Aggregates whose value grows with the rows.
pub(crate) const GROWING: [&str; 2] = ["array_agg", "string_agg"];

/// Aggregates that look at all rows of a frame again for each row.
const REPEATING: [&str; 7] = [
    "median",
    "percentile_cont",
    "quantile_cont",
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "nth_value",
];

/// Most rows of a frame of one of those.
const MAX_FRAME_ROWS: u64 = 1_000;

/// Window functions that panic without an argument.
const OF_A_VALUE: [&str; 5] = ["first_value", "last_value", "nth_value", "lag", "lead"];

/// # Errors
/// `InvalidArgument` for a window function without the argument it needs, `ResourceExhausted` for a
/// window of [`GROWING`] values, or of [`REPEATING`] ones, over more than [`MAX_FRAME_ROWS`] rows.
pub(super) fn check(expr: &Expr) -> Result<()> {
    let Expr::WindowFunction(call) = expr else {
        return Ok(());
    };
    let name = call.fun.name();
    if OF_A_VALUE.contains(&name) && call.params.args.is_empty() {
        return Err(invalid(format!(
            "{name} needs an argument: the value of which row"
        )));
    }
    let frame = &call.params.window_frame;
    let aggregate = matches!(call.fun, WindowFunctionDefinition::AggregateUDF(_));
    let repeats = aggregate
        && REPEATING.contains(&name)
        && !(frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded());
    let rows = rows_of(frame);
    if !(GROWING.contains(&name) || repeats) || rows.is_some_and(|rows| rows <= MAX_FRAME_ROWS) {
        return Ok(());
    }
    Err(too_large(format!(
        "{name} as a window function may look at {MAX_FRAME_ROWS} rows for each row: bound its frame \
         with ROWS BETWEEN n PRECEDING AND CURRENT ROW, or use GROUP BY and join the groups"
    )))
}

/// The rows of a frame, where they are bounded.
pub(crate) fn rows_of(frame: &WindowFrame) -> Option<u64> {
    if frame.units != WindowFrameUnits::Rows {
        return None;
    }
    let start = distance(&frame.start_bound)?;
    let end = distance(&frame.end_bound)?;
    Some(start.saturating_add(end).saturating_add(1))
}

/// Rows from the current one; both directions count, which is too many for a frame beside it.
fn distance(bound: &WindowFrameBound) -> Option<u64> {
    match bound {
        WindowFrameBound::CurrentRow => Some(0),
        WindowFrameBound::Preceding(rows) | WindowFrameBound::Following(rows) => match rows {
            ScalarValue::UInt64(rows) => *rows,
            _ => None,
        },
    }
}
