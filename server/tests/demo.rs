//! `featureflight demo --once` as newcomers run it, and that its tour can fail.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::path::Path;
use std::process::{Command, Output};

fn demo(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_featureflight"))
        .args([
            "demo",
            "--once",
            "--listen",
            "127.0.0.1:0",
            "--customers",
            "1500",
            "--dir",
        ])
        .arg(dir)
        .output()
        .unwrap()
}

#[test]
fn the_tour_holds_and_notices_what_does_not() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("warehouse");
    let output = demo(&dir);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("claims checked"), "{out}");
    assert!(!out.contains("Ctrl-C"), "it ends after the tour: {out}");
    assert!(
        err.contains("made ") && err.contains(" versions in "),
        "{err}"
    );

    // A file that went missing makes answers short; the facts were counted before.
    let data = dir.join("s3/123456789012/sagemaker/us-east-1/offline-store/orders-1767488400/data");
    std::fs::remove_dir_all(data.join("year=2026/month=01/day=13/hour=17")).unwrap();
    let output = demo(&dir);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(err.contains("found "), "{err}");
    assert!(
        err.contains("the answer above is wrong: it should hold that orders has"),
        "{err}"
    );
}

#[test]
fn what_keeps_it_from_starting_is_one_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("photo.jpg"), b"").unwrap();
    let output = demo(home.path());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(
        err.contains("is not empty") && err.contains("--dir"),
        "{err}"
    );
}
