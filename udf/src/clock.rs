//! The two clocks of a relation.

use std::fmt;

use featureflight_catalog::Instant;

/// System time cuts on `write_time <= x`, valid time on event time `<= x`, both inclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Clocks {
    pub system: Option<Instant>,
    pub valid: Option<Instant>,
}

impl Clocks {
    /// What `EXPLAIN` shows of them after something else: `, valid_time=...`, if any is set.
    pub(crate) fn explain(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, at) in [("valid_time", self.valid), ("system_time", self.system)] {
            if let Some(at) = at {
                write!(f, ", {name}={at}")?;
            }
        }
        Ok(())
    }

    /// These clocks, and `defaults` for a clock that is not named here.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            system: self.system.or(defaults.system),
            valid: self.valid.or(defaults.valid),
        }
    }
}
