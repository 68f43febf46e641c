//! A disk that is really full: a small tmpfs in a mount namespace of its own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use featureflight_catalog::Kind;
use featureflight_online::outbox::{Outbox, OutboxOptions, Stage, Stages};
use featureflight_online::validate::Refusals;

use super::model::{Write, block};

const STAGES: Stages = Stages {
    online: true,
    offline: false,
};

/// Not a test by itself: it runs where a tmpfs of 16 MiB is mounted.
#[test]
#[ignore = "started by the test of this file"]
fn tenant() {
    let Ok(dir) = std::env::var("TENANT_DIR") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(Path::new(&dir)));
    println!("the tenant is content");
}

async fn write(outbox: &Outbox, number: i64) -> featureflight_catalog::Result<()> {
    let rows: Vec<Write> = (0..2_000)
        .map(|row| Write::put(&format!("a record with a long name {row}"), number, number))
        .collect();
    let mut draft = outbox.draft(STAGES);
    draft.push(&block("g", &rows, None)).await?;
    draft.commit(Refusals::default()).await?;
    Ok(())
}

fn numbers(outbox: &Outbox) -> Vec<i64> {
    let blocks = outbox.pending("g", Stage::Online);
    let mut numbers = Vec::new();
    for block in blocks {
        let rows = block.read().unwrap();
        assert_eq!(rows.len(), 2_000);
        numbers.push(rows.text(2, 1_999).unwrap().parse().unwrap());
    }
    numbers
}

async fn fill(dir: &Path) {
    // Someone else fills the disk: a megabyte stays.
    let options = OutboxOptions {
        reserve_bytes: 0,
        segment_bytes: 2 << 20,
        checkpoint: Duration::from_millis(20),
        ..OutboxOptions::default()
    };
    let outbox = Outbox::open(&dir.join("outbox"), options.clone()).unwrap();
    let mut accepted = Vec::new();
    let error = loop {
        let number = i64::try_from(accepted.len()).unwrap();
        match write(&outbox, number).await {
            Ok(()) => accepted.push(number),
            Err(error) => break error,
        }
    };
    assert!(accepted.len() > 20, "{} requests fit", accepted.len());
    assert_eq!(error.kind, Kind::ResourceExhausted, "{}", error.message);
    assert!(
        error.message.contains("free some space"),
        "{}",
        error.message
    );
    for _ in 0..20 {
        let error = write(&outbox, -1).await.expect_err("still full");
        assert_eq!(error.kind, Kind::ResourceExhausted);
    }
    assert_eq!(numbers(&outbox), accepted, "reading goes on");
    drop(outbox);
    let outbox = Outbox::open(&dir.join("outbox"), options);
    let error = outbox.err().map(|error| error.message);
    assert!(
        error.is_none_or(|message| message.contains("space")),
        "a full disk is named"
    );

    // With a reserve, settling frees the space again.
    std::fs::remove_dir_all(dir.join("outbox")).unwrap();
    let careful = OutboxOptions {
        reserve_bytes: 4 << 20,
        segment_bytes: 1 << 20,
        checkpoint: Duration::from_millis(20),
        ..OutboxOptions::default()
    };
    let outbox = Outbox::open(&dir.join("outbox"), careful).unwrap();
    let mut number = 0;
    for _ in 0..3 {
        let from = number;
        while write(&outbox, number).await.is_ok() {
            number += 1;
        }
        assert_eq!(numbers(&outbox), (from..number).collect::<Vec<_>>());
        for block in outbox.pending("g", Stage::Online) {
            outbox.settle(
                block.position,
                Stage::Online,
                &block.unsettled(Stage::Online),
            );
        }
        let freed = std::time::Instant::now();
        while write(&outbox, number).await.is_err() {
            assert!(
                freed.elapsed() < Duration::from_secs(5),
                "the space came back"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for block in outbox.pending("g", Stage::Online) {
            outbox.settle(
                block.position,
                Stage::Online,
                &block.unsettled(Stage::Online),
            );
        }
        number += 1;
    }
}

#[test]
fn a_full_disk_refuses_goes_on_reading_and_comes_back() {
    let dir = tempfile::TempDir::new().unwrap();
    let script = "mount -t tmpfs -o size=16m tmpfs \"$TENANT_DIR\" && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "online::disk::tenant",
            "--ignored",
            "--nocapture",
        ])
        .env("TENANT_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("the tenant is content"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
