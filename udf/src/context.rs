//! Everything one statement is planned against: a fixed catalog, pinned files, resolved clocks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::Result;
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::snapshot::{CatalogSnapshot, Serving};
use featureflight_catalog::table::{FeatureTable, timestamp_type};

use crate::clock::Clocks;

/// A view of a session: its query as parsed, names not yet rewritten, so that a session clock and
/// a new feature reach into it.
#[derive(Debug, Clone)]
pub struct TempView {
    pub query: Box<ast::Query>,
    /// Column names given by `CREATE TEMP VIEW v (a, b)`; empty when none were.
    pub columns: Vec<ast::Ident>,
    /// The default schema when the view was made.
    pub schema: String,
}

/// The online stores of feature groups, as relations.
pub trait OnlineRelations: Send + Sync + fmt::Debug {
    /// The records of a group as its online store has them, in the columns of the group's state.
    ///
    /// # Errors
    /// `FailedPrecondition` for a group without an online store that can be read here.
    fn records(&self, group: &Arc<FeatureGroup>) -> Result<Arc<dyn TableProvider>>;

    /// How the online store of a group differs from its state, for a sample of its records.
    ///
    /// # Errors
    /// As [`Self::records`]; `InvalidArgument` for a sample that is too large.
    fn skew(&self, skew: Skew) -> Result<Arc<dyn TableProvider>>;
}

/// What is compared with an online store.
#[derive(Debug)]
pub struct Skew {
    pub table: Arc<FeatureTable>,
    /// Records at most.
    pub sample: usize,
    /// The relation `features.g`.
    pub state: Arc<dyn TableProvider>,
    /// The relation `history.g`.
    pub history: Arc<dyn TableProvider>,
}

/// The columns of [`OnlineRelations::skew`].
pub fn skew_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("record_identifier", DataType::Utf8, false),
        Field::new("class", DataType::Utf8, false),
        Field::new("online_event_time", timestamp_type(), true),
        Field::new("offline_event_time", timestamp_type(), true),
        Field::new("differing", DataType::Utf8, true),
    ]))
}

/// See the module.
#[derive(Debug, Clone)]
pub struct StatementContext {
    pub catalog: Arc<CatalogSnapshot>,
    pub scan: ScanContext,
    /// The session's clocks: the default of every factor that does not name that clock.
    pub clocks: Clocks,
    /// Where unqualified tables are looked up after `temp`.
    pub schema: String,
    pub views: Arc<BTreeMap<String, TempView>>,
    /// The session's tables that hold rows of their own; none has the name of a view.
    pub tables: Arc<BTreeMap<String, Arc<dyn TableProvider>>>,
    /// `None` where there are none.
    pub online: Option<Arc<dyn OnlineRelations>>,
    /// Values of `$1, $2, ...`; `None` while a statement is only prepared.
    pub parameters: Option<Vec<ScalarValue>>,
}

impl StatementContext {
    /// Columns of the group or table of that name, whatever its case and schema; of several the most.
    pub fn columns_at_most(&self, name: &str) -> Option<usize> {
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        let groups = self.catalog.groups.iter().filter(|(group, _)| is(group));
        let groups = groups.filter_map(|(_, entry)| match &entry.serving {
            Serving::Served(table) => Some(table.history_schema.fields().len()),
            Serving::OnlineOnly | Serving::Unavailable(_) => None,
        });
        let raw = self
            .catalog
            .raw
            .values()
            .flatten()
            .filter(|(table, _)| is(table));
        let raw = raw.filter_map(|(_, entry)| entry.serving.as_ref().ok());
        let raw = raw.map(|table| table.schema.fields().len());
        let own = self.tables.iter().filter(|(table, _)| is(table));
        let own = own.map(|(_, table)| table.schema().fields().len());
        groups.chain(raw).chain(own).max()
    }

    /// Names of the session's views and tables.
    pub(crate) fn temporaries(&self) -> impl Iterator<Item = &str> + Clone {
        self.views
            .keys()
            .chain(self.tables.keys())
            .map(String::as_str)
    }
}
