//! Time in SQL: the dialect and its rewrites, the two clocks, `features` as state, and the
//! point-in-time join from syntax to operator.
//!
//! Data flows one way: text → [`dialect`] (parse, rewrite names) → [`planner`] (relations with
//! clocks, joins) → the operators of [`state`], [`point_in_time`] and [`asof`].

pub mod asof;
pub mod clock;
pub mod context;
pub mod dialect;
#[cfg(test)]
mod differential;
pub mod extension;
pub mod in_turn;
pub mod planner;
pub mod point_in_time;
mod ranking;
pub mod state;
mod statistics;
#[cfg(test)]
mod testing;

pub use clock::Clocks;
pub use context::{OnlineRelations, Skew, StatementContext, TempView, skew_schema};
