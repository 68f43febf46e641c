//! Input changed at random in ordinary tests, with a seed of its own each time that it says first;
//! `FEATUREFLIGHT_FUZZ_RUNS` makes it longer. It is not guided by coverage: `fuzz/run` is.
//!
//! Each input is in a file before it is tried: an abort leaves nobody to print it, and a hang ends
//! the process by a watchdog.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Target;

/// Longer than any single input may take, in builds without optimization.
const PATIENCE: Duration = Duration::from_secs(20);

/// An input that takes so long never ends.
const HANGS: Duration = Duration::from_secs(180);

/// Mutations of a run, where nothing else is said.
const RUNS: u64 = 400;

/// Tries the corpus of `target`, and mutations of it.
///
/// # Panics
/// With the input and how to keep it, when its check did or took too long.
pub fn run(mut target: Target) {
    let pool = target.corpus();
    let (target, check) = (target.name, &mut target.check);
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let runs: u64 = number("FEATUREFLIGHT_FUZZ_RUNS").unwrap_or(RUNS);
    let seed: u64 = number("FEATUREFLIGHT_FUZZ_SEED").unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    assert!(!pool.is_empty(), "{target} has nothing to start from");
    let at_work = at_work(target);
    let about = format!(
        "{target}, FEATUREFLIGHT_FUZZ_SEED={seed}, input in {}",
        at_work.display()
    );
    say(&about);
    let (begin, begun) = channel();
    let hangs = format!("{about}: hangs");
    std::thread::spawn(move || {
        if hung(&begun, HANGS) {
            say(&hangs);
            std::process::abort();
        }
    });
    let mut attempt = |input: &[u8]| {
        std::fs::write(&at_work, input).unwrap();
        begin.send(()).unwrap();
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
        let took = began.elapsed();
        if outcome.is_err() || took > PATIENCE {
            eprintln!(
                "{about}, after {took:?}: {:?}\nkeep it in tests/fuzz/{target}/ when it is fixed",
                String::from_utf8_lossy(input)
            );
        }
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        assert!(took <= PATIENCE, "{target} took too long");
    };
    for input in &pool {
        attempt(input);
    }
    for _ in 0..runs {
        let input = mutated(&pool, &mut random);
        attempt(&input);
    }
    // Only what something is wrong with is left.
    std::fs::remove_file(&at_work).unwrap();
}

/// Where the input is that is tried, beside the program.
fn at_work(target: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.with_file_name("fuzz-inputs");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(format!("{target}-{}", std::process::id()))
}

/// Not by a macro: what those print is lost when the process aborts.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether nothing new begins for so long, before the end.
fn hung(begun: &Receiver<()>, patience: Duration) -> bool {
    loop {
        match begun.recv_timeout(patience) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_input_is_in_a_file_while_it_is_tried_and_left_there_by_a_failure() {
        let file = at_work("itself");
        let target = |check| Target {
            name: "itself",
            seeds: vec![b"seed".to_vec()],
            check,
        };
        run(target(Box::new(|input| {
            assert_eq!(std::fs::read(at_work("itself")).unwrap(), input);
        })));
        assert!(!file.exists(), "nothing was wrong");
        let failing = catch_unwind(|| run(target(Box::new(|_| panic!("wrong")))));
        assert!(failing.is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"seed");
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn what_never_ends_is_told_from_what_is_done() {
        let patience = Duration::from_millis(50);
        let (begin, begun) = channel();
        begin.send(()).unwrap();
        assert!(hung(&begun, patience));
        drop(begin);
        assert!(!hung(&begun, patience));
    }
}
