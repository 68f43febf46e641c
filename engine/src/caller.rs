//! Who asks: a session, and what one call says for itself alone, in its headers.
//!
//! A clock in a header holds for the whole call. A statement that would change the same clock is
//! refused: whichever of the two then won, the other one would be ignored without a word.

use std::sync::Arc;

use featureflight_catalog::{Error, Result};
use tokio::time::Instant;

use crate::effects;
use crate::engine::Engine;
use crate::session::{Session, SessionView};
use crate::settings::{Setting, Value};

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    pub session: Arc<Session>,
    /// When the client stops waiting.
    pub deadline: Option<Instant>,
    /// Names the write of this call, so that a repeat has one effect.
    pub idempotency_key: Option<String>,
    settings: Vec<(Setting, Value)>,
    schema: Option<String>,
}

impl From<&Arc<Session>> for Caller {
    fn from(session: &Arc<Session>) -> Self {
        Self {
            session: Arc::clone(session),
            deadline: None,
            idempotency_key: None,
            settings: Vec::new(),
            schema: None,
        }
    }
}

impl From<&Self> for Caller {
    fn from(caller: &Self) -> Self {
        caller.clone()
    }
}

impl Caller {
    /// Fixes a setting for this call.
    pub fn fix(&mut self, setting: Setting, value: Value) {
        self.settings.push((setting, value));
    }

    /// Fixes the default schema for this call; see [`Engine::schema_named`].
    pub fn fix_schema(&mut self, schema: String) {
        self.schema = Some(schema);
    }

    /// What a statement of this call sees.
    pub fn view(&self) -> SessionView {
        let mut view = self.session.view();
        for (setting, value) in &self.settings {
            setting.put(&mut view.settings, Some(*value));
        }
        if let Some(schema) = &self.schema {
            view.schema.clone_from(schema);
        }
        view
    }

    /// # Errors
    /// `FailedPrecondition` when a header of this call fixes `setting`.
    pub(crate) fn may_change(&self, setting: Setting) -> Result<()> {
        if self.settings.iter().all(|(fixed, _)| *fixed != setting) {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "{setting} is fixed by the header featureflight-{} of this call: connect without the \
             header to change it by SQL or session option",
            setting.name().replace('_', "-")
        )))
    }

    /// # Errors
    /// `FailedPrecondition` when a header of this call fixes the default schema.
    pub(crate) fn may_change_schema(&self) -> Result<()> {
        match &self.schema {
            None => Ok(()),
            Some(schema) => Err(Error::precondition(format!(
                "the default schema is fixed to `{schema}` by a header of this call: connect \
                 without the header to change it by SQL or session option"
            ))),
        }
    }
}

impl Engine {
    /// Sets an option of the session from text, as `SET` does.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that cannot be, `FailedPrecondition` for a fixed one.
    pub fn set_option(&self, caller: &Caller, setting: Setting, text: Option<&str>) -> Result<()> {
        caller.may_change(setting)?;
        let value = text.map(|text| setting.parse(text)).transpose()?;
        caller
            .session
            .update_settings(|settings| setting.put(settings, value));
        Ok(())
    }

    /// Sets the session's default schema, as `USE` does.
    ///
    /// # Errors
    /// `NotFound`, `FailedPrecondition` for a fixed one.
    pub fn set_schema(&self, caller: &Caller, name: &str) -> Result<()> {
        caller.may_change_schema()?;
        caller.session.set_schema(self.schema_named(name)?);
        Ok(())
    }

    /// The schema `name` stands for, in the catalog's spelling: exactly, else ignoring case.
    ///
    /// # Errors
    /// `NotFound` with near names.
    pub fn schema_named(&self, name: &str) -> Result<String> {
        effects::schema_of(&self.catalog.snapshot(), name)
    }
}
