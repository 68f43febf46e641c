//! A server in this process over a small sample warehouse, and the binary as its client.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::io::Write;
use std::ops::ControlFlow;
use std::process::{Command, Output, Stdio};

use featureflight_server::config::{CatalogKind, Config, StorageKind};
use featureflight_server::demo::warehouse::{Scale, Warehouse};
use featureflight_server::{ServerHandle, serve};

pub(crate) struct Served {
    _home: tempfile::TempDir,
    pub warehouse: Warehouse,
    pub server: ServerHandle,
    _runtime: tokio::runtime::Runtime,
}

pub(crate) fn start() -> Served {
    let home = tempfile::tempdir().unwrap();
    let scale = Scale {
        customers: 100,
        days: 1,
    };
    let dir = home.path().join("warehouse");
    let warehouse =
        Warehouse::open_or_make(&dir, scale, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".to_owned();
    config.catalog.kind = Some(CatalogKind::Files);
    config.catalog.directory = Some(dir.clone());
    config.storage.kind = Some(StorageKind::Warehouse);
    config.storage.directory = Some(dir);
    config.storage.own = true;
    config.outbox.reserve.0 = 0;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(16 << 20)
        .build()
        .unwrap();
    let server = runtime
        .block_on(serve(&config, std::future::pending()))
        .unwrap();
    Served {
        _home: home,
        warehouse,
        server,
        _runtime: runtime,
    }
}

impl Served {
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_featureflight"));
        command
            .arg("sql")
            .arg("--url")
            .arg(format!("grpc://{}", self.server.local_addr));
        command.args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn sql(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn piped(&self, args: &[&str], input: &str) -> Output {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
