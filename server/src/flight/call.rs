//! What every handler knows of its caller, and the frame around every handler: its session, its
//! request id in the log and in the answer, and a panic that becomes an error of this call alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::Caller;
use featureflight_engine::session::Session;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Extensions, Response, Status};
use tracing::{Instrument, Span};

use super::Service;
use super::headers::{self, Headers};
use super::status::{self, Fault, REQUEST_ID};
use crate::calls::UnderWay;
use crate::listen::ConnectionInfo;
use crate::sessions::COOKIE;

/// A call answers this much before its deadline, at most a tenth of the time it has: afterwards
/// the transport cuts it off without a word.
const BEFORE_DEADLINE: Duration = Duration::from_millis(100);

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    id: String,
    span: Span,
    /// Offered with the answer.
    cookie: Option<String>,
    under_way: Arc<UnderWay>,
}

/// What the `authorization` header holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    None,
    /// User names and passwords mean nothing until authentication is built.
    Basic,
    Bearer(String),
}

impl Call {
    pub(crate) fn new(service: &Service, rpc: &'static str) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let peer = tracing::field::Empty;
        let (trace_id, parent_id) = (tracing::field::Empty, tracing::field::Empty);
        let span = tracing::info_span!("call", rpc, request = %id, peer, trace_id, parent_id);
        Self {
            id,
            span,
            cookie: None,
            under_way: Arc::new(service.calls.enter(rpc)),
        }
    }

