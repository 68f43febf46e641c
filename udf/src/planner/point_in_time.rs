//! `point_in_time_join(spine, 'group', 'group:feature', ...)`: from a call to the node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Ident, Query, TableFactor};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};

use super::constants::Constant;
use super::error::{classify, missing};
use super::factors::Factors;
use super::functions::{Call, group_and_feature, path, subquery, text};
use super::keys::{KeyPair, key_pairs};
use super::names::{Names, matches, spelled};
use super::spine;
use crate::point_in_time::node::{FeatureColumn, GroupJoin, KnownAt, KnownBy, PointInTimeJoin};

/// What a group contributes: its features by position in the definitions, in output order.
#[derive(Debug)]
pub(super) struct GroupRequest {
    pub(super) table: Arc<FeatureTable>,
    features: Vec<usize>,
}

/// One call, its names resolved, its expressions not yet planned.
#[derive(Debug)]
pub(super) struct PointInTimeCall {
    spine: Query,
    pub(super) groups: Vec<GroupRequest>,
    event_time: Option<ast::Expr>,
    keys: Vec<KeyPair>,
    max_age: Option<ast::Expr>,
    known_at: Option<ast::Expr>,
    known_by: KnownBy,
    event_times: bool,
    full_feature_names: bool,
}

const NAME: &str = "point_in_time_join";

impl PointInTimeCall {
    /// # Errors
    /// `InvalidArgument` for arguments that are missing or of the wrong form, `NotFound` for
    /// unknown groups.
    pub(super) fn parse(names: &Names<'_>, mut call: Call) -> Result<Self> {
        let arguments = std::mem::take(&mut call.positional);
        let Some((spine, groups)) = arguments.split_first() else {
            return Err(Error::invalid(format!(
                "{NAME} needs a spine and at least one feature group: {NAME}((SELECT ...), 'group')"
            )));
        };
        let Some(spine) = subquery(spine) else {
            return Err(Error::invalid(format!(
                "the first argument of {NAME} is the spine, a query in parentheses or TABLE(name), \
                 not {spine}"
            )));
        };
        let groups = requests(names, groups)?;
        let known_at = call.take("known_at");
        let known_by = known_by(call.take("known_by"), known_at.is_some())?;
        let keys = match call.take("keys") {
            None => Vec::new(),
            Some(keys) => match text(&keys) {
                Some(keys) => key_pairs(&keys)?,
                None => {
                    return Err(Error::invalid(format!(
                        "keys is a string such as 'customers.customer_id = cust_id', not {keys}"
                    )));
                }
            },
        };
        Ok(Self {
            spine: spine.clone(),
            groups,
            event_time: call.take("event_time"),
            keys,
            max_age: call.take("max_age"),
            known_at,
            known_by,
            event_times: call.take_flag("event_times")?,
            full_feature_names: call.take_flag("full_feature_names")?,
        })
    }

    /// The output columns of `group`: positions in its definitions, and names.
    pub(super) fn column_names(&self, group: &GroupRequest) -> Vec<(usize, String)> {
        let definitions = &group.table.group.feature_definitions;
        let full = |name: &str| format!("{}__{name}", group.table.name());
        let mut columns: Vec<(usize, String)> = group
            .features
            .iter()
            .map(|&feature| {
                let name = &definitions[feature].feature_name;
                (
                    feature,
                    if self.full_feature_names {
                        full(name)
                    } else {
                        name.clone()
                    },
                )
            })
            .collect();
        if self.event_times {
            columns.push((group.table.event_time, full("event_time")));
        }
        columns
    }
}

/// The groups in the order of their first mention, each with all its features in order.
fn requests(names: &Names<'_>, arguments: &[ast::Expr]) -> Result<Vec<GroupRequest>> {
    let mut requests: Vec<GroupRequest> = Vec::new();
    for argument in arguments {
        let (table, feature) = group_and_feature(names, NAME, argument)?;
        let position = requests
            .iter()
            .position(|request| request.table.name() == table.name());
        let request = if let Some(position) = position {
            &mut requests[position]
        } else {
            requests.push(GroupRequest {
                table: Arc::clone(&table),
                features: Vec::new(),
            });
            let last = requests.len() - 1;
            &mut requests[last]
        };
        let wanted: Vec<usize> = match feature {
            Some(feature) => vec![feature],
            None => (0..table.group.feature_definitions.len())
                .filter(|&feature| {
                    feature != table.record_identifier && feature != table.event_time
                })
                .collect(),
        };
        for feature in wanted {
            if !request.features.contains(&feature) {
                request.features.push(feature);
            }
        }
    }
    if requests.is_empty() {
        return Err(Error::invalid(format!(
            "{NAME} needs at least one feature group after the spine: 'group' or 'group:feature'"
        )));
    }
    Ok(requests)
}

