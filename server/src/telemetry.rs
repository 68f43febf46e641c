//! Logs: structured lines on stderr, as text for people or JSON for collectors. Queries log their
//! one line in the engine; the server adds the request's id to every line below a request.

use std::io::IsTerminal;

use featureflight_catalog::{Error, Result};
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Installs the process's subscriber.
///
/// # Errors
/// `InvalidArgument` when `log.level` cannot be read.
pub(crate) fn start(config: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| {
        Error::invalid(format!(
            "log.level '{}' is neither a level (error, warn, info, debug, trace) nor a list like \
             'info,featureflight_engine=debug': {error}",
            config.level
        ))
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // They would be printed, which panics when nobody reads standard error any more.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // A second start in one process (the demo inside a test) keeps the first subscriber.
    let _ = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
