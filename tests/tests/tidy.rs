//! Rules about the source tree that no lint knows: headers, sizes, dependency edges, links in the
//! documentation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LONGEST_FILE: usize = 500;

/// Files that are longer for a reason. An entry that is no longer needed fails the test.
const LONG_FILES: [&str; 0] = [];

/// Which crates of ours a crate may use, and which foreign ones only some may.
const EDGES: [(&str, &[&str]); 6] = [
    ("catalog", &["workspace-hack"]),
    ("udf", &["catalog"]),
    ("online", &["catalog"]),
    ("engine", &["catalog", "online", "udf"]),
    ("cli", &["workspace-hack"]),
    ("server", &["catalog", "cli", "engine", "online"]),
];
const TONIC: [&str; 2] = ["server", "cli"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                walk(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn files(extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root(), extension, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn is_test(name: &str) -> bool {
    let folders = ["tests/", "/tests/", "/differential/"];
    name.ends_with("tests.rs") || folders.iter().any(|folder| name.contains(folder))
}

#[test]
fn every_source_file_says_what_lives_there() {
    // A sibling `tests.rs` is named by what it tests.
    let silent: Vec<_> = files("rs")
        .into_iter()
        .filter(|(name, text)| !is_test(name) && !text.starts_with("//!"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        silent,
        Vec::<String>::new(),
        "these begin without a //! header"
    );
}

#[test]
fn files_are_short() {
    let mut long = BTreeSet::new();
    for (name, text) in files("rs") {
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count();
        if !is_test(&name) && lines > LONGEST_FILE {
            long.insert(name);
        }
    }
    let excused: BTreeSet<String> = LONG_FILES.iter().map(ToString::to_string).collect();
    assert_eq!(
        long, excused,
        "files over {LONGEST_FILE} lines, against the excused ones"
    );
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<_, _> = EDGES.into_iter().collect();
    for (folder, ours) in &allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let section = manifest.split("[dependencies]").nth(1).unwrap();
        let section = section.split("\n[").next().unwrap();
        for line in section.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            if let Some(dependency) = name.strip_prefix("featureflight-") {
                assert!(
                    ours.contains(&dependency),
                    "{folder} may not use {dependency}"
                );
            }
            assert!(
                name != "tonic" || TONIC.contains(folder),
                "{folder} may not know gRPC"
            );
        }
    }
}

/// The third-party crates a command on `selection` builds, each with its features.
fn dependencies(selection: &[&str], edges: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--format", "{p} {f}", "--edges", edges])
        .args(selection)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.starts_with("featureflight-"));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_selection_of_members_builds_the_same_dependencies() {
    let all = dependencies(&["--workspace"], "normal,build,dev");
    for (member, _) in EDGES {
        let member = format!("featureflight-{member}");
        for edges in ["normal,build", "normal,build,dev"] {
            let other: Vec<_> = dependencies(&["--package", &member], edges)
                .difference(&all)
                .cloned()
                .collect();
            assert!(
                other.is_empty(),
                "workspace-hack lacks what {member} turns on: {other:#?}"
            );
        }
    }
}

#[test]
fn documentation_links_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in files("md") {
        let folder = root().join(&name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap().split('#').next().unwrap();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}
