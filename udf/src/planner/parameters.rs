//! Parameters of a statement: their types while it is prepared, their values when it runs.

use arrow::compute::can_cast_types;
use arrow::datatypes::DataType;
use datafusion::common::ParamValues;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan};
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::constants::number;
use super::error::{classify, sql_type};

/// Types of `$1, $2, ...`, from the plan and from clauses and arguments (`recorded`).
///
/// # Errors
/// `InvalidArgument` for a parameter that is used as two types.
pub(super) fn types(
    plan: &LogicalPlan,
    recorded: &BTreeMap<usize, Option<DataType>>,
) -> Result<Vec<Option<DataType>>> {
    let mut types: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
    for (id, inferred) in plan.get_parameter_types().map_err(classify)? {
        types.insert(number(&id)?, inferred);
    }
    for (number, wanted) in recorded {
        let slot = types.entry(*number).or_insert(None);
        if wanted.is_some() {
            slot.clone_from(wanted);
        }
    }
    let count = types.keys().next_back().copied().unwrap_or(0);
    Ok((1..=count)
        .map(|number| types.remove(&number).flatten())
        .collect())
}

/// # Errors
/// `InvalidArgument` when there are more or fewer values than parameters, or one cannot become
/// what its place needs.
pub(super) fn check(types: &[Option<DataType>], values: &[ScalarValue]) -> Result<()> {
    if types.len() != values.len() {
        return Err(Error::invalid(format!(
            "the statement has {} parameters, {} values were bound",
            types.len(),
            values.len()
        )));
    }
    for (position, (wanted, value)) in types.iter().zip(values).enumerate() {
        let given = value.data_type();
        if let Some(wanted) = wanted
            && !value.is_null()
            && !can_cast_types(&given, wanted)
        {
            return Err(Error::invalid(format!(
                "parameter ${} is {}, its place needs {}",
                position + 1,
                sql_type(&given),
                sql_type(wanted)
            )));
        }
    }
    Ok(())
}

/// `plan` with every `$n` replaced.
pub(super) fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    let has_parameters = !plan.get_parameter_names().map_err(classify)?.is_empty();
    if !has_parameters {
        return Ok(plan);
    }
    plan.with_param_values(ParamValues::from(values.to_vec()))
        .map_err(classify)
}

/// Keeps a plan with parameters in its clauses from running without their values: a placeholder
/// that cannot be planned physically.
pub(super) fn guard(plan: LogicalPlan, parameter: usize) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Explain(mut explain) => {
            explain.plan = Arc::new(guard(Arc::unwrap_or_clone(explain.plan), parameter)?);
            Ok(LogicalPlan::Explain(explain))
        }
        LogicalPlan::Analyze(mut analyze) => {
            analyze.input = Arc::new(guard(Arc::unwrap_or_clone(analyze.input), parameter)?);
            Ok(LogicalPlan::Analyze(analyze))
        }
        plan @ LogicalPlan::DescribeTable(_) => Ok(plan),
        plan => {
            let field = arrow::datatypes::Field::new("", DataType::Boolean, true);
            let unbound =
                Placeholder::new_with_field(format!("${parameter}"), Some(Arc::new(field)));
            let filter = Filter::try_new(Expr::Placeholder(unbound), Arc::new(plan));
            filter.map(LogicalPlan::Filter).map_err(classify)
        }
    }
}
