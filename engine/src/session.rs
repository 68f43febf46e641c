//! Sessions: clocks, default schema, temporary views. Which call belongs to which session, and when
//! one ends, is the server's to know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_udf::{Clocks, TempView};
use parking_lot::Mutex;

use crate::metadata::FEATURES;

/// The schema a fresh session looks unqualified tables up in.
pub const DEFAULT_SCHEMA: &str = FEATURES;

/// Temporary views one session may have.
const MAX_VIEWS: usize = 1_000;

static SESSIONS_MADE: AtomicU64 = AtomicU64::new(1);

/// One client's session. Cheap to share.
pub struct Session {
    /// What the client proves to be this session by: a secret, never shown to others.
    pub id: String,
    /// Names the session in logs and `system.queries`.
    label: String,
    state: Mutex<SessionView>,
}

/// What one statement sees of its session, taken at once.
#[derive(Debug, Clone)]
pub struct SessionView {
    pub clocks: Clocks,
    pub schema: String,
    pub views: Arc<BTreeMap<String, TempView>>,
    /// Each view's columns when it was made, at the boundary's types.
    pub view_columns: Arc<BTreeMap<String, SchemaRef>>,
}

impl Session {
    /// A fresh session with no clocks, in schema `features`.
    pub fn new(id: impl Into<String>) -> Self {
        let number = SESSIONS_MADE.fetch_add(1, Ordering::Relaxed);
        let seen = SessionView {
            clocks: Clocks::default(),
            schema: DEFAULT_SCHEMA.to_owned(),
            views: Arc::default(),
            view_columns: Arc::default(),
        };
        Self {
            id: id.into(),
            label: format!("session-{number}"),
            state: Mutex::new(seen),
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

    pub fn clocks(&self) -> Clocks {
        self.state.lock().clocks
    }

    /// The default of every relation that does not name a clock.
    pub fn set_clocks(&self, clocks: Clocks) {
        self.state.lock().clocks = clocks;
    }

    /// Changes the clocks in one step.
    pub fn update_clocks(&self, change: impl FnOnce(&mut Clocks)) {
        change(&mut self.state.lock().clocks);
    }

    pub fn schema(&self) -> String {
        self.state.lock().schema.clone()
    }

    /// `schema` must be one the engine knows, in its spelling.
    pub(crate) fn set_schema(&self, schema: String) {
        self.state.lock().schema = schema;
    }

    /// Adds or replaces a temporary view.
    ///
    /// # Errors
    /// `ResourceExhausted` when the session has too many.
    pub(crate) fn put_view(&self, name: String, view: TempView, columns: SchemaRef) -> Result<()> {
        let seen = &mut *self.state.lock();
        if seen.views.len() >= MAX_VIEWS && !seen.views.contains_key(&name) {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("a session holds at most {MAX_VIEWS} temporary views: drop some"),
            ));
        }
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
}

/// Without the id, which is a secret.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}
