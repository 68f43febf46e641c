//! What nobody should send, sent to the server as a process of its own: whatever comes back, the
//! process lives, answers others, and holds nothing of it afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

mod hostile {
    mod arriving;
    mod bombs;
    pub(crate) mod child;
    mod connections;
    mod load;
    mod messages;
    mod resources;
    mod statements;
    mod wire;
}
