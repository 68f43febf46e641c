//! How what computes without an await learns that nobody waits for it any more: joins that
//! find nothing for minutes ([`amplifiers`]) and the optimizer's rules. Tasks end where they yield, and
//! these do not.

mod amplifiers;

use std::cell::RefCell;

use datafusion::error::Result;
use datafusion::execution::TaskContext;
use featureflight_catalog::{Error, Kind};
use tokio_util::sync::CancellationToken;

pub(crate) use amplifiers::InterruptAmplifiers;

/// Whether a run, or its planning, is over although it is not done. A run has it as an extension of
/// its task context.
#[derive(Debug, Default, Clone)]
pub(crate) struct Over(pub(crate) CancellationToken);

thread_local! {
    /// Of what this thread computes.
    static CURRENT: RefCell<Option<Over>> = const { RefCell::new(None) };
}

impl Over {
    /// Of the run in this context.
    pub(crate) fn of(context: &TaskContext) -> Self {
        let over = context.session_config().get_extension::<Self>();
        over.map(|over| Self::clone(&over)).unwrap_or_default()
    }

    /// What this thread computes until the scope ends asks this one.
    pub(crate) fn enter(&self) -> Scope {
        Scope(CURRENT.replace(Some(self.clone())))
    }
}

/// What the thread computed before, which it does again afterwards.
#[must_use]
pub(crate) struct Scope(Option<Over>);

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// # Errors
/// `Cancelled` when what this thread computes is over; whoever ended it says why.
pub(crate) fn check() -> Result<()> {
    let over = |over: &Option<Over>| over.as_ref().is_some_and(|over| over.0.is_cancelled());
    if CURRENT.with_borrow(over) {
        return Err(Error::new(Kind::Cancelled, "the query is over").into());
    }
    Ok(())
}
