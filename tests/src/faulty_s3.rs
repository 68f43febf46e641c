//! S3's wire over the files of a warehouse, with a switch: what a proxy or an imitation of S3 does
//! when it is broken. The client under test is the real one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_config::SdkConfig;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use futures::StreamExt;
use parking_lot::Mutex;

use crate::loopback::{Loopback, sdk_config};

const ETAG: &str = "\"one\"";
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";

/// What answers of data files are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpFault {
    None,
    /// Other bytes than were asked for, and it says so.
    OtherRange,
    /// Other bytes than were asked for, under the name of those that were.
    OtherBytes,
    /// All of the file with status 200, as from a server that knows no ranges.
    NoRange,
    /// The body ends before its announced length.
    Short,
    /// A body that is shorter than what was asked for, and announces just that.
    ShortAndSaysSo,
    /// Headers, and then nothing.
    Stalled,
    /// Status 500, again and again.
    Failing,
}

/// See the module.
#[derive(Debug)]
pub struct FaultyS3 {
    state: Arc<Store>,
    server: Loopback,
}

#[derive(Debug)]
struct Store {
    /// The keys of every bucket lie below it.
    root: PathBuf,
    /// The fault, and how many answers are good before.
    fault: Mutex<(HttpFault, usize)>,
}

impl FaultyS3 {
    /// Serves the files below `root`, in every bucket.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn serve(root: &Path) -> Self {
        let state = Arc::new(Store {
            root: root.to_owned(),
            fault: Mutex::new((HttpFault::None, 0)),
        });
        let server = Loopback::serve(&state, answer).await;
        Self { state, server }
    }

    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.server.url)
    }

    /// From now on answers are wrong, after `good` that are not.
    pub fn fail(&self, fault: HttpFault, good: usize) {
        *self.state.fault.lock() = (fault, good);
    }
}

impl Store {
    fn due(&self) -> HttpFault {
        let mut fault = self.fault.lock();
        if fault.1 > 0 {
            fault.1 -= 1;
            return HttpFault::None;
        }
        fault.0
    }
}

async fn answer(State(store): State<Arc<Store>>, request: Request) -> Response<Body> {
    let path = request.uri().path().trim_matches('/').to_owned();
    let Some((_bucket, key)) = path.split_once('/') else {
        return list(&store.root, request.uri().query());
    };
    let key = object_store::path::Path::from_url_path(key).unwrap();
    let data = key.as_ref().ends_with(".parquet");
    let Ok(bytes) = std::fs::read(store.root.join(key.as_ref())) else {
        return plain(StatusCode::NOT_FOUND);
    };
    let range = request.headers().get("range");
    let range = range.map(|range| asked(range.to_str().unwrap(), bytes.len()));
    let fault = if data && request.method() == Method::GET {
        store.due()
    } else {
        HttpFault::None
    };
    let (start, end) = range.unwrap_or((0, bytes.len()));
    let part = &bytes[start..end];
    let mut other = part.to_vec();
    other.rotate_left(1);
    let length = part.len();
    let half = part[..length / 2].to_vec();
    let (said, length, body) = match fault {
        HttpFault::None => (start, length, Body::from(part.to_vec())),
        HttpFault::OtherRange => (start + 1, length, Body::from(other)),
        HttpFault::OtherBytes => (start, length, Body::from(other)),
        HttpFault::NoRange => (0, bytes.len(), Body::from(bytes.clone())),
        HttpFault::Short => {
            let half = futures::stream::iter([Ok::<_, std::io::Error>(half)]);
            (start, length, Body::from_stream(half))
        }
        HttpFault::ShortAndSaysSo => (start, half.len(), Body::from(half)),
        HttpFault::Stalled => {
            let first = futures::stream::iter([Ok::<_, std::io::Error>(half)]);
            (
                start,
                length,
                Body::from_stream(first.chain(futures::stream::pending())),
            )
        }
        HttpFault::Failing => return plain(StatusCode::INTERNAL_SERVER_ERROR),
    };
    let mut response = Response::builder()
        .header("etag", ETAG)
        .header("last-modified", MODIFIED)
        .header("content-length", length);
    if range.is_some() && fault != HttpFault::NoRange {
        let last = said + length.max(1) - 1;
        let shown = format!("bytes {said}-{last}/{}", bytes.len());
        response = response
            .status(StatusCode::PARTIAL_CONTENT)
            .header("content-range", shown);
    }
    let body = if request.method() == Method::HEAD {
        Body::empty()
    } else {
        body
    };
    response.body(body).unwrap()
}

/// `bytes=2-5`, `bytes=2-` and `bytes=-3`.
fn asked(header: &str, size: usize) -> (usize, usize) {
    let range = header.trim_start_matches("bytes=");
    let (first, last) = range.split_once('-').unwrap();
    match (first, last) {
        ("", last) => (size.saturating_sub(last.parse().unwrap()), size),
        (first, "") => (first.parse().unwrap(), size),
        (first, last) => (
            first.parse().unwrap(),
            size.min(last.parse::<usize>().unwrap() + 1),
        ),
    }
}

/// One page of all that begins with the prefix.
fn list(bucket: &Path, query: Option<&str>) -> Response<Body> {
    let value = |name: &str| {
        let pairs = query.unwrap_or_default().split('&');
        let found = pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name);
        found.map(|(_, value)| {
            value
                .replace("%2F", "/")
                .replace("%3D", "=")
                .replace("%2f", "/")
        })
    };
    let prefix = value("prefix").unwrap_or_default();
    let delimiter = value("delimiter").unwrap_or_default();
    let mut keys = Vec::new();
    below(bucket, bucket, &mut keys);
    keys.sort();
    let (mut entries, mut seen) = (String::new(), String::new());
    for (key, size) in keys.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let rest = &key[prefix.len()..];
        match rest.find('/').filter(|_| !delimiter.is_empty()) {
            Some(end) => {
                let folder = &key[..=prefix.len() + end];
                if folder != seen {
                    entries +=
                        &format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
                    folder.clone_into(&mut seen);
                }
            }
            None => {
                entries += &format!(
                    "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>{ETAG}</ETag>\
                     <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                );
            }
        }
    }
    Response::new(Body::from(format!(
        "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>\
         <KeyCount>1</KeyCount>{entries}</ListBucketResult>"
    )))
}

fn below(root: &Path, directory: &Path, keys: &mut Vec<(String, u64)>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.is_dir() {
            below(root, &path, keys);
        } else {
            let key = path.strip_prefix(root).unwrap().to_str().unwrap();
            keys.push((key.to_owned(), entry.metadata().unwrap().len()));
        }
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
