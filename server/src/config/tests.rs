//! File, environment and flags: order, errors, secrets.

use std::collections::HashMap;
use std::time::Duration;

use clap::Parser;
use featureflight_catalog::Kind;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    serve: ServeArgs,
}

fn args(line: &[&str]) -> ServeArgs {
    let words = ["serve"].iter().chain(line);
    Line::try_parse_from(words).expect("a command line").serve
}

fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("featureflight.toml");
    std::fs::write(&path, text).expect("a file");
    let path = path.to_string_lossy().into_owned();
    (directory, path)
}

#[test]
fn file_then_environment_then_flags() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nticket_ttl = \"1m\"\nmax_tickets = 7\n\
                [engine]\nmemory_limit = \"2GiB\"\nquery_timeout = \"90s\"\n[log]\nformat = \"json\"\n";
    let (_directory, path) = file(text);
    let environment = environment(&[
        ("FEATUREFLIGHT__SERVER__LISTEN", "127.0.0.1:2"),
        ("FEATUREFLIGHT__SERVER__TICKET_TTL", "2h"),
        ("FEATUREFLIGHT__CATALOG__DATABASES", "a, b"),
        ("FEATUREFLIGHT_CONFIG", "not a key"),
        ("PATH", "/bin"),
    ]);
    let args = args(&[
        "--config",
        &path,
        "--listen",
        "127.0.0.1:3",
        "--warehouse",
        "w",
    ]);
    let config = Config::merge(&args, environment).expect("a configuration");
    assert_eq!(config.server.listen, "127.0.0.1:3");
    assert_eq!(config.server.ticket_ttl.0, Duration::from_secs(7_200));
    assert_eq!(config.server.max_tickets, 7);
    assert_eq!(config.engine.memory_limit.0, 2 << 30);
    assert_eq!(config.engine.query_timeout.0, Duration::from_secs(90));
    assert_eq!(config.catalog.databases, ["a", "b"]);
    assert_eq!(config.catalog.kind, Some(CatalogKind::Files));
    assert_eq!(
        config.storage.directory.as_deref(),
        Some(std::path::Path::new("w"))
    );
    assert_eq!(config.log.format, LogFormat::Json);
    config.check().expect("complete");
}

#[test]
fn unknown_keys_and_bad_values_are_errors_that_name_them() {
    let cases = [
        ("[server]\nlisen = \"x\"\n", "lisen"),
        ("[sever]\nlisten = \"x\"\n", "sever"),
        ("[server]\nticket_ttl = \"soon\"\n", "soon"),
        ("[server]\nticket_ttl = 15\n", "15"),
        ("[engine]\nmemory_limit = \"2 gigs\"\n", "2 gigs"),
        ("[catalog]\nkind = \"hive\"\n", "hive"),
        ("[log\n", "log"),
    ];
    for (text, named) in cases {
        let (_directory, path) = file(text);
        let error = Config::merge(&args(&["--config", &path]), HashMap::new())
            .expect_err("must be refused");
        assert_eq!(error.kind, Kind::InvalidArgument);
        assert!(error.message.contains(named), "{text}: {error}");
        assert!(error.message.contains(&path), "{text}: {error}");
    }
    let stray = environment(&[("FEATUREFLIGHT__SERVER__LISEN", "x")]);
    let error = Config::merge(&args(&[]), stray).expect_err("must be refused");
    assert!(error.message.contains("lisen"), "{error}");
}

#[test]
fn a_key_of_digits_stays_what_it_is() {
    let digits = "1234567890123456789012345678901234567890";
    let environment = environment(&[("FEATUREFLIGHT__SERVER__SIGNING_KEY", digits)]);
    let config = Config::merge(&args(&["--warehouse", "w"]), environment).expect("fine");
    assert_eq!(
        config.server.signing_key.as_ref().map(Secret::reveal),
        Some(digits)
    );
}

#[test]
fn what_cannot_be_served_is_refused() {
    assert!(
        Config::default()
            .check()
            .expect_err("empty")
            .message
            .contains("--warehouse")
    );
    let mut short = Config::for_warehouse("w".as_ref());
    short.server.signing_key = Some(Secret::new("short"));
    assert!(
        short
            .check()
            .expect_err("short")
            .message
            .contains("signing_key")
    );
    let mut none = Config::for_warehouse("w".as_ref());
    none.server.max_tickets = 0;
    assert!(
        none.check()
            .expect_err("zero")
            .message
            .contains("max_tickets")
    );
}

#[test]
fn the_printed_configuration_reads_back_and_hides_secrets() {
    let mut config = Config::for_warehouse("with \"quotes\"".as_ref());
    config.server.ticket_ttl = Span(Duration::from_millis(1_500));
    config.engine.memory_limit = Bytes(3 << 29);
    config.catalog.databases = vec!["a".into(), "b".into()];
    config.server.signing_key = Some(Secret::new("a secret nobody should ever see"));
    let text = config.to_toml();
    assert!(!text.contains("nobody"), "{text}");
    assert!(text.contains("ticket_ttl = \"1500ms\""), "{text}");
    assert!(text.contains("memory_limit = \"1536MiB\""), "{text}");
    let (_directory, path) = file(&text);
    let again = Config::merge(&args(&["--config", &path]), HashMap::new()).expect("reads back");
    assert_eq!(again.to_toml(), text);
    assert_eq!(again.catalog.directory, config.catalog.directory);
}

#[test]
fn debug_text_hides_secrets() {
    let mut config = Config::default();
    config.server.signing_key = Some(Secret::new("a secret nobody should ever see"));
    assert!(!format!("{config:?}").contains("nobody"));
}
