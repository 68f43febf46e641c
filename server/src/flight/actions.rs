//! Actions: prepared statements, cancelling, longer lives for tickets, sessions. What is listed is
//! what works.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, FlightInfo,
    RenewFlightEndpointRequest,
};
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;
use prost::Message;

use super::prepared_statement::{self, CREATE_RESULT_URL};
use super::status::Fault;
use super::{Service, cancel, session_options, statement_query};

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CANCEL_QUERY: &str = "CancelQuery";
const RENEW_FLIGHT_ENDPOINT: &str = "RenewFlightEndpoint";
const SET_SESSION_OPTIONS: &str = "SetSessionOptions";
const GET_SESSION_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

/// Actions of the standard that this server does not have, and what there is instead.
const ABSENT: [(&str, &str); 5] = [
    (
        "BeginTransaction",
        "it has no transactions; every statement stands alone",
    ),
    (
        "EndTransaction",
        "it has no transactions; every statement stands alone",
    ),
    (
        "BeginSavepoint",
        "it has no savepoints; every statement stands alone",
    ),
    (
        "EndSavepoint",
        "it has no savepoints; every statement stands alone",
    ),
    (
        "CreatePreparedSubstraitPlan",
        "it takes no Substrait plans; send SQL",
    ),
];

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
    caller: &Caller,
    action: Action,
) -> Result<Vec<arrow_flight::Result>, Fault> {
    match action.r#type.as_str() {
        CREATE_PREPARED_STATEMENT => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action)?;
            let result = prepared_statement::create(service, caller, request).await?;
            Ok(one(&Any {
                type_url: CREATE_RESULT_URL.into(),
                value: result.encode_to_vec().into(),
            }))
        }
        CLOSE_PREPARED_STATEMENT => {
            let request: ActionClosePreparedStatementRequest = unpack(&action)?;
            prepared_statement::close(service, &request);
            Ok(Vec::new())
        }
        CLOSE_SESSION => {
            service.polls.close(&caller.session);
            service.sessions.close(&caller.session);
            Ok(one(&CloseSessionResult { status: CLOSED }))
        }
        SET_SESSION_OPTIONS => {
            let request = plain(&action)?;
            Ok(one(&session_options::set(service, caller, request)))
        }
        GET_SESSION_OPTIONS => Ok(one(&session_options::get(caller))),
        CANCEL_FLIGHT_INFO => {
            let request: CancelFlightInfoRequest = plain(&action)?;
            let status = cancel::cancel(service, &request.info.unwrap_or_default()).await?;
            let status = status as i32;
            Ok(one(&CancelFlightInfoResult { status }))
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(&action)?;
            let info = FlightInfo::decode(request.info).map_err(|_| malformed(&action))?;
            // The older enumeration has the newer one's numbers.
            let result = cancel::cancel(service, &info).await? as i32;
            Ok(one(&ActionCancelQueryResult { result }.as_any()))
        }
        RENEW_FLIGHT_ENDPOINT => {
            let request: RenewFlightEndpointRequest = plain(&action)?;
            let ticket = request.endpoint.and_then(|endpoint| endpoint.ticket);
            let ticket = ticket.ok_or_else(|| malformed(&action))?;
            let renewed = service.statements.renew(&service.signer, &ticket)?;
            Ok(one(&statement_query::endpoint(service, true, renewed)))
        }
        other => Err(absent(other)),
    }
}

fn absent(action: &str) -> Fault {
    let why = ABSENT.iter().find(|(name, _)| *name == action);
    let why = why.map_or("ListActions names those it has", |(_, why)| why);
    Fault::Unimplemented(format!(
        "this server does not have the action {action}: {why}"
    ))
}

fn one(message: &impl Message) -> Vec<arrow_flight::Result> {
    vec![arrow_flight::Result {
        body: message.encode_to_vec().into(),
    }]
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
            CANCEL_FLIGHT_INFO,
            "Cancels a query. Request: CancelFlightInfoRequest. Result: CancelFlightInfoResult.",
        ),
        (
            CANCEL_QUERY,
            "Cancels a query, as older drivers do. Request: ActionCancelQueryRequest. Result: \
             ActionCancelQueryResult.",
        ),
        (
            RENEW_FLIGHT_ENDPOINT,
            "Extends the life of a ticket. Request: RenewFlightEndpointRequest. Result: \
             FlightEndpoint.",
        ),
        (
            SET_SESSION_OPTIONS,
            "Sets clocks, default schema and limits. Request: SetSessionOptionsRequest. Result: \
             SetSessionOptionsResult.",
        ),
        (
            GET_SESSION_OPTIONS,
            "Says what is set. Request: GetSessionOptionsRequest. Result: GetSessionOptionsResult.",
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

/// A request of Flight SQL: packed into an `Any`.
fn unpack<M: ProstMessageExt>(action: &Action) -> Result<M> {
    let any = Any::decode(action.body.as_ref()).map_err(|_| malformed(action))?;
    any.unpack()
        .map_err(|_| malformed(action))?
        .ok_or_else(|| malformed(action))
}

/// A request of Flight itself: as it is.
fn plain<M: Message + Default>(action: &Action) -> Result<M> {
    M::decode(action.body.as_ref()).map_err(|_| malformed(action))
}

fn malformed(action: &Action) -> Error {
    Error::invalid(format!(
        "the action {} holds no such request",
        action.r#type
    ))
}
