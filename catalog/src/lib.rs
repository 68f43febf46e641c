//! Feature groups as a model, where they come from, and their files: listing, pruning and
//! scanning the offline store into Arrow.
//!
//! Data flows one way: [`source`] → [`snapshot`] (what exists) → [`pin`] (which files a statement
//! reads) → [`scan`] (their rows). [`unlanded`] is what a statement reads beside the files,
//! [`replaced`] how files give way to others under its eyes.

pub mod error;
pub mod hive_type;
pub mod instant;
pub mod listing;
pub mod model;
pub mod pin;
pub mod replaced;
pub mod scan;
pub mod snapshot;
pub mod source;
pub mod storage;
pub mod table;
pub mod unlanded;
mod value_bytes;

pub use error::{Error, Kind, Result};
pub use instant::Instant;
pub use value_bytes::value_bytes;
