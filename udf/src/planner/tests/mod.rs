//! Statements end to end: from text through planning and the operators to rows.

mod asof;
mod names;
mod parameters;
mod point_in_time;
mod precision;
mod rig;
mod statements;
mod travel;
