//! The command line of `featureflight sql`.

use std::path::{Path, PathBuf};

use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::MaxRows;

use crate::connection::Target;
use crate::error::CliError;

/// Where `featureflight serve` listens unless told otherwise.
pub const DEFAULT_URL: &str = "grpc://127.0.0.1:50051";

/// A SQL shell over Flight SQL.
#[derive(Debug, Clone, clap::Args)]
pub struct SqlArgs {
    /// Address of the server: grpc://HOST:PORT.
    #[arg(long, env = "FEATUREFLIGHT_URL", default_value = DEFAULT_URL)]
    pub url: String,

    /// Run these statements and end; may be given several times. Runs before -f.
    #[arg(
        short = 'c',
        long = "command",
        value_name = "SQL",
        allow_hyphen_values = true
    )]
    pub commands: Vec<String>,

    /// Run the statements of this file (`-` is standard input) and end; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How results are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub format: Format,

    /// Rows a table prints at most: a number, or `none` for no limit. Other formats print all.
    #[arg(long, value_name = "ROWS", default_value = "40")]
    pub max_rows: MaxRows,

    /// User name of the handshake.
    #[arg(long, env = "FEATUREFLIGHT_USER")]
    pub user: Option<String>,

    /// Password of the handshake.
    #[arg(long, env = "FEATUREFLIGHT_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,

    /// A gRPC header sent with every call; may be given several times.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,

    /// Print results only: no row counts, no times.
    #[arg(short, long)]
    pub quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Table,
    Csv,
    Tsv,
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
}

impl Format {
    pub(crate) fn print_format(self) -> PrintFormat {
        match self {
            Self::Table => PrintFormat::Table,
            Self::Csv => PrintFormat::Csv,
            Self::Tsv => PrintFormat::Tsv,
            Self::Json => PrintFormat::Json,
            Self::Ndjson => PrintFormat::NdJson,
        }
    }
}

impl SqlArgs {
    /// The texts of `-c` and `-f`, read up front so that a missing file fails before anything ran.
    pub(crate) fn scripts(&self) -> Result<Vec<String>, CliError> {
        let files = self.files.iter().map(|file| read(file));
        self.commands.iter().cloned().map(Ok).chain(files).collect()
    }

    pub(crate) fn target(&self) -> Result<Target, CliError> {
        Target::new(
            &self.url,
            self.user.clone(),
            self.password.clone(),
            self.headers.clone(),
        )
    }
}

/// The text of a script file; `-` is standard input.
pub(crate) fn read(file: &Path) -> Result<String, CliError> {
    let text = if file == Path::new("-") {
        crate::read_stdin()
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| CliError::Usage(format!("cannot read {}: {error}", file.display())))
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_ascii_lowercase(), value.to_owned()))
        }
        _ => Err("a header is NAME=VALUE".to_owned()),
    }
}
