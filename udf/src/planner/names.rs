//! Which relation a name stands for, in one statement: the catalog snapshot, the session's views
//! and the server's own schemas, as names see them.

use std::collections::BTreeSet;

use datafusion::catalog::TableProvider;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::snapshot::{GroupEntry, Serving};
use featureflight_catalog::table::{FeatureTable, RawTable};
use featureflight_catalog::{Error, Result};
use std::sync::Arc;

use super::error::missing;
use super::functions::path;
use super::scope::Scope;
use crate::dialect::names::{NameSource, ResolvedTable};

pub use crate::dialect::names::CATALOG;

/// Feature groups as state.
pub const FEATURES: &str = "features";
/// Feature groups as every version.
pub const HISTORY: &str = "history";
/// What the session made.
pub const TEMP: &str = "temp";

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Relation {
    Features(Arc<FeatureTable>),
    History(Arc<FeatureTable>),
    Raw(Arc<RawTable>),
    View,
    /// A table of the session.
    Temporary(Arc<dyn TableProvider>),
    /// A relation of the server's own schemas.
    System,
}

/// A relation by its full name, in the catalog's spelling.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) relation: Relation,
}

/// Names as seen from a default schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) scope: &'a Scope,
    pub(super) schema: &'a str,
}

/// True when `ident` names `name`: quoted exactly, unquoted ignoring case.
pub(super) fn matches(ident: &Ident, name: &str) -> bool {
    if ident.quote_style.is_some() {
        ident.value == name
    } else {
        ident.value.eq_ignore_ascii_case(name)
    }
}

/// The one of `names` that `ident` stands for. With `hyphens`, an unquoted name that matches none
/// is tried with its underscores standing for hyphens.
///
/// # Errors
/// `InvalidArgument` when several match; lists the quoted forms.
pub(super) fn pick<'n>(
    ident: &Ident,
    what: &str,
    names: impl Iterator<Item = &'n str> + Clone,
    hyphens: bool,
) -> Result<Option<&'n str>> {
    let mut found: Vec<&str> = names.clone().filter(|name| matches(ident, name)).collect();
    if found.is_empty() && hyphens && ident.quote_style.is_none() {
        found = names
            .filter(|name| {
                name.contains('-') && ident.value.eq_ignore_ascii_case(&name.replace('-', "_"))
            })
            .collect();
    }
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let quoted: Vec<String> = several.iter().map(|name| quote(name)).collect();
            Err(Error::invalid(format!(
                "{what} {} is ambiguous: write {}",
                ident.value,
                quoted.join(" or ")
            )))
        }
    }
}

/// `name` as a quoted identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The parts of a plain name; `None` when a part is something else.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<&Ident>> {
    name.0.iter().map(|part| part.as_ident()).collect()
}

