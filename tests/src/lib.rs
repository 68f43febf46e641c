//! What the test suites share: warehouses to read and servers to talk to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

pub mod fake_aws;
pub mod fake_runtime;
pub mod faults;
pub mod faulty_s3;
pub mod fuzz;
pub mod loopback;
pub mod offline_service;
pub mod servers;
pub mod warehouse;

use std::path::Path;
use std::sync::Arc;

use featureflight_catalog::snapshot::Catalog;
use featureflight_catalog::source::files::FilesSource;
use featureflight_catalog::storage::WarehouseStorage;
use featureflight_server::config::Config;
use featureflight_server::serve::{ServerHandle, serve};

/// The catalog of the warehouse at `directory`.
///
/// # Panics
/// When it cannot be read: a test has nothing to test then.
pub async fn open_warehouse(directory: &Path) -> Arc<Catalog> {
    let source = Arc::new(FilesSource::new(directory));
    let storage = Arc::new(WarehouseStorage::open(directory).unwrap());
    Catalog::open(source, storage).await.unwrap()
}

/// A server on a free port over the warehouse at `directory`, until the handle is dropped.
///
/// # Panics
/// When it does not start.
pub async fn serve_warehouse(directory: &Path) -> ServerHandle {
    serve_configured(directory, |_| {}).await
}

/// The same, with whatever `change` does to its configuration.
///
/// # Panics
/// When it does not start.
pub async fn serve_configured(directory: &Path, change: impl FnOnce(&mut Config)) -> ServerHandle {
    let mut config = Config::for_warehouse(directory);
    "127.0.0.1:0".clone_into(&mut config.server.listen);
    change(&mut config);
    serve(&config, std::future::pending()).await.unwrap()
}
