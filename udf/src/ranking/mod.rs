//! What state and the point-in-time join share: the rank of a version, cuts before ranking, an
//! index of record identifiers, one parallel pass over a history, and the fetch of the versions
//! that won.
//!
//! Both operators work in two phases. Phase one passes over keys and times of every file and keeps
//! the best [`Rank`](rank::Rank) per record or spine slot; phase two decodes the wanted features
//! of the winners alone. Best-of-two is commutative, associative and idempotent, so files may be
//! passed over in any order, by any number of tasks.

pub(crate) mod cuts;
pub(crate) mod fetch;
pub(crate) mod keys;
pub(crate) mod pass;
pub(crate) mod rank;
