//! From text to statements and commands: statements end at a `;` outside strings, quoted names and
//! comments; a line that starts with `\` where a statement could start is a command.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// One thing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Without its `;`.
    Sql(String),
    /// Without its `\`.
    Command(String),
}

/// Text that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pending: String,
}

impl Script {
    pub(crate) fn push(&mut self, text: &str) {
        self.pending.push_str(text);
    }

    /// Takes what is complete; the rest waits for more text.
    pub(crate) fn complete(&mut self) -> Vec<Step> {
        // Nothing can have ended without one of these.
        if !self.pending.contains([';', '\\']) {
            return Vec::new();
        }
        let (steps, rest) = split(&self.pending);
        let used = self.pending.len() - rest.len();
        self.pending.drain(..used);
        steps
    }

    /// Everything; the last statement needs no `;`.
    pub(crate) fn finish(mut self) -> Vec<Step> {
        let mut steps = self.complete();
        if !is_blank(&self.pending) {
            steps.push(Step::Sql(self.pending.trim().to_owned()));
        }
        steps
    }
}

/// Whether `text` can be run as it stands: nothing is left open.
pub(crate) fn is_complete(text: &str) -> bool {
    is_blank(split(text).1)
}

/// The complete steps of `text`, and what follows the last of them.
fn split(text: &str) -> (Vec<Step>, &str) {
    let mut steps = Vec::new();
    let mut rest = text;
    loop {
        let tokens = tokens(rest);
        let mut cursor = Cursor::new(rest);
        // Where the statement that is being read begins.
        let mut start = 0;
        let mut empty = true;
        let mut command = None;
        for token in &tokens {
            match token.token {
                Token::Whitespace(_) => {}
                Token::Backslash if empty => {
                    command = Some(cursor.offset(token.span.start));
                    break;
                }
                Token::SemiColon => {
                    let end = cursor.offset(token.span.start);
                    if !empty {
                        steps.push(Step::Sql(rest[start..end].trim().to_owned()));
                    }
                    start = end + 1;
                    empty = true;
                }
                _ => empty = false,
            }
        }
        let Some(at) = command else {
            return (steps, &rest[start..]);
        };
        let line = &rest[at + 1..];
        let (line, after) = line.split_once('\n').unwrap_or((line, ""));
        steps.push(Step::Command(
            line.trim().trim_end_matches(';').trim_end().to_owned(),
        ));
        rest = after;
    }
}

/// As many tokens as can be read: text that ends inside a string or a comment gives those before.
fn tokens(text: &str) -> Vec<TokenWithSpan> {
    let mut tokens = Vec::new();
    let read = Tokenizer::new(&GenericDialect {}, text)
        .with_unescape(false)
        .tokenize_with_location_into_buf(&mut tokens);
    if let Err(error) = read {
        // What could not be read is no blank.
        let span = error.location.span_to(error.location);
        tokens.push(TokenWithSpan {
            token: Token::EOF,
            span,
        });
    }
    tokens
}

/// Only blanks and whole comments.
fn is_blank(text: &str) -> bool {
    tokens(text)
        .iter()
        .all(|token| matches!(token.token, Token::Whitespace(_)))
}

/// Byte offsets of the tokenizer's lines and columns, asked for in ascending order.
struct Cursor<'a> {
    rest: std::str::CharIndices<'a>,
    at: Location,
    len: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.char_indices(),
            at: Location::new(1, 1),
            len: text.len(),
        }
    }

    fn offset(&mut self, location: Location) -> usize {
        while self.at < location {
            match self.rest.next() {
                Some((_, '\n')) => self.at = Location::new(self.at.line + 1, 1),
                Some(_) => self.at.column += 1,
                None => break,
            }
        }
        self.len - self.rest.as_str().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(text: &str) -> Step {
        Step::Sql(text.to_owned())
    }

    fn command(text: &str) -> Step {
        Step::Command(text.to_owned())
    }

    fn all(text: &str) -> Vec<Step> {
        let mut script = Script::default();
        script.push(text);
        script.finish()
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes_and_comments() {
        assert_eq!(
            all("SELECT 1; SELECT 2 ;"),
            [sql("SELECT 1"), sql("SELECT 2")]
        );
        assert_eq!(
            all("SELECT ';', 'it''s;', \";\";"),
            [sql("SELECT ';', 'it''s;', \";\"")]
        );
        assert_eq!(
            all("SELECT 1 -- a; b\n, 2; "),
            [sql("SELECT 1 -- a; b\n, 2")]
        );
        assert_eq!(
            all("SELECT /* ; /* ; */ ; */ 1;"),
            [sql("SELECT /* ; /* ; */ ; */ 1")]
        );
        assert_eq!(
            all("SELECT $$;$$;SELECT 2"),
            [sql("SELECT $$;$$"), sql("SELECT 2")]
        );
        assert_eq!(
            all("SELECT 'ü;\n€'; SELECT 'ß'; SELECT 3"),
            [sql("SELECT 'ü;\n€'"), sql("SELECT 'ß'"), sql("SELECT 3")]
        );
    }

    #[test]
    fn empty_statements_and_comments_alone_are_nothing_to_run() {
        assert_eq!(all(";; -- nothing\n ; /* nor this */"), []);
        assert_eq!(
            all("-- first\nSELECT 1;\n-- last"),
            [sql("-- first\nSELECT 1")]
        );
        assert_eq!(all(""), []);
    }

    #[test]
    fn what_is_left_open_at_the_end_goes_to_the_server_that_can_say_why() {
        assert_eq!(
            all("SELECT 1; SELECT 'abc"),
            [sql("SELECT 1"), sql("SELECT 'abc")]
        );
        assert_eq!(all("SELECT 1; /* open"), [sql("SELECT 1"), sql("/* open")]);
    }

    #[test]
    fn commands_take_their_line() {
        assert_eq!(
            all("\\d it's; \nSELECT 1;\\q"),
            [command("d it's"), sql("SELECT 1"), command("q")]
        );
        assert_eq!(all("SELECT 1\n\\d\n;"), [sql("SELECT 1\n\\d")]);
        assert_eq!(all("SELECT '\n\\d';"), [sql("SELECT '\n\\d'")]);
    }

    #[test]
    fn pieces_join() {
        let mut script = Script::default();
        script.push("SELECT 'a;\n");
        assert_eq!(script.complete(), []);
        script.push("b'; SELECT");
        assert_eq!(script.complete(), [sql("SELECT 'a;\nb'")]);
        script.push(" 2;");
        assert_eq!(script.complete(), [sql("SELECT 2")]);
        assert_eq!(script.finish(), []);
    }

    #[test]
    fn a_terminal_line_is_complete_when_nothing_is_open() {
        for text in [
            "SELECT 1;",
            "SELECT 1; -- done",
            "\\d x",
            "",
            "  ",
            "\\d it's",
        ] {
            assert!(is_complete(text), "{text}");
        }
        for text in [
            "SELECT 1",
            "SELECT ';",
            "SELECT 1; SELECT",
            "/* ;",
            "SELECT 1 -- ;",
        ] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
