//! Which predicates may go below the ranking, and in what form.

use std::sync::Arc;

use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::utils::{Guarantee, LiteralGuarantee};
use datafusion::physical_plan::PhysicalExpr;
use featureflight_catalog::Error;
use featureflight_catalog::scan::prune::SortedKeys;
use featureflight_catalog::table::FeatureTable;

use crate::state::best::KeyFilter;

/// Whether `filter` gives one answer for all versions of a record: it looks at the record
/// identifier alone and always says the same. Double identifiers are left out, since `0.0` and
/// `-0.0` are one record that predicates tell apart.
pub(crate) fn on_record_identifier(table: &FeatureTable, filter: &Expr) -> bool {
    let field = table.state_schema.field(table.record_identifier);
    let columns = filter.column_refs();
    *field.data_type() != DataType::Float64
        && columns.len() == 1
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
    let field = table.state_schema.field(table.record_identifier).clone();
    let schema = Arc::new(Schema::new(vec![field]));
    let predicate =
        session.create_physical_expr(predicate, &DFSchema::try_from(Arc::clone(&schema))?)?;
    let keys = named_keys(&predicate);
    Ok(Some(KeyFilter {
        schema,
        predicate,
        keys,
    }))
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
