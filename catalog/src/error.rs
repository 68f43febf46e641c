//! The one error type of the product below the server: what went wrong, said for the user, and
//! what the client should do next. Only `server/` turns a [`Kind`] into a gRPC code.

use std::sync::Arc;

use datafusion::error::DataFusionError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the client should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong and stays wrong: fix it.
    InvalidArgument,
    /// The named thing does not exist, or not for this caller.
    NotFound,
    AlreadyExists,
    /// Right request, wrong state: the message names what must change first.
    FailedPrecondition,
    /// A pinned result can no longer be reproduced: run the statement again.
    Aborted,
    /// A dependency is away: try again later.
    Unavailable,
    /// A limit was met.
    ResourceExhausted,
    PermissionDenied,
    Unauthenticated,
    Cancelled,
    DeadlineExceeded,
    /// Stored data is not what its definition says; the message names the object.
    DataLoss,
    /// A bug of ours; users see a request id and nothing else.
    Internal,
}

/// A message for the user and its [`Kind`]. Cheap to clone, so that one failed shared step can
/// fail every partition that waited for it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub fn data_loss(message: impl Into<String>) -> Self {
        Self::new(Kind::DataLoss, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Our own error inside `error`, however deeply `DataFusion` and Arrow wrapped it.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(current) = next {
            if let Some(found) = current.downcast_ref::<Self>() {
                return Some(found);
            }
            if let Some(DataFusionError::Shared(inner)) = current.downcast_ref::<DataFusionError>()
                && let Some(found) = Self::find(inner.as_ref())
            {
                return Some(found);
            }
            next = current.source();
        }
        None
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
