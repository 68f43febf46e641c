//! S3 with what `aws-config` finds: credentials, region and endpoint. One store per bucket.

mod bucket;
mod credentials;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use object_store::aws::{AmazonS3Builder, AwsCredentialProvider};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;
use url::Url;

use super::{Location, S3Url, Storage};
use crate::error::{Error, Result};
use bucket::BucketStore;
use credentials::SdkCredentials;

/// The S3 of an AWS account, or a stand-in for it.
#[derive(Debug)]
pub struct AwsStorage {
    s3: Arc<S3>,
    buckets: Mutex<HashMap<String, Arc<BucketStore>>>,
}

/// What every bucket's store is made of.
struct S3 {
    /// Where buckets are unless they say otherwise.
    region: String,
    endpoint: Endpoint,
    credentials: AwsCredentialProvider,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Endpoint {
    Aws {
        fips: bool,
        dual_stack: bool,
    },
    /// Of a stand-in or a VPC; without a trailing slash.
    Custom(String),
}

impl AwsStorage {
    /// # Errors
    /// `FailedPrecondition` when `config` has no region or no credentials provider, or its
    /// endpoint for S3 is not an `http(s)` URL.
    pub fn new(config: &SdkConfig) -> Result<Self> {
        let region = config.region().ok_or_else(|| {
            Error::precondition(
                "no AWS region is set: set it in the configuration, in AWS_REGION or in the profile",
            )
        })?;
        let provider = config.credentials_provider().ok_or_else(|| {
            Error::precondition("reading S3 needs AWS credentials, and their use is turned off")
        })?;
        let endpoint = match s3_endpoint(config) {
            Some(url) => Endpoint::Custom(checked_endpoint(&url)?),
            None => Endpoint::Aws {
                fips: config.use_fips().unwrap_or_default(),
                dual_stack: config.use_dual_stack().unwrap_or_default(),
            },
        };
        let s3 = S3 {
            region: region.to_string(),
            endpoint,
            credentials: Arc::new(SdkCredentials::new(provider)),
        };
        Ok(Self {
            s3: Arc::new(s3),
            buckets: Mutex::default(),
        })
    }
}

impl Storage for AwsStorage {
    fn locate(&self, url: &str) -> Result<Location> {
        let s3_url = S3Url::parse(url)?;
        let mut buckets = self.buckets.lock();
        let store = buckets
            .entry(s3_url.bucket.clone())
            .or_insert_with(|| Arc::new(BucketStore::new(&self.s3, &s3_url.bucket)));
        let store = Arc::clone(store) as Arc<dyn ObjectStore>;
        Ok(Location {
            store,
            url: s3_url.to_string(),
            prefix: s3_url.key,
            rewritten: false,
        })
    }
}

impl S3 {
    /// The URL buckets of `region` hang below, by path.
    fn base_url(&self, region: &str) -> String {
        match &self.endpoint {
            Endpoint::Custom(url) => url.clone(),
            Endpoint::Aws { fips, dual_stack } => {
                let service = if *fips { "s3-fips" } else { "s3" };
                let stack = if *dual_stack { ".dualstack" } else { "" };
                format!("https://{service}{stack}.{region}.{}", dns_suffix(region))
            }
        }
    }

    fn client_options(&self) -> ClientOptions {
        let plain = matches!(&self.endpoint, Endpoint::Custom(url) if url.starts_with("http://"));
        ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(Duration::from_secs(3))
            .with_timeout(Duration::from_mins(1))
    }

    fn open(&self, bucket: &str, region: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let store = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_endpoint(self.base_url(region))
            .with_client_options(self.client_options())
            .with_credentials(Arc::clone(&self.credentials))
            .with_retry(retry_config())
            .build()?;
        Ok(Arc::new(store))
    }
}

/// Four tries within seconds: a query waits for them.
fn retry_config() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(30),
    }
}

/// As the SDK clients resolve it: an endpoint set in code, then S3's own in environment or
/// profile (`AWS_ENDPOINT_URL_S3`), then the one for every service.
fn s3_endpoint(config: &SdkConfig) -> Option<String> {
    let general = config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return general;
    }
    let key = ServiceConfigKey::builder()
        .service_id("S3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    config
        .service_config()
        .and_then(|service| service.load_config(key))
        .or(general)
}

fn checked_endpoint(text: &str) -> Result<String> {
    let valid = Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
    });
    if valid {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(Error::precondition(format!(
            "the endpoint for S3, '{text}', is not an http(s) URL"
        )))
    }
}

fn dns_suffix(region: &str) -> &'static str {
    const SUFFIXES: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("us-iso-", "c2s.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    let suffix = SUFFIXES
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix));
    suffix.map_or("amazonaws.com", |(_, suffix)| suffix)
}

#[cfg(test)]
mod tests;
