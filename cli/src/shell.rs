//! Runs statements and commands, one at a time, each of them interruptible.

use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

use crate::args;
use crate::commands::{self, Command};
use crate::connection::Connection;
use crate::error::CliError;
use crate::print::Printer;
use crate::script::{Script, Step};

/// A connection and how its results are printed.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) connection: Connection,
    pub(crate) printer: Printer,
    quit: bool,
}

impl Shell {
    pub(crate) fn new(connection: Connection, printer: Printer) -> Self {
        Self {
            connection,
            printer,
            quit: false,
        }
    }

    /// True once `\q` was run.
    pub(crate) fn is_over(&self) -> bool {
        self.quit
    }

    /// Runs `steps` up to the first failure or `\q`.
    pub(crate) async fn run_all(&mut self, steps: Vec<Step>) -> Result<(), CliError> {
        for step in steps {
            if self.quit {
                break;
            }
            interruptible(self.run(step)).await?;
        }
        Ok(())
    }

    async fn run(&mut self, step: Step) -> Result<(), CliError> {
        match step {
            Step::Sql(sql) => {
                let started = Instant::now();
                let rows = self.connection.query(&sql).await?;
                self.printer.show(rows, started).await
            }
            Step::Command(line) => self.command(line.parse()?).await,
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), CliError> {
        match command {
            Command::Quit => self.quit = true,
            Command::Help => commands::help()?,
            Command::Tables => {
                let started = Instant::now();
                let rows = commands::tables(&mut self.connection).await?;
                self.printer.show(rows, started).await?;
            }
            Command::Describe(name) => commands::describe(self, &name).await?,
            Command::Format(format) => self.printer.format = format,
            Command::MaxRows(rows) => self.printer.max_rows = rows,
            Command::Timing => self.printer.timing = !self.printer.timing,
            Command::Connect => {
                self.connection.reopen().await?;
                eprintln!("connected to {}, a new session", self.connection.url());
            }
            Command::Include(file) => self.include(&file).await?,
        }
        Ok(())
    }

    fn include<'a>(
        &'a mut self,
        file: &'a Path,
    ) -> Pin<Box<dyn Future<Output = Result<(), CliError>> + Send + 'a>> {
        Box::pin(async move {
            let mut script = Script::default();
            script.push(&args::read(file)?);
            for step in script.finish() {
                if !self.quit {
                    self.run(step).await?;
                }
            }
            Ok(())
        })
    }
}

/// `work`, unless Ctrl-C comes first: then it is dropped, which cancels it on the server too.
pub(crate) async fn interruptible<T>(
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
    }
}
