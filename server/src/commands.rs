//! The command line of the one binary. Each subcommand is a variant of [`Command`] with its own
//! argument type; mounting one more is a variant and an arm.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use featureflight_cli::{CliError, SqlArgs};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ServeArgs};
use crate::demo::{self, DemoArgs};
use crate::{serve, telemetry};

/// An Arrow Flight SQL server that makes a SageMaker offline store behave like a time-travelling
/// database.
#[derive(Debug, Parser)]
#[command(name = "featureflight", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve feature groups over Arrow Flight SQL
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeArgs>),
    /// Make a sample feature store, serve it, and tour it through a real connection
    Demo(DemoArgs),
    /// Query a server: a SQL shell over Flight SQL
    Sql(Box<SqlArgs>),
}

const SERVE_HELP: &str = "\
Settings come from the configuration file, then the environment, then flags; later ones win.
Every key of the file is also an environment variable: [server] listen is
FEATUREFLIGHT__SERVER__LISTEN. Unknown keys are errors; --print-config shows every key with its
value.

Examples:
  featureflight serve --warehouse ./warehouse
      a directory of DescribeFeatureGroup responses and their Parquet files; no AWS needed
  featureflight serve --aws --aws-database sagemaker_featurestore
      the feature groups of the AWS account that the usual credential chain names
  featureflight serve --config featureflight.toml --print-config

Connect with any Flight SQL driver, for example from Python:
  adbc_driver_flightsql.dbapi.connect(\"grpc://127.0.0.1:50051\", autocommit=True)";

/// Worker threads plan SQL, which recurses: a deep stack is address space, not memory.
const WORKER_STACK_BYTES: usize = 16 * 1024 * 1024;

/// Parses the command line and runs it. A failure is one line on stderr and exit code 1; a wrong
/// command line is clap's message and exit code 2.
#[must_use]
pub fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    featureflight_engine::few_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(command_line.command));
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(format!("cannot start the runtime: {error}").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("featureflight: {error}");
            error
                .downcast_ref::<CliError>()
                .map_or(ExitCode::FAILURE, |error| error.exit_code().into())
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => {
            let config = Config::load(&args)?;
            if args.print_config {
                print!("{}", config.to_toml());
                return Ok(());
            }
            telemetry::start(&config.log)?;
            serve_until_interrupted(&config).await
        }
        Command::Demo(args) => Ok(demo::run(args).await?),
        Command::Sql(args) => Ok(featureflight_cli::run(*args).await?),
    }
}

/// The first interruption ends the server with its grace, or its start at once; the second one ends
/// the process.
async fn serve_until_interrupted(config: &Config) -> Outcome {
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    let (first, told, cut) = (serve::interrupted()?, stop.clone(), now.clone());
    tokio::spawn(async move {
        first.await;
        told.cancel();
        if let Ok(second) = serve::interrupted() {
            second.await;
            cut.cancel();
        }
    });
    let server = tokio::select! {
        server = serve::serve(config, stop.clone().cancelled_owned()) => server?,
        () = stop.cancelled() => return Ok(()),
    };
    tokio::select! {
        outcome = server.finished() => Ok(outcome?),
        () = now.cancelled() => Err("interrupted again; running calls were cut off".into()),
    }
}
