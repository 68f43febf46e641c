//! Writing features: what may be written, the durable queue every write goes through, and the
//! online stores it ends in.
//!
//! Data flows one way: [`validate`] (rows of a request become records, or are refused by name) →
//! [`outbox`] (appended, fsynced, acknowledged) → [`forward`] (in order per record) → [`store`]
//! (an online store), back to the outbox as a mark; and from the outbox to [`offline`] files, where
//! this server writes them, or until they are seen in SageMaker's ([`arrivals`]). [`group`] and [`record`] are what they share, and
//! [`gateway`] holds together what one server has of them.
//!
//! Nothing here plans queries or speaks gRPC.

pub mod arrivals;
pub mod contents;
mod disk;
pub mod erase;
pub mod forward;
mod fresh;
pub mod gateway;
pub mod group;
pub mod offline;
pub mod outbox;
pub mod owner;
pub mod record;
pub mod store;
mod turns;
pub mod validate;
pub mod writes;
