//! Text compared with a timestamp is read as the event times of the store are, in every ISO-8601
//! form; a date is midnight UTC. Both in microseconds, the unit of every timestamp here, so that no
//! value is out of range.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use featureflight_catalog::Instant;

/// See the module.
#[derive(Debug)]
pub(super) struct TimestampText;

impl ExprPlanner for TimestampText {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let comparison = matches!(
            expr.op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        if comparison {
            if let Some(literal) = read(&expr.right, &expr.left, schema)? {
                expr.right = literal;
            } else if let Some(literal) = read(&expr.left, &expr.right, schema)? {
                expr.left = literal;
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// `expr` as a value of `other`'s type, if that is a timestamp in microseconds: text that it can
/// say exactly, a date as midnight UTC.
fn read(expr: &Expr, other: &Expr, schema: &DFSchema) -> Result<Option<Expr>> {
    let text = match expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::Utf8View(Some(text))
            | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Some(text),
        _ => None,
    };
    // A type that cannot be told here is left to the analyzer.
    let Ok(timestamp) = other.get_type(schema) else {
        return Ok(None);
    };
    let DataType::Timestamp(TimeUnit::Microsecond, zone) = &timestamp else {
        return Ok(None);
    };
    if let Some(text) = text {
        let instant = Instant::parse(text)?;
        let literal = ScalarValue::TimestampMicrosecond(Some(instant.micros), zone.clone());
        return Ok((instant.nanos == 0).then_some(Expr::Literal(literal, None)));
    }
    let utc = matches!(zone.as_deref(), None | Some("UTC" | "+00:00" | "Z"));
    match expr.get_type(schema) {
        Ok(DataType::Date32 | DataType::Date64) if utc => {
            expr.clone().cast_to(&timestamp, schema).map(Some)
        }
        _ => Ok(None),
    }
}
