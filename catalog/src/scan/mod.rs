//! Reads data files into Arrow: versions of feature groups ([`versions`]), the `history` relation
//! ([`history`]) and Glue tables as they stand ([`raw`]).
//!
//! From the outside in: [`history`] and [`raw`] are relations; [`files`] runs through many files,
//! which `deal` opens ahead; [`versions`] reads one, without what [`prune`] proves useless; under
//! it lie `unlanded` (versions without a file), `convert` (types), `decode` (row groups), `footer` and `fetch` (bytes).

mod convert;
mod deal;
mod decode;
pub mod estimate;
mod exec;
pub(crate) mod fetch;
pub mod files;
#[cfg(test)]
pub(crate) mod fixtures;
mod footer;
pub mod history;
pub mod prune;
pub mod raw;
mod unlanded;
pub mod versions;
