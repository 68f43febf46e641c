//! The gRPC service: each RPC frames its handler and nothing more.

use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::call::Call;
use super::statement_update::Put;
use super::status::{self, Fault};
use super::{FlightServer, Service, actions, dispatch, handshake, outgoing};
use crate::listen::ConnectionInfo;

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for FlightServer {
    type HandshakeStream = Items<HandshakeResponse>;
    type ListFlightsStream = Items<FlightInfo>;
    type DoGetStream = Items<FlightData>;
    type DoPutStream = Items<PutResult>;
    type DoActionStream = Items<arrow_flight::Result>;
    type ListActionsStream = Items<ActionType>;
    type DoExchangeStream = Items<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        let call = Call::new(&self.0, "Handshake");
        let token = call
            .answer(handshake::token(&self.0, &call, request.metadata()))
            .await?
            .into_inner();
        handshake::response(&call, &token)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        let mut call = Call::new(&self.0, "GetFlightInfo");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        call.answer(dispatch::get_flight_info(
            &self.0,
            &caller,
            request.into_inner(),
        ))
        .await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        let mut call = Call::new(&self.0, "GetSchema");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        call.answer(dispatch::get_schema(&self.0, &caller, request.into_inner()))
            .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        let mut call = Call::new(&self.0, "DoGet");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        let connection = request.extensions().get::<ConnectionInfo>().cloned();
        let answer = call
            .answer(dispatch::do_get(&self.0, &caller, request.into_inner()))
            .await?;
        let patience = outgoing::Patience {
            stall_timeout: self.0.stall_timeout,
            given_up: Arc::clone(&self.0.given_up),
            connection: connection.map(|info| info.cut).unwrap_or_default(),
        };
        Ok(answer.map(|rows| {
            let messages = outgoing::paced(rows.messages, patience);
            call.stream(messages, rows.said_at_end)
        }))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let mut call = Call::new(&self.0, "DoPut");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        let messages = request.into_inner();
        let messages = messages
            .map(|message| message.map_err(|s| status::of_request(&s)))
            .boxed();
        let answer = call
            .answer(dispatch::do_put(&self.0, &caller, messages))
            .await?;
        Ok(answer.map(|put| {
            let Put {
                message,
                said_at_end,
            } = put;
            let result = PutResult {
                app_metadata: message.into(),
            };
            call.stream(futures::stream::iter([Ok(result)]), move || {
                said_at_end.clone()
            })
        }))
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        let mut call = Call::new(&self.0, "DoAction");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        let answer = call
            .answer(actions::run(&self.0, &caller, request.into_inner()))
            .await?;
        Ok(answer.map(|results| futures::stream::iter(results.into_iter().map(Ok)).boxed()))
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        let mut call = Call::new(&self.0, "ListActions");
        call.caller(&self.0, request.metadata(), request.extensions())?;
        let answer = call.answer(async { Ok(actions::list()) }).await?;
        Ok(answer.map(|types| futures::stream::iter(types.into_iter().map(Ok)).boxed()))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        absent(
            &self.0,
            "ListFlights",
            "browse with Flight SQL's catalog commands or information_schema",
        )
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        let mut call = Call::new(&self.0, "PollFlightInfo");
        let caller = call.caller(&self.0, request.metadata(), request.extensions())?;
        call.answer(dispatch::poll_flight_info(
            &self.0,
            &caller,
            request.into_inner(),
        ))
        .await
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        absent(&self.0, "DoExchange", "use GetFlightInfo and DoGet")
    }
}

fn absent<T>(service: &Service, rpc: &'static str, instead: &str) -> Answer<T> {
    Err(Call::new(service, rpc).refuse(Fault::Unimplemented(format!(
        "this server does not have the RPC {rpc}; {instead}"
    ))))
}
