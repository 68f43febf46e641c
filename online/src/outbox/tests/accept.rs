//! Accepting, reading and reopening.

use super::*;

#[tokio::test]
async fn accepted_rows_are_there_in_order_before_and_after_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    let mut last = Instant::MIN;
    for value in 0..20 {
        let receipt = write(&outbox, "g", "a", &[value, value + 100])
            .await
            .expect("accepted");
        assert_eq!(receipt.answer.accepted, 2);
        let at = receipt.accepted_at.expect("a time");
        assert!(at > last, "a later request is accepted later");
        last = at;
    }
    let expected: Vec<i64> = (0..20).flat_map(|v| [v, v + 100]).collect();
    assert_eq!(values(&outbox), expected);
    drop(outbox);
    let outbox = open(&dir);
    assert_eq!(values(&outbox), expected);
    let blocks = outbox.pending("g", Stage::Online);
    assert!(blocks.iter().all(|block| block.recovered));
    assert_eq!(blocks.last().expect("blocks").accepted_at, last);
    let receipt = write(&outbox, "g", "a", &[7]).await.expect("accepted");
    assert!(receipt.accepted_at.expect("a time") > last);
    assert_eq!(values(&outbox).last(), Some(&7));
}

#[tokio::test]
async fn a_draft_counts_whole_or_not_at_all() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    // Keeps its segment.
    write(&outbox, "h", "a", &[1]).await.expect("accepted");
    let mut draft = outbox.draft(ONLINE);
    for value in 0..5 {
        draft
            .push(&block("g", "a", &[value]))
            .await
            .expect("written");
    }
    assert_eq!(
        values(&outbox),
        [] as [i64; 0],
        "nothing counts before the commit"
    );
    let image = crash_image(&dir);
    drop(draft);
    write(&outbox, "g", "a", &[9]).await.expect("accepted");
    assert_eq!(values(&outbox), [9]);
    drop(outbox);
    assert_eq!(values(&open(&dir)), [9]);

    // After a crash in the middle, a new request must not adopt the rows of the old one.
    let outbox = open(&image);
    assert_eq!(values(&outbox), [] as [i64; 0]);
    for value in 10..13 {
        write(&outbox, "g", "a", &[value]).await.expect("accepted");
    }
    drop(outbox);
    assert_eq!(values(&open(&image)), [10, 11, 12]);
}

#[tokio::test]
async fn requests_of_any_size_are_cut_into_blocks_and_keep_their_order() {
    let dir = TempDir::new().expect("a directory");
    let small = OutboxOptions {
        segment_bytes: 200_000,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), small.clone()).expect("an outbox");
    let many: Vec<i64> = (0..50_000).collect();
    write(&outbox, "g", "a", &many).await.expect("accepted");
    write(&outbox, "h", "b", &[1]).await.expect("accepted");
    assert!(outbox.pending("g", Stage::Online).len() > 5);
    assert_eq!(values(&outbox), many);
    assert!(segments(&dir).len() > 2, "{:?}", segments(&dir));
    drop(outbox);
    let outbox = Outbox::open(dir.path(), small).expect("an outbox");
    assert_eq!(values(&outbox), many);
    assert_eq!(pending(&outbox, "h"), [("b".to_owned(), 1)]);
}

#[tokio::test]
async fn many_writers_share_fsyncs_and_are_acknowledged_after_them() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let dir = TempDir::new().expect("a directory");
    let probe = Probe::new(move |step| {
        if step == "append.sync" {
            // Time for others to queue up.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        seen.lock().push(step);
        Ok(())
    });
    let outbox = Outbox::open(dir.path(), OutboxOptions { probe, ..options() }).expect("an outbox");
    let outbox = Arc::new(outbox);
    events.lock().clear();
    let writers = (0..64).map(|value| {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { write(&outbox, "g", &value.to_string(), &[value]).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("ran").expect("accepted");
    }
    let events = events.lock();
    let count = |step| events.iter().filter(|seen| **seen == step).count();
    assert_eq!(count("acknowledge"), 64);
    assert!(count("append.sync") < 64, "{} fsyncs", count("append.sync"));
    let mut synced = false;
    for step in events.iter() {
        match *step {
            "append.write" => synced = false,
            "append.synced" => synced = true,
            "acknowledge" => assert!(synced, "acknowledged before its fsync: {events:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_cut_never_gains_rows_once_it_is_settled() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    for value in 0..50 {
        let cut = Instant::now();
        outbox.settle_clock(cut).await.expect("settled");
        let receipt = write(&outbox, "g", "a", &[value]).await.expect("accepted");
        assert!(receipt.accepted_at.expect("a time") > cut);
    }
}

#[tokio::test]
async fn weaker_durability_acknowledges_first_and_fsyncs_soon() {
    let syncs = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&syncs);
    let dir = TempDir::new().expect("a directory");
    let probe = Probe::new(move |step| {
        *seen.lock() += usize::from(step == "append.sync");
        Ok(())
    });
    let options = OutboxOptions {
        durability: Durability::Written(std::time::Duration::from_millis(50)),
        probe,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), options).expect("an outbox");
    for value in 0..10 {
        write(&outbox, "g", "a", &[value]).await.expect("accepted");
    }
    let before = *syncs.lock();
    assert!(before < 10, "{before} fsyncs for 10 requests");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(*syncs.lock() > 0, "an fsync follows without further writes");
    assert!(matches!(
        outbox.progress().durability,
        Durability::Written(_)
    ));
}

/// Arrays that were read from one message share its memory, of which each says that it holds all.
#[tokio::test]
async fn rows_of_one_message_are_not_taken_apart() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    let numbers: Vec<i64> = (0..8_000).collect();
    let long = block("g", &"x".repeat(200), &numbers);
    let mut draft = outbox.draft(ONLINE);
    draft.push(&long).await.expect("written");
    draft.commit(Refusals::default()).await.expect("accepted");
    let read = outbox.pending("g", Stage::Online)[0].read().expect("rows");
    assert_eq!(read.bytes(), long.bytes());
    settle_all(&outbox);
    let mut draft = outbox.draft(ONLINE);
    draft.push(&read).await.expect("written");
    draft.commit(Refusals::default()).await.expect("accepted");
    let blocks = outbox.pending("g", Stage::Online);
    let rows: Vec<usize> = blocks.iter().map(|block| block.rows()).collect();
    assert_eq!(rows, [8_000]);
}