impl Names<'_> {
    /// Every schema a client sees.
    pub(super) fn schemas(&self) -> BTreeSet<String> {
        let mut schemas: BTreeSet<String> = [FEATURES, HISTORY, TEMP]
            .into_iter()
            .map(str::to_owned)
            .collect();
        schemas.extend(self.scope.context.catalog.raw.keys().cloned());
        schemas.extend(self.scope.system.keys().cloned());
        schemas
    }

    /// The relation `name` stands for.
    ///
    /// # Errors
    /// `InvalidArgument` for an ambiguous name, the reason of a group that is not served.
    pub(super) fn resolve(&self, name: &ObjectName) -> Result<Option<Found>> {
        match parts(name).as_deref() {
            Some([table]) => match self.resolve_in(TEMP, table)? {
                Some(found) => Ok(Some(found)),
                None => self.resolve_in(self.schema, table),
            },
            Some([schema, table]) => match self.schema_of(schema)? {
                Some(schema) => self.resolve_in(&schema, table),
                None => Ok(None),
            },
            Some([catalog, schema, table]) if matches(catalog, CATALOG) => {
                match self.schema_of(schema)? {
                    Some(schema) => self.resolve_in(&schema, table),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn schema_of(&self, ident: &Ident) -> Result<Option<String>> {
        let schemas = self.schemas();
        Ok(pick(ident, "schema", schemas.iter().map(String::as_str), true)?.map(str::to_owned))
    }

    fn resolve_in(&self, schema: &str, table: &Ident) -> Result<Option<Found>> {
        let catalog = &self.scope.context.catalog;
        let found = |table: &str, relation| {
            Ok(Some(Found {
                schema: schema.to_owned(),
                table: table.to_owned(),
                relation,
            }))
        };
        match schema {
            TEMP => {
                let context = &self.scope.context;
                let Some(name) = pick(table, "table", context.temporaries(), false)? else {
                    return Ok(None);
                };
                match context.tables.get(name) {
                    Some(rows) => found(name, Relation::Temporary(Arc::clone(rows))),
                    None => found(name, Relation::View),
                }
            }
            FEATURES | HISTORY => {
                let Some((name, entry)) = self.group_entry(table)? else {
                    return Ok(None);
                };
                let group = served(entry)?;
                let relation = if schema == FEATURES {
                    Relation::Features(group)
                } else {
                    Relation::History(group)
                };
                found(name, relation)
            }
            _ => {
                if let Some(tables) = self.scope.system.get(schema) {
                    return match pick(table, "table", tables.iter().map(String::as_str), false)? {
                        Some(name) => found(name, Relation::System),
                        None => Ok(None),
                    };
                }
                let Some(tables) = catalog.raw.get(schema) else {
                    return Ok(None);
                };
                let Some(name) = pick(table, "table", tables.keys().map(String::as_str), true)?
                else {
                    return Ok(None);
                };
                match &tables[name].serving {
                    Ok(raw) => found(name, Relation::Raw(Arc::clone(raw))),
                    Err(reason) => Err(Error::precondition(format!(
                        "table {schema}.{name} cannot be read: {reason}"
                    ))),
                }
            }
        }
    }

    /// The feature group of this name in [`FEATURES`], served or not.
    ///
    /// # Errors
    /// `InvalidArgument` for an ambiguous name.
    pub(super) fn defined(&self, name: &ObjectName) -> Result<Option<&GroupEntry>> {
        let path = parts(name).unwrap_or_default();
        let (schema, table) = match path.as_slice() {
            [table] => {
                if self.resolve_in(TEMP, table)?.is_some() {
                    return Ok(None);
                }
                (Some(self.schema.to_owned()), *table)
            }
            [schema, table] => (self.schema_of(schema)?, *table),
            [catalog, schema, table] if matches(catalog, CATALOG) => {
                (self.schema_of(schema)?, *table)
            }
            _ => return Ok(None),
        };
        if schema.as_deref() != Some(FEATURES) {
            return Ok(None);
        }
        let entry = self.group_entry(table)?;
        Ok(entry.map(|(_, entry)| entry))
    }

    fn group_entry(&self, ident: &Ident) -> Result<Option<(&str, &GroupEntry)>> {
        let groups = &self.scope.context.catalog.groups;
        let Some(name) = pick(
            ident,
            "feature group",
            groups.keys().map(String::as_str),
            true,
        )?
        else {
            return Ok(None);
        };
        Ok(groups
            .get_key_value(name)
            .map(|(name, entry)| (name.as_str(), entry)))
    }

    /// The feature group a name inside a string stands for: bare, or in `features` or `history`.
    ///
    /// # Errors
    /// `NotFound` with near names, `InvalidArgument` for another schema, the reason of a group
    /// that is not served.
    pub(super) fn group(&self, path: &[Ident]) -> Result<Arc<FeatureTable>> {
        served(self.entry(path)?)
    }

    /// As [`Self::group`], served or not.
    pub(super) fn entry(&self, path: &[Ident]) -> Result<&GroupEntry> {
        let ident = match path {
            [table] => table,
            [schema, table] if matches(schema, FEATURES) || matches(schema, HISTORY) => table,
            [catalog, schema, table]
                if matches(catalog, CATALOG)
                    && (matches(schema, FEATURES) || matches(schema, HISTORY)) =>
            {
                table
            }
            _ => {
                return Err(Error::invalid(format!(
                    "{} is not the name of a feature group",
                    spelled(path)
                )));
            }
        };
        if let Some((_, entry)) = self.group_entry(ident)? {
            Ok(entry)
        } else {
            let groups = &self.scope.context.catalog.groups;
            Err(Error::not_found(missing(
                "feature group",
                &ident.value,
                groups.keys().map(String::as_str),
            )))
        }
    }

    /// The group that `text` names, if it has an online store alone.
    pub(super) fn online_only(&self, text: &str) -> Result<Option<Arc<FeatureGroup>>> {
        let groups = &self.scope.context.catalog.groups;
        let entry = match (path(text), groups.get(text)) {
            (_, Some(exact)) => exact,
            (Some((path, None)), None) => self.entry(&path)?,
            _ => return Ok(None),
        };
        let is_it = matches!(entry.serving, Serving::OnlineOnly);
        Ok(is_it.then(|| Arc::clone(&entry.group)))
    }

    /// The group of exactly this name.
    pub(super) fn group_exactly(&self, name: &str) -> Option<Result<Arc<FeatureTable>>> {
        self.scope.context.catalog.groups.get(name).map(served)
    }

    /// Why `name` stands for nothing, with near names.
    pub(super) fn not_found(&self, name: &ObjectName) -> Error {
        let Some(path) = parts(name) else {
            return Error::invalid(format!("{name} is not the name of a table"));
        };
        let (schema, table) = match path.as_slice() {
            [table] => (self.schema.to_owned(), table),
            [schema, table] | [_, schema, table] => {
                if path.len() == 3 && !matches(path[0], CATALOG) {
                    return Error::not_found(format!(
                        "there is no catalog {}; the one catalog is {CATALOG}",
                        path[0].value
                    ));
                }
                match self.schema_of(schema) {
                    Ok(Some(found)) => (found, table),
                    Ok(None) => {
                        let schemas = self.schemas();
                        return Error::not_found(missing(
                            "schema",
                            &schema.value,
                            schemas.iter().map(String::as_str),
                        ));
                    }
                    Err(error) => return error,
                }
            }
            _ => {
                return Error::invalid(format!(
                    "{name} has too many parts: a table is named schema.table"
                ));
            }
        };
        let mut known = self.tables(&schema);
        if path.len() == 1 {
            known.extend(self.tables(TEMP));
        }
        let wanted = if path.len() == 1 {
            table.value.clone()
        } else {
            format!("{schema}.{}", table.value)
        };
        let mut message = missing("table", &wanted, known.iter().map(String::as_str));
        if path.len() == 1 && schema != FEATURES {
            message = format!("{message} (looked in {TEMP} and {schema})");
        }
        Error::not_found(message)
    }

    fn tables(&self, schema: &str) -> Vec<String> {
        let context = &self.scope.context;
        match schema {
            FEATURES | HISTORY => context.catalog.groups.keys().cloned().collect(),
            TEMP => context.temporaries().map(str::to_owned).collect(),
            _ => match self.scope.system.get(schema) {
                Some(tables) => tables.iter().cloned().collect(),
                None => context
                    .catalog
                    .raw
                    .get(schema)
                    .map(|tables| tables.keys().cloned().collect())
                    .unwrap_or_default(),
            },
        }
    }

    fn columns(&self, found: &Found) -> Option<Vec<String>> {
        let of = |schema: &arrow::datatypes::Schema| {
            Some(
                schema
                    .fields()
                    .iter()
                    .map(|field| field.name().clone())
                    .collect(),
            )
        };
        match &found.relation {
            Relation::Features(group) => of(&group.state_schema),
            Relation::History(group) => of(&group.history_schema),
            Relation::Raw(raw) => of(&raw.schema),
            Relation::View => self.scope.view_columns(&found.table),
            Relation::Temporary(table) => of(&table.schema()),
            Relation::System => self.scope.system_columns(&found.schema, &found.table),
        }
    }
}

/// The table of a group, or why it is not served.
fn served(entry: &GroupEntry) -> Result<Arc<FeatureTable>> {
    match &entry.serving {
        Serving::Served(table) => Ok(Arc::clone(table)),
        Serving::OnlineOnly => Err(online_only(&entry.group.feature_group_name)),
        Serving::Unavailable(reason) => Err(Error::precondition(format!(
            "feature group {} is not served: {reason}",
            entry.group.feature_group_name
        ))),
    }
}

/// The definition of a group that has relations or an online store, or why it has neither.
pub(super) fn writable(entry: &GroupEntry) -> Result<Arc<FeatureGroup>> {
    match &entry.serving {
        Serving::OnlineOnly => Ok(Arc::clone(&entry.group)),
        _ => served(entry).map(|table| Arc::clone(&table.group)),
    }
}

/// Why a group without an offline store cannot be read.
pub(super) fn online_only(name: &str) -> Error {
    Error::precondition(format!(
        "feature group {name} has no offline store, so it has neither state nor history: look its \
         records up with SELECT * FROM online('{name}') WHERE ..."
    ))
}

/// A path as its parts, joined.
pub(super) fn spelled(path: &[Ident]) -> String {
    path.iter()
        .map(|ident| ident.value.as_str())
        .collect::<Vec<_>>()
        .join(".")
}

impl NameSource for Names<'_> {
    fn table(&self, name: &ObjectName) -> Result<Option<ResolvedTable>> {
        let Some(found) = self.resolve(name)? else {
            return Ok(None);
        };
        let Some(columns) = self.columns(&found) else {
            return Ok(None);
        };
        Ok(Some(ResolvedTable {
            schema: found.schema,
            table: found.table,
            columns,
        }))
    }

    fn function(
        &self,
        name: &str,
        args: &[datafusion::sql::sqlparser::ast::FunctionArg],
        spine: Option<&[String]>,
    ) -> Result<Option<Vec<String>>> {
        super::functions::columns(self, name, args, spine)
    }
}
