//! The store of one bucket, opened on first use: requests are signed for the region the bucket
//! is in, and only S3 knows which that is.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::sync::OnceCell;

use super::{Endpoint, S3};
use crate::error::Error;

/// A bucket of S3; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct BucketStore {
    bucket: Arc<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    s3: Arc<S3>,
    name: String,
    /// A failure to find the region is not kept: the next request tries again.
    store: OnceCell<Arc<dyn ObjectStore>>,
}

impl BucketStore {
    pub(super) fn new(s3: &Arc<S3>, name: &str) -> Self {
        let bucket = Bucket {
            s3: Arc::clone(s3),
            name: name.to_owned(),
            store: OnceCell::new(),
        };
        Self {
            bucket: Arc::new(bucket),
        }
    }

    async fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        let open = || async {
            let region =
                self.bucket
                    .region()
                    .await
                    .map_err(|error| object_store::Error::Generic {
                        store: "S3",
                        source: Box::new(error),
                    })?;
            self.bucket.s3.open(&self.bucket.name, &region)
        };
        self.bucket.store.get_or_try_init(open).await.cloned()
    }

    /// A stream of the opened store, which is opened when the stream is first polled.
    fn deferred<T: Send + 'static>(
        &self,
        stream: impl FnOnce(Arc<dyn ObjectStore>) -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let this = self.clone();
        let opened = async move { this.store().await.map(stream) };
        futures::stream::once(opened).try_flatten().boxed()
    }
}

impl Bucket {
    const TRIES: u32 = 3;

    /// S3 names the region of any bucket to anyone, also when it refuses the request itself.
    async fn region(&self) -> Result<String, Error> {
        let mut failure = Error::internal("no try to find the region of a bucket was made");
        for attempt in 0..Self::TRIES {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
            }
            match self.ask_region().await {
                Err(error) if error.kind == crate::Kind::Unavailable => failure = error,
                outcome => return outcome,
            }
        }
        Err(failure)
    }

    async fn ask_region(&self) -> Result<String, Error> {
        let bucket = &self.name;
        let away = |why: String| {
            Error::unavailable(format!(
                "the region of S3 bucket '{bucket}' cannot be found: {why}"
            ))
        };
        let url = format!("{}/{bucket}", self.s3.base_url(&self.s3.region));
        let options = self
            .s3
            .client_options()
            .with_timeout(Duration::from_secs(10));
        let client = ReqwestConnector::default()
            .connect(&options)
            .map_err(|error| away(error.to_string()).with_source(error))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = "HEAD"
            .parse()
            .map_err(|_| Error::internal("HEAD is no method"))?;
        *request.uri_mut() = url
            .parse()
            .map_err(|_| away(format!("'{url}' is not a URL")))?;
        let response = client
            .execute(request)
            .await
            .map_err(|error| away("S3 cannot be reached".to_owned()).with_source(error))?;
        let named = response.headers().get("x-amz-bucket-region");
        if let Some(region) = named.and_then(|value| value.to_str().ok()) {
            return Ok(region.to_owned());
        }
        match (response.status().as_u16(), &self.s3.endpoint) {
            (429 | 500.., _) => Err(away(format!("S3 answered {}", response.status()))),
            (404, Endpoint::Aws { .. }) => Err(Error::precondition(format!(
                "S3 bucket '{bucket}' does not exist"
            ))),
            _ => Ok(self.s3.region.clone()),
        }
    }
}

impl fmt::Display for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3 bucket {}", self.bucket.name)
    }
}

#[async_trait]
impl ObjectStore for BucketStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store()
            .await?
            .put_opts(location, payload, options)
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store()
            .await?
            .put_multipart_opts(location, options)
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store().await?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store().await?.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.deferred(move |store| store.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.deferred(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.deferred(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store().await?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store().await?.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store().await?.rename_opts(from, to, options).await
    }
}
