//! What the machine (or the container) has: the base of defaults.

use std::thread::available_parallelism;

/// Where nothing can be read.
const FALLBACK_MEMORY: u64 = 4 << 30;

pub(super) fn threads() -> usize {
    available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The smaller of the machine's memory and the control group's limit.
pub(super) fn memory_bytes() -> u64 {
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace()
            .nth(1)?
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    });
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    machine
        .into_iter()
        .chain(group)
        .min()
        .unwrap_or(FALLBACK_MEMORY)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
