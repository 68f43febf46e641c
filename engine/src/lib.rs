//! Sessions, statements and their life from text to a stream of batches; system tables; limits.
//! Knows no gRPC.
//!
//! Data flows one way: text → `statement` (whose it is) → `pinning` (planned, files and clocks
//! fixed) → [`query`] (permitted, running) → [`boundary`] (types that leave). Statements that
//! change a [`session`] have their effect where queries are pinned.

pub mod boundary;
pub mod caller;
mod catalogs;
mod complexity;
mod definitions;
mod effects;
pub mod engine;
mod erasing;
pub mod error;
mod executor;
mod functions;
mod interruption;
mod limits;
mod memory;
pub mod metadata;
mod nullability;
mod online;
mod optimizer;
pub mod parameters;
mod pass_through;
mod pinning;
mod planning;
mod preparing;
pub mod query;
mod repeat;
mod runtime;
mod selected;
pub mod session;
pub mod settings;
mod slices;
mod small_batches;
mod spill;
mod statement;
pub mod status;
mod system;
pub mod temp_tables;
#[cfg(test)]
mod tests;
mod views;
mod wide_rows;
pub mod writes;

pub use caller::Caller;
pub use engine::{Engine, EngineOptions};
pub use featureflight_catalog::{Error, Kind, Result};
pub use functions::width;
pub use memory::{Kept, few_arenas};
pub use writes::Writes;
