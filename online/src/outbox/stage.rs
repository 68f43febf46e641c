//! Where a row is: its place in the order of acceptance, and what still has to happen to it.

use serde::{Deserialize, Serialize};

/// The order of accepted rows: requests by their commit, blocks within a request. Rows within a
/// block follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub sequence: u64,
    pub part: u32,
}

/// What still has to happen to an accepted row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It is in the online store, or was refused by it into the quarantine.
    Online,
    /// It is in the offline store.
    Offline,
}

impl Stage {
    pub const ALL: [Self; 2] = [Self::Online, Self::Offline];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Online => 0,
            Self::Offline => 1,
        }
    }
}

/// The stages that rows of a request go through, fixed when they are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    pub online: bool,
    pub offline: bool,
}

impl Stages {
    pub(super) fn has(self, stage: Stage) -> bool {
        match stage {
            Stage::Online => self.online,
            Stage::Offline => self.offline,
        }
    }
}
