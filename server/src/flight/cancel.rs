//! Cancelling a query by what its client knows of it: the tickets of its `FlightInfo`, or the
//! descriptor of a poll. Whoever holds these could fetch the result, and may end it.

use std::time::Duration;

use arrow_flight::{CancelStatus, FlightInfo, Ticket};
use featureflight_catalog::{Error, Result};
use featureflight_engine::query::{QueryState, Watch};

use super::Service;

/// How long the answer waits for the work to end.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// # Errors
/// `InvalidArgument` for an info without a ticket of ours, `Aborted` for one that is forgotten.
pub(super) async fn cancel(service: &Service, info: &FlightInfo) -> Result<CancelStatus> {
    let ticket = info.endpoint.iter().find_map(|one| one.ticket.as_ref());
    if let Some(ticket) = ticket {
        let Some(executed) = service.statements.find(&service.signer, ticket)? else {
            return Ok(CancelStatus::NotCancellable);
        };
        drop(executed.take());
        return Ok(stop(&executed.query.watch()).await);
    }
    let Some(descriptor) = &info.flight_descriptor else {
        return Err(Error::invalid(
            "the FlightInfo names no query: it has no endpoint",
        ));
    };
    let poll = Ticket::new(descriptor.cmd.clone());
    Ok(stop(&service.polls.watch(&service.signer, &poll)?).await)
}

async fn stop(statement: &Watch) -> CancelStatus {
    if !statement.cancel() {
        return match statement.status().state {
            QueryState::Cancelled => CancelStatus::Cancelled,
            _ => CancelStatus::NotCancellable,
        };
    }
    let ended = async {
        while statement.status().state.is_under_way() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(()) => CancelStatus::Cancelled,
        Err(_) => CancelStatus::Cancelling,
    }
}
