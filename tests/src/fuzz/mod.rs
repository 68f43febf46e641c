//! Input from outside, changed at random: what each kind starts from and what is asked of the
//! server with it ([`targets`]), and who changes it. Tests change it by chance ([`mutated`]) in every
//! run; `fuzz/` hands the same targets to libFuzzer, which follows what the code does with it.
//!
//! What once went wrong is kept in `tests/fuzz/TARGET/`, for both.

pub mod mutated;
mod served;
pub mod targets;

use std::path::{Path, PathBuf};

/// One kind of input.
#[expect(missing_debug_implementations, reason = "its check is a function")]
pub struct Target {
    /// The folder of what is kept for it.
    pub name: &'static str,
    /// Good input, made by what clients use.
    pub seeds: Vec<Vec<u8>>,
    /// Panics where something is wrong with what came of an input.
    pub check: Check,
}

/// What is done with one input.
pub type Check = Box<dyn FnMut(&[u8]) + Send>;

impl Target {
    /// What every run begins with: what is kept, and the seeds.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let mut corpus = kept(self.name);
        corpus.extend_from_slice(&self.seeds);
        corpus
    }
}

/// The files of `target`; what is no text is kept as hexadecimal digits, with comments behind `#`.
fn kept(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(target);
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let content = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "hex") {
            unhex(std::str::from_utf8(&content).unwrap())
        } else {
            content
        }
    };
    paths.into_iter().map(read).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap());
    let pairs = lines.flat_map(str::split_whitespace);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_seeds_have_comments() {
        assert_eq!(unhex("0a ff # two\n# none\n00"), [10, 255, 0]);
    }
}
