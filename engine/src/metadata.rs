//! What drivers browse: schemas, tables, columns, primary keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use featureflight_catalog::Result;
use featureflight_catalog::model::FeatureMetadata;
use featureflight_catalog::snapshot::{CatalogSnapshot, Serving};
use featureflight_catalog::table::FeatureTable;
use futures::StreamExt;
use parking_lot::Mutex;

use crate::boundary::{announced, sent};
use crate::caller::Caller;
use crate::catalogs::{INFORMATION_SCHEMA, information_relations};
use crate::engine::Engine;
use crate::session::{Session, SessionView};
use crate::system::{self, SYSTEM};

pub use featureflight_udf::planner::names::{CATALOG, FEATURES};
pub(crate) use featureflight_udf::planner::names::{HISTORY, TEMP};

/// The schemas that are not Glue databases. A database of one of these names cannot be reached.
pub(crate) const OWN_SCHEMAS: [&str; 5] = [FEATURES, HISTORY, TEMP, SYSTEM, INFORMATION_SCHEMA];

/// Key of a field's metadata under which a column's remarks stand, as drivers know it.
pub const REMARKS: &str = "ARROW:FLIGHT:SQL:REMARKS";

/// Tables whose columns' descriptions are fetched when asked for by name; more than these are
/// shown with what is known already.
const DESCRIBED_TABLES: usize = 8;

/// How long browsing waits for descriptions.
const DESCRIPTION_WAIT: Duration = Duration::from_secs(2);

/// How drivers call a temporary table.
pub const LOCAL_TEMPORARY: &str = "LOCAL TEMPORARY";

/// One relation as drivers see it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    pub schema: String,
    pub name: String,
    /// `TABLE`, `VIEW`, `SYSTEM TABLE` or [`LOCAL_TEMPORARY`].
    pub kind: &'static str,
    /// At the boundary's types. A column's description is its field's metadata at [`REMARKS`].
    pub columns: SchemaRef,
    pub remarks: Option<String>,
    /// Column names; only relations of `features` have one.
    pub primary_key: Vec<String>,
}

impl Engine {
    /// Schema names, in order.
    pub fn schemas(&self, _session: &Session) -> Vec<String> {
        schema_names(&self.catalog.snapshot())
    }

