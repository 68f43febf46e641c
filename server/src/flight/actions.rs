//! Actions: prepared statements and the end of a session. What is listed is what works.

use std::sync::Arc;

use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, Any,
};
use arrow_flight::{Action, ActionType};
use featureflight_catalog::{Error, Result};
use featureflight_engine::session::Session;
use prost::Message;

use super::Service;
use super::prepared_statement::{self, CREATE_RESULT_URL};
use super::status::Fault;

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CLOSE_SESSION: &str = "CloseSession";

/// Flight's `CloseSessionResult`, which arrow-flight does not have.
#[derive(Clone, PartialEq, Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `CloseSessionResult.Status.CLOSED`.
const CLOSED: i32 = 1;

pub(super) async fn run(
    service: &Service,
    session: &Arc<Session>,
    action: Action,
) -> Result<Vec<arrow_flight::Result>, Fault> {
    match action.r#type.as_str() {
        CREATE_PREPARED_STATEMENT => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action)?;
            let result = prepared_statement::create(service, session, request).await?;
            let result = Any {
                type_url: CREATE_RESULT_URL.into(),
                value: result.encode_to_vec().into(),
            };
            Ok(vec![arrow_flight::Result {
                body: result.encode_to_vec().into(),
            }])
        }
        CLOSE_PREPARED_STATEMENT => {
            let request: ActionClosePreparedStatementRequest = unpack(&action)?;
            prepared_statement::close(service, &request);
            Ok(Vec::new())
        }
        CLOSE_SESSION => {
            service.sessions.close(session);
            let result = CloseSessionResult { status: CLOSED };
            Ok(vec![arrow_flight::Result {
                body: result.encode_to_vec().into(),
            }])
        }
        other => Err(Fault::Unimplemented(format!(
            "this server does not have the action {other}; ListActions names those it has"
        ))),
    }
}

pub(super) fn list() -> Vec<ActionType> {
    [
        (
            CREATE_PREPARED_STATEMENT,
            "Prepares a statement. Request: ActionCreatePreparedStatementRequest. Result: \
             ActionCreatePreparedStatementResult.",
        ),
        (
            CLOSE_PREPARED_STATEMENT,
            "Closes a prepared statement. Request: ActionClosePreparedStatementRequest. No result.",
        ),
        (
            CLOSE_SESSION,
            "Ends the session, its clocks and temporary tables. Request: CloseSessionRequest. \
             Result: CloseSessionResult.",
        ),
    ]
    .map(|(name, description)| ActionType {
        r#type: name.into(),
        description: description.into(),
    })
    .to_vec()
}

fn unpack<M: arrow_flight::sql::ProstMessageExt>(action: &Action) -> Result<M> {
    let malformed = || {
        Error::invalid(format!(
            "the action {} holds no such request",
            action.r#type
        ))
    };
    let any = Any::decode(action.body.as_ref()).map_err(|_| malformed())?;
    any.unpack().map_err(|_| malformed())?.ok_or_else(malformed)
}