    /// Who calls, by bearer, else cookie, else connection, and what its headers say.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that names no session, those of [`headers::read`],
    /// `NotFound` for a default schema there is not.
    pub(crate) fn caller(
        &mut self,
        service: &Service,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Caller, Status> {
        let found = extensions
            .get::<ConnectionInfo>()
            .ok_or_else(|| Error::internal("a call without a connection"))
            .and_then(|connection| {
                self.span
                    .record("peer", tracing::field::display(connection.peer));
                self.find_caller(service, metadata, connection.id)
            });
        found.map_err(|error| self.refuse(error.into()))
    }

    fn find_caller(
        &mut self,
        service: &Service,
        metadata: &MetadataMap,
        connection: u64,
    ) -> Result<Caller> {
        let said = self.headers(metadata)?;
        let session = self.find_session(service, metadata, connection)?;
        let mut caller = Caller::from(&session);
        for (setting, value) in said.settings {
            caller.fix(setting, value);
        }
        if let Some(schema) = said.schema {
            caller.fix_schema(service.engine.schema_named(&schema)?);
        }
        caller.idempotency_key = said.idempotency_key;
        caller.deadline = said.timeout.map(|timeout| {
            let early = BEFORE_DEADLINE.min(timeout / 10);
            Instant::now() + timeout.saturating_sub(early)
        });
        Ok(caller)
    }

    /// What the call's headers say; its trace goes to the log.
    pub(crate) fn headers(&self, metadata: &MetadataMap) -> Result<Headers> {
        let said = headers::read(metadata)?;
        if let Some(trace) = &said.trace {
            self.span.record("trace_id", &trace.id);
            self.span.record("parent_id", &trace.parent);
        }
        Ok(said)
    }

    fn find_session(
        &mut self,
        service: &Service,
        metadata: &MetadataMap,
        connection: u64,
    ) -> Result<Arc<Session>> {
        if let Credentials::Bearer(token) = credentials(metadata)? {
            return service.sessions.by_token(&token);
        }
        if let Some(token) = session_cookie(metadata) {
            return service.sessions.by_token(&token);
        }
        let found = service.sessions.by_connection(connection);
        self.cookie = found.cookie;
        Ok(found.session)
    }

    /// Runs a handler.
    pub(crate) async fn answer<T>(
        &self,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<Response<T>, Status> {
        let outcome = AssertUnwindSafe(work)
            .catch_unwind()
            .instrument(self.span.clone())
            .await;
        match outcome.unwrap_or_else(|panic| Err(panicked(panic.as_ref()).into())) {
            Ok(answer) => {
                self.under_way.comes_to(Some(Code::Ok));
                let mut response = Response::new(answer);
                self.dress(response.metadata_mut());
                Ok(response)
            }
            Err(fault) => Err(self.refuse(fault)),
        }
    }

    /// Frames a stream of an answer; what is said at its end goes into the trailers.
    pub(crate) fn stream<T: Send + 'static>(
        &self,
        items: impl Stream<Item = Result<T>> + Send + 'static,
        said_at_end: impl Fn() -> Vec<(&'static str, String)> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let (id, span) = (self.id.clone(), self.span.clone());
        let under_way = Arc::clone(&self.under_way);
        under_way.comes_to(None);
        let mut items = AssertUnwindSafe(items).catch_unwind().boxed();
        let mut ended = false;
        futures::stream::poll_fn(move |cx| {
            if ended {
                return std::task::Poll::Ready(None);
            }
            let _entered = span.enter();
            items.poll_next_unpin(cx).map(|item| {
                let outcome = match item {
                    Some(Ok(outcome)) => outcome,
                    Some(Err(panic)) => Err(panicked(panic.as_ref())),
                    None => {
                        ended = true;
                        under_way.comes_to(Some(Code::Ok));
                        let said = said_at_end();
                        return (!said.is_empty()).then(|| Err(status::complete(said)));
                    }
                };
                ended = outcome.is_err();
                Some(outcome.map_err(|error| {
                    let status = refuse(error.into(), &id);
                    under_way.comes_to(Some(status.code()));
                    status
                }))
            })
        })
        .boxed()
    }

    pub(crate) fn refuse(&self, fault: Fault) -> Status {
        let _entered = self.span.enter();
        let mut status = refuse(fault, &self.id);
        self.under_way.comes_to(Some(status.code()));
        self.offer_cookie(status.metadata_mut());
        status
    }

    fn dress(&self, metadata: &mut MetadataMap) {
        if let Ok(id) = MetadataValue::try_from(&self.id) {
            metadata.insert(REQUEST_ID, id);
        }
        self.offer_cookie(metadata);
    }

    fn offer_cookie(&self, metadata: &mut MetadataMap) {
        if let Some(token) = &self.cookie
            && let Ok(cookie) = MetadataValue::try_from(format!("{COOKIE}={token}; HttpOnly"))
        {
            metadata.insert("set-cookie", cookie);
        }
    }
}

/// Logs what is ours; mistakes of callers are their own business, and queries log themselves.
fn refuse(fault: Fault, id: &str) -> Status {
    match &fault {
        Fault::Error(error) if error.kind == Kind::Internal => {
            tracing::error!(error = %chain(error), "internal error");
        }
        Fault::Error(error) => tracing::debug!(kind = ?error.kind, %error, "refused"),
        Fault::Unimplemented(what) => tracing::debug!(what, "not implemented"),
    }
    fault.into_status(id)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::internal(format!("a handler panicked: {text}"))
}

/// Go's drivers, ADBC among them, leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// # Errors
/// `Unauthenticated` for a scheme or text that cannot be read; it is not repeated in the message.
pub(crate) fn credentials(metadata: &MetadataMap) -> Result<Credentials> {
    let malformed = || {
        Error::new(
            Kind::Unauthenticated,
            "the authorization header is neither 'Bearer TOKEN' nor 'Basic USER:PASSWORD' in \
             base 64",
        )
    };
    let Some(value) = metadata.get("authorization") else {
        return Ok(Credentials::None);
    };
    let value = value.to_str().map_err(|_| malformed())?.trim();
    let (scheme, rest) = value.split_once(' ').ok_or_else(malformed)?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials::Bearer(rest.to_owned()));
    }
    let readable = || BASE64.decode(rest).is_ok_and(|bytes| bytes.contains(&b':'));
    if scheme.eq_ignore_ascii_case("basic") && readable() {
        return Ok(Credentials::Basic);
    }
    Err(malformed())
}

fn session_cookie(metadata: &MetadataMap) -> Option<String> {
    metadata
        .get_all("cookie")
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Calls;

    fn call() -> Call {
        Call {
            id: "1".into(),
            span: Span::none(),
            cookie: None,
            under_way: Arc::new(Calls::default().enter("DoGet")),
        }
    }

    /// Without it the connection would be reset, and all of its other calls with it.
    #[tokio::test]
    async fn a_panic_of_a_handler_is_the_end_of_its_call_alone() {
        let buggy = async { panic!("a bug in a handler") };
        let status = call().answer::<()>(buggy).await.expect_err("it panicked");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("a bug in"), "{status}");
        assert_eq!(status.metadata().get(REQUEST_ID).unwrap(), "1");
    }

    #[tokio::test]
    async fn a_panic_in_a_stream_is_its_last_item() {
        let items = futures::stream::iter([1, 2, 3]).map(|item| {
            assert!(item < 2, "a bug in a stream");
            Ok(item)
        });
        let items: Vec<_> = call().stream(items, Vec::new).collect().await;
        assert_eq!(items.len(), 2, "one, and why there is no other");
        assert_eq!(items[0].as_ref().unwrap(), &1);
        assert_eq!(items[1].as_ref().unwrap_err().code(), Code::Internal);
    }
}
