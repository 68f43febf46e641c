use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::error::Kind;

/// Just enough of S3 over HTTP: it answers from a script by request line and keeps what it was
/// asked. It checks no signatures.
struct FakeS3 {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

type Script = BTreeMap<&'static str, &'static str>;

impl FakeS3 {
    /// `script`: start of a request line to a whole response.
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (script, seen) = (Arc::new(script), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { url, requests }
    }

    fn requests(&self, line: &str) -> Vec<String> {
        self.requests
            .lock()
            .iter()
            .filter(|request| request.starts_with(line))
            .cloned()
            .collect()
    }

    fn config(&self) -> SdkConfig {
        config().endpoint_url(format!("{}/", self.url)).build()
    }
}

async fn answer(mut stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let response = script.iter().find(|(line, _)| request.starts_with(*line));
    let response = response.map_or(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0",
        |(_, text)| text,
    );
    seen.lock().push(request);
    let response = if response.contains("\r\n\r\n") {
        response.to_owned()
    } else {
        format!("{response}\r\n\r\n")
    };
    let response = response.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    stream.write_all(response.as_bytes()).await.ok();
}

fn config() -> aws_types::sdk_config::Builder {
    let credentials = Credentials::new("AKID", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
}

const ONE_OBJECT: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\n\r\n\
    <?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents>\
    <Key>x/data/a.parquet</Key><Size>7</Size><ETag>\"e\"</ETag>\
    <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>";

async fn list(storage: &AwsStorage, url: &str) -> object_store::Result<Vec<String>> {
    let location = storage.locate(url).expect("location");
    let metas: Vec<_> = location
        .store
        .list(Some(&location.prefix))
        .try_collect()
        .await?;
    Ok(metas
        .into_iter()
        .map(|meta| meta.location.to_string())
        .collect())
}

#[tokio::test]
async fn requests_are_signed_for_the_region_of_the_bucket() {
    let fake = FakeS3::start(
        [
            (
                "HEAD /far ",
                "HTTP/1.1 403 Forbidden\r\nx-amz-bucket-region: ap-south-2",
            ),
            ("HEAD /near ", "HTTP/1.1 403 Forbidden\r\ncontent-length: 0"),
            ("GET /far?", ONE_OBJECT),
            ("GET /near?", ONE_OBJECT),
        ]
        .into(),
    )
    .await;
    let storage = AwsStorage::new(&fake.config()).expect("storage");
    for url in ["s3://far/x/data", "s3a://far/x/data/", "s3://near/x/data"] {
        assert_eq!(
            list(&storage, url).await.expect("list"),
            ["x/data/a.parquet"]
        );
    }
    // Once per bucket, not signed.
    let asked = fake.requests("HEAD /far ");
    assert_eq!(asked.len(), 1);
    assert!(
        !asked[0].to_lowercase().contains("authorization"),
        "{}",
        asked[0]
    );
    for (bucket, region) in [("far", "ap-south-2"), ("near", "eu-west-1")] {
        for request in fake.requests(&format!("GET /{bucket}?")) {
            assert!(
                request.contains(&format!("/{region}/s3/aws4_request")),
                "{request}"
            );
            assert!(request.contains("Credential=AKID/"), "{request}");
        }
    }
}

#[tokio::test]
async fn a_region_that_cannot_be_found_is_asked_for_again() {
    let fake =
        FakeS3::start([("HEAD /b ", "HTTP/1.1 503 Slow Down\r\ncontent-length: 0")].into()).await;
    let storage = AwsStorage::new(&fake.config()).expect("storage");
    for tries in [3, 6] {
        let location = storage.locate("s3://b/x").expect("location");
        let error = location.store.head(&"x/y".into()).await.expect_err("away");
        let error = Error::find(&error).expect("our error");
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains("bucket 'b'"), "{error}");
        assert_eq!(fake.requests("HEAD /b ").len(), tries);
    }
    assert_eq!(fake.requests("HEAD").len(), 6);
}

#[tokio::test]
async fn missing_credentials_are_named() {
    #[derive(Debug)]
    struct None;
    impl aws_credential_types::provider::ProvideCredentials for None {
        fn provide_credentials<'a>(
            &'a self,
        ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let error =
                aws_credential_types::provider::error::CredentialsError::not_loaded("no SSO");
            aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
        }
    }
    let fake = FakeS3::start([("HEAD /b ", "HTTP/1.1 200 OK")].into()).await;
    let config = config()
        .endpoint_url(&fake.url)
        .credentials_provider(SharedCredentialsProvider::new(None))
        .build();
    let storage = AwsStorage::new(&config).expect("storage");
    let error = list(&storage, "s3://b/x")
        .await
        .expect_err("no credentials");
    let error = Error::find(&error).expect("our error");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(
        error.message.contains("no SSO") && error.message.contains("profile"),
        "{error}"
    );
}

#[test]
fn endpoints_follow_region_and_partition() {
    let s3 =
        |build: aws_types::sdk_config::Builder| AwsStorage::new(&build.build()).expect("S3").s3;
    assert_eq!(
        s3(config()).base_url("eu-west-1"),
        "https://s3.eu-west-1.amazonaws.com"
    );
    assert_eq!(
        s3(config()).base_url("cn-north-1"),
        "https://s3.cn-north-1.amazonaws.com.cn"
    );
    assert_eq!(
        s3(config().use_fips(true).use_dual_stack(true)).base_url("us-gov-west-1"),
        "https://s3-fips.dualstack.us-gov-west-1.amazonaws.com"
    );
    assert_eq!(
        s3(config().endpoint_url("http://127.0.0.1:1/")).base_url("x"),
        "http://127.0.0.1:1"
    );
}

#[test]
fn set_up_mistakes_are_told_at_the_start() {
    let message = |config: SdkConfig| AwsStorage::new(&config).expect_err("mistake").message;
    let no_region = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .build();
    assert!(message(no_region).contains("AWS_REGION"));
    for endpoint in ["localhost:9000", "ftp://x", "http://x/?a=b"] {
        let text = message(config().endpoint_url(endpoint).build());
        assert!(text.contains(endpoint), "{text}");
    }
    let mut anonymous = config();
    anonymous.set_credentials_provider(None);
    assert!(message(anonymous.build()).contains("credentials"));
}

#[test]
fn the_endpoint_of_s3_alone_comes_first() {
    #[derive(Debug)]
    struct Environment;
    impl aws_types::service_config::LoadServiceConfig for Environment {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let variable = format!("{}_{}", key.env(), key.service_id());
            (variable == "AWS_ENDPOINT_URL_S3").then(|| "http://s3.local:1".to_owned())
        }
    }
    let config = config()
        .endpoint_url("http://all.local:2")
        .service_config(Environment)
        .build();
    assert_eq!(s3_endpoint(&config).as_deref(), Some("http://s3.local:1"));
}
