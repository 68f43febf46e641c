//! Processes that are killed at a chosen pass of a chosen step. A victim is this test binary,
//! started as a child that runs one ignored test alone.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use featureflight_online::outbox::Probe;

/// In a victim, does `work` with what it was told: its folder, a probe that kills it in time, and
/// its first number. Elsewhere, nothing.
pub(super) fn act(work: impl AsyncFnOnce(PathBuf, Probe, i64)) {
    let Some(dir) = std::env::var_os("VICTIM_DIR") else {
        return;
    };
    let step = std::env::var("VICTIM_STEP").unwrap();
    let count: usize = std::env::var("VICTIM_COUNT").unwrap().parse().unwrap();
    let first: i64 = std::env::var("VICTIM_FIRST").unwrap().parse().unwrap();
    let passed = AtomicUsize::new(0);
    let probe = Probe::new(move |at| {
        if at == step && passed.fetch_add(1, Ordering::SeqCst) + 1 == count {
            let pid = std::process::id().to_string();
            Command::new("kill").args(["-9", &pid]).status().unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(dir.into(), probe, first));
}

/// What a victim did with a number, for those who read [`Said`].
pub(super) fn say(word: &str, number: i64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word} {number}").unwrap();
    out.flush().unwrap();
}

/// What a victim said before it died.
pub(super) struct Said(String);

impl Said {
    pub(super) fn numbers(&self, word: &str) -> Vec<i64> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(|number| number.trim().parse().unwrap()).collect()
    }
}

/// Runs the victim of that name until it is killed at the `count`th pass of `step`.
pub(super) fn kill(name: &str, dir: &Path, step: &str, count: usize, first: i64) -> Said {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let output = run(name, dir, step, count, first);
        let errors = String::from_utf8_lossy(&output.stderr);
        // A child of another test has this process' locks until it is another program.
        let outbox = format!("in use by process {}", std::process::id());
        let locked = [outbox.as_str(), "Database already open"];
        if locked.iter().any(|lock| errors.contains(lock)) && Instant::now() < patience {
            continue;
        }
        assert_eq!(
            output.status.signal(),
            Some(9),
            "the victim was to die at pass {count} of {step}: {errors}"
        );
        return Said(String::from_utf8(output.stdout).unwrap());
    }
}

/// As [`kill`], of one that may end otherwise.
pub(super) fn run(name: &str, dir: &Path, step: &str, count: usize, first: i64) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("VICTIM_DIR", dir)
        .env("VICTIM_STEP", step)
        .env("VICTIM_COUNT", count.to_string())
        .env("VICTIM_FIRST", first.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}
