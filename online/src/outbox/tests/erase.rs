//! What is erased is nowhere: not pending, not in quarantine, not in a segment, not after a crash.

use super::*;

fn record(id: &str, before: u64) -> Erasure {
    Erasure {
        group: "g".to_owned(),
        what: What::Record(id.to_owned()),
        before,
        offline_done: false,
    }
}

fn group(before: u64) -> Erasure {
    let definition = serde_json::json!({
        "FeatureGroupName": "g", "RecordIdentifierFeatureName": "id", "EventTimeFeatureName": "ts",
        "FeatureDefinitions": [],
    });
    Erasure {
        what: What::Group(serde_json::from_value(definition).expect("a group")),
        ..record("", before)
    }
}

/// Whether the files of the outbox say this anywhere.
fn on_disk(dir: &TempDir, text: &str) -> bool {
    let found = |path: PathBuf| {
        let bytes = std::fs::read(path).expect("a segment");
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    segments(dir).into_iter().any(found)
}

#[tokio::test]
async fn the_rows_of_a_record_go_and_later_ones_stay() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "secret", &[1, 2])
        .await
        .expect("accepted");
    let mut draft = outbox.draft(ONLINE);
    for id in ["a", "secret"] {
        draft.push(&block("g", id, &[3])).await.expect("written");
    }
    draft.commit(Refusals::default()).await.expect("accepted");
    write(&outbox, "h", "secret", &[4]).await.expect("accepted");
    let taken = outbox.pending("g", Stage::Online);
    let before = outbox.place(None).await.expect("a place");
    write(&outbox, "g", "secret", &[5]).await.expect("accepted");
    let erasure = record("secret", before);
    outbox.note_erasure(&erasure).expect("noted");
    assert_eq!(outbox.erase(&erasure).expect("erased"), 3);
    let left = [("a".to_owned(), 3), ("secret".to_owned(), 5)];
    assert_eq!(pending(&outbox, "g"), left);
    assert_eq!(pending(&outbox, "h"), [("secret".to_owned(), 4)]);
    // Who took rows down before is told; who took others is not.
    let check = |block: &PendingBlock| {
        let rows = block.read().expect("rows");
        let all: Vec<usize> = (0..rows.len()).collect();
        outbox
            .check_kept(block, &rows, &all)
            .map_err(|error| error.kind)
    };
    let checked: Vec<_> = taken.iter().map(|block| check(block)).collect();
    assert_eq!(checked, [Err(Kind::Aborted), Ok(()), Err(Kind::Aborted)]);
    for block in outbox.pending("g", Stage::Online) {
        assert_eq!(check(&block), Ok(()));
    }

    let image = crash_image(&dir);
    let after = open(&image);
    assert_eq!(pending(&after, "g"), left, "after a crash");
    assert_eq!(
        after.erasures().expect("notes"),
        std::slice::from_ref(&erasure)
    );
    assert_eq!(after.erase(&erasure).expect("erased"), 0, "again");
    assert_eq!(pending(&after, "g"), left);
    after.forget_erasure(&erasure).expect("forgotten");
    assert!(after.erasures().expect("notes").is_empty());
}

#[tokio::test]
async fn the_bytes_go_once_nothing_else_holds_the_segment() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "other", &[1]).await.expect("accepted");
    write(&outbox, "g", "secret", &[2]).await.expect("accepted");
    assert!(on_disk(&dir, "secret"));
    let erasure = record("secret", outbox.place(None).await.expect("a place"));
    outbox.erase(&erasure).expect("erased");
    assert!(on_disk(&dir, "secret"), "another row waits there");
    settle_all(&outbox);
    outbox.checkpoint().expect("saved");
    assert!(!on_disk(&dir, "secret"));

    write(&outbox, "g", "secret", &[3]).await.expect("accepted");
    let erasure = record("secret", outbox.place(None).await.expect("a place"));
    outbox.erase(&erasure).expect("erased");
    assert!(!on_disk(&dir, "secret"), "at once");
}

#[tokio::test]
async fn quarantined_records_go_and_are_not_sent_again() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    for (group, id) in [("g", "secret"), ("g", "a"), ("h", "secret")] {
        write(&outbox, group, id, &[1]).await.expect("accepted");
        let block = outbox.pending(group, Stage::Online).remove(0);
        let record = Record {
            block: Arc::new(block.read().expect("rows")),
            row: 0,
        };
        outbox
            .quarantine(&block, &record, "no", 1, true)
            .expect("aside");
    }
    let erasure = record("secret", outbox.place(None).await.expect("a place"));
    assert_eq!(outbox.erase(&erasure).expect("erased"), 1);
    let left = outbox.quarantined(10).expect("listed");
    let left: Vec<_> = left
        .iter()
        .map(|one| (one.id, one.group.as_str()))
        .collect();
    assert_eq!(left, [(2, "g"), (3, "h")]);
    assert_eq!(
        outbox.redrive(1).await.expect_err("gone").kind,
        Kind::NotFound
    );
    outbox
        .erase(&group(outbox.next_sequence()))
        .expect("erased");
    assert_eq!(outbox.quarantined(10).expect("listed").len(), 1);
}

#[tokio::test]
async fn a_redrive_waits_for_an_erasure_and_finds_nothing() {
    let dir = TempDir::new().expect("a directory");
    let outbox = Arc::new(open(&dir));
    write(&outbox, "g", "secret", &[1]).await.expect("accepted");
    let block = outbox.pending("g", Stage::Online).remove(0);
    let rows = Arc::new(block.read().expect("rows"));
    let aside = Record {
        block: rows,
        row: 0,
    };
    outbox
        .quarantine(&block, &aside, "no", 1, true)
        .expect("aside");
    let turn = outbox.turns().of("g").sending;
    let erasing = turn.write().await;
    let redriven = {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { outbox.redrive(1).await })
    };
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let erasure = record("secret", outbox.place(None).await.expect("a place"));
    outbox.erase(&erasure).expect("erased");
    drop(erasing);
    let redriven = redriven.await.expect("no panic");
    assert_eq!(redriven.expect_err("gone").kind, Kind::NotFound);
    assert!(values(&outbox).is_empty());
}

#[tokio::test]
async fn a_closed_group_takes_nothing_and_an_old_request_nothing_after_it() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    let mut old = outbox.draft(ONLINE);
    old.push(&block("g", "a", &[2])).await.expect("written");
    old.push(&block("g", "a", &[3])).await.expect("written");
    let mut small = outbox.draft(ONLINE);
    small.push(&block("g", "a", &[4])).await.expect("held");
    let before = outbox.place(Some("g")).await.expect("a place");
    let during = write(&outbox, "g", "a", &[5]).await;
    assert_eq!(during.expect_err("closed").kind, Kind::NotFound);
    write(&outbox, "h", "a", &[6]).await.expect("another group");
    assert_eq!(outbox.erase(&group(before)).expect("erased"), 1);
    outbox.reopen("g");
    write(&outbox, "g", "a", &[7]).await.expect("accepted");
    for old in [old, small] {
        let late = old.commit(Refusals::default()).await;
        assert_eq!(late.expect_err("it began before").kind, Kind::NotFound);
    }
    assert_eq!(values(&outbox), [7]);
    let image = crash_image(&dir);
    assert_eq!(values(&open(&image)), [7]);
}
