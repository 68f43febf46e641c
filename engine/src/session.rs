//! Sessions: settings, default schema, temporary views and tables. Which call belongs to which
//! session, and when one ends, is the server's to know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_udf::TempView;
use parking_lot::Mutex;

use crate::metadata::FEATURES;
use crate::query::admission::Share;
use crate::settings::Settings;
use crate::temp_tables::TempTable;

/// The schema a fresh session looks unqualified tables up in.
pub const DEFAULT_SCHEMA: &str = FEATURES;

/// Temporary views and tables one session may have.
const MAX_TEMPORARIES: usize = 1_000;

static SESSIONS_MADE: AtomicU64 = AtomicU64::new(1);

/// One client's session. Cheap to share.
pub struct Session {
    /// What the client proves to be this session by: a secret, never shown to others.
    pub id: String,
    /// Names the session in logs and `system.queries`.
    label: String,
    state: Mutex<SessionView>,
    /// Changes under the lock of `state`.
    ended: AtomicBool,
    /// Of queries that run, and of statements that are planned.
    pub(crate) share: Share,
    pub(crate) plans: Share,
}

/// What one statement sees of its session, taken at once.
#[derive(Debug, Clone)]
pub struct SessionView {
    pub settings: Settings,
    pub schema: String,
    pub views: Arc<BTreeMap<String, TempView>>,
    /// Each view's columns when it was made, at the boundary's types.
    pub view_columns: Arc<BTreeMap<String, SchemaRef>>,
    /// None has the name of a view.
    pub(crate) tables: Arc<BTreeMap<String, Arc<TempTable>>>,
}

impl Session {
    /// A fresh session with no clocks, in schema `features`.
    pub fn new(id: impl Into<String>) -> Self {
        let number = SESSIONS_MADE.fetch_add(1, Ordering::Relaxed);
        let seen = SessionView {
            settings: Settings::default(),
            schema: DEFAULT_SCHEMA.to_owned(),
            views: Arc::default(),
            view_columns: Arc::default(),
            tables: Arc::default(),
        };
        Self {
            id: id.into(),
            label: format!("session-{number}"),
            state: Mutex::new(seen),
            ended: AtomicBool::new(false),
            share: Share::default(),
            plans: Share::default(),
        }
    }

    /// Names the session where others may look; says nothing of its id.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Everything at once, so that a statement never sees half of another one's effect.
    pub fn view(&self) -> SessionView {
        self.state.lock().clone()
    }

    pub fn settings(&self) -> Settings {
        self.state.lock().settings
    }

    /// Changes settings in one step.
    pub fn update_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.state.lock().settings);
    }

    pub fn schema(&self) -> String {
        self.state.lock().schema.clone()
    }

    /// `schema` must be one the engine knows, in its spelling.
    pub(crate) fn set_schema(&self, schema: String) {
        self.state.lock().schema = schema;
    }

    /// Lets go of everything the session holds, for good: a call of it that is under way adds
    /// nothing. What runs goes on with what it has.
    pub fn end(&self) {
        let seen = &mut *self.state.lock();
        self.ended.store(true, Ordering::Release);
        seen.views = Arc::default();
        seen.view_columns = Arc::default();
        seen.tables = Arc::default();
    }

    /// # Errors
    /// `Unauthenticated` when it has ended.
    fn goes_on(&self) -> Result<()> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::new(
                Kind::Unauthenticated,
                "this session has ended, and with it its temporary tables and views; connect again",
            ));
        }
        Ok(())
    }

    /// Adds or replaces a temporary view.
    ///
    /// # Errors
    /// `AlreadyExists` for the name of a temporary table, `ResourceExhausted` when the session has
    /// too many.
    pub(crate) fn put_view(&self, name: String, view: TempView, columns: SchemaRef) -> Result<()> {
        let seen = &mut *self.state.lock();
        self.goes_on()?;
        if seen.tables.contains_key(&name) {
            return Err(taken("table", &name));
        }
        seen.has_room_for(&name)?;
        Arc::make_mut(&mut seen.view_columns).insert(name.clone(), columns);
        Arc::make_mut(&mut seen.views).insert(name, view);
        Ok(())
    }

    pub(crate) fn drop_views(&self, names: &[String]) {
        let seen = &mut *self.state.lock();
        for name in names {
            Arc::make_mut(&mut seen.views).remove(name);
            Arc::make_mut(&mut seen.view_columns).remove(name);
        }
    }

    /// Puts a temporary table in the place of the one of its name, or of none, in one step.
    ///
    /// # Errors
    /// Those of `make`; as [`Session::put_view`].
    pub(crate) fn put_table(
        &self,
        name: &str,
        make: impl FnOnce(&SessionView) -> Result<Arc<TempTable>>,
    ) -> Result<()> {
        let seen = &mut *self.state.lock();
        self.goes_on()?;
        if seen.views.contains_key(name) {
            return Err(taken("view", name));
        }
        seen.has_room_for(name)?;
        let table = make(seen)?;
        Arc::make_mut(&mut seen.tables).insert(name.to_owned(), table);
        Ok(())
    }

    pub(crate) fn drop_tables(&self, names: &[String]) {
        let seen = &mut *self.state.lock();
        for name in names {
            Arc::make_mut(&mut seen.tables).remove(name);
        }
    }
}

impl SessionView {
    fn has_room_for(&self, name: &str) -> Result<()> {
        let known = self.views.contains_key(name) || self.tables.contains_key(name);
        if !known && self.views.len() + self.tables.len() >= MAX_TEMPORARIES {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "a session holds at most {MAX_TEMPORARIES} temporary views and tables: drop \
                     some"
                ),
            ));
        }
        Ok(())
    }
}

fn taken(kind: &str, name: &str) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!(
            "this session has a temporary {kind} `{name}`: drop it first, or choose another name"
        ),
    )
}

/// Without the id, which is a secret.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}
