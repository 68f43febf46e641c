//! The point-in-time join: for every spine row, per feature group the top-ranked version known at
//! the row's time. [`node`] is what SQL plans to; the operator behind it can be replaced without
//! touching the syntax.
//!
//! The spine is small and the history huge, so the spine is indexed and the history streamed past
//! it once: [`spine`] collects rows and times, [`index`] turns them into slots per key, [`probe`]
//! keeps the best version per slot, [`features`] puts together what the winners hold, out of what
//! the pass [`kept`] or else fetched ([`passes`] says which), [`group`] runs one feature group
//! through all of them, [`rows`] puts the output together, and [`exec`] is the operator. A spine
//! that does not fit into memory is joined partition by partition: [`spill`].

mod age;
mod cuts_tree;
pub(crate) mod exec;
mod features;
pub(crate) mod group;
mod index;
mod kept;
pub mod node;
pub(crate) mod passes;
pub(crate) mod planner;
mod probe;
mod rows;
mod spill;
mod spine;
#[cfg(test)]
mod tests;