fn known_by(argument: Option<ast::Expr>, has_known_at: bool) -> Result<KnownBy> {
    let Some(argument) = argument else {
        return Ok(KnownBy::WriteTime);
    };
    if !has_known_at {
        return Err(Error::invalid(
            "known_by is the clock of known_at, which is not given",
        ));
    }
    match text(&argument).map(|text| text.to_lowercase()).as_deref() {
        Some("write_time") => Ok(KnownBy::WriteTime),
        Some("api_invocation_time") => Ok(KnownBy::ApiInvocationTime),
        _ => Err(Error::invalid(format!(
            "known_by is 'write_time' or 'api_invocation_time', not {argument}"
        ))),
    }
}

impl Factors {
    pub(super) fn plan_point_in_time(
        &self,
        call: Call,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let mut call = PointInTimeCall::parse(&self.names(), call)?;
        let factor = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(call.spine.clone()),
            alias: None,
            sample: None,
        };
        let spine = self.bind_plan(context.plan(factor).map_err(classify)?)?;
        check_names(&call, spine.schema())?;
        let time = self.event_time(&call, spine.schema())?;
        let max_age = match call.max_age.take() {
            None => None,
            Some(expr) => self
                .interval(&format!("max_age of {NAME}"), expr, context)?
                .known(),
        };
        let known_at = match call.known_at.take() {
            None => KnownAt::Always,
            Some(expr) => self.known_at(expr, spine.schema(), context)?,
        };
        let mut keys = keys_of(&self.names(), &call, spine.schema())?;
        let groups = call
            .groups
            .iter()
            .map(|group| {
                let columns = call
                    .column_names(group)
                    .into_iter()
                    .map(|(feature, name)| FeatureColumn {
                        feature,
                        qualifier: None,
                        name,
                    })
                    .collect();
                let key = keys
                    .remove(group.table.name())
                    .ok_or_else(|| Error::internal("a group without its key"))?;
                Ok(GroupJoin {
                    table: Arc::clone(&group.table),
                    clocks: self.scope.context.clocks,
                    key,
                    time: time.clone(),
                    max_age,
                    known_at: known_at.clone(),
                    known_by: call.known_by,
                    columns,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        self.point_in_time_node(spine, groups)
    }

    pub(super) fn point_in_time_node(
        &self,
        spine: LogicalPlan,
        groups: Vec<GroupJoin>,
    ) -> Result<LogicalPlan> {
        let scan = self.scope.context.scan.clone();
        let node = PointInTimeJoin::try_new(spine, groups, scan).map_err(classify)?;
        Ok(LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        }))
    }

    fn event_time(&self, call: &PointInTimeCall, schema: &DFSchema) -> Result<Expr> {
        match &call.event_time {
            None => spine::only_timestamp(schema),
            Some(expr) => {
                let column = spine_column("event_time", expr, schema)?;
                spine::time("event_time", Expr::Column(column), schema)
            }
        }
    }

    fn known_at(
        &self,
        expr: ast::Expr,
        schema: &DFSchema,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<KnownAt> {
        if text(&expr).is_some() {
            let column = spine_column("known_at", &expr, schema)?;
            return Ok(KnownAt::Spine(spine::time(
                "known_at",
                Expr::Column(column),
                schema,
            )?));
        }
        match self.instant(&format!("known_at of {NAME}"), expr, context)? {
            Constant::Known(instant) => Ok(KnownAt::Constant(instant)),
            Constant::Unbound => Ok(KnownAt::Always),
        }
    }
}

/// The spine column a string (or an identifier) names.
fn spine_column(argument: &str, expr: &ast::Expr, schema: &DFSchema) -> Result<Column> {
    let Some(written) = text(expr) else {
        return Err(Error::invalid(format!(
            "{argument} is the name of a column of the spine as a string, not {expr}"
        )));
    };
    let path = match path(&written) {
        Some((path, None)) => path,
        _ => vec![Ident::with_quote('"', written)],
    };
    spine::column(&path, schema)
}

/// Every output column has a name of its own.
fn check_names(call: &PointInTimeCall, schema: &DFSchema) -> Result<()> {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for field in schema.fields() {
        let owner = "the spine".to_owned();
        if !owners
            .entry(field.name().clone())
            .or_default()
            .insert(owner)
        {
            return Err(Error::invalid(format!(
                "the spine has two columns {}: give one of them an alias",
                field.name()
            )));
        }
    }
    for group in &call.groups {
        for (_, name) in call.column_names(group) {
            if !owners
                .entry(name.clone())
                .or_default()
                .insert(group.table.name().to_owned())
            {
                return Err(Error::invalid(format!(
                    "{} gives two columns {name}: leave its event time out of the features, or \
                     event_times",
                    group.table.name()
                )));
            }
        }
    }
    let clashes: Vec<String> = owners
        .iter()
        .filter(|(_, owners)| owners.len() > 1)
        .map(|(name, owners)| {
            format!(
                "{name} ({})",
                owners.iter().cloned().collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    if clashes.is_empty() {
        return Ok(());
    }
    let fix = if call.full_feature_names {
        "give the spine's columns other names"
    } else {
        "pass full_feature_names => true, which names them group__feature, or give the spine's \
         columns other names"
    };
    Err(Error::invalid(format!(
        "{NAME}: several columns would have one name: {}; {fix}",
        clashes.join("; ")
    )))
}

/// The key of each group over the spine's columns, by the group's name.
fn keys_of(
    names: &Names<'_>,
    call: &PointInTimeCall,
    schema: &DFSchema,
) -> Result<BTreeMap<String, Expr>> {
    let mut keys = BTreeMap::new();
    for pair in &call.keys {
        let (group, column) = sides(names, call, pair)?;
        let column = spine::column(column, schema)?;
        let key = spine::key(&group.table, Expr::Column(column), schema)?;
        if keys.insert(group.table.name().to_owned(), key).is_some() {
            return Err(Error::invalid(format!(
                "keys names feature group {} twice",
                group.table.name()
            )));
        }
    }
    for group in &call.groups {
        let name = group.table.name();
        if !keys.contains_key(name) {
            let column = spine::default_key(&group.table, schema)?;
            keys.insert(
                name.to_owned(),
                spine::key(&group.table, Expr::Column(column), schema)?,
            );
        }
    }
    Ok(keys)
}

/// The group and the spine column of one equality, whichever side they stand on.
fn sides<'c>(
    names: &Names<'_>,
    call: &'c PointInTimeCall,
    pair: &'c KeyPair,
) -> Result<(&'c GroupRequest, &'c [Ident])> {
    for (group, column) in [(&pair.left, &pair.right), (&pair.right, &pair.left)] {
        let Some((feature, path)) = group.split_last() else {
            continue;
        };
        if path.is_empty() {
            continue;
        }
        let Ok(table) = names.group(path) else {
            continue;
        };
        let joined = call
            .groups
            .iter()
            .find(|request| request.table.name() == table.name());
        let Some(joined) = joined else { continue };
        let identifier = &table.group.record_identifier_feature_name;
        if !matches(feature, identifier) {
            return Err(Error::invalid(format!(
                "keys: feature group {} is joined by its record identifier {identifier}, not by {}",
                table.name(),
                feature.value
            )));
        }
        return Ok((joined, column));
    }
    let joined: Vec<&str> = call.groups.iter().map(|group| group.table.name()).collect();
    Err(Error::invalid(format!(
        "keys: {} = {} names no record identifier of a joined group; write \
         'group.record_identifier = spine_column'; {}",
        spelled(&pair.left),
        spelled(&pair.right),
        missing(
            "joined group",
            pair.left.first().map_or("", |ident| &ident.value),
            joined
        )
    )))
}
