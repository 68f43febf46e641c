//! What is configured about writing: the outbox, and the online store behind it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Bytes, Secret, Span};

/// The durable queue every write goes through.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// False: this server only reads.
    pub enabled: bool,
    /// `outbox/` in the warehouse when absent; without a warehouse nothing is written then.
    pub directory: Option<PathBuf>,
    /// 0 acknowledges after an fsync. Anything else acknowledges before it and has one this long
    /// after at the latest: a power cut may lose what came in between.
    pub sync_every: Span,
    /// A new segment file is begun beyond this size.
    pub segment: Bytes,
    /// Writes are refused while more than this waits.
    pub max_size: Bytes,
    /// Writes are refused while the disk has less than this.
    pub reserve: Bytes,
    /// How often it is saved what was forwarded; a crash sends again what came since.
    pub checkpoint: Span,
    /// How long idempotency keys are remembered.
    pub key_window: Span,
    /// Start although acknowledged writes are damaged, and go on with what is left.
    pub accept_damage: bool,
    /// Event times further ahead of the clock are refused; 0 sets no bound.
    pub max_future: Span,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            directory: None,
            sync_every: Span::from_secs(0),
            segment: Bytes(128 << 20),
            max_size: Bytes(8 << 30),
            reserve: Bytes(256 << 20),
            checkpoint: Span(std::time::Duration::from_millis(200)),
            key_window: Span::from_secs(24 * 60 * 60),
            accept_damage: false,
            max_future: Span::from_secs(24 * 60 * 60),
        }
    }
}

/// The offline files of a warehouse this server owns, and those that SageMaker writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfflineConfig {
    /// A group's accepted rows become files when so much of them waits,
    pub max_size: Bytes,
    /// or when the oldest has waited for so long.
    pub max_age: Span,
    /// `OPTIMIZE TABLE` joins small files into files of this size, about.
    pub file_size: Bytes,
    /// Files that `OPTIMIZE TABLE` replaced are kept for so long, for results that were executed
    /// before and are not read yet.
    pub grace: Span,
    /// What SageMaker took and has not written for so long is not shown any more.
    pub max_pending: Span,
}

impl Default for OfflineConfig {
    fn default() -> Self {
        Self {
            max_size: Bytes(64 << 20),
            max_age: Span::from_secs(5 * 60),
            file_size: Bytes(128 << 20),
            grace: Span::from_secs(2 * 60 * 60),
            max_pending: Span::from_secs(60 * 60),
        }
    }
}

/// The online store of a warehouse this server owns. SageMaker's groups take SageMaker's runtime,
/// of which only `timeout` and `calls` are set here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineConfig {
    pub kind: OnlineKind,
    /// For `embedded`: `online/` in the warehouse when absent.
    pub directory: Option<PathBuf>,
    /// For `dynamodb`: its table, which is made when it is not there.
    pub table: String,
    /// For `redis`: `redis://HOST:PORT`, or `rediss://` for TLS.
    pub url: Option<Secret>,
    /// For `redis`: what keys begin with.
    pub prefix: String,
    /// Of one call.
    pub timeout: Span,
    /// Calls at once, at most; throttling lowers it for a while. Not for `embedded` and `redis`.
    pub calls: usize,
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self {
            kind: OnlineKind::Embedded,
            directory: None,
            table: "featureflight".into(),
            url: None,
            prefix: "featureflight:".into(),
            timeout: Span::from_secs(10),
            calls: 64,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnlineKind {
    /// A file of this machine.
    Embedded,
    DynamoDb,
    Redis,
}
