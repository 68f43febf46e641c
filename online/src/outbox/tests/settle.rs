//! Marks, the removal of segments, progress, and the quarantine.

use super::*;

#[tokio::test]
async fn marks_survive_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1, 2, 3, 4])
        .await
        .expect("accepted");
    write(&outbox, "g", "a", &[5]).await.expect("accepted");
    let blocks = outbox.pending("g", Stage::Online);
    outbox.settle(blocks[0].position, Stage::Online, &[0, 2]);
    outbox.settle(blocks[0].position, Stage::Online, &[2, 77]);
    outbox.settle(blocks[1].position, Stage::Online, &[0]);
    assert_eq!(values(&outbox), [2, 4]);
    outbox.checkpoint().expect("saved");
    let image = crash_image(&dir);
    assert_eq!(values(&open(&image)), [2, 4]);
    drop(outbox);
    assert_eq!(values(&open(&dir)), [2, 4]);
}

#[tokio::test]
async fn what_is_not_saved_is_pending_again_after_a_crash() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1, 2]).await.expect("accepted");
    settle_all(&outbox);
    let image = crash_image(&dir);
    assert_eq!(values(&open(&image)), [1, 2]);
}

#[tokio::test]
async fn rows_go_when_every_stage_is_through() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    let both = Stages {
        online: true,
        offline: true,
    };
    let mut draft = outbox.draft(both);
    draft
        .push(&block("g", "a", &[1, 2]))
        .await
        .expect("written");
    draft.commit(Refusals::default()).await.expect("accepted");
    let kept = outbox.pending("g", Stage::Offline).remove(0);
    outbox.settle(kept.position, Stage::Online, &[0, 1]);
    assert!(outbox.pending("g", Stage::Online).is_empty());
    assert_eq!(outbox.pending("g", Stage::Offline).len(), 1);
    let progress = &outbox.progress().groups["g"];
    assert_eq!((progress.online_rows, progress.offline_rows), (0, 2));
    assert_eq!(progress.oldest_offline, Some(kept.accepted_at));
    outbox.checkpoint().expect("saved");
    assert_eq!(outbox.pending_groups(Stage::Offline).len(), 1);
    outbox.settle(kept.position, Stage::Offline, &[0, 1]);
    assert!(outbox.progress().groups.is_empty());
    assert_eq!(kept.read().expect("still readable").len(), 2);
}

#[tokio::test]
async fn requests_wait_until_their_last_row_is_through() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    // Two blocks of one request, and a request of one.
    let many: Vec<i64> = (0..10_000).collect();
    write(&outbox, "g", "a", &many).await.expect("accepted");
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    let waiting = || {
        let groups = outbox.progress().groups;
        groups.get("g").map_or(0, |group| group.requests)
    };
    let mut left = Vec::new();
    for block in outbox.pending("g", Stage::Online) {
        left.push(waiting());
        let rows: Vec<usize> = (0..block.rows()).collect();
        outbox.settle(block.position, Stage::Online, &rows);
    }
    left.push(waiting());
    assert_eq!(left, [2, 2, 1, 0]);
}

#[tokio::test]
async fn spent_segments_are_removed_and_their_marks_with_them() {
    let dir = TempDir::new().expect("a directory");
    let small = OutboxOptions {
        segment_bytes: 1_000,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), small.clone()).expect("an outbox");
    for value in 0..40 {
        write(&outbox, "g", "a", &[value]).await.expect("accepted");
    }
    let before = segments(&dir).len();
    assert!(before > 5, "{before} segments");
    // One row in the middle holds back everything behind it.
    let blocks = outbox.pending("g", Stage::Online);
    for block in blocks
        .iter()
        .filter(|block| block.position != blocks[20].position)
    {
        outbox.settle(block.position, Stage::Online, &[0]);
    }
    outbox.checkpoint().expect("saved");
    let middle = segments(&dir).len();
    assert!(
        middle < before && middle > 2,
        "{middle} of {before} segments"
    );
    drop(outbox);
    let outbox = Outbox::open(dir.path(), small.clone()).expect("an outbox");
    assert_eq!(values(&outbox), [20]);
    settle_all(&outbox);
    outbox.checkpoint().expect("saved");
    assert_eq!(segments(&dir).len(), 1);
    assert!(outbox.core.index.marks().expect("marks").is_empty());
    drop(outbox);
    let outbox = Outbox::open(dir.path(), small).expect("an outbox");
    assert_eq!(values(&outbox), [] as [i64; 0]);
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    assert_eq!(values(&outbox), [1]);
}

#[tokio::test]
async fn a_full_outbox_refuses_until_something_is_settled() {
    let dir = TempDir::new().expect("a directory");
    let small = OutboxOptions {
        segment_bytes: 2_000,
        max_bytes: 20_000,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), small).expect("an outbox");
    let mut accepted = Vec::new();
    let error = loop {
        match write(&outbox, "g", "a", &[accepted.len() as i64]).await {
            Ok(_) => accepted.push(accepted.len() as i64),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::ResourceExhausted);
    assert!(
        error.message.contains("of 20000 bytes"),
        "{}",
        error.message
    );
    assert_eq!(values(&outbox), accepted, "reading goes on");
    assert!(outbox.progress().bytes <= 20_000);
    settle_all(&outbox);
    outbox.checkpoint().expect("saved");
    write(&outbox, "g", "a", &[1])
        .await
        .expect("accepted again");
    assert!(outbox.failure().is_none());
}

fn record(outbox: &Outbox, row: usize) -> (Arc<PendingBlock>, Record) {
    let pending = outbox.pending("g", Stage::Online).remove(0);
    let block = Arc::new(pending.read().expect("rows"));
    (pending, Record { block, row })
}

#[tokio::test]
async fn quarantined_records_stay_until_they_are_sent_again_or_discarded() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1, 2, 3])
        .await
        .expect("accepted");
    let (pending, bad) = record(&outbox, 1);
    outbox
        .quarantine(&pending, &bad, "ValidationError: no", 4, false)
        .expect("kept");
    let (pending, worse) = record(&outbox, 2);
    outbox
        .quarantine(&pending, &worse, "ValidationError: never", 1, false)
        .expect("kept");
    assert_eq!(values(&outbox), [1]);
    assert_eq!(outbox.quarantine_size().expect("size"), 2);
    drop(outbox);

    let outbox = open(&dir);
    assert_eq!(values(&outbox), [1]);
    let listed = outbox.quarantined(10).expect("listed");
    assert_eq!(listed.len(), 2);
    let first = &listed[0];
    assert_eq!(
        (
            first.group.as_str(),
            first.identifier.as_str(),
            first.event_time.as_str()
        ),
        ("g", "a", "2.0")
    );
    assert_eq!(
        (first.reason.as_str(), first.attempts),
        ("ValidationError: no", 4)
    );
    outbox.redrive(first.id).await.expect("sent again");
    assert_eq!(values(&outbox), [1, 2], "behind everything else");
    outbox.discard(listed[1].id).expect("discarded");
    assert_eq!(outbox.quarantined(10).expect("listed"), []);
    let error = outbox.discard(listed[1].id).expect_err("it is gone");
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(
        outbox.redrive(first.id).await.expect_err("it is gone").kind,
        Kind::NotFound
    );
    // Numbers are not used again.
    let (pending, bad) = record(&outbox, 0);
    outbox
        .quarantine(&pending, &bad, "no", 1, false)
        .expect("kept");
    assert!(outbox.quarantined(10).expect("listed")[0].id > listed[1].id);
}
