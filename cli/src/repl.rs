//! The shell on a terminal: line editing, history, completion. The editor blocks and is not
//! `Send`, so it lives on a thread of its own and is asked for one input at a time.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc;

use datafusion::common::config::Dialect;
use datafusion_cli::helper::CliHelper;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tokio::sync::oneshot;

use crate::commands;
use crate::error::CliError;
use crate::script::{self, Script, Step};
use crate::shell::Shell;

const PROMPT: &str = "featureflight> ";
const HISTORY: &str = ".featureflight_history";
const WORDS: [&str; 3] = ["help", "quit", "exit"];

/// Reads and runs until Ctrl-D or `\q`. Failures are told and forgotten.
pub(crate) async fn run(shell: &mut Shell) -> Result<(), CliError> {
    eprintln!("connected to {}; \\? for help", shell.connection.url());
    // Completion is a convenience: a server that cannot list its relations can still be queried.
    let names = commands::names(&mut shell.connection)
        .await
        .unwrap_or_default();
    let editor = start_editor(names)?;
    while !shell.is_over() {
        let (answer, line) = oneshot::channel();
        if editor.send(answer).is_err() {
            break;
        }
        match line.await {
            Ok(Ok(line)) => {
                for step in steps(&line) {
                    if let Err(error) = shell.run_all(vec![step]).await {
                        report(&error);
                        break;
                    }
                }
            }
            Ok(Err(ReadlineError::Interrupted)) => {}
            Ok(Err(ReadlineError::Eof)) | Err(_) => break,
            Ok(Err(error)) => return Err(CliError::Usage(format!("cannot read a line: {error}"))),
        }
    }
    Ok(())
}

fn report(error: &CliError) {
    match error {
        CliError::Interrupted => eprintln!("\ncancelled"),
        error => eprintln!("error: {error}"),
    }
}

/// What one input asks for. Bare `help`, `quit` and `exit` are what newcomers try first.
fn steps(input: &str) -> Vec<Step> {
    let word = input
        .trim()
        .trim_end_matches(';')
        .trim_end()
        .to_ascii_lowercase();
    if WORDS.contains(&word.as_str()) {
        let command = if word == "exit" {
            "quit".to_owned()
        } else {
            word
        };
        return vec![Step::Command(command)];
    }
    let mut script = Script::default();
    script.push(input);
    script.finish()
}

type Ask = oneshot::Sender<Result<String, ReadlineError>>;

/// Each `Ask` is answered with one input. The thread ends when the sender is dropped.
fn start_editor(names: Vec<String>) -> Result<mpsc::Sender<Ask>, CliError> {
    let (sender, asks) = mpsc::channel::<Ask>();
    std::thread::Builder::new()
        .name("line-editor".to_owned())
        .spawn(move || {
            let config = Config::builder()
                .completion_type(CompletionType::List)
                .build();
            let mut editor = match Editor::<ShellHelper, FileHistory>::with_config(config) {
                Ok(editor) => editor,
                Err(error) => {
                    if let Ok(ask) = asks.recv() {
                        let _ = ask.send(Err(error));
                    }
                    return;
                }
            };
            editor.set_helper(Some(ShellHelper::new(names)));
            let history = std::env::home_dir().map(|home| home.join(HISTORY));
            if let Some(history) = &history {
                // Absent at first; what cannot be read is not worth refusing to start.
                let _ = editor.load_history(history);
            }
            while let Ok(ask) = asks.recv() {
                let line = editor.readline(PROMPT);
                remember(&mut editor, &line, history.as_ref());
                if ask.send(line).is_err() {
                    return;
                }
            }
        })
        .map_err(|error| CliError::Usage(format!("cannot start the line editor: {error}")))?;
    Ok(sender)
}

