//! Handshake: until authentication is built anyone gets in, and gets a bearer that names a session
//! of their own.

use arrow_flight::HandshakeResponse;
use featureflight_catalog::Error;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Response, Status};

use super::Service;
use super::call::{Call, Credentials, credentials};
use super::status::Fault;

/// The bearer for the rest of the connection. A client that comes with one of ours keeps it.
///
/// # Errors
/// `Unauthenticated` for a bearer that names no session, `ResourceExhausted` for one session too
/// many, and those of the headers.
pub(super) async fn token(
    service: &Service,
    call: &Call,
    metadata: &MetadataMap,
) -> Result<String, Fault> {
    // What the later calls would be refused for is better said here.
    if let Some(schema) = call.headers(metadata)?.schema {
        service.engine.schema_named(&schema)?;
    }
    match credentials(metadata)? {
        Credentials::Bearer(token) => {
            service.sessions.by_token(&token)?;
            Ok(token)
        }
        Credentials::Basic | Credentials::None => Ok(service.sessions.issue_bearer()?),
    }
}

/// The bearer as drivers look for it: in the `authorization` header, and as the payload.
pub(super) fn response(
    call: &Call,
    token: &str,
) -> Result<Response<BoxStream<'static, Result<HandshakeResponse, Status>>>, Status> {
    let answer = HandshakeResponse {
        protocol_version: 0,
        payload: token.as_bytes().to_vec().into(),
    };
    let mut response = Response::new(futures::stream::iter([Ok(answer)]).boxed());
    let header = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| call.refuse(Error::internal("the token does not fit a header").into()))?;
    response.metadata_mut().insert("authorization", header);
    Ok(response)
}
