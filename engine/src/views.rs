//! `CREATE TEMP VIEW`, `DROP VIEW` and `DROP TABLE`: queries a session gives a name, and the end of
//! what it named.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::ast;
use featureflight_catalog::snapshot::CatalogSnapshot;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_udf::TempView;

use crate::metadata::{CATALOG, TEMP};
use crate::session::SessionView;

#[derive(Debug)]
pub(crate) struct CreateView {
    pub(crate) name: String,
    pub(crate) columns: Vec<ast::Ident>,
    pub(crate) query: Box<ast::Query>,
    pub(crate) or_replace: bool,
    pub(crate) if_not_exists: bool,
}

/// `DROP` of temporary views or tables.
#[derive(Debug)]
pub(crate) struct DropTemporaries {
    /// Views, or tables.
    pub(crate) views: bool,
    pub(crate) names: Vec<ast::ObjectName>,
    pub(crate) if_exists: bool,
}

impl CreateView {
    /// # Errors
    /// `InvalidArgument` for a view that is not temporary and for what temporary ones do not have.
    pub(crate) fn new(view: ast::CreateView) -> Result<Self> {
        if !view.temporary {
            return Err(Error::invalid(
                "views are temporary here: write CREATE TEMP VIEW name AS SELECT ...",
            ));
        }
        let plain = !view.materialized
            && !view.secure
            && !view.or_alter
            && !view.with_no_schema_binding
            && !view.copy_grants
            && view.to.is_none()
            && view.params.is_none()
            && view.comment.is_none()
            && view.cluster_by.is_empty()
            && matches!(view.options, ast::CreateTableOptions::None)
            && view
                .columns
                .iter()
                .all(|c| c.data_type.is_none() && c.options.is_none());
        if !plain {
            return Err(Error::invalid(
                "a temporary view has a name, column names and a query, and no options: CREATE \
                 [OR REPLACE] TEMP VIEW [IF NOT EXISTS] name [(column, ...)] AS SELECT ...",
            ));
        }
        if view.or_replace && view.if_not_exists {
            return Err(Error::invalid(
                "OR REPLACE and IF NOT EXISTS exclude each other",
            ));
        }
        Ok(Self {
            name: view_name(&view.name)?,
            columns: view.columns.into_iter().map(|column| column.name).collect(),
            query: view.query,
            or_replace: view.or_replace,
            if_not_exists: view.if_not_exists,
        })
    }

    /// Whether the view must be made: false when it exists and `IF NOT EXISTS` was said.
    ///
    /// # Errors
    /// `AlreadyExists` for a view or a relation of the catalog of that name.
    pub(crate) fn is_due(
        &self,
        snapshot: &CatalogSnapshot,
        views: &BTreeMap<String, TempView>,
    ) -> Result<bool> {
        if let Some(relation) = shadowed(snapshot, &self.name) {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!(
                    "a temporary view `{}` would hide {relation}: give it another name",
                    self.name
                ),
            ));
        }
        if !views.contains_key(&self.name) || self.or_replace {
            return Ok(true);
        }
        if self.if_not_exists {
            return Ok(false);
        }
        Err(Error::new(
            Kind::AlreadyExists,
            format!(
                "the view `{}` exists: write CREATE OR REPLACE TEMP VIEW",
                self.name
            ),
        ))
    }
}

impl DropTemporaries {
    /// What to drop, in the session's spelling.
    ///
    /// # Errors
    /// `NotFound` for what there is not, unless `IF EXISTS` was said; `InvalidArgument` for a
    /// table that is not temporary.
    pub(crate) fn found(
        &self,
        snapshot: &CatalogSnapshot,
        session: &SessionView,
    ) -> Result<Vec<String>> {
        let (kind, known): (_, Vec<&str>) = if self.views {
            ("view", session.views.keys().map(String::as_str).collect())
        } else {
            ("table", session.tables.keys().map(String::as_str).collect())
        };
        let mut found = Vec::new();
        for name in &self.names {
            let wanted = temporary(name)?;
            let quoted = wanted.quote_style.is_some();
            let same = |other: &&&str| {
                **other == wanted.value || (!quoted && other.eq_ignore_ascii_case(&wanted.value))
            };
            let mut named = known.iter().filter(same);
            match (named.next(), named.next()) {
                (Some(one), None) => found.push((*one).to_owned()),
                (Some(_), Some(_)) => {
                    return Err(Error::invalid(format!(
                        "`{wanted}` names several temporary {kind}s: quote the one you mean"
                    )));
                }
                (None, _) if !self.views && shadowed(snapshot, &wanted.value).is_some() => {
                    return Err(Error::invalid(format!(
                        "table `{wanted}` cannot be dropped: only temporary tables and views can"
                    )));
                }
                (None, _) if self.if_exists => {}
                (None, _) => {
                    let wanted = folded(wanted);
                    let near = crate::metadata::nearest(&wanted, known.iter().copied());
                    return Err(Error::not_found(format!(
                        "there is no temporary {kind} `{wanted}`{near}"
                    )));
                }
            }
        }
        Ok(found)
    }
}

/// The name of a temporary view, unquoted ones in lower case.
fn view_name(name: &ast::ObjectName) -> Result<String> {
    temporary(name).map(folded)
}

/// The last part of the name of a temporary view or table.
fn temporary(name: &ast::ObjectName) -> Result<&ast::Ident> {
    let idents: Option<Vec<&ast::Ident>> = name.0.iter().map(|part| part.as_ident()).collect();
    let idents = idents.unwrap_or_default();
    match idents.as_slice() {
        [last] => Ok(last),
        [schema, last] if schema.value.eq_ignore_ascii_case(TEMP) => Ok(last),
        [catalog, schema, last]
            if catalog.value.eq_ignore_ascii_case(CATALOG)
                && schema.value.eq_ignore_ascii_case(TEMP) =>
        {
            Ok(last)
        }
        _ => Err(Error::invalid(format!(
            "`{name}` cannot name a temporary view or table: write `name` or `temp.name`"
        ))),
    }
}

/// As SQL reads a name that a statement makes: unquoted in lower case, quoted as it is.
pub(crate) fn folded(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// What a temporary of this name would hide, if anything. Names that could be typed for a group
/// count as its name: any case, and an underscore for a hyphen.
pub(crate) fn shadowed(snapshot: &CatalogSnapshot, name: &str) -> Option<String> {
    let typed = |other: &str| {
        other.eq_ignore_ascii_case(name) || other.replace('-', "_").eq_ignore_ascii_case(name)
    };
    if let Some(group) = snapshot.groups.keys().find(|group| typed(group)) {
        return Some(format!("the feature group `{group}`"));
    }
    snapshot.raw.iter().find_map(|(database, tables)| {
        let table = tables.keys().find(|table| typed(table))?;
        Some(format!("the table `{database}.{table}`"))
    })
}
