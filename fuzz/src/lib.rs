//! Hands the targets of `featureflight_tests::fuzz` to libFuzzer, which keeps what reaches new code
//! and changes it further. `fuzz/run` builds and runs them.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what cannot start has nothing to fuzz"
)]

use std::path::Path;

use featureflight_tests::fuzz::Target;
pub use libfuzzer_sys;

/// Writes what `target` begins with into its corpus, which libFuzzer reads next, and has a panic
/// that the server catches and answers for not end the run: it is the check that judges.
pub fn begin(target: &Target) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    std::fs::create_dir_all(&corpus).unwrap();
    for (number, input) in target.corpus().into_iter().enumerate() {
        std::fs::write(corpus.join(format!("seed-{number}")), input).unwrap();
    }
    drop(std::panic::take_hook());
}

/// A program of libFuzzer for the target of this name.
#[macro_export]
macro_rules! target {
    ($name:ident) => {
        use featureflight_tests::fuzz::{Target, targets};

        static TARGET: std::sync::Mutex<Option<Target>> = std::sync::Mutex::new(None);

        $crate::libfuzzer_sys::fuzz_target!(
            init: {
                let target = targets::$name();
                $crate::begin(&target);
                *TARGET.lock().unwrap() = Some(target);
            },
            |input: &[u8]| {
                let mut target = TARGET.lock().unwrap();
                (target.as_mut().unwrap().check)(input);
            }
        );
    };
}
