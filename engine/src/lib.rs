//! Sessions, statements and their life from text to a stream of batches; system tables; limits.
//! Knows no gRPC.
//!
//! Data flows one way: text → `statement` (whose it is) → `pinning` (planned, files and clocks
//! fixed) → [`query`] (permitted, running) → [`boundary`] (types that leave). Statements that
//! change a [`session`] have their effect where queries are pinned.

pub mod boundary;
mod catalogs;
mod effects;
pub mod engine;
pub mod error;
mod executor;
mod functions;
mod limits;
mod memory;
pub mod metadata;
mod pinning;
mod planning;
pub mod query;
mod repeat;
mod runtime;
pub mod session;
pub mod settings;
mod spill;
mod statement;
mod system;
#[cfg(test)]
mod tests;
mod views;

pub use engine::{Engine, EngineOptions};
pub use featureflight_catalog::{Error, Kind, Result};
