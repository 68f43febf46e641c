//! From the file, the environment and the flags to a checked [`Config`].

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{ConfigBuilder, ConfigError, Environment, File, FileFormat};
use featureflight_catalog::{Error, Result};
use serde_json::Value;

use super::{CatalogKind, Config, LogFormat, OnlineKind, Secret, StorageKind};

/// Shorter keys can be guessed.
/// How locations of Flight begin.
const FLIGHT_SCHEMES: [&str; 3] = ["grpc://", "grpc+tcp://", "grpc+tls://"];

const MIN_SIGNING_KEY_BYTES: usize = 32;

/// The flags of `serve`.
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Read this TOML file
    #[arg(long, value_name = "FILE", env = "FEATUREFLIGHT_CONFIG")]
    pub config: Option<PathBuf>,

    /// Serve this directory: feature-groups/*.json, glue-tables/*.json and s3/
    #[arg(long, value_name = "DIR", conflicts_with = "aws")]
    pub warehouse: Option<PathBuf>,

    /// With --warehouse: claim the directory, so that this server writes its feature groups
    #[arg(long, requires = "warehouse")]
    pub own: bool,

    /// Serve the feature groups of the AWS account, with the usual credentials, region and endpoints
    #[arg(long)]
    pub aws: bool,

    /// With --aws: also serve this Glue database raw (may be repeated)
    #[arg(long = "aws-database", value_name = "NAME")]
    pub databases: Vec<String>,

    /// Address to listen on [default: 127.0.0.1:50051]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address for metrics and health over HTTP: /metrics, /healthz, /readyz
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,

    /// Listen beyond loopback although anyone who can connect may read everything
    #[arg(long)]
    pub insecure: bool,

    /// error, warn, info, debug, trace, or levels per module [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Form of the log lines [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Print the effective configuration as TOML, secrets masked, and exit
    #[arg(long)]
    pub print_config: bool,
}

impl Config {
    /// The effective configuration of a command line: file, then environment, then flags.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that cannot be read, an unknown key, or a value out of its
    /// range; the message names the key and where it stands.
    pub fn load(args: &ServeArgs) -> Result<Self> {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let config = Self::merge(args, environment)?;
        // Printing is how one finds out what is missing.
        if !args.print_config {
            config.check()?;
        }
        Ok(config)
    }

    /// What a warehouse directory needs, and defaults.
    #[must_use]
    pub fn for_warehouse(directory: &Path) -> Self {
        let mut config = Self::default();
        config.catalog.kind = Some(CatalogKind::Files);
        config.catalog.directory = Some(directory.to_path_buf());
        config.storage.kind = Some(StorageKind::Warehouse);
        config.storage.directory = Some(directory.to_path_buf());
        config
    }

