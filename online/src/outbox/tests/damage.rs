//! Torn tails, flipped bits, foreign bytes and missing files.

use std::fs;

use rand::{Rng, SeedableRng};

use super::*;

/// An outbox with one request for every value, as a crash leaves it before any checkpoint.
async fn image_of(values: &[i64]) -> (TempDir, PathBuf) {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    for value in values {
        write(&outbox, "g", "a", &[*value]).await.expect("accepted");
    }
    let image = crash_image(&dir);
    let segment = segments(&image).pop().expect("a segment");
    (image, segment)
}

/// Offsets and kinds of the frames of a segment.
fn frames(bytes: &[u8]) -> Vec<(usize, u8)> {
    let scan = frame::scan(bytes, 1, segment::HEADER);
    assert!(scan.damage.is_empty());
    scan.frames
        .iter()
        .map(|frame| (frame.offset as usize, frame.kind))
        .collect()
}

/// What recovery makes of `bytes` as the segment of an image: the values pending.
struct Variants {
    image: TempDir,
    segment: PathBuf,
    index: Index,
}

impl Variants {
    fn of(image: TempDir, segment: PathBuf) -> Self {
        let index = Index::open(&image.path().join("index.redb")).expect("an index");
        Self {
            image,
            segment,
            index,
        }
    }

    fn recover(&self, bytes: &[u8]) -> Result<Vec<i64>> {
        fs::write(&self.segment, bytes).expect("written");
        let recovered = recover::recover(self.image.path(), &self.index, &options())?;
        let blocks = recovered
            .pending
            .of_group("g", Stage::Online, None, usize::MAX);
        let values = blocks.iter().flat_map(|block| {
            let rows = block.read().expect("rows");
            (0..rows.len()).map(move |row| rows.text(2, row).expect("a value"))
        });
        Ok(values
            .map(|value| value.parse().expect("a number"))
            .collect())
    }
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_loses_what_was_not_whole_and_nothing_else() {
    let (image, segment) = image_of(&[1, 2, 3, 4]).await;
    let whole = fs::read(&segment).expect("bytes");
    let variants = Variants::of(image, segment);
    let frames = frames(&whole);
    let commits: Vec<usize> = frames
        .iter()
        .enumerate()
        .filter(|(_, (_, kind))| *kind == entry::COMMIT)
        .map(|(at, _)| frames.get(at + 1).map_or(whole.len(), |(end, _)| *end))
        .collect();
    assert_eq!(commits.len(), 4);
    for cut in commits[0]..whole.len() {
        let expected: Vec<i64> = (1..=4)
            .zip(&commits)
            .filter(|(_, end)| **end <= cut)
            .map(|(value, _)| value)
            .collect();
        let found = variants.recover(&whole[..cut]).expect("it opens");
        assert_eq!(found, expected, "cut at byte {cut} of {}", whole.len());
    }
}

#[tokio::test]
async fn foreign_bytes_behind_the_tail_are_cut_off() {
    let (image, segment) = image_of(&[1, 2, 3]).await;
    let whole = fs::read(&segment).expect("bytes");
    let variants = Variants::of(image, segment);
    let mut random = rand::rngs::StdRng::seed_from_u64(1);
    let noise: Vec<u8> = (0..5_000).map(|_| random.random()).collect();
    // Whole frames of another outbox at another place, as a file system may leave from a removed
    // file.
    let (_other, other) = image_of(&[7, 8, 9, 10]).await;
    let stale = fs::read(&other).expect("bytes").split_off(segment::HEADER);
    for tail in [vec![0; 4_096], noise, stale] {
        let bytes = [whole.as_slice(), &tail].concat();
        assert_eq!(variants.recover(&bytes).expect("it opens"), [1, 2, 3]);
    }
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let (image, segment) = image_of(&[1, 2, 3, 4]).await;
    let whole = fs::read(&segment).expect("bytes");
    let variants = Variants::of(image, segment);
    let frames = frames(&whole);
    let commits: Vec<usize> = (0..frames.len())
        .filter(|at| frames[*at].1 == entry::COMMIT)
        .collect();
    // Of the third request: the fourth says that it was on disk.
    let (from, to) = (frames[commits[1] + 1].0, frames[commits[2] + 1].0);
    for at in from..to {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = variants
            .recover(&bytes)
            .expect_err("acknowledged data is damaged");
        assert_eq!(error.kind, Kind::DataLoss);
        assert!(
            error.message.contains("00001.segment' is damaged in bytes"),
            "{}",
            error.message
        );
    }
    // Of the last: no later frame says so, as if a crash had cut it short.
    for at in to..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let scan = frame::scan(&bytes, 1, segment::HEADER);
            assert!(!scan.damage.is_empty(), "bit {bit} of byte {at}");
        }
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert_eq!(variants.recover(&bytes).expect("it opens"), [1, 2, 3]);
    }
    for at in 0..segment::HEADER {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        variants.recover(&bytes).expect_err("a damaged header");
    }
}

