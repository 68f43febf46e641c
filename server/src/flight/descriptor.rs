//! What gRPC reflection tells of the Flight service, so that a client that was not built for it
//! (`grpcurl`, a gateway) can call it. `arrow-flight` brings the messages without a description;
//! names, types and numbers are those of Apache Arrow's `Flight.proto`.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
};

const PACKAGE: &str = "arrow.flight.protocol";

/// A field: its name, its type and its number. A type that is no scalar is a message or, with
/// [`ENUMS`], an enumeration; `*` is before one that repeats and `?` before one that may be absent.
type Field = (&'static str, &'static str, i32);

const MESSAGES: [(&str, &[Field]); 20] = [
    (
        "HandshakeRequest",
        &[("protocol_version", "uint64", 1), ("payload", "bytes", 2)],
    ),
    (
        "HandshakeResponse",
        &[("protocol_version", "uint64", 1), ("payload", "bytes", 2)],
    ),
    (
        "BasicAuth",
        &[("username", "string", 2), ("password", "string", 3)],
    ),
    ("Empty", &[]),
    (
        "ActionType",
        &[("type", "string", 1), ("description", "string", 2)],
    ),
    ("Criteria", &[("expression", "bytes", 1)]),
    ("Action", &[("type", "string", 1), ("body", "bytes", 2)]),
    ("CancelFlightInfoRequest", &[("info", "FlightInfo", 1)]),
    (
        "RenewFlightEndpointRequest",
        &[("endpoint", "FlightEndpoint", 1)],
    ),
    ("Result", &[("body", "bytes", 1)]),
    ("CancelFlightInfoResult", &[("status", "CancelStatus", 1)]),
    ("SchemaResult", &[("schema", "bytes", 1)]),
    (
        "FlightDescriptor",
        &[
            ("type", "FlightDescriptor.DescriptorType", 1),
            ("cmd", "bytes", 2),
            ("path", "*string", 3),
        ],
    ),
    (
        "FlightInfo",
        &[
            ("schema", "bytes", 1),
            ("flight_descriptor", "FlightDescriptor", 2),
            ("endpoint", "*FlightEndpoint", 3),
            ("total_records", "int64", 4),
            ("total_bytes", "int64", 5),
            ("ordered", "bool", 6),
            ("app_metadata", "bytes", 7),
        ],
    ),
    (
        "PollInfo",
        &[
            ("info", "FlightInfo", 1),
            ("flight_descriptor", "FlightDescriptor", 2),
            ("progress", "?double", 3),
            ("expiration_time", ".google.protobuf.Timestamp", 4),
        ],
    ),
    (
        "FlightEndpoint",
        &[
            ("ticket", "Ticket", 1),
            ("location", "*Location", 2),
            ("expiration_time", ".google.protobuf.Timestamp", 3),
            ("app_metadata", "bytes", 4),
        ],
    ),
    ("Location", &[("uri", "string", 1)]),
    ("Ticket", &[("ticket", "bytes", 1)]),
    (
        "FlightData",
        &[
            ("flight_descriptor", "FlightDescriptor", 1),
            ("data_header", "bytes", 2),
            ("app_metadata", "bytes", 3),
            ("data_body", "bytes", 1000),
        ],
    ),
    ("PutResult", &[("app_metadata", "bytes", 1)]),
];

const DESCRIPTOR_TYPE: &str = "DescriptorType";
const CANCEL_STATUS: &str = "CancelStatus";
const ENUMS: [&str; 2] = ["FlightDescriptor.DescriptorType", CANCEL_STATUS];

/// A method: its request and its response; `*` is before a stream.
const METHODS: [(&str, &str, &str); 10] = [
    ("Handshake", "*HandshakeRequest", "*HandshakeResponse"),
    ("ListFlights", "Criteria", "*FlightInfo"),
    ("GetFlightInfo", "FlightDescriptor", "FlightInfo"),
    ("PollFlightInfo", "FlightDescriptor", "PollInfo"),
    ("GetSchema", "FlightDescriptor", "SchemaResult"),
    ("DoGet", "Ticket", "*FlightData"),
    ("DoPut", "*FlightData", "*PutResult"),
    ("DoExchange", "*FlightData", "*FlightData"),
    ("DoAction", "Action", "*Result"),
    ("ListActions", "Empty", "*ActionType"),
];

