//! Every SQL example of the book runs on the sample warehouse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

/// The SQL blocks of a page, each with the line it begins on.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut examples = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match &mut block {
            None if line == "```sql" => block = Some((at + 1, String::new())),
            None => {}
            Some(_) if line == "```" => examples.extend(block.take()),
            Some((_, sql)) => {
                sql.push_str(line);
                sql.push('\n');
            }
        }
    }
    examples
}

fn walk(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = vec![root.join("README.md")];
    walk(&root.join("docs"), &mut pages);
    pages.sort();
    pages
}

#[test]
fn the_sql_of_every_page_runs() {
    let served = common::start();
    let mut ran = 0;
    let mut failures = Vec::new();
    for page in pages() {
        for (line, sql) in examples(&fs::read_to_string(&page).unwrap()) {
            let output = served.sql(&["--format", "csv", "-c", &sql]);
            ran += 1;
            if !output.status.success() {
                let name = page.file_name().unwrap().to_string_lossy().into_owned();
                failures.push(format!("{name}:{line}: {}", common::stderr(&output)));
            }
        }
    }
    assert_eq!(failures, Vec::<String>::new());
    assert!(ran > 8, "only {ran} examples were found");
}
