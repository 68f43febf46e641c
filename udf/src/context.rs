//! Everything one statement is planned against: a fixed catalog, pinned files, resolved clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::snapshot::CatalogSnapshot;

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
    /// Values of `$1, $2, ...`; `None` while a statement is only prepared.
    pub parameters: Option<Vec<ScalarValue>>,
}

impl StatementContext {
    /// Names of the session's views and tables.
    pub(crate) fn temporaries(&self) -> impl Iterator<Item = &str> + Clone {
        self.views
            .keys()
            .chain(self.tables.keys())
            .map(String::as_str)
    }
}
