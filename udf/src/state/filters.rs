//! Which predicates may go below the ranking, and in what form.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::conjunction as conjunction_of;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee, collect_columns};
use datafusion::physical_expr_common::physical_expr::{
    snapshot_generation, snapshot_physical_expr,
};
use datafusion::physical_plan::PhysicalExpr;
use featureflight_catalog::Error;
use featureflight_catalog::scan::prune::SortedKeys;
use featureflight_catalog::table::FeatureTable;

use crate::state::best::KeyFilter;

/// Whether `filter` gives one answer for all versions of a record: it looks at the record
/// identifier alone, or at nothing any more when it is simplified, and always says the same. Double identifiers are left out, since `0.0` and
/// `-0.0` are one record that predicates tell apart.
pub(crate) fn on_record_identifier(table: &FeatureTable, filter: &Expr) -> bool {
    let field = table.state_schema.field(table.record_identifier);
    let columns = filter.column_refs();
    *field.data_type() != DataType::Float64
        && columns.iter().all(|column| column.name == *field.name())
        && !filter.is_volatile()
        && !filter.contains_outer()
        && !has_subquery(filter)
}

fn has_subquery(filter: &Expr) -> bool {
    let found = filter.exists(|part| {
        Ok(matches!(
            part,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_)
        ))
    });
    found.unwrap_or(true)
}

/// The conjunction of `filters`, all of which [`on_record_identifier`] accepted.
///
/// # Errors
/// `Internal` for any other filter.
pub(crate) fn physical(
    table: &FeatureTable,
    filters: &[Expr],
    session: &dyn Session,
) -> Result<Option<KeyFilter>> {
    if !filters
        .iter()
        .all(|filter| on_record_identifier(table, filter))
    {
        return Err(Error::internal("a predicate on features was pushed below the ranking").into());
    }
    let Some(predicate) = conjunction(filters.iter().cloned()) else {
        return Ok(None);
    };
    let schema = key_schema(table);
    let predicate =
        session.create_physical_expr(predicate, &DFSchema::try_from(Arc::clone(&schema))?)?;
    Ok(Some(key_filter(schema, predicate)))
}

/// The record identifier alone.
fn key_schema(table: &FeatureTable) -> SchemaRef {
    let field = table.state_schema.field(table.record_identifier).clone();
    Arc::new(Schema::new(vec![field]))
}

fn key_filter(schema: SchemaRef, predicate: Arc<dyn PhysicalExpr>) -> KeyFilter {
    KeyFilter {
        keys: named_keys(&predicate),
        schema,
        predicate,
    }
}

/// A predicate that is known only when the plan runs, over the columns of `projection`, as one over
/// [`key_schema`]; `None` for others, and where it looks at more than the record identifier. Double
/// identifiers are left out, as in [`on_record_identifier`].
pub(crate) fn learnt_of_record_identifier(
    table: &FeatureTable,
    projection: &[usize],
    filter: &Arc<dyn PhysicalExpr>,
) -> Option<Arc<dyn PhysicalExpr>> {
    let field = table.state_schema.field(table.record_identifier);
    let of_identifier =
        |column: &Column| projection.get(column.index()) == Some(&table.record_identifier);
    let fits = snapshot_generation(filter) > 0
        && *field.data_type() != DataType::Float64
        && collect_columns(filter).iter().all(of_identifier);
    let identifier: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), 0));
    let moved = Arc::clone(filter).transform(|expr| {
        Ok(match expr.downcast_ref::<Column>() {
            Some(_) => Transformed::yes(Arc::clone(&identifier)),
            None => Transformed::no(expr),
        })
    });
    fits.then_some(moved.ok()?.data)
}

/// `filter` and what is known by now of `wanted`, which [`learnt_of_record_identifier`] made.
///
/// # Errors
/// Those of reading a predicate.
pub(crate) fn narrowed(
    table: &FeatureTable,
    filter: Option<KeyFilter>,
    wanted: &[Arc<dyn PhysicalExpr>],
) -> Result<Option<KeyFilter>> {
    if wanted.is_empty() {
        return Ok(filter);
    }
    let mut parts: Vec<_> = filter.into_iter().map(|filter| filter.predicate).collect();
    for wanted in wanted {
        parts.push(snapshot_physical_expr(Arc::clone(wanted))?);
    }
    Ok(Some(key_filter(key_schema(table), conjunction_of(parts))))
}

/// The records that can pass a predicate that names them.
fn named_keys(predicate: &Arc<dyn PhysicalExpr>) -> Option<Arc<SortedKeys>> {
    let fewest = LiteralGuarantee::analyze(predicate)
        .into_iter()
        .filter(|guarantee| guarantee.guarantee == Guarantee::In)
        .map(|guarantee| guarantee.literals)
        .min_by_key(std::collections::HashSet::len)?;
    let keys = ScalarValue::iter_to_array(fewest).ok()?;
    let keys = match keys.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => cast(&keys, &DataType::Utf8View).ok()?,
        _ => keys,
    };
    SortedKeys::from_array(&keys).map(Arc::new)
}
