//! Writes to feature groups of SageMaker, from SQL through the outbox and the real AWS clients to
//! fakes of the service, and back from the files that the service writes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod sagemaker {
    mod defining;
    mod online;
    mod online_only;
    mod pending;
    mod rig;
}
