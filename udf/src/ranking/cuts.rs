//! Constant cuts: what a version must pass before it is ranked.

use featureflight_catalog::Instant;
use featureflight_catalog::listing::EventRange;
use featureflight_catalog::scan::prune::Prune;

use crate::clock::Clocks;
use crate::point_in_time::node::KnownBy;
use crate::ranking::rank::Rank;

/// Inclusive upper bounds; `None` admits every version.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cuts {
    event_time: Option<Instant>,
    write_time: Option<Instant>,
    api_invocation_time: Option<Instant>,
}

impl From<Clocks> for Cuts {
    fn from(clocks: Clocks) -> Self {
        Self {
            event_time: clocks.valid,
            write_time: clocks.system,
            api_invocation_time: None,
        }
    }
}

impl Cuts {
    /// Also cuts what was not known at `at`.
    #[must_use]
    pub(crate) fn known(mut self, by: KnownBy, at: Instant) -> Self {
        let bound = match by {
            KnownBy::WriteTime => &mut self.write_time,
            KnownBy::ApiInvocationTime => &mut self.api_invocation_time,
        };
        *bound = Some(bound.map_or(at, |bound| bound.min(at)));
        self
    }

    /// What rules versions out that are not admitted.
    pub(crate) fn prune(&self) -> Prune {
        Prune {
            event_time: EventRange {
                from: None,
                to: self.event_time,
            },
            write_time_at_most: self.write_time,
            api_invocation_time_at_most: self.api_invocation_time,
            keys: None,
        }
    }

    pub(crate) fn admit(&self, version: &Rank) -> bool {
        let within = |bound: Option<Instant>, time| bound.is_none_or(|bound| time <= bound);
        within(self.event_time, version.event_time())
            && within(self.write_time, version.write_time())
            && within(self.api_invocation_time, version.api_invocation_time())
    }
}
