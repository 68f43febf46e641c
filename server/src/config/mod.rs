//! The configuration: one TOML file, every key also an environment variable
//! (`FEATUREFLIGHT__SERVER__LISTEN`), the common ones also flags. Unknown keys are errors.

mod load;
mod machine;
#[cfg(test)]
mod tests;
mod units;
mod writes;

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

pub use load::ServeArgs;
pub use units::{Bytes, Span};
pub use writes::{OfflineConfig, OnlineConfig, OnlineKind, OutboxConfig};

/// Everything `serve` can be told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub http: HttpConfig,
    pub catalog: CatalogConfig,
    pub storage: StorageConfig,
    pub outbox: OutboxConfig,
    pub online: OnlineConfig,
    pub offline: OfflineConfig,
    pub engine: EngineConfig,
    pub log: LogConfig,
}

/// The listener, and what the server keeps for its clients.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Listen beyond loopback although nothing authenticates clients.
    pub insecure: bool,
    /// Signs tickets and prepared-statement handles; servers that share it accept each other's
    /// prepared statements. Random at every start when absent.
    pub signing_key: Option<Secret>,
    /// How long a ticket can be fetched.
    pub ticket_ttl: Span,
    /// How many executed statements wait to be fetched; the oldest go first.
    pub max_tickets: usize,
    /// What those statements may hold together, about; large ones leave room for fewer.
    pub ticket_memory: Bytes,
    /// A polled statement that nobody asks for during this time is given up; two seconds at least.
    pub poll_ttl: Span,
    pub max_connections: usize,
    /// Of clients at one address: a proxy's clients are all at one.
    pub max_connections_per_address: usize,
    /// Concurrent calls per connection.
    pub max_streams: u32,
    /// Sessions named by a bearer or a cookie.
    pub max_sessions: usize,
    /// How long a client may take to open HTTP/2 on its connection.
    pub handshake_timeout: Span,
    /// A client that takes nothing from its result, or sends nothing of its request, for this long
    /// loses the call.
    pub stall_timeout: Span,
    /// How long a client may take to send all of one request, uploads included.
    pub request_timeout: Span,
    /// Where clients can fetch results, as a Flight location (`grpc+tcp://host:port`); when absent
    /// they use the connection they have.
    pub advertised_address: Option<String>,
    /// A result that computes for so long without rows sends an empty batch; 0 sends none.
    pub keep_alive: Span,
    /// Largest message a client may send: a batch of an upload, for the most part.
    pub max_message: Bytes,
    /// How long running calls may go on after the server was told to stop.
    pub shutdown_grace: Span,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:50051".into(),
            insecure: false,
            signing_key: None,
            ticket_ttl: Span::from_secs(15 * 60),
            max_tickets: 1_000,
            ticket_memory: Bytes(256 << 20),
            poll_ttl: Span::from_secs(60),
            max_connections: 512,
            max_connections_per_address: 384,
            max_streams: 64,
            max_sessions: 10_000,
            handshake_timeout: Span::from_secs(10),
            stall_timeout: Span::from_secs(5 * 60),
            request_timeout: Span::from_secs(60 * 60),
            advertised_address: None,
            keep_alive: Span::from_secs(20),
            max_message: Bytes(64 << 20),
            shutdown_grace: Span::from_secs(10),
        }
    }
}

/// The port for metrics and health.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// `host:port`; port 0 takes a free one. Without it there is no such port.
    pub listen: Option<String>,
}

/// Where feature groups are described.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CatalogConfig {
    pub kind: Option<CatalogKind>,
    /// For `files`: the directory that holds `feature-groups/` and `glue-tables/`.
    pub directory: Option<PathBuf>,
    /// For `aws`: further Glue databases to serve raw, beside those the feature groups name.
    #[serde(deserialize_with = "names")]
    pub databases: Vec<String>,
    /// How often the catalog is read again; 0 reads it only at start.
    pub refresh: Span,
    pub create: CreateConfig,
}

/// For `aws`: what `CREATE TABLE` makes feature groups with. Without role and place it makes none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CreateConfig {
    /// The role that writes the offline store.
    pub role_arn: Option<String>,
    /// Where offline stores lie: `s3://BUCKET/PREFIX`.
    pub s3_uri: Option<String>,
    /// Encrypts both stores; AWS's own key without it.
    pub kms_key: Option<String>,
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            kind: None,
            directory: None,
            databases: Vec::new(),
            refresh: Span::from_secs(60),
            create: CreateConfig::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// JSON files as the AWS command line prints them.
    Files,
    /// SageMaker and Glue.
    Aws,
}

/// Where `s3://` locations are read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    pub kind: Option<StorageKind>,
    /// For `warehouse`: the directory that holds `s3/`.
    pub directory: Option<PathBuf>,
    /// For `warehouse`: claim it, so that this server, and no other one, writes its groups.
    pub own: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// A local directory.
    Warehouse,
    /// S3.
    Aws,
}

/// Limits and times of query execution.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineConfig {
    /// Life of a cached listing; 0 lists on every statement.
    pub list_cache_ttl: Span,
    pub footer_cache: Bytes,
    /// Requests to the object store that one operator of a query has in flight.
    pub requests_in_flight: usize,
    /// Bytes of files that one operator of a query fetches before they are decoded, about.
    pub read_ahead: Bytes,
    /// Memory all queries share. Half of the machine's by default.
    pub memory_limit: Bytes,
    /// Memory of the whole process: beyond it the largest query is given up. Seven eighths of the
    /// machine's by default.
    pub process_memory_limit: Bytes,
    /// The system's temporary directory when absent.
    pub spill_directory: Option<PathBuf>,
    pub spill_limit: Bytes,
    /// Threads one query may use. All of the machine's by default.
    pub target_partitions: usize,
    /// Longest statement text.
    pub max_sql: Bytes,
    pub max_running_queries: usize,
    pub max_queued_queries: usize,
    /// All temporary tables of one session.
    pub max_upload: Bytes,
    pub max_upload_rows: u64,
    /// Longest planning of one statement, listings included.
    pub planning_timeout: Span,
    /// 0 lets queries run for ever.
    pub query_timeout: Span,
    /// A system-time cut younger than this may still gain rows, and is flagged.
    pub settling_time: Span,
    pub idle_session_timeout: Span,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            list_cache_ttl: Span::from_secs(30),
            footer_cache: Bytes(256 << 20),
            requests_in_flight: 32,
            read_ahead: Bytes(32 << 20),
            memory_limit: Bytes(machine::memory_bytes() / 2),
            process_memory_limit: Bytes(machine::memory_bytes() / 8 * 7),
            spill_directory: None,
            spill_limit: Bytes(8 << 30),
            target_partitions: machine::threads(),
            max_sql: Bytes(256 << 10),
            max_running_queries: 2 * machine::threads().max(4),
            max_queued_queries: 64,
            max_upload: Bytes(1 << 30),
            max_upload_rows: 100_000_000,
            planning_timeout: Span::from_secs(2 * 60),
            query_timeout: Span::from_secs(60 * 60),
            settling_time: Span::from_secs(20 * 60),
            idle_session_timeout: Span::from_secs(60 * 60),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or levels per module: `info,featureflight_engine=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// Text that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

const MASK: &str = "********";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A list, or text with commas, as environment variables have it.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of names")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text
                .split(',')
                .map(str::trim)
                .filter(|n| !n.is_empty())
                .map(Into::into)
                .collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    deserializer.deserialize_any(Names)
}
