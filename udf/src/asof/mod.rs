//! The plain as-of join of two relations: left-preserving, at most one match. [`node`] is what SQL
//! plans to, [`exec`] the operator, [`merge`] its walk over two sorted inputs.

pub(crate) mod exec;
mod merge;
pub mod node;
pub(crate) mod planner;
pub(crate) mod push_down;
pub(crate) mod right;
#[cfg(test)]
mod tests;
