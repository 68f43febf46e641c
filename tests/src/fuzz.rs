//! Mutated input: seeds that are good, changed at random, and what once went wrong, kept in
//! `tests/fuzz/TARGET/`. Runs as ordinary tests do, with a seed of its own each time that a failure
//! names; `FEATUREFLIGHT_FUZZ_RUNS` makes it longer. It is not guided by coverage.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longer than any single input may take, in builds without optimization.
const PATIENCE: Duration = Duration::from_secs(20);

/// Mutations of a run, where nothing else is said.
const RUNS: u64 = 400;

/// Gives `check` everything kept for `target`, the `seeds`, and mutations of both; it panics where
/// something is wrong.
///
/// # Panics
/// With the input and how to keep it, when `check` did or took too long.
pub fn run(target: &str, seeds: &[Vec<u8>], mut check: impl FnMut(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let runs: u64 = number("FEATUREFLIGHT_FUZZ_RUNS").unwrap_or(RUNS);
    let seed: u64 = number("FEATUREFLIGHT_FUZZ_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let mut pool = kept(target);
    pool.extend_from_slice(seeds);
    assert!(!pool.is_empty(), "{target} has nothing to start from");
    let mut attempt = |input: &[u8]| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
        if outcome.is_err() || began.elapsed() > PATIENCE {
            eprintln!(
                "{target}, FEATUREFLIGHT_FUZZ_SEED={seed}, after {:?}: {:?}\nkeep it in \
                 tests/fuzz/{target}/ when it is fixed",
                began.elapsed(),
                String::from_utf8_lossy(input)
            );
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        assert!(began.elapsed() <= PATIENCE, "{target} took too long");
    };
    for input in &pool {
        attempt(input);
    }
    for _ in 0..runs {
        let input = mutated(&pool, &mut random);
        attempt(&input);
    }
}

fn kept(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(target);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    paths.into_iter().map(read).collect()
}

fn mutated(pool: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut input = pool[random.random_range(0..pool.len())].clone();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..=16)).min(input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 => {
                input.drain(at..end);
            }
            3 => {
                let part = input[at..end].to_vec();
                let times = random.random_range(1..=64);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = &pool[random.random_range(0..pool.len())];
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            5 if at + 8 <= input.len() => {
                let extremes = [0, 1, -1, i64::MAX, i64::MIN, 1 << 31, 1 << 40];
                let value: i64 = extremes[random.random_range(0..extremes.len())];
                let width = [1, 2, 4, 8][random.random_range(0..4)];
                input[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            _ => input.truncate(at),
        }
    }
    input
}
