//! Real servers for the tests: Redis, and Amazon's DynamoDB Local. Each on a port of its own, ended
//! with the value.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aws_config::SdkConfig;

use crate::loopback::sdk_config;

#[derive(Debug)]
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    fn start(port: u16, command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
        let mut server = Self { child, port };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{command:?} ended ({ended:?}); tests/run installs what it needs"
            );
            assert!(Instant::now() < end, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// # Panics
    /// When it is not installed or does not start.
    pub fn redis() -> Self {
        Self::redis_on(free_port())
    }

    /// # Panics
    /// As [`Self::redis`].
    pub fn redis_on(port: u16) -> Self {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        Self::start(port, command.args(["--port", &port.to_string()]))
    }

    /// # Panics
    /// As [`Self::redis`].
    pub fn dynamodb() -> Self {
        let port = free_port();
        let jars = cache().join("dynamodb-local");
        let mut command = Command::new("java");
        command
            .arg(format!("-Djava.library.path={}", jars.display()))
            .args(["-cp", &format!("{}/*", jars.display())])
            .arg("com.amazonaws.services.dynamodbv2.local.main.ServerRunner")
            .args(["-inMemory", "-disableTelemetry", "-port", &port.to_string()])
            // It leaves a file where it runs.
            .current_dir(&jars);
        Self::start(port, &mut command)
    }

    /// What an AWS client needs to talk to it.
    pub fn aws(&self) -> SdkConfig {
        sdk_config(&format!("http://127.0.0.1:{}", self.port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Where `tests/run` puts what the tests need.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("featureflight")
}
