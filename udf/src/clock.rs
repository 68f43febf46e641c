//! The two clocks of a relation.

use featureflight_catalog::Instant;

/// System time cuts on `write_time <= x`, valid time on event time `<= x`, both inclusive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Clocks {
    pub system: Option<Instant>,
    pub valid: Option<Instant>,
}

impl Clocks {
    /// These clocks, and `defaults` for a clock that is not named here.
    #[must_use]
    pub fn or(self, defaults: Self) -> Self {
        Self {
            system: self.system.or(defaults.system),
            valid: self.valid.or(defaults.valid),
        }
    }
}
