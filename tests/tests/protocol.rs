//! The Flight SQL protocol, call by call, against a server in this process: what is announced is
//! what is sent, tickets and handles cannot be forged, sessions do not mix, errors have their codes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod protocol {
    mod broken_off;
    mod cancelling;
    mod catalog_calls;
    pub(crate) mod client;
    mod defining;
    mod dropping;
    mod endpoints;
    mod errors;
    pub(crate) mod faults;
    mod forgetting;
    mod fresh;
    mod fuzz;
    mod headers;
    mod keeping;
    mod lifecycle;
    mod online;
    mod optimizing;
    mod options;
    mod polled_writes;
    pub(crate) mod polling;
    mod prepared;
    mod replay_jdbc;
    mod replay_odbc;
    mod sessions;
    mod statements;
    mod uploads;
    mod watching;
    mod write_tickets;
    mod writes;
}