    /// Every relation this session sees whose schema and name pass the filters, by schema and name.
    ///
    /// Groups that are not served are not among them: `system.feature_groups` has them, with the
    /// reason.
    ///
    /// # Errors
    /// None in practice: descriptions that cannot be had are left out.
    pub async fn tables(
        &self,
        caller: impl Into<Caller>,
        schema: &(dyn Fn(&str) -> bool + Sync),
        name: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Vec<TableInfo>> {
        let snapshot = self.catalog.snapshot();
        let known = self.core.browse.relations(&snapshot);
        let wanted = |table: &&TableInfo| schema(&table.schema) && name(&table.name);
        let mut tables: Vec<TableInfo> = known.iter().filter(wanted).cloned().collect();
        let session = caller.into().view();
        tables.extend(own_relations(&session).filter(|table| wanted(&table)));
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        self.describe(&mut tables).await;
        for table in &mut tables {
            let columns = Arc::clone(&table.columns);
            table.columns = sent(columns, &session.settings);
        }
        Ok(tables)
    }

    /// Adds descriptions of features to the columns of a few tables.
    async fn describe(&self, tables: &mut [TableInfo]) {
        let groups: BTreeSet<String> = tables
            .iter()
            .filter(|table| table.schema == FEATURES || table.schema == HISTORY)
            .map(|table| table.name.clone())
            .collect();
        if groups.is_empty() || groups.len() > DESCRIBED_TABLES {
            return;
        }
        let lookups = groups.into_iter().map(|group| async move {
            let metadata = self.catalog.feature_metadata(&group);
            let metadata = tokio::time::timeout(DESCRIPTION_WAIT, metadata)
                .await
                .ok()?
                .ok()?;
            Some((group, metadata))
        });
        let said: BTreeMap<_, _> = futures::stream::iter(lookups)
            .buffer_unordered(DESCRIBED_TABLES)
            .filter_map(futures::future::ready)
            .collect()
            .await;
        for table in tables
            .iter_mut()
            .filter(|t| t.schema == FEATURES || t.schema == HISTORY)
        {
            if let Some(metadata) = said.get(&table.name) {
                table.columns = described(&table.columns, metadata);
            }
        }
    }
}

fn described(columns: &SchemaRef, metadata: &BTreeMap<String, FeatureMetadata>) -> SchemaRef {
    let description = |field: &Field| metadata.get(field.name())?.description.clone();
    if columns
        .fields()
        .iter()
        .all(|field| description(field).is_none())
    {
        return Arc::clone(columns);
    }
    let fields = columns
        .fields()
        .iter()
        .map(|field| match description(field) {
            Some(text) => {
                let mut with_remarks = field.metadata().clone();
                with_remarks.insert(REMARKS.to_owned(), text);
                Arc::new(Field::clone(field).with_metadata(with_remarks))
            }
            None => Arc::clone(field),
        });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Schema names, in order.
pub(crate) fn schema_names(snapshot: &CatalogSnapshot) -> Vec<String> {
    let names: BTreeSet<String> = OWN_SCHEMAS
        .map(str::to_owned)
        .into_iter()
        .chain(snapshot.raw.keys().cloned())
        .collect();
    names.into_iter().collect()
}

/// What a session sees beside the catalog: its views and tables, and the server's own.
pub(crate) fn own_relations(session: &SessionView) -> impl Iterator<Item = TableInfo> {
    let views = session
        .view_columns
        .iter()
        .map(|(name, columns)| TableInfo {
            schema: TEMP.to_owned(),
            name: name.clone(),
            kind: "VIEW",
            columns: Arc::clone(columns),
            remarks: None,
            primary_key: Vec::new(),
        });
    let tables = session.tables.iter().map(|(name, table)| TableInfo {
        schema: TEMP.to_owned(),
        name: name.clone(),
        kind: LOCAL_TEMPORARY,
        columns: announced(&table.schema),
        remarks: Some("Uploaded by this session".to_owned()),
        primary_key: Vec::new(),
    });
    let system = system::relations().map(|(name, columns, remarks)| TableInfo {
        schema: SYSTEM.to_owned(),
        name: name.to_owned(),
        kind: "SYSTEM TABLE",
        columns: announced(&columns),
        remarks: Some(remarks.to_owned()),
        primary_key: Vec::new(),
    });
    let standard = information_relations()
        .into_iter()
        .map(|(name, columns)| TableInfo {
            schema: INFORMATION_SCHEMA.to_owned(),
            name,
            kind: "SYSTEM TABLE",
            columns: announced(&columns),
            remarks: None,
            primary_key: Vec::new(),
        });
    views
        .chain(tables)
        .collect::<Vec<_>>()
        .into_iter()
        .chain(system)
        .chain(standard)
}

/// The relations of the newest snapshot that was browsed, made once.
#[derive(Debug, Default)]
pub(crate) struct Browse {
    made: Mutex<Option<Made>>,
}

#[derive(Debug)]
struct Made {
    snapshot: Arc<CatalogSnapshot>,
    relations: Arc<Vec<TableInfo>>,
}

impl Browse {
    /// Every served relation of `features`, `history` and the raw databases, by schema and name.
    pub(crate) fn relations(&self, snapshot: &Arc<CatalogSnapshot>) -> Arc<Vec<TableInfo>> {
        let mut made = self.made.lock();
        if let Some(made) = made
            .as_ref()
            .filter(|made| Arc::ptr_eq(&made.snapshot, snapshot))
        {
            return Arc::clone(&made.relations);
        }
        let relations = Arc::new(relations(snapshot, made.as_ref()));
        *made = Some(Made {
            snapshot: Arc::clone(snapshot),
            relations: Arc::clone(&relations),
        });
        relations
    }
}

/// Columns of a group that has not changed since `before` are taken from there: half a million
/// fields take a while.
fn relations(snapshot: &CatalogSnapshot, before: Option<&Made>) -> Vec<TableInfo> {
    let mut relations = Vec::new();
    let served = snapshot
        .groups
        .iter()
        .filter_map(|(name, entry)| match &entry.serving {
            Serving::Served(table) => Some((name, table)),
            Serving::OnlineOnly | Serving::Unavailable(_) => None,
        });
    for (name, table) in served {
        let known = before.filter(|made| {
            let entry = made.snapshot.groups.get(name).map(|entry| &entry.serving);
            matches!(entry, Some(Serving::Served(old)) if Arc::ptr_eq(old, table))
        });
        for schema in [FEATURES, HISTORY] {
            let known = known
                .and_then(|made| find(&made.relations, schema, name))
                .cloned();
            relations.push(known.unwrap_or_else(|| of_group(schema, table)));
        }
    }
    let raw = snapshot.raw.iter();
    for (database, tables) in raw.filter(|(name, _)| !OWN_SCHEMAS.contains(&name.as_str())) {
        for (name, entry) in tables {
            let Ok(table) = &entry.serving else { continue };
            relations.push(TableInfo {
                schema: database.clone(),
                name: name.clone(),
                kind: "TABLE",
                columns: announced(&table.schema),
                remarks: Some(match &entry.feature_group {
                    Some(group) => format!("Raw Glue table of the feature group {group}"),
                    None => "Raw Glue table that no feature group claims".to_owned(),
                }),
                primary_key: Vec::new(),
            });
        }
    }
    relations.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    relations
}

/// Of relations in order.
pub(crate) fn find<'a>(
    relations: &'a [TableInfo],
    schema: &str,
    name: &str,
) -> Option<&'a TableInfo> {
    let wanted = (schema, name);
    let position = relations
        .binary_search_by(|table| (table.schema.as_str(), table.name.as_str()).cmp(&wanted))
        .ok()?;
    relations.get(position)
}

fn of_group(schema: &str, table: &FeatureTable) -> TableInfo {
    let is_state = schema == FEATURES;
    let (columns, about) = if is_state {
        (&table.state_schema, "Newest version of each record")
    } else {
        (&table.history_schema, "Every version of each record")
    };
    TableInfo {
        schema: schema.to_owned(),
        name: table.name().to_owned(),
        kind: "TABLE",
        columns: announced(columns),
        remarks: Some(
            table
                .group
                .description
                .clone()
                .unwrap_or_else(|| about.to_owned()),
        ),
        primary_key: if is_state {
            vec![table.group.record_identifier_feature_name.clone()]
        } else {
            Vec::new()
        },
    }
}

/// The end of a message about `wanted`: the names that come near it, if any.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let lower = wanted.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .map(|name| {
            (
                strsim::normalized_damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(score, _)| *score >= 0.5)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<_> = near
        .iter()
        .take(3)
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(": did you mean {}?", names.join(" or "))
    }
}