#[tokio::test]
async fn what_the_index_knows_to_be_on_disk_is_no_torn_tail() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    write(&outbox, "g", "a", &[2]).await.expect("accepted");
    outbox.checkpoint().expect("saved");
    let image = crash_image(&dir);
    let segment = segments(&image).pop().expect("a segment");
    let whole = fs::read(&segment).expect("bytes");
    let variants = Variants::of(image, segment);
    for damaged in [whole[..whole.len() - 1].to_vec(), {
        let mut bytes = whole.clone();
        *bytes.last_mut().expect("bytes") ^= 1;
        bytes
    }] {
        let error = variants.recover(&damaged).expect_err("acknowledged");
        assert_eq!(error.kind, Kind::DataLoss);
    }
    fs::remove_file(&variants.segment).expect("removed");
    let Variants { image, index, .. } = variants;
    drop(index);
    let error = Outbox::open(image.path(), options()).expect_err("a segment is missing");
    assert_eq!(error.kind, Kind::DataLoss);
    assert!(
        error.message.contains("lacks segment 1"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn unsynced_writes_may_reach_the_disk_in_any_order() {
    let dir = TempDir::new().expect("a directory");
    let loose = OutboxOptions {
        durability: Durability::Written(std::time::Duration::from_secs(3_600)),
        ..options()
    };
    let outbox = Outbox::open(dir.path(), loose).expect("an outbox");
    for value in 1..=4 {
        write(&outbox, "g", "a", &[value]).await.expect("accepted");
    }
    let image = crash_image(&dir);
    let segment = segments(&image).pop().expect("a segment");
    let whole = fs::read(&segment).expect("bytes");
    let frames = frames(&whole);
    // The second request's block of the disk was not written, later ones were.
    let commit = (0..frames.len())
        .find(|at| frames[*at].1 == entry::COMMIT)
        .expect("one");
    let (from, to) = (frames[commit + 1].0, frames[commit + 2].0);
    let mut bytes = whole;
    bytes[from..to].fill(0);
    let variants = Variants::of(image, segment);
    assert_eq!(variants.recover(&bytes).expect("it opens"), [1]);
}

#[tokio::test]
async fn damage_may_be_accepted_by_name() {
    let (image, segment) = image_of(&[1, 2, 3, 4]).await;
    let mut bytes = fs::read(&segment).expect("bytes");
    let frames = frames(&bytes);
    let rows: Vec<usize> = frames
        .iter()
        .filter(|f| f.1 == entry::ROWS)
        .map(|f| f.0)
        .collect();
    bytes[rows[1] + frame::HEADER + 8] ^= 1;
    fs::write(&segment, &bytes).expect("written");
    let error = Outbox::open(image.path(), options()).expect_err("damaged");
    assert!(
        error.message.contains("outbox.accept_damage"),
        "{}",
        error.message
    );
    let accepting = OutboxOptions {
        accept_damage: true,
        ..options()
    };
    let outbox = Outbox::open(image.path(), accepting).expect("it opens");
    assert_eq!(values(&outbox), [1, 3, 4]);
}

#[tokio::test]
async fn damage_while_it_runs_is_an_error_and_not_other_rows() {
    let dir = TempDir::new().expect("a directory");
    let outbox = open(&dir);
    write(&outbox, "g", "a", &[1]).await.expect("accepted");
    let segment = segments(&dir).pop().expect("a segment");
    let mut bytes = fs::read(&segment).expect("bytes");
    let at = frames(&bytes)
        .iter()
        .find(|f| f.1 == entry::ROWS)
        .expect("rows")
        .0;
    bytes[at + frame::HEADER + 200] ^= 1;
    fs::write(&segment, &bytes).expect("written");
    let error = outbox.pending("g", Stage::Online)[0]
        .read()
        .expect_err("damaged");
    assert_eq!(error.kind, Kind::DataLoss);
}

#[tokio::test]
async fn crashes_around_the_beginning_of_a_segment_are_healed() {
    let (image, segment) = image_of(&[1]).await;
    let next = segment.with_file_name(format!("{:020}.segment", 2));
    for bytes in [&b""[..], b"FFoutbox", &[0; segment::HEADER]] {
        fs::write(&next, bytes).expect("written");
        let image = crash_image(&image);
        let outbox = open(&image);
        assert_eq!(values(&outbox), [1]);
        write(&outbox, "g", "a", &[2]).await.expect("accepted");
        drop(outbox);
        assert_eq!(values(&open(&image)), [1, 2]);
    }
}

#[tokio::test]
async fn an_outbox_of_a_newer_version_is_refused() {
    let (image, segment) = image_of(&[1]).await;
    let mut bytes = fs::read(&segment).expect("bytes");
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    let variants = Variants::of(image, segment);
    let error = variants.recover(&bytes).expect_err("newer");
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(error.message.contains("newer version"), "{}", error.message);
}

#[tokio::test]
async fn segments_without_their_index_are_an_error() {
    let (image, _) = image_of(&[1]).await;
    fs::remove_file(image.path().join("index.redb")).expect("removed");
    let error = Outbox::open(image.path(), options()).expect_err("no index");
    assert_eq!(error.kind, Kind::DataLoss);
}
