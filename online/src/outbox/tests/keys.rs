//! Idempotency keys.

use super::*;

fn key(key: &str) -> IdempotencyKey {
    IdempotencyKey {
        scope: "someone/g".to_owned(),
        key: key.to_owned(),
    }
}

/// The values written under a key; nothing for a repeat.
async fn write_once(outbox: &Outbox, name: &str, values: &[i64]) -> Result<Answer> {
    match outbox.begin(ONLINE, &key(name)).await? {
        Begin::Repeat(answer) => Ok(answer),
        Begin::Draft(mut draft) => {
            draft.push(&block("g", "a", values)).await?;
            Ok(draft.commit(Refusals::default()).await?.answer)
        }
    }
}

#[tokio::test]
async fn a_repeat_has_one_effect_and_the_same_answer() {
    let dir = TempDir::new().expect("a directory");
    let small = OutboxOptions {
        segment_bytes: 500,
        ..options()
    };
    let outbox = Outbox::open(dir.path(), small.clone()).expect("an outbox");
    let first = write_once(&outbox, "k", &[1, 2]).await.expect("accepted");
    assert_eq!(first.accepted, 2);
    assert_eq!(
        write_once(&outbox, "k", &[3]).await.expect("a repeat"),
        first
    );
    let crashed = Outbox::open(crash_image(&dir).path(), small.clone()).expect("an outbox");
    assert_eq!(
        write_once(&crashed, "k", &[4]).await.expect("a repeat"),
        first
    );
    assert_eq!(values(&crashed), [1, 2]);
    drop(crashed);

    // The key outlives the rows and their segment.
    write(&outbox, "g", "a", &[5]).await.expect("accepted");
    write(&outbox, "g", "a", &[6]).await.expect("accepted");
    settle_all(&outbox);
    outbox.checkpoint().expect("saved");
    assert_eq!(
        write_once(&outbox, "k", &[7]).await.expect("a repeat"),
        first
    );
    drop(outbox);
    let outbox = Outbox::open(dir.path(), small).expect("an outbox");
    assert_eq!(
        write_once(&outbox, "k", &[8]).await.expect("a repeat"),
        first
    );
    assert_eq!(values(&outbox), [] as [i64; 0]);
    let other = IdempotencyKey {
        scope: "someone".to_owned(),
        key: "/gk".to_owned(),
    };
    assert!(matches!(
        outbox.begin(ONLINE, &other).await.expect("begun"),
        Begin::Draft(_)
    ));
}

#[tokio::test]
async fn ten_at_once_have_one_effect() {
    let dir = TempDir::new().expect("a directory");
    let outbox = Arc::new(open(&dir));
    let writers = (0..10).map(|value| {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { write_once(&outbox, "k", &[value, value]).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        let answer = writer.await.expect("ran").expect("answered");
        assert_eq!(answer.accepted, 2);
    }
    assert_eq!(values(&outbox).len(), 2);
}

#[tokio::test]
async fn a_request_that_ends_without_commit_frees_its_key() {
    let dir = TempDir::new().expect("a directory");
    let outbox = Arc::new(open(&dir));
    let Begin::Draft(mut draft) = outbox.begin(ONLINE, &key("k")).await.expect("begun") else {
        panic!("nobody used the key");
    };
    draft.push(&block("g", "a", &[1])).await.expect("written");
    let waiting = {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { write_once(&outbox, "k", &[2]).await })
    };
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(!waiting.is_finished(), "it waits for the first");
    drop(draft);
    assert_eq!(waiting.await.expect("ran").expect("accepted").accepted, 1);
    assert_eq!(values(&outbox), [2]);
}

#[tokio::test]
async fn keys_are_forgotten_after_their_window() {
    let dir = TempDir::new().expect("a directory");
    let brief = OutboxOptions {
        key_window: std::time::Duration::from_millis(200),
        ..options()
    };
    let outbox = Outbox::open(dir.path(), brief).expect("an outbox");
    write_once(&outbox, "k", &[1]).await.expect("accepted");
    outbox.checkpoint().expect("saved");
    write_once(&outbox, "k", &[2]).await.expect("a repeat");
    assert_eq!(values(&outbox), [1]);
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    write_once(&outbox, "k", &[3]).await.expect("accepted");
    assert_eq!(values(&outbox), [1, 3]);
    outbox.checkpoint().expect("saved");
    write_once(&outbox, "k", &[4])
        .await
        .expect("a repeat of the second");
    assert_eq!(values(&outbox), [1, 3]);
}

#[tokio::test]
async fn keys_have_a_length() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    for name in [String::new(), "x".repeat(257)] {
        let error = outbox
            .begin(ONLINE, &key(&name))
            .await
            .expect_err("refused");
        assert_eq!(error.kind, Kind::InvalidArgument);
    }
}
