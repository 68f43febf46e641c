//! The outbox, the forwarder and the online stores together: against the contract's reference
//! model, over the wire to real and scripted servers, and through crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

#[path = "../../tests/src/fake_runtime.rs"]
#[allow(dead_code, unreachable_pub, reason = "other suites use the rest")]
mod fake_runtime;

#[path = "../../tests/src/loopback.rs"]
#[allow(unreachable_pub, reason = "other suites use it too")]
mod loopback;

#[path = "../../tests/src/servers.rs"]
#[allow(unreachable_pub, reason = "other suites use it too")]
mod servers;

mod online {
    mod contract;
    mod crash;
    mod disk;
    mod erase;
    mod forwarding;
    mod model;
    mod offline;
    mod rewriting;
    mod runtime;
    mod victim;
    mod writes;
}
