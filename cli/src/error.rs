//! What can go wrong in the shell, in words for the person at the terminal.

use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use datafusion::error::DataFusionError;
use tonic::Status;

/// Why a statement or the whole run failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Something on our side of the wire: an argument, a file, a command.
    #[error("{0}")]
    Usage(String),
    /// No connection, or it broke.
    #[error("{0}")]
    Connection(String),
    /// The server's own words and gRPC code.
    #[error("{message} [{code}]")]
    Server { code: String, message: String },
    /// What the server sent is not Flight SQL as we know it.
    #[error("cannot read the server's answer: {0}")]
    Protocol(String),
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
    /// A value the chosen format has no form for.
    #[error("cannot print the result: {0}")]
    Format(String),
    #[error("cancelled")]
    Interrupted,
}

impl CliError {
    /// What the process should exit with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        if let Some(cause) = transport_cause(&status) {
            return Self::Connection(format!(
                "the connection to the server broke: {cause}; \\c connects again"
            ));
        }
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        Self::Server {
            code: code_name(status.code()),
            message: message.to_owned(),
        }
    }
}

impl From<FlightError> for CliError {
    fn from(error: FlightError) -> Self {
        match error {
            FlightError::Tonic(status) => (*status).into(),
            FlightError::Arrow(error) => Self::Protocol(error.to_string()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<ArrowError> for CliError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, error) => Self::Output(error),
            other => Self::Format(other.to_string()),
        }
    }
}

impl From<DataFusionError> for CliError {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::ArrowError(error, _) => (*error).into(),
            DataFusionError::IoError(error) => Self::Output(error),
            other => Self::Format(other.strip_backtrace()),
        }
    }
}

/// `InvalidArgument` as gRPC writes it: `INVALID_ARGUMENT`.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// The innermost reason when the status was made here because the wire failed, not sent.
fn transport_cause(status: &Status) -> Option<String> {
    std::error::Error::source(status).map(innermost)
}

/// The innermost reason of a chain of errors: the one that says something.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "what a server would answer")]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_is_its_message_and_code() {
        let error = CliError::from(Status::invalid_argument("no table \"custmers\""));
        assert_eq!(
            error.to_string(),
            "no table \"custmers\" [INVALID_ARGUMENT]"
        );
        let error = CliError::from(FlightError::from(Status::not_found("")));
        assert!(error.to_string().ends_with(" [NOT_FOUND]"), "{error}");
        assert_eq!(code_name(tonic::Code::Ok), "OK");
        assert_eq!(error.exit_code(), 1);
        assert_eq!(CliError::Interrupted.exit_code(), 130);
    }

    #[test]
    fn a_broken_wire_is_not_called_a_server_error() {
        let io = std::io::Error::other("connection reset by peer");
        let error = CliError::from(Status::from_error(Box::new(io)));
        assert!(matches!(error, CliError::Connection(_)), "{error:?}");
        assert!(error.to_string().contains("connection reset by peer"));
    }
}