/// Appends to the history at once, so that a killed shell forgets nothing.
fn remember(
    editor: &mut Editor<ShellHelper, FileHistory>,
    line: &Result<String, ReadlineError>,
    file: Option<&PathBuf>,
) {
    let Ok(line) = line else { return };
    if editor.add_history_entry(line.trim_end()).unwrap_or(false)
        && let Some(file) = file
    {
        // A home that cannot be written to costs the history, not the session.
        let _ = editor.append_history(file);
    }
}

/// Hints and colours from `datafusion-cli`; where an input ends and how names complete from us.
struct ShellHelper {
    base: CliHelper,
    names: Vec<String>,
}

impl ShellHelper {
    fn new(names: Vec<String>) -> Self {
        let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            base: CliHelper::new(&Dialect::Generic, color),
            names,
        }
    }
}

impl Helper for ShellHelper {}

impl Validator for ShellHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        self.base.reset_hint();
        Ok(validate(context.input()))
    }
}

fn validate(input: &str) -> ValidationResult {
    let word = input.trim().to_ascii_lowercase();
    if script::is_complete(input) || WORDS.contains(&word.as_str()) {
        ValidationResult::Valid(None)
    } else {
        ValidationResult::Incomplete
    }
}

impl Hinter for ShellHelper {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<String> {
        self.base.hint(line, pos, context)
    }
}

impl Highlighter for ShellHelper {
    fn highlight<'l>(&self, line: &'l str, pos: usize) -> Cow<'l, str> {
        self.base.highlight(line, pos)
    }

    fn highlight_char(&self, line: &str, pos: usize, kind: CmdKind) -> bool {
        self.base.highlight_char(line, pos, kind)
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        self.base.highlight_hint(hint)
    }
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        Ok(complete(&self.names, line, pos))
    }
}

/// Relations and schemas that continue the word before the cursor, ignoring case.
fn complete(names: &[String], line: &str, pos: usize) -> (usize, Vec<Pair>) {
    let before = &line[..pos];
    let start = before
        .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
        .map_or(0, |at| {
            at + before[at..].chars().next().map_or(1, char::len_utf8)
        });
    let word = before[start..].to_lowercase();
    if word.is_empty() {
        return (start, Vec::new());
    }
    let pairs = names
        .iter()
        .filter(|name| name.to_lowercase().starts_with(&word))
        .map(|name| Pair {
            display: name.clone(),
            replacement: quoted(name),
        })
        .collect();
    (start, pairs)
}

/// As SQL can read it: parts that are no plain identifier in double quotes.
fn quoted(name: &str) -> String {
    let quote = |part: &str| {
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !part.starts_with(|c: char| c.is_ascii_digit());
        if plain {
            part.to_owned()
        } else {
            format!("\"{part}\"")
        }
    };
    match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_ends_where_nothing_is_open() {
        let valid = |input| matches!(validate(input), ValidationResult::Valid(_));
        assert!(valid("SELECT 1;") && valid("") && valid("\\d") && valid("help") && valid("exit"));
        assert!(!valid("SELECT 1") && !valid("SELECT ';"));
    }

    #[test]
    fn words_of_newcomers_are_commands() {
        assert_eq!(steps("help"), [Step::Command("help".to_owned())]);
        assert_eq!(steps("EXIT;"), [Step::Command("quit".to_owned())]);
        assert_eq!(steps("SELECT 1; SELECT 2;").len(), 2);
    }

    #[test]
    fn names_complete_ignoring_case_and_quote_what_needs_it() {
        let names = ["features", "features.card-risk", "features.customers"].map(str::to_owned);
        let at_end = |line: &str| {
            let (start, pairs) = complete(&names, line, line.len());
            (
                start,
                pairs
                    .into_iter()
                    .map(|pair| pair.replacement)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            at_end("SELECT * FROM Features.CU"),
            (14, vec!["features.customers".to_owned()])
        );
        assert_eq!(at_end("FROM features.ca").1, ["features.\"card-risk\""]);
        assert_eq!(at_end("SELECT ").1, Vec::<String>::new());
        assert_eq!(at_end("é x").1, Vec::<String>::new());
    }
}
