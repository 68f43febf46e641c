//! How many centroids an approximate percentile keeps. Its digest takes their place before it has a
//! single row: a number of them that no memory holds ends the process, not the query.

use datafusion::error::Result;
use datafusion::logical_expr::Expr;

use super::{invalid, too_large};

/// A hundred times what it keeps where a call does not say.
const MAX_CENTROIDS: u64 = 10_000;

/// Which argument says how many.
const PLACES: [(&str, usize); 2] = [
    ("approx_percentile_cont", 2),
    ("approx_percentile_cont_with_weight", 3),
];

/// # Errors
/// `ResourceExhausted` for more than [`MAX_CENTROIDS`], `InvalidArgument` for a number that is not
/// written out.
pub(super) fn check(expr: &Expr) -> Result<()> {
    let (name, args) = match expr {
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
        _ => return Ok(()),
    };
    let place = PLACES.iter().find(|(of, _)| *of == name);
    let Some(mut count) = place.and_then(|(_, place)| args.get(*place)) else {
        return Ok(());
    };
    while let Expr::Cast(cast) = count {
        count = &cast.expr;
    }
    let count = match count {
        // Of a statement that is prepared; it is looked at again when it has its value.
        Expr::Placeholder(_) => return Ok(()),
        Expr::Literal(count, _) => count.to_string().parse::<i128>().ok(),
        _ => None,
    };
    match count {
        None => Err(invalid(format!(
            "the number of centroids of {name} has to be written as a number"
        ))),
        Some(count) if count > i128::from(MAX_CENTROIDS) => Err(too_large(format!(
            "{name} may keep {MAX_CENTROIDS} centroids, not {count}: leave the number out, or use \
             percentile_cont for an exact answer"
        ))),
        Some(_) => Ok(()),
    }
}
