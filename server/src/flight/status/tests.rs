//! Kinds, codes and messages.

use super::*;

#[test]
fn every_kind_has_its_code() {
    let table = [
        (Kind::InvalidArgument, Code::InvalidArgument),
        (Kind::NotFound, Code::NotFound),
        (Kind::AlreadyExists, Code::AlreadyExists),
        (Kind::FailedPrecondition, Code::FailedPrecondition),
        (Kind::Aborted, Code::Aborted),
        (Kind::Unavailable, Code::Unavailable),
        (Kind::ResourceExhausted, Code::ResourceExhausted),
        (Kind::PermissionDenied, Code::PermissionDenied),
        (Kind::Unauthenticated, Code::Unauthenticated),
        (Kind::Cancelled, Code::Cancelled),
        (Kind::DeadlineExceeded, Code::DeadlineExceeded),
        (Kind::DataLoss, Code::DataLoss),
        (Kind::Internal, Code::Internal),
    ];
    for (kind, code) in table {
        let status = Fault::from(Error::new(kind, "what and why")).into_status("id-1");
        assert_eq!(status.code(), code);
        assert_eq!(
            status
                .metadata()
                .get(REQUEST_ID)
                .map(tonic::metadata::MetadataValue::as_bytes),
            Some(&b"id-1"[..])
        );
        assert_eq!(status.message() == "what and why", kind != Kind::Internal);
    }
}

#[test]
fn a_bug_shows_its_request_and_nothing_else() {
    let error = Error::internal("index out of bounds in s3://secret-bucket/key");
    let status = Fault::from(error).into_status("id-2");
    assert!(!status.message().contains("secret"), "{}", status.message());
    assert!(status.message().contains("id-2"));
}

#[test]
fn long_messages_are_cut_between_characters() {
    for padding in 0..4 {
        let message = "x".repeat(padding) + &"ü€🦀".repeat(1_000);
        let status = Fault::from(Error::invalid(message)).into_status("id");
        assert!(status.message().len() <= MAX_MESSAGE_BYTES + 4);
        assert!(status.message().ends_with(" ..."));
    }
}

#[test]
fn our_own_error_is_found_inside_flights() {
    let own = Error::new(Kind::DataLoss, "object s3://b/k is damaged");
    let wrapped = FlightError::from_external_error(Box::new(own));
    assert_eq!(of_result(&wrapped).kind, Kind::DataLoss);
    let deeper = FlightError::Arrow(arrow::error::ArrowError::ExternalError(Box::new(
        datafusion::error::DataFusionError::from(Error::new(Kind::Unavailable, "S3 is away")),
    )));
    assert_eq!(of_result(&deeper).kind, Kind::Unavailable);
    assert_eq!(of_result(&FlightError::protocol("x")).kind, Kind::Internal);
}

#[test]
fn broken_requests_are_the_clients() {
    let kinds = [
        (Status::cancelled("gone"), Kind::Cancelled),
        (Status::out_of_range("too large"), Kind::ResourceExhausted),
        (Status::internal("bad protobuf"), Kind::InvalidArgument),
    ];
    for (status, kind) in kinds {
        assert_eq!(of_request(&status).kind, kind);
    }
}
