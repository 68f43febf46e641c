//! Input that was good once: each kind is changed at random and never ends in more than an error of
//! the client's own.

use featureflight_tests::fuzz::mutated::run;
use featureflight_tests::fuzz::targets;

#[test]
fn statements() {
    run(targets::statements());
}

#[test]
fn arguments_of_our_functions() {
    run(targets::arguments());
}

#[test]
fn tickets() {
    run(targets::tickets());
}

#[test]
fn handles() {
    run(targets::handles());
}

#[test]
fn descriptors() {
    run(targets::descriptors());
}

#[test]
fn arrow_messages() {
    run(targets::arrow_messages());
}

#[test]
fn descriptions_of_groups_and_tables() {
    run(targets::descriptions());
}

#[test]
fn types_and_times() {
    run(targets::types_and_times());
}
