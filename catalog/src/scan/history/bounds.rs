//! Bounds on event time from the predicates of a query.

use arrow::datatypes::DataType;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, Operator, TryCast};
use datafusion::scalar::ScalarValue;

use crate::instant::Instant;
use crate::listing::EventRange;

const DAY: i64 = 86_400_000_000;

/// A range that holds every event time for which `predicate` can be true; [`EventRange::ALL`]
/// when it says nothing. `column` is the event time's name: a [`crate::table::timestamp_type`],
/// floored. Comparisons with timestamp, date and text constants count, also where the column is
/// cast to a date or another timestamp, combined by AND, OR, BETWEEN and IN.
#[must_use]
pub fn event_range(predicate: &Expr, column: &str) -> EventRange {
    match predicate {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => event_range(left, column).intersect(event_range(right, column)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => event_range(left, column).hull(event_range(right, column)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let (Some(grain), Some(value)) = (grain_of(left, column), constant(right)) {
                compare(grain, *op, value)
            } else if let (Some(value), Some(grain)) = (constant(left), grain_of(right, column)) {
                op.swap()
                    .map_or(EventRange::ALL, |op| compare(grain, op, value))
            } else {
                EventRange::ALL
            }
        }
        Expr::Between(Between {
            expr,
            negated: false,
            low,
            high,
        }) => {
            let Some(grain) = grain_of(expr, column) else {
                return EventRange::ALL;
            };
            let bound = |op, value: &Expr| {
                constant(value).map_or(EventRange::ALL, |value| compare(grain, op, value))
            };
            bound(Operator::GtEq, low).intersect(bound(Operator::LtEq, high))
        }
        Expr::InList(InList {
            expr,
            list,
            negated: false,
        }) if !list.is_empty() => {
            let Some(grain) = grain_of(expr, column) else {
                return EventRange::ALL;
            };
            let ranges = list.iter().map(|value| {
                constant(value).map_or(EventRange::ALL, |value| compare(grain, Operator::Eq, value))
            });
            ranges.reduce(EventRange::hull).unwrap_or(EventRange::ALL)
        }
        Expr::Alias(alias) => event_range(&alias.expr, column),
        _ => EventRange::ALL,
    }
}

/// How far an expression over the column may lie from the column, in microseconds, either way: 0
/// for the column itself. `None` when it is not the column under casts between points in time.
fn grain_of(expr: &Expr, column: &str) -> Option<i64> {
    match expr {
        Expr::Column(found) => (found.name == column).then_some(0),
        Expr::Alias(alias) => grain_of(&alias.expr, column),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let inner = grain_of(expr, column)?;
            match field.data_type() {
                // A zone only changes how a timestamp is shown, unless it is dropped again.
                DataType::Timestamp(_, zone) if zone.as_deref().is_none_or(is_utc) => {
                    Some(inner + 1_000_000)
                }
                DataType::Date32 | DataType::Date64 => Some(inner + DAY),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "Z" | "+00:00" | "+00" | "Etc/UTC")
}

/// The constant as an instant. Casts of constants are usually folded before they come here.
fn constant(expr: &Expr) -> Option<Instant> {
    match expr {
        Expr::Literal(value, _) => scalar(value),
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            let DataType::Timestamp(_, zone) = field.data_type() else {
                return None;
            };
            if zone.as_deref().is_none_or(is_utc) {
                constant(expr)
            } else {
                None
            }
        }
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

fn scalar(value: &ScalarValue) -> Option<Instant> {
    Instant::from_scalar(value).ok()
}

/// Event times whose floored or truncated value can compare so with `value`. A day and a second
/// too many do no harm: the range only chooses files, and every row is compared again.
fn compare(grain: i64, op: Operator, value: Instant) -> EventRange {
    let from = Some(Instant::from_micros(value.micros.saturating_sub(grain)));
    let to = Some(Instant {
        micros: value.micros.saturating_add(grain),
        nanos: 999,
    });
    match op {
        Operator::Eq | Operator::IsNotDistinctFrom => EventRange { from, to },
        Operator::Gt | Operator::GtEq => EventRange { from, to: None },
        Operator::Lt | Operator::LtEq => EventRange { from: None, to },
        _ => EventRange::ALL,
    }
}
