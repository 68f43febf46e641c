//! Nothing but its manifest: one set of dependency features for every selection of members.
//!
//! Cargo unifies features over the members that a command selects, so without this
//! `cargo test -p featureflight-udf`, `cargo test --workspace` and `cargo run -- demo` would each
//! compile their own `DataFusion`. A test fails when a selection differs.