    pub(super) fn merge(args: &ServeArgs, environment: HashMap<String, String>) -> Result<Self> {
        let mut builder = config::Config::builder();
        if let Some(file) = &args.config {
            // `config::File` guesses extensions and tries several names; a named file is that file.
            let text = std::fs::read_to_string(file).map_err(|error| {
                Error::invalid(format!(
                    "cannot read the configuration {}: {error}",
                    file.display()
                ))
                .with_source(error)
            })?;
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        builder = builder.add_source(
            // No parsing of values here: a signing key of digits would become a rounded number.
            Environment::with_prefix("FEATUREFLIGHT")
                .prefix_separator("__")
                .separator("__")
                .source(Some(environment)),
        );
        let merged = flags(builder, args).and_then(ConfigBuilder::<DefaultState>::build);
        merged
            .and_then(config::Config::try_deserialize)
            .map_err(|error| {
                let place = match &args.config {
                    Some(file) => format!("{} or the environment", file.display()),
                    None => "the environment".to_owned(),
                };
                Error::invalid(format!("bad configuration in {place}: {error}"))
            })
    }

    /// # Errors
    /// `InvalidArgument` with the key and the reason.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |reason: &str| Err(Error::invalid(format!("bad configuration: {reason}")));
        if self.catalog.kind.is_none() || self.storage.kind.is_none() {
            return refuse(
                "nothing to serve: pass --warehouse DIR, or --aws, or set catalog.kind and \
                 storage.kind in a file named by --config",
            );
        }
        if self.catalog.kind == Some(CatalogKind::Files) && self.catalog.directory.is_none() {
            return refuse("catalog.kind = \"files\" needs catalog.directory");
        }
        if self.storage.kind == Some(StorageKind::Warehouse) && self.storage.directory.is_none() {
            return refuse("storage.kind = \"warehouse\" needs storage.directory");
        }
        let is_warehouse = self.storage.kind == Some(StorageKind::Warehouse)
            && self.catalog.kind == Some(CatalogKind::Files);
        if self.storage.own && !is_warehouse {
            return refuse(
                "storage.own claims a warehouse: it needs storage.kind = \"warehouse\" and \
                 catalog.kind = \"files\"",
            );
        }
        if self.online.kind == OnlineKind::Redis && self.online.url.is_none() {
            return refuse("online.kind = \"redis\" needs online.url");
        }
        if let Some(address) = &self.server.advertised_address
            && !FLIGHT_SCHEMES
                .iter()
                .any(|scheme| address.starts_with(scheme))
        {
            return refuse(&format!(
                "server.advertised_address = \"{address}\" is no Flight location: write \
                 grpc+tcp://HOST:PORT or grpc+tls://HOST:PORT"
            ));
        }
        let key = self.server.signing_key.as_ref().map(Secret::reveal);
        if key.is_some_and(|key| key.len() < MIN_SIGNING_KEY_BYTES) {
            return refuse("server.signing_key needs at least 32 characters");
        }
        for (name, value) in [
            ("server.max_tickets", self.server.max_tickets),
            ("server.max_connections", self.server.max_connections),
            (
                "server.max_connections_per_address",
                self.server.max_connections_per_address,
            ),
            ("server.max_streams", self.server.max_streams as usize),
            ("server.max_message", self.server.max_message.0 as usize),
            ("server.max_sessions", self.server.max_sessions),
            ("engine.target_partitions", self.engine.target_partitions),
            ("engine.requests_in_flight", self.engine.requests_in_flight),
            ("online.calls", self.online.calls),
            (
                "engine.max_running_queries",
                self.engine.max_running_queries,
            ),
        ] {
            if value == 0 {
                return refuse(&format!("{name} must be at least 1"));
            }
        }
        for (name, value) in [
            ("server.handshake_timeout", self.server.handshake_timeout),
            ("server.stall_timeout", self.server.stall_timeout),
            ("server.request_timeout", self.server.request_timeout),
            ("engine.planning_timeout", self.engine.planning_timeout),
            ("outbox.checkpoint", self.outbox.checkpoint),
            ("online.timeout", self.online.timeout),
        ] {
            if value.0.is_zero() {
                return refuse(&format!("{name} must be longer than 0"));
            }
        }
        Ok(())
    }

    /// The configuration as a TOML file, secrets masked, absent keys as comments.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        if let Ok(Value::Object(sections)) = serde_json::to_value(self) {
            for (name, section) in sections {
                write_section(&mut text, &name, section);
            }
        }
        text
    }
}

/// A section and those inside it.
fn write_section(text: &mut String, name: &str, section: Value) {
    let Value::Object(keys) = section else {
        return;
    };
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "[{name}]");
    let mut inside = Vec::new();
    for (key, value) in keys {
        // JSON's scalars and lists of text are TOML's.
        let _ = match value {
            Value::Null => writeln!(text, "# {key} ="),
            Value::Object(_) => {
                inside.push((format!("{name}.{key}"), value));
                Ok(())
            }
            value => writeln!(text, "{key} = {value}"),
        };
    }
    for (name, section) in inside {
        write_section(text, &name, section);
    }
}

fn flags(
    builder: ConfigBuilder<DefaultState>,
    args: &ServeArgs,
) -> Result<ConfigBuilder<DefaultState>, ConfigError> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut builder = builder
        .set_override_option("server.listen", args.listen.clone())?
        .set_override_option("http.listen", args.http_listen.clone())?
        .set_override_option("log.level", args.log_level.clone())?
        .set_override_option(
            "log.format",
            args.log_format.map(|format| match format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }),
        )?;
    if args.insecure {
        builder = builder.set_override("server.insecure", true)?;
    }
    if let Some(directory) = &args.warehouse {
        builder = builder
            .set_override("catalog.kind", "files")?
            .set_override("catalog.directory", path(directory))?
            .set_override("storage.kind", "warehouse")?
            .set_override("storage.directory", path(directory))?;
    }
    if args.own {
        builder = builder.set_override("storage.own", true)?;
    }
    if args.aws {
        builder = builder
            .set_override("catalog.kind", "aws")?
            .set_override("storage.kind", "aws")?;
    }
    if !args.databases.is_empty() {
        builder = builder.set_override("catalog.databases", args.databases.clone())?;
    }
    Ok(builder)
}
