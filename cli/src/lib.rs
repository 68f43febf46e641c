//! `featureflight sql`: a SQL shell that is a Flight SQL client.
//!
//! Data flows one way: arguments → [`connection`] (one session) → [`script`] (text into
//! statements and commands) → [`shell`] (runs them, one at a time) → [`print`]. Prints and edits
//! lines with `datafusion-cli`; knows nothing of the server but its protocol.

mod args;
mod commands;
mod connection;
mod error;
mod print;
mod repl;
mod script;
mod shell;

pub use args::{DEFAULT_URL, Format, SqlArgs};
pub use connection::{Connection, Rows, Target};
pub use error::CliError;

use std::io::{IsTerminal, Read};

use print::Printer;
use script::Script;
use shell::Shell;

/// Runs the shell until its input ends: `-c` and `-f` when there are any, else the terminal, else
/// standard input.
///
/// # Errors
/// What could not be reached, read, run or written. Outside a terminal the first failure ends the
/// run: a statement after a failed `SET` would read under the wrong clock.
pub async fn run(args: SqlArgs) -> Result<(), CliError> {
    let interactive =
        args.commands.is_empty() && args.files.is_empty() && std::io::stdin().is_terminal();
    let scripts = args.scripts()?;
    let connection = Connection::open(args.target()?).await?;
    let printer = Printer::new(args.format, args.max_rows, args.quiet, interactive);
    let mut shell = Shell::new(connection, printer);
    let outcome = if interactive {
        repl::run(&mut shell).await
    } else if scripts.is_empty() {
        run_stdin(&mut shell).await
    } else {
        run_scripts(&mut shell, &scripts).await
    };
    match outcome {
        // The reader of our output has seen enough, as `head` does.
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

async fn run_scripts(shell: &mut Shell, scripts: &[String]) -> Result<(), CliError> {
    for text in scripts {
        let mut script = Script::default();
        script.push(text);
        shell.run_all(script.finish()).await?;
    }
    Ok(())
}

/// Statements run as soon as they are complete, so that a program can talk through a pipe.
async fn run_stdin(shell: &mut Shell) -> Result<(), CliError> {
    let mut script = Script::default();
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = shell::interruptible(async {
            line.await
                .map_err(|error| CliError::Usage(format!("cannot read standard input: {error}")))
        })
        .await?
        .map_err(|error| CliError::Usage(format!("cannot read standard input: {error}")))?;
        if line.is_empty() {
            return shell.run_all(script.finish()).await;
        }
        script.push(&line);
        shell.run_all(script.complete()).await?;
    }
}

/// Everything on standard input.
fn read_stdin() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map(|_| text)
}
