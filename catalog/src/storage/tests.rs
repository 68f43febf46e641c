use super::*;
use crate::error::Kind;

fn reason(url: &str) -> String {
    let error = S3Url::parse(url).expect_err(url);
    assert_eq!(error.kind, Kind::InvalidArgument, "{url}");
    error.message
}

#[test]
fn locations_are_taken_apart() {
    for (url, bucket, key) in [
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("s3a://my-bucket/a/b/data/", "my-bucket", "a/b/data"),
        (
            "s3://b.c_d/with space/per%20cent=ü",
            "b.c_d",
            "with space/per%20cent=ü",
        ),
    ] {
        let parsed = S3Url::parse(url).expect(url);
        assert_eq!(
            (parsed.bucket.as_str(), parsed.key.as_ref()),
            (bucket, key),
            "{url}"
        );
    }
    assert_eq!(
        S3Url::parse("s3a://b/x/").expect("url").to_string(),
        "s3://b/x"
    );
}

#[test]
fn odd_locations_are_refused() {
    for url in [
        "",
        "file:///etc",
        "http://169.254.169.254/x",
        "S3://b/x",
        "/tmp",
        "s3:/b/x",
    ] {
        assert!(reason(url).contains("only s3://"), "{url}");
    }
    for url in [
        "s3://",
        "s3:///x",
        "s3://../x",
        "s3://b?x/y",
        "s3://user@b/x",
        "s3://b:80/x",
    ] {
        assert!(reason(url).contains("bucket"), "{url}: {}", reason(url));
    }
    for url in ["s3://b/..", "s3://b/a/../c", "s3://b/./a", "s3://b/a/.."] {
        assert!(reason(url).contains("'..'"), "{url}: {}", reason(url));
    }
    for url in ["s3://b//a", "s3://b/a//c", "s3://b/a\nb"] {
        assert!(
            reason(url).contains("empty segment"),
            "{url}: {}",
            reason(url)
        );
    }
}

mod warehouse {
    use super::*;

    fn warehouse() -> (tempfile::TempDir, WarehouseStorage) {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(dir.path().join("s3/x/data")).expect("folder");
        std::fs::write(dir.path().join("s3/x/data/a.parquet"), b"1").expect("file");
        std::fs::write(dir.path().join("secret"), b"1").expect("file");
        let storage = WarehouseStorage::open(dir.path()).expect("warehouse");
        (dir, storage)
    }

    fn check(urls: &[&str]) -> Result<()> {
        let (_dir, storage) = warehouse();
        let locations: Vec<_> = urls
            .iter()
            .map(|url| storage.locate(url).expect("location"))
            .collect();
        storage.check(&locations)
    }

    #[tokio::test]
    async fn any_bucket_reads_the_folder() {
        use futures::TryStreamExt;

        let (_dir, storage) = warehouse();
        let location = storage
            .locate("s3://some-bucket/x/data/")
            .expect("location");
        assert_eq!(location.url, "s3://some-bucket/x/data");
        let files: Vec<_> = location
            .store
            .list(Some(&location.prefix))
            .try_collect()
            .await
            .expect("list");
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].location.as_ref(), "x/data/a.parquet");
        assert!(storage.locate("s3://b/../secret").is_err());
    }

    #[test]
    fn a_directory_without_objects_is_no_warehouse() {
        let dir = tempfile::tempdir().expect("directory");
        let error = WarehouseStorage::open(dir.path()).expect_err("no s3 folder");
        assert_eq!(error.kind, Kind::FailedPrecondition);
        assert!(error.message.contains("is not a warehouse"), "{error}");
    }

    #[test]
    fn locations_of_two_buckets_may_not_meet() {
        check(&[
            "s3://a/x",
            "s3://a/x",
            "s3://a/x/y",
            "s3://b/xx",
            "s3://b/z/x",
        ])
        .expect("apart");
        for urls in [
            ["s3://a/x", "s3://b/x"],
            ["s3://a/x", "s3://b/x/y/z"],
            ["s3://a/x/y/z", "s3://b/x"],
            ["s3://a", "s3://b/x"],
        ] {
            let error = check(&urls).expect_err("collision");
            assert_eq!(error.kind, Kind::FailedPrecondition);
            for url in urls {
                assert!(error.message.contains(&format!("'{url}'")), "{error}");
            }
        }
    }
}