/// The Flight service with all its messages, and the one file it needs.
pub(crate) fn files() -> FileDescriptorSet {
    FileDescriptorSet {
        file: vec![timestamp(), flight()],
    }
}

fn flight() -> FileDescriptorProto {
    let methods = METHODS.iter().map(|(name, request, response)| {
        let (requests, request) = marked(request, '*');
        let (responses, response) = marked(response, '*');
        MethodDescriptorProto {
            name: Some((*name).to_owned()),
            input_type: Some(full_name(request)),
            output_type: Some(full_name(response)),
            client_streaming: Some(requests),
            server_streaming: Some(responses),
            ..MethodDescriptorProto::default()
        }
    });
    FileDescriptorProto {
        name: Some("Flight.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        syntax: Some("proto3".to_owned()),
        dependency: vec![TIMESTAMP_FILE.to_owned()],
        message_type: MESSAGES
            .iter()
            .map(|(name, fields)| message(name, fields))
            .collect(),
        enum_type: vec![enumeration(
            CANCEL_STATUS,
            &[
                "CANCEL_STATUS_UNSPECIFIED",
                "CANCEL_STATUS_CANCELLED",
                "CANCEL_STATUS_CANCELLING",
                "CANCEL_STATUS_NOT_CANCELLABLE",
            ],
        )],
        service: vec![ServiceDescriptorProto {
            name: Some("FlightService".to_owned()),
            method: methods.collect(),
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

const TIMESTAMP_FILE: &str = "google/protobuf/timestamp.proto";

fn timestamp() -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(TIMESTAMP_FILE.to_owned()),
        package: Some("google.protobuf".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message(
            "Timestamp",
            &[("seconds", "int64", 1), ("nanos", "int32", 2)],
        )],
        ..FileDescriptorProto::default()
    }
}

fn message(name: &str, fields: &[Field]) -> DescriptorProto {
    let mut oneofs = Vec::new();
    let fields = fields.iter().map(|(name, kind, number)| {
        let (repeated, kind) = marked(kind, '*');
        let (optional, kind) = marked(kind, '?');
        // A field that may be absent is the only one of a choice of its own.
        let choice = optional.then(|| {
            oneofs.push(OneofDescriptorProto {
                name: Some(format!("_{name}")),
                ..OneofDescriptorProto::default()
            });
            oneofs.len() as i32 - 1
        });
        let scalar = scalar(kind);
        let label = if repeated {
            Label::Repeated
        } else {
            Label::Optional
        };
        FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(*number),
            label: Some(label.into()),
            r#type: Some(scalar.unwrap_or_else(|| compound(kind)).into()),
            type_name: scalar.is_none().then(|| full_name(kind)),
            oneof_index: choice,
            proto3_optional: optional.then_some(true),
            ..FieldDescriptorProto::default()
        }
    });
    let field = fields.collect();
    let kinds = ["UNKNOWN", "PATH", "CMD"];
    let nested = (name == "FlightDescriptor").then(|| enumeration(DESCRIPTOR_TYPE, &kinds));
    DescriptorProto {
        name: Some(name.to_owned()),
        field,
        enum_type: nested.into_iter().collect(),
        oneof_decl: oneofs,
        ..DescriptorProto::default()
    }
}

fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = |(number, name): (i32, &&str)| EnumValueDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        ..EnumValueDescriptorProto::default()
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: (0..).zip(values).map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

fn marked(kind: &str, mark: char) -> (bool, &str) {
    kind.strip_prefix(mark)
        .map_or((false, kind), |kind| (true, kind))
}

fn scalar(kind: &str) -> Option<Type> {
    Some(match kind {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "string" => Type::String,
        "uint64" => Type::Uint64,
        _ => return None,
    })
}

fn compound(kind: &str) -> Type {
    if ENUMS.contains(&kind) {
        Type::Enum
    } else {
        Type::Message
    }
}

/// A type by its name from the root; those with a dot ahead are so named already.
fn full_name(kind: &str) -> String {
    if kind.starts_with('.') {
        kind.to_owned()
    } else {
        format!(".{PACKAGE}.{kind}")
    }
}
