"""A client that knows nothing of Flight asks the server what it speaks, and calls it."""

import grpc
import pyarrow as pa
import pyarrow.flight as flight
from conftest import serving
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from sagemaker_layout import description, write_warehouse

GROUP = description("prices", "sku", "at", {"sku": "String", "at": "String"})
PACKAGE = "arrow.flight.protocol"


class V1(ProtoReflectionDescriptorDatabase):
    """The library asks the version before the standard one; the messages are the same."""

    def __init__(self, channel):
        super().__init__(channel)
        from grpc_reflection.v1alpha import reflection_pb2
        self._stub.ServerReflectionInfo = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)


def test_the_service_describes_itself(tmp_path):
    write_warehouse(tmp_path, GROUP, pa.table({"sku": ["a"], "at": ["2026-01-01T00:00:00Z"]}))
    with serving("--warehouse", str(tmp_path)) as server:
        with grpc.insecure_channel(server.uri.removeprefix("grpc://")) as channel:
            database = V1(channel)
            assert {PACKAGE + ".FlightService", "grpc.health.v1.Health"} <= set(database.get_services())
            pool = descriptor_pool.DescriptorPool(database)
            service = pool.FindServiceByName(PACKAGE + ".FlightService")
            assert len(service.methods) == 10

            def call(method, request):
                method = service.methods_by_name[method]
                assert not method.client_streaming
                kind = channel.unary_stream if method.server_streaming else channel.unary_unary
                answer = message_factory.GetMessageClass(method.output_type)
                path = f"/{service.full_name}/{method.name}"
                return kind(path, type(request).SerializeToString, answer.FromString)(request)

            def message(name):
                return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

            actions = {action.type for action in call("ListActions", message("Empty")())}
            assert "CancelFlightInfo" in actions
            # CommandGetTableTypes, packed as it is sent.
            command = b"\nBtype.googleapis.com/arrow.flight.protocol.sql.CommandGetTableTypes"
            descriptor = message("FlightDescriptor")(cmd=command)
            descriptor.type = type(descriptor).DescriptorType.Value("CMD")
            info = call("GetFlightInfo", descriptor)
            assert info.flight_descriptor == descriptor
            sent = list(call("DoGet", info.endpoint[0].ticket))
            # What pyarrow, which knows Flight, gets.
            client = flight.FlightClient(server.uri)
            known = client.get_flight_info(flight.FlightDescriptor.for_command(command))
            types = client.do_get(known.endpoints[0].ticket).read_all()["table_type"].to_pylist()
            assert types and all(kind.encode() in b"".join(data.data_body for data in sent) for kind in types)
            assert known.total_records == info.total_records and info.ordered
            polled = call("PollFlightInfo", descriptor)
            assert polled.info.endpoint and polled.HasField("progress")
