//! The server: gRPC, Flight SQL, configuration, telemetry and the command line. The only crate that
//! knows tonic, and [`flight::status`] the only place that builds a `Status`.
//!
//! [`commands`] reads the command line, [`config`] the configuration, [`start`] makes an engine of
//! it, and [`mod@serve`] puts that engine on the wire; [`monitor`] lets others watch it.

mod calls;
pub mod commands;
pub mod config;
pub mod demo;
mod flight;
mod listen;
mod monitor;
mod progress;
pub mod serve;
mod sessions;
mod signing;
mod start;
mod task;
mod telemetry;
mod writing;

pub use config::Config;
pub use serve::{ServerHandle, serve, serve_engine};
