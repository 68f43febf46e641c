//! Statements that erase for good: `DROP TABLE` of a feature group.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::{Error, Result};
use featureflight_online::erase::Eraser;
use featureflight_udf::Clocks;
use featureflight_udf::planner::defined_group;

use crate::pinning::Scope;
use crate::settings::Setting;
use crate::views::{DropTemporaries, folded};
use crate::writes::refuse_clocks;

/// The feature group that `DROP TABLE` names; `None` when it names something else.
///
/// # Errors
/// `InvalidArgument` when it names others beside it.
pub(crate) fn dropped_group(
    scope: &Scope,
    drop: &DropTemporaries,
) -> Result<Option<Arc<FeatureGroup>>> {
    if drop.views {
        return Ok(None);
    }
    for name in &drop.names {
        let Some(group) = named(scope, name)? else {
            continue;
        };
        if drop.names.len() > 1 {
            return Err(Error::invalid(
                "DROP TABLE drops one feature group at a time: name it alone",
            ));
        }
        return Ok(Some(group));
    }
    Ok(None)
}

fn named(scope: &Scope, name: &ast::ObjectName) -> Result<Option<Arc<FeatureGroup>>> {
    let ground = scope.ground(Clocks::default());
    if let Some(group) = defined_group(&ground.state, name, &ground.context)? {
        return Ok(Some(group));
    }
    // A drop that failed on the way is repeated by its name alone.
    let ident = name.0.last().and_then(|part| part.as_ident());
    let (Some(ident), Some(gateway)) = (ident, scope.core.writes.through()) else {
        return Ok(None);
    };
    let eraser = Eraser::new(gateway, &scope.core.catalog);
    Ok(eraser.unfinished(&folded(ident)))
}

/// What drops `group`, if that is allowed.
///
/// # Errors
/// `FailedPrecondition` that names the setting which allows it, and why this server or session writes
/// nothing.
pub(crate) fn may_drop(scope: &Scope, group: &FeatureGroup) -> Result<Eraser> {
    let name = &group.feature_group_name;
    let gateway = scope.core.writes.gateway(name)?;
    refuse_clocks(scope.session.settings.clocks)?;
    if !scope.session.settings.allow_drop {
        return Err(Error::precondition(format!(
            "DROP TABLE would delete feature group '{name}' with all its records: SET {} = true first",
            Setting::AllowDrop
        )));
    }
    Ok(Eraser::new(gateway, &scope.core.catalog))
}

/// Drops `group`; what to say of it.
///
/// # Errors
/// Those of [`may_drop`] and [`Eraser::drop_group`].
pub(crate) async fn drop_group(scope: &Scope, group: Arc<FeatureGroup>) -> Result<String> {
    let eraser = may_drop(scope, &group)?;
    let kept = if eraser.owns_files() {
        String::new()
    } else {
        kept(&group)
    };
    eraser.drop_group(group).await?;
    Ok(format!("OK{kept}"))
}

/// What SageMaker leaves of a group, as a clause.
fn kept(group: &FeatureGroup) -> String {
    let files = group.data_url().map(|url| format!("the files in {url}"));
    let table = group.glue_names();
    let table = table.map(|(database, name)| format!("the Glue table {database}.{name}"));
    let kept: Vec<String> = files.into_iter().chain(table).collect();
    if kept.is_empty() {
        return String::new();
    }
    format!(": SageMaker keeps {}", kept.join(" and "))
}
