//! `featureflight sql` as people run it: the binary, its output and its exit code, against a server
//! in this process over a small sample warehouse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::io::Read;
use std::process::{Command, Stdio};

use common::{Served, start, stderr, stdout};

#[test]
fn the_shell_end_to_end() {
    let served = start();
    results_come_in_every_format(&served);
    one_run_is_one_session(&served);
    statements_come_from_files_and_pipes(&served);
    the_first_failure_ends_the_run(&served);
    commands_browse(&served);
    a_reader_may_stop_reading(&served);
}

fn results_come_in_every_format(served: &Served) {
    let live = served.warehouse.facts.groups["customers"].live;
    let count = "SELECT count(*) AS n, 'a,b' AS t, NULL AS nothing FROM customers";
    let csv = served.sql(&["--format", "csv", "-c", count]);
    assert_eq!(
        stdout(&csv),
        format!("n,t,nothing\n{live},\"a,b\",\n"),
        "{}",
        stderr(&csv)
    );
    assert!(
        csv.status.success() && csv.stderr.is_empty(),
        "{}",
        stderr(&csv)
    );
    let tsv = served.sql(&["--format", "tsv", "-c", count]);
    assert_eq!(stdout(&tsv), format!("n\tt\tnothing\n{live}\ta,b\t\n"));
    let json = served.sql(&["--format", "json", "-c", count]);
    let expected = format!("[{{\"n\":{live},\"t\":\"a,b\",\"nothing\":null}}]\n");
    assert_eq!(stdout(&json), expected);
    let none = "SELECT customer_id, event_time FROM customers WHERE false";
    let csv = served.sql(&["--format", "csv", "-c", none]);
    assert_eq!(stdout(&csv), "customer_id,event_time\n");
    let lines = served.sql(&["--format", "ndjson", "-c", "SELECT * FROM customers"]);
    assert_eq!(stdout(&lines).lines().count() as u64, live);
    let table = served.sql(&["--max-rows", "2", "-c", "SELECT customer_id FROM customers"]);
    let rows = stdout(&table)
        .lines()
        .filter(|line| line.starts_with("| C"))
        .count();
    assert_eq!(rows, 2);
    assert!(
        stdout(&table).contains("there are more"),
        "{}",
        stdout(&table)
    );
}

fn one_run_is_one_session(served: &Served) {
    let before = "SET featureflight.system_time = '2020-01-01'";
    let count = "SELECT count(*) FROM customers";
    let output = served.sql(&["--format", "csv", "-q", "-c", before, "-c", count]);
    assert_eq!(
        stdout(&output).lines().last(),
        Some("0"),
        "{}",
        stderr(&output)
    );
    let output = served.sql(&["--format", "csv", "-q", "-c", count]);
    let live = served.warehouse.facts.groups["customers"].live.to_string();
    assert_eq!(stdout(&output).lines().last(), Some(live.as_str()));
}

fn statements_come_from_files_and_pipes(served: &Served) {
    let text = "-- two; statements\nSELECT ';' AS a;\n\\format json\nSELECT 'it''s' AS b";
    let expected = "a\n;\n[{\"b\":\"it's\"}]\n";
    let piped = served.piped(&["--format", "csv"], text);
    assert_eq!(stdout(&piped), expected, "{}", stderr(&piped));
    let file = served.warehouse.dir.join("script.sql");
    std::fs::write(&file, text).unwrap();
    let from_file = served.sql(&["--format", "csv", "-f", file.to_str().unwrap()]);
    assert_eq!(stdout(&from_file), expected, "{}", stderr(&from_file));
    let dash = served.piped(&["--format", "csv", "-f", "-"], text);
    assert_eq!(stdout(&dash), expected, "{}", stderr(&dash));
}

fn the_first_failure_ends_the_run(served: &Served) {
    let output = served.sql(&["-c", "SELECT 1; SELEC 2; SELECT 'never'"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!stdout(&output).contains("never"), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("[INVALID_ARGUMENT]"),
        "{}",
        stderr(&output)
    );
    let output = served.sql(&["-c", "SELECT * FROM custmers"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("[NOT_FOUND]"),
        "{}",
        stderr(&output)
    );
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    let output = served.sql(&["-c", "SELECT 1", "-f", "/does/not/exist.sql"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stdout(&output),
        "",
        "a missing file fails before anything ran"
    );
    let nobody = Command::new(env!("CARGO_BIN_EXE_featureflight"))
        .args(["sql", "--url", "grpc://127.0.0.1:1", "-c", "SELECT 1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        stderr(&nobody).contains("cannot reach grpc://127.0.0.1:1"),
        "{}",
        stderr(&nobody)
    );
}

fn commands_browse(served: &Served) {
    let output = served.sql(&["--format", "csv", "-c", "\\d"]);
    for relation in ["features,card-risk,TABLE", "history,orders,TABLE"] {
        assert!(
            stdout(&output).lines().any(|line| line == relation),
            "{}",
            stdout(&output)
        );
    }
    let output = served.sql(&["--format", "csv", "-c", "\\d features.Card_Risk"]);
    let identifier = "CustomerId,VARCHAR,no,primary,Names the customer";
    assert_eq!(
        stdout(&output).lines().nth(1),
        Some(identifier),
        "{}",
        stderr(&output)
    );
    let output = served.sql(&["-c", "\\d nothing"]);
    assert_eq!(output.status.code(), Some(1));
    let output = served.sql(&["--format", "csv", "-c", "SELECT 1 AS a; \\q\nSELECT 2"]);
    assert_eq!(stdout(&output), "a\n1\n");
}

fn a_reader_may_stop_reading(served: &Served) {
    let sql = "SELECT a.customer_id FROM history.orders a CROSS JOIN history.orders b \
               CROSS JOIN history.orders c";
    let mut command = served.command(&["--format", "csv", "-c", sql]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; 64]).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}
