//! A folder as S3: read-only, over HTTP, every answer delayed by the same time.
//!
//! It answers `HEAD` of a bucket, `HEAD` and `GET` of an object (`Range`, `If-Match`) and
//! `ListObjectsV2` (prefix, delimiter, continuation token, start-after). Every bucket is the same
//! folder. The tree is read once, at the start. Signatures are not looked at.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::fs::File;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, LAST_MODIFIED, RANGE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::Result;
use crate::report::files;

/// Keys and common prefixes on one page, S3's own limit.
const PAGE: usize = 1000;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// The folder whose paths are the keys.
    #[arg(long)]
    pub(crate) root: PathBuf,
    #[arg(long, default_value_t = 20)]
    pub(crate) latency_ms: u64,
}

/// Prints the address and serves until the process is ended.
pub(crate) async fn run(arguments: Arguments) -> Result<Value> {
    let bucket = Arc::new(Bucket::read(&arguments.root)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let latency = Duration::from_millis(arguments.latency_ms);
    axum::serve(listener, router(bucket, latency)).await?;
    Ok(Value::Null)
}

pub(crate) fn router(bucket: Arc<Bucket>, latency: Duration) -> Router {
    let delayed = move |State(bucket): State<Arc<Bucket>>, request: Request| async move {
        tokio::time::sleep(latency).await;
        Ok::<_, Infallible>(bucket.answer(&request).unwrap_or_else(error))
    };
    Router::new().fallback(delayed).with_state(bucket)
}

/// The objects by key.
#[derive(Debug)]
pub(crate) struct Bucket {
    objects: BTreeMap<String, Object>,
}

#[derive(Debug)]
struct Object {
    path: PathBuf,
    size: u64,
    etag: String,
}

/// A failed request, as S3 names it.
type Code = (StatusCode, &'static str);

const NOT_FOUND: Code = (StatusCode::NOT_FOUND, "NoSuchKey");
const NOT_ALLOWED: Code = (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
const CHANGED: Code = (StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
const BAD_RANGE: Code = (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
const BROKEN: Code = (StatusCode::INTERNAL_SERVER_ERROR, "InternalError");

/// No object is younger than another here.
const MODIFIED_HTTP: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const MODIFIED_XML: &str = "2026-01-01T00:00:00.000Z";

impl Bucket {
    pub(crate) fn read(root: &std::path::Path) -> Result<Self> {
        let mut objects = BTreeMap::new();
        for path in files(root)? {
            let key = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let metadata = path.metadata()?;
            let written = metadata.modified()?.duration_since(UNIX_EPOCH)?;
            let size = metadata.len();
            let etag = format!("\"{:x}-{size:x}\"", written.as_nanos());
            objects.insert(key, Object { path, size, etag });
        }
        Ok(Self { objects })
    }

    fn answer(&self, request: &Request) -> Result<Response, Code> {
        let path = request.uri().path().trim_start_matches('/');
        let key = path.split_once('/').map_or("", |(_bucket, key)| key);
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(NOT_ALLOWED),
        };
        match (key, head) {
            ("", true) => Ok(Response::new(Body::empty())),
            ("", false) => self.list(request.uri().query().unwrap_or_default()),
            (key, _) => {
                let key = object_store::path::Path::from_url_path(key).map_err(|_| NOT_FOUND)?;
                let object = self.objects.get(key.as_ref()).ok_or(NOT_FOUND)?;
                object.get(request.headers(), head)
            }
        }
    }

    fn list(&self, query: &str) -> Result<Response, Code> {
        let (mut prefix, mut delimiter, mut after) = (String::new(), String::new(), String::new());
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "prefix" => prefix = value.into_owned(),
                "delimiter" => delimiter = value.into_owned(),
                // A token is the key or common prefix its page ended with.
                "continuation-token" | "start-after" => after = value.into_owned(),
                _ => {}
            }
        }
        let from = if after > prefix { &after } else { &prefix };
        let mut entries = String::new();
        let (mut count, mut last, mut truncated) = (0, String::new(), false);
        let range = (Bound::Included(from.as_str()), Bound::Unbounded);
        for (key, object) in self.objects.range::<str, _>(range) {
            let Some(rest) = key.strip_prefix(&prefix) else {
                break;
            };
            let folder = (!delimiter.is_empty())
                .then(|| rest.find(&delimiter))
                .flatten()
                .map(|end| &key[..prefix.len() + end + delimiter.len()]);
            let entry = folder.unwrap_or(key);
            if entry == last || entry <= after.as_str() {
                continue;
            }
            if count == PAGE {
                truncated = true;
                break;
            }
            let written = match folder {
                Some(folder) => write!(
                    entries,
                    "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
                ),
                None => write!(
                    entries,
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>{}</ETag>\
                     <LastModified>{MODIFIED_XML}</LastModified></Contents>",
                    object.size, object.etag
                ),
            };
            written.map_err(|_| BROKEN)?;
            count += 1;
            entry.clone_into(&mut last);
        }
        let next = if truncated {
            format!("<NextContinuationToken>{last}</NextContinuationToken>")
        } else {
            String::new()
        };
        Ok(Response::new(Body::from(format!(
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{truncated}</IsTruncated>\
             <KeyCount>{count}</KeyCount>{next}{entries}</ListBucketResult>"
        ))))
    }
}

impl Object {
    fn get(&self, headers: &HeaderMap, head: bool) -> Result<Response, Code> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(IF_MATCH).is_some_and(|etag| etag != self.etag) {
            return Err(CHANGED);
        }
        let range = match text(RANGE) {
            Some(range) => Some(self.range(range).ok_or(BAD_RANGE)?),
            None => None,
        };
        let (start, end) = range.unwrap_or((0, self.size));
        let mut response = Response::builder()
            .header(ETAG, &self.etag)
            .header(LAST_MODIFIED, MODIFIED_HTTP)
            .header(CONTENT_LENGTH, end - start);
        if range.is_some() {
            let shown = format!("bytes {start}-{}/{}", end - 1, self.size);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, shown);
        }
        let body = if head {
            Body::empty()
        } else {
            Body::from(self.bytes(start, end).map_err(|_| BROKEN)?)
        };
        response.body(body).map_err(|_| BROKEN)
    }

    fn bytes(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end - start)?];
        File::open(&self.path)?.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// The first byte and the one after the last, of `bytes=2-5`, `bytes=2-` and `bytes=-3`.
    fn range(&self, header: &str) -> Option<(u64, u64)> {
        let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
        let (start, end) = match (first, last) {
            ("", last) => (self.size.saturating_sub(last.parse().ok()?), self.size),
            (first, "") => (first.parse().ok()?, self.size),
            (first, last) => {
                let last: u64 = last.parse().ok()?;
                (first.parse().ok()?, self.size.min(last.checked_add(1)?))
            }
        };
        (start < end).then_some((start, end))
    }
}

fn error((status, code): Code) -> Response {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}
