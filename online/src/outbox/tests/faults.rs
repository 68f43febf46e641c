//! A failing disk, a full one, and a second process.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Fails `step` once, the `nth` time it comes after `arm` was set to it.
fn failing(step: &'static str, kind: io::ErrorKind) -> (Arc<AtomicUsize>, Probe) {
    let arm = Arc::new(AtomicUsize::new(0));
    let armed = Arc::clone(&arm);
    let probe = Probe::new(move |at| {
        if at == step
            && armed.load(Ordering::SeqCst) > 0
            && armed.fetch_sub(1, Ordering::SeqCst) == 1
        {
            return Err(kind.into());
        }
        Ok(())
    });
    (arm, probe)
}

#[tokio::test]
async fn after_a_failed_fsync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    for step in ["append.sync", "append.write"] {
        let dir = TempDir::new().expect("a directory");
        let (arm, probe) = failing(step, io::ErrorKind::Other);
        let outbox =
            Outbox::open(dir.path(), OutboxOptions { probe, ..options() }).expect("outbox");
        write(&outbox, "g", "a", &[1]).await.expect("accepted");
        arm.store(1, Ordering::SeqCst);
        let error = write(&outbox, "g", "a", &[2])
            .await
            .expect_err("not acknowledged");
        assert_eq!(error.kind, Kind::Unavailable);
        for _ in 0..3 {
            let error = write(&outbox, "g", "a", &[3])
                .await
                .expect_err("the disk works again");
            assert_eq!(error.kind, Kind::Unavailable);
            assert!(
                error.message.contains("restart the server"),
                "{}",
                error.message
            );
        }
        assert!(outbox.failure().is_some());
        assert_eq!(values(&outbox), [1], "reading goes on");
        drop(outbox);
        let outbox = open(&dir);
        let after = values(&outbox);
        assert!(after == [1] || after == [1, 2], "{after:?}");
        write(&outbox, "g", "a", &[4])
            .await
            .expect("accepted after the restart");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_is_forgiven() {
    for step in ["append.write", "append.half"] {
        let dir = TempDir::new().expect("a directory");
        let (arm, probe) = failing(step, io::ErrorKind::StorageFull);
        let outbox =
            Outbox::open(dir.path(), OutboxOptions { probe, ..options() }).expect("outbox");
        write(&outbox, "g", "a", &[1]).await.expect("accepted");
        // Nothing of a refused request stays that could count later.
        let counting = || {
            for attempt in 0.. {
                let newest = segments(&dir).pop().expect("a segment");
                let bytes = std::fs::read(newest).expect("bytes");
                let scan = frame::scan(&bytes, 1, segment::HEADER);
                if scan.damage.is_empty() {
                    let frames = scan.frames.iter();
                    return frames.filter(|frame| frame.kind != entry::ABORT).count();
                }
                // The note that a request was given up may be half written just now.
                assert!(attempt < 100, "{:?}", scan.damage);
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            unreachable!("the last attempt fails")
        };
        let before = counting();
        for group in ["g", "new"] {
            arm.store(1, Ordering::SeqCst);
            let error = write(&outbox, group, "a", &[2]).await.expect_err("refused");
            assert_eq!(error.kind, Kind::ResourceExhausted, "{}", error.message);
            assert!(
                error.message.contains("free some space"),
                "{}",
                error.message
            );
            assert_eq!(values(&outbox), [1], "reading goes on");
            assert_eq!(counting(), before);
        }
        // The refused write brought the first layout of its group: it must come again.
        write(&outbox, "new", "b", &[3])
            .await
            .expect("accepted again");
        let image = crash_image(&dir);
        drop(outbox);
        for dir in [dir, image] {
            let outbox = open(&dir);
            assert_eq!(values(&outbox), [1]);
            assert_eq!(pending(&outbox, "new"), [("b".to_owned(), 3)]);
        }
    }
}

#[tokio::test]
async fn a_draft_that_met_a_full_disk_cannot_be_committed() {
    let dir = TempDir::new().expect("a directory");
    let (arm, probe) = failing("append.write", io::ErrorKind::StorageFull);
    let outbox = Outbox::open(dir.path(), OutboxOptions { probe, ..options() }).expect("outbox");
    let mut draft = outbox.draft(ONLINE);
    draft.push(&block("g", "a", &[1])).await.expect("held");
    arm.store(1, Ordering::SeqCst);
    draft
        .push(&block("g", "a", &[2]))
        .await
        .expect_err("the first could not be written");
    let error = draft
        .commit(Refusals::default())
        .await
        .expect_err("half a request");
    assert_eq!(error.kind, Kind::ResourceExhausted);
    write(&outbox, "g", "a", &[3]).await.expect("accepted");
    drop(outbox);
    assert_eq!(values(&open(&dir)), [3]);
}

#[tokio::test]
async fn too_little_free_space_refuses_before_the_disk_is_full() {
    let dir = TempDir::new().expect("a directory");
    let greedy = OutboxOptions {
        reserve_bytes: u64::MAX / 2,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), greedy).expect("an outbox");
    let error = write(&outbox, "g", "a", &[1]).await.expect_err("refused");
    assert_eq!(error.kind, Kind::ResourceExhausted);
    assert!(
        error.message.contains("bytes are free"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_failed_checkpoint_loses_nothing() {
    for step in ["checkpoint.save", "checkpoint.saved", "segment.remove"] {
        let dir = TempDir::new().expect("a directory");
        let (arm, probe) = failing(step, io::ErrorKind::StorageFull);
        let small = OutboxOptions {
            segment_bytes: 300,
            probe,
            ..options()
        };
        let outbox = Outbox::open(dir.path(), small).expect("an outbox");
        for value in 0..5 {
            write(&outbox, "g", "a", &[value]).await.expect("accepted");
        }
        let (pending, bad) = (outbox.pending("g", Stage::Online).remove(0), 0);
        let record = Record {
            block: Arc::new(pending.read().expect("rows")),
            row: bad,
        };
        outbox
            .quarantine(&pending, &record, "no", 1, false)
            .expect("kept");
        let second = outbox.pending("g", Stage::Online).remove(0);
        outbox.settle(second.position, Stage::Online, &[0]);
        arm.store(1, Ordering::SeqCst);
        outbox.checkpoint().expect_err("it fails");
        outbox.checkpoint().expect("it works again");
        assert_eq!(outbox.quarantined(10).expect("listed").len(), 1);
        drop(outbox);
        let outbox = open(&dir);
        assert_eq!(values(&outbox), [2, 3, 4], "{step}");
        assert_eq!(outbox.quarantined(10).expect("listed").len(), 1);
    }
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_refuses() {
    let dir = TempDir::new().expect("a directory");
    let (arm, probe) = failing("segment.header", io::ErrorKind::StorageFull);
    let small = OutboxOptions {
        segment_bytes: 300,
        probe,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), small).expect("an outbox");
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    arm.store(1, Ordering::SeqCst);
    let error = write(&outbox, "g", "a", &[2]).await.expect_err("refused");
    assert_eq!(error.kind, Kind::ResourceExhausted, "{}", error.message);
    write(&outbox, "g", "a", &[3])
        .await
        .expect("accepted again");
    drop(outbox);
    assert_eq!(values(&open(&dir)), [1, 3]);
}

#[test]
fn an_outbox_is_open_once() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    let error = Outbox::open(dir.path(), options()).expect_err("it is in use");
    assert_eq!(error.kind, Kind::FailedPrecondition);
    let owner = format!("in use by process {}", std::process::id());
    assert!(error.message.contains(&owner), "{}", error.message);
    drop(outbox);
    open(&dir);
}
