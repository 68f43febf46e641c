//! Several queries of one shape, run one after the other: what a prepared query with several rows of
//! bound parameters is. [`node`] is what it plans to, [`exec`] the operator.
//!
//! Not a union: its inputs run at the same time, and their rows come mixed.

pub(crate) mod exec;
pub mod node;
pub(crate) mod planner;
